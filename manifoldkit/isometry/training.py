"""The training loop of locally isometric networks; it can be interrupted and goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from ._input import all_finite, check_size, finite_samples, fresh, level_ids
from .layers import LocallyIsometricNet
from .levels import isometric_terms, level_cells, level_losses, level_sources, level_weights
from .losses import IsometricLoss
from .modes import training

__all__ = ["IsometricTrainer", "batches", "finite_gradients"]

Record = dict[str, float]


class IsometricTrainer:
    r"""Minimise cross entropy plus isometric loss over the levels of a network.

    .. math:: L = \sum_l \alpha_l\, \mathrm{CE}(\text{logits}_l, y_l) + \beta_l\, L_{iso}(z_{l-1}, z_l, y_l)

    with :math:`z_{-1}` the samples; under a metric of samples (:class:`DiffusionDistance`) every :math:`z_{l-1}` stands
    for them. The losses of level l move what ``net.reach(l)`` names, and nothing else. State (weights, optimiser,
    history) lives in the trainer: after an interruption, or for more epochs, call :meth:`fit` again.

    Parameters
    ----------
    net : LocallyIsometricNet
        Trained in place; every part is put back into the mode (train or eval) it was in. Parts whose parameters are
        all frozen are evaluated, and those in evaluation mode within a network in training mode stay so.
    alpha, beta : float or one for each level, default=1.0
        Weights of the two losses; with beta = 0 the isometric loss is not computed.
    isometry : IsometricLoss or one for each level, optional
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
        isometry: IsometricLoss | Sequence[IsometricLoss] | None = None,
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
        self.isometry = level_losses(isometry, len(net.blocks))
        if isinstance(optimizer, torch.optim.Optimizer) or not callable(optimizer):
            raise TypeError(
                f"optimizer must be a function from parameters to an optimiser, got {type(optimizer).__name__}: use "
                "lambda p: torch.optim.Adam(p, lr=...)"
            )
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
        cells: Any = None,
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
            ``DiffusionDistance(m).coordinates(x)``, computed once instead of in every batch. A list has an entry for
            each level: such points, or None for what the level compares with otherwise.
        cells : ints (n,), or a sequence with such a vector or None for each level, optional
            Partition that the isometric loss of a level is taken within, in the place of its labels; losses with
            ``partition="class"`` read it. One vector is for all levels.

        Raises
        ------
        TypeError, ValueError
            If samples are NaN, labels are missing, of another length or out of range, an epoch has no batch, or the
            loss or a gradient becomes NaN; the weights are then those before the step that failed.
        """
        home = next(self.net.parameters())
        x = finite_samples(x).to(home)
        labels = self._labels(y, len(x), home.device)
        parts = level_cells(cells, labels, self.isometry)
        sources = [
            None if part is None else part.to(home) for part in level_sources(coordinates, len(x), self.isometry)
        ]
        epochs = check_size(epochs, "epochs", 0)
        if sampler is not None and batch_size is not None:
            raise ValueError("give batch_size or sampler, not both")
        with training(self.net):
            for _ in tqdm(range(epochs), desc="training", disable=not self.progress):
                sums: dict[str, torch.Tensor] = {}
                n = 0
                for rows in batches(len(x), batch_size, self.generator) if sampler is None else sampler:
                    whole = isinstance(rows, slice)
                    index = rows if whole else torch.as_tensor(rows, device=home.device)
                    terms = self._step(
                        x[index],
                        [level[index] for level in labels],
                        [level[index] for level in parts],
                        [None if source is None else source[index] for source in sources],
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
        return self

    def _step(
        self,
        x: torch.Tensor,
        labels: list[torch.Tensor],
        cells: list[torch.Tensor],
        sources: list[torch.Tensor | None],
    ) -> dict[str, torch.Tensor]:
        if self.perturb is not None:
            x = self.perturb(x, labels[-1])
        found = self.net.representations(x)
        isometric = isometric_terms(self.isometry, self.beta, x, found, cells, sources)
        terms: dict[str, torch.Tensor] = {}
        losses = []
        for level, logits in enumerate(self.net.logits(found)):
            loss = torch.zeros((), device=x.device, dtype=x.dtype)
            if self.alpha[level]:
                terms[f"ce_{level}"] = nn.functional.cross_entropy(logits, labels[level])
                loss = loss + self.alpha[level] * terms[f"ce_{level}"]
            if level in isometric:
                terms[f"isometry_{level}"] = isometric[level]
                loss = loss + self.beta[level] * terms[f"isometry_{level}"]
            losses.append(loss)
        total = torch.stack(losses).sum()
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is {total.item()} in epoch {len(self.history)}: lower the learning rate or beta"
            )
        self.optimizer.zero_grad()
        self._backward(losses, total)
        if not finite_gradients(self.net.parameters()):
            self.optimizer.zero_grad()
            raise ValueError(
                f"the gradient is NaN or infinite in epoch {len(self.history)} though the loss is {total.item():g}: a "
                "layer has no finite derivative there (a root at 0?), or lower the learning rate"
            )
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
        labels = level_ids(y, len(self.net.blocks), n, device)
        for level, count in zip(labels, self.net.n_classes, strict=True):
            low, high = int(level.min()), int(level.max())
            if low < 0 or high >= count:
                raise ValueError(f"labels must lie in 0..{count - 1}, got values from {low} to {high}")
        return labels


def finite_gradients(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether every gradient is finite."""
    return all_finite(*(parameter.grad for parameter in parameters if parameter.grad is not None))


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
