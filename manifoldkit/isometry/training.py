"""The training loop of locally isometric networks; it can be interrupted and goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from ._input import cell_ids, check_size, finite_samples, fresh, holds_vectors
from .layers import LocallyIsometricNet
from .losses import IsometricLoss

__all__ = ["IsometricTrainer", "batches", "level_weights"]

Record = dict[str, float]


class IsometricTrainer:
    r"""Minimise cross entropy plus isometric loss over the levels of a network.

    .. math:: L = \sum_l \alpha_l\, \mathrm{CE}(\text{logits}_l, y_l) + \beta_l\, L_{iso}(z_{l-1}, z_l, y_l)

    with :math:`z_{-1}` the samples. The losses of level l move what ``net.reach(l)`` names, and nothing else. State
    (weights, optimiser, history) lives in the trainer: after an interruption, or for more epochs, call :meth:`fit`
    again.

    Parameters
    ----------
    net : LocallyIsometricNet
        Trained in place, and put back into the mode (train or eval) it was in.
    alpha, beta : float or one for each level, default=1.0
        Weights of the two losses; with beta = 0 the isometric loss is not computed.
    isometry : IsometricLoss, optional
        ``IsometricLoss()``, the source's, by default.
    optimizer : callable, default=torch.optim.Adam
        From parameters to an optimiser, such as ``lambda p: torch.optim.SGD(p, lr=0.1)``.
    generator : torch.Generator, optional
        Source of the order of the samples; None is a fresh one.
    perturb : callable, optional
        ``(x, y) -> x`` applied to every batch before the step, with the labels of the last level: an attack of
        :mod:`manifoldkit.attacks` makes it adversarial training.
    callbacks : sequence of callables
        Each is called as ``callback(trainer, record)`` after every epoch; the training ends when one returns True.
    progress : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    history : list of dict
        For each epoch the means of "loss", and of "ce_l" and "isometry_l" for every level l.
    optimizer : torch.optim.Optimizer
        Made at construction.

    Raises
    ------
    TypeError, ValueError
        If arguments do not fit the network.

    Examples
    --------
    >>> from manifoldkit.datasets import make_linked_rings
    >>> from manifoldkit.isometry import IsometricTrainer, LocallyIsometricNet
    >>> rings, labels = make_linked_rings(60, random_state=0)
    >>> x, generator = torch.from_numpy(rings.points).float(), torch.Generator().manual_seed(0)
    >>> net = LocallyIsometricNet.mlp(3, 2, width=20, generator=generator)
    >>> trainer = IsometricTrainer(net, beta=1.0, generator=generator).fit(x, labels, epochs=50)
    >>> trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    True
    """

    def __init__(
        self,
        net: LocallyIsometricNet,
        *,
        alpha: float | Sequence[float] = 1.0,
        beta: float | Sequence[float] = 1.0,
        isometry: IsometricLoss | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam,
        generator: torch.Generator | None = None,
        perturb: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        callbacks: Sequence[Callable[[IsometricTrainer, Record], Any]] = (),
        progress: bool = False,
    ) -> None:
        if not isinstance(net, LocallyIsometricNet):
            raise TypeError(f"net must be a LocallyIsometricNet, got {type(net).__name__}: wrap your backbone in one")
        self.net = net
        self.alpha = level_weights(alpha, "alpha", len(net.blocks))
        self.beta = level_weights(beta, "beta", len(net.blocks))
        if not any((*self.alpha, *self.beta)):
            raise ValueError("alpha and beta are zero on every level, which leaves nothing to minimise")
        self.isometry = IsometricLoss() if isometry is None else isometry
        self.optimizer = optimizer(net.parameters())
        self.generator = fresh(generator)
        self.perturb = perturb
        self.callbacks = tuple(callbacks)
        self.progress = bool(progress)
        self.history: list[Record] = []

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        sampler: Iterable[Sequence[int]] | None = None,
        coordinates: Any = None,
    ) -> IsometricTrainer:
        """Train for some epochs more.

        Parameters
        ----------
        x : tensor or array (n, ...)
            Floating samples; they are brought to the device and dtype of the network.
        y : ints (n,), or a sequence of one such vector for each level
            Labels.
        epochs : int, default=1
            Passes through the data.
        batch_size : int, optional
            Samples of a batch, drawn without repetition; all in one batch, in their order, by default. A last sample
            that would be alone joins the batch before.
        sampler : iterable of index lists, optional
            Batches of an epoch instead, such as a :class:`ClassBalancedBatchSampler`; gone through in every epoch.
        coordinates : tensor or array (n, k), optional
            Points that stand for the samples in the isometric loss of level 0, such as
            ``DiffusionDistance(m).coordinates(x)``, computed once instead of in every batch.

        Raises
        ------
        TypeError, ValueError
            If samples are NaN, labels are missing, of another length or out of range, an epoch has no batch, or the
            loss becomes NaN; the weights are then those before the step that failed.
        """
        home = next(self.net.parameters())
        x = finite_samples(x).to(home)
        labels = self._labels(y, len(x), home.device)
        source = None if coordinates is None else finite_samples(coordinates, "coordinates").to(home)
        if source is not None and len(source) != len(x):
            raise ValueError(f"coordinates must have a row for each of the {len(x)} samples, got {len(source)}")
        epochs = check_size(epochs, "epochs", 0)
        if sampler is not None and batch_size is not None:
            raise ValueError("give batch_size or sampler, not both")
        mode = self.net.training
        self.net.train()
        try:
            for _ in tqdm(range(epochs), desc="training", disable=not self.progress):
                sums: dict[str, torch.Tensor] = {}
                n = 0
                for rows in batches(len(x), batch_size, self.generator) if sampler is None else sampler:
                    whole = isinstance(rows, slice)
                    index = rows if whole else torch.as_tensor(rows, device=home.device)
                    terms = self._step(
                        x[index], [level[index] for level in labels], None if source is None else source[index]
                    )
                    for name, value in terms.items():
                        sums[name] = sums.get(name, torch.zeros_like(value)) + value
                    n += 1
                if n == 0:
                    raise ValueError(
                        f"epoch {len(self.history)} has no batch: an iterator as sampler is used up after one epoch, "
                        "give a list or an object such as ClassBalancedBatchSampler"
                    )
                record = {name: value.item() / n for name, value in sums.items()}
                self.history.append(record)
                answers = [callback(self, record) for callback in self.callbacks]
                if True in answers:
                    break
        finally:
            self.net.train(mode)
        return self

    def _step(
        self, x: torch.Tensor, labels: list[torch.Tensor], source: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        if self.perturb is not None:
            x = self.perturb(x, labels[-1])
        found = self.net.representations(x)
        inputs = [x if source is None else source, *found[:-1]]
        terms: dict[str, torch.Tensor] = {}
        losses = []
        for level, logits in enumerate(self.net.logits(found)):
            loss = torch.zeros((), device=x.device, dtype=x.dtype)
            if self.alpha[level]:
                terms[f"ce_{level}"] = nn.functional.cross_entropy(logits, labels[level])
                loss = loss + self.alpha[level] * terms[f"ce_{level}"]
            if self.beta[level]:
                terms[f"isometry_{level}"] = self.isometry(inputs[level], found[level], labels[level])
                loss = loss + self.beta[level] * terms[f"isometry_{level}"]
            losses.append(loss)
        total = torch.stack(losses).sum()
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is {total.item()} in epoch {len(self.history)}: lower the learning rate or beta"
            )
        self.optimizer.zero_grad()
        self._backward(losses, total)
        self.optimizer.step()
        return {"loss": total.detach(), **{name: value.detach() for name, value in terms.items()}}

    def _backward(self, losses: list[torch.Tensor], total: torch.Tensor) -> None:
        """Gradients of each level's loss for the parameters in its reach."""
        if self.net.gradient == "full" or len(losses) == 1:
            total.backward()
            return
        for level, loss in enumerate(losses):
            moved = self.net.reach(level)
            if moved and loss.requires_grad:
                loss.backward(inputs=moved, retain_graph=level < len(losses) - 1)

    def _labels(self, y: Any, n: int, device: torch.device) -> list[torch.Tensor]:
        levels = len(self.net.blocks)
        nested = holds_vectors(y)
        if levels > 1 and (not nested or len(y) != levels):
            what = f"{len(y)} vectors" if nested else type(y).__name__
            raise ValueError(f"y must be a sequence of {levels} label vectors, one for each level, got {what}")
        labels = [cell_ids(level, n, "y", device) for level in (y if nested else [y])]
        if len(labels) != levels:
            raise ValueError(f"y holds {len(labels)} label vectors for {levels} level: give one")
        for level, count in zip(labels, self.net.n_classes, strict=True):
            low, high = int(level.min()), int(level.max())
            if low < 0 or high >= count:
                raise ValueError(f"labels must lie in 0..{count - 1}, got values from {low} to {high}")
        return labels


def batches(n: int, size: int | None, generator: torch.Generator) -> Iterator[Any]:
    """Indices of random batches that together are all n samples; one slice of everything for size None.

    A last sample alone goes with the batch before: it has no pair, and BatchNorm refuses it.
    """
    if size is None:
        yield slice(None)
        return
    size = check_size(size, "batch_size")
    sizes = [min(size, n - start) for start in range(0, n, size)]
    if len(sizes) > 1 and sizes[-1] < min(size, 2):
        sizes[-2:] = [size + 1]
    yield from torch.randperm(n, generator=generator, device=generator.device).split(sizes)


def level_weights(value: float | Sequence[float], name: str, n: int) -> tuple[float, ...]:
    """A weight for each of n levels, from one number or n."""
    values = [float(value)] * n if isinstance(value, int | float | np.number) else [float(entry) for entry in value]
    if len(values) != n or any(not 0 <= entry < float("inf") for entry in values):
        raise ValueError(f"{name} must be a finite number >= 0 or one for each of the {n} levels, got {value!r}")
    return tuple(values)
