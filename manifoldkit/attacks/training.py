"""Adversarial training with any attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from tqdm.auto import tqdm

from manifoldkit._arrays import Array
from manifoldkit.attacks._input import read_images, read_labels, read_module, read_number, read_steps
from manifoldkit.attacks._model import Network, check_classes, check_logits
from manifoldkit.attacks.base import Attack
from manifoldkit.attacks.losses import cross_entropy

__all__ = ["TrainingHistory", "adversarial_step", "adversarial_training"]

Optimizer = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass
class TrainingHistory:
    """Means over each epoch.

    Attributes
    ----------
    loss : list of float
        The loss that was minimised.
    clean_accuracy, attacked_accuracy : list of float
        Of the network in training mode, on the batches before each step; equal where there is no attack.
    """

    loss: list[float]
    clean_accuracy: list[float]
    attacked_accuracy: list[float]


def adversarial_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    attack: Attack | None,
    *,
    clean_share: float = 0.5,
) -> dict[str, float]:
    r"""One step of training on a batch, part of it attacked.

    .. math:: \lambda\, L(f(x), y) + (1 - \lambda)\, L(f(\mathrm{attack}(x, y)), y)

    Parameters
    ----------
    model : torch.nn.Module
        Left in training mode. The attack sees it in evaluation mode, as it is at this step.
    optimizer : torch.optim.Optimizer
        Of the parameters of `model`.
    images : Tensor (B, ...)
    labels : Tensor (B,)
    attack : Attack or None
        Any attack, whatever model it was made with: it is run on `model`. Normal directions alone, say, by
        ``SubspacePGD(..., "normal")``, on-manifold ones by :class:`OnManifoldPGD` or :class:`LatentPGD`. None trains
        on the images as they are. With ``early_stop=False`` the attack makes all its steps, as in the source; with
        it, images are cheaper and only just broken.
    clean_share : float, default=0.5
        The weight lambda of the images as they are; 0 is the source's.

    Returns
    -------
    dict
        `loss`, `clean_accuracy`, `attacked_accuracy` on this batch, before the step.

    References
    ----------
    .. [1] Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.

    Examples
    --------
    >>> from manifoldkit.attacks import FGSM
    >>> model = torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
    >>> figures = adversarial_step(model, optimizer, torch.rand(8, 2), torch.arange(8) % 2, FGSM(model, 0.1))
    >>> sorted(figures)
    ['attacked_accuracy', 'clean_accuracy', 'loss']
    """
    read_module(model, "model")
    read_number(clean_share, "clean_share", 0, 1)
    if attack is not None and not isinstance(attack, Attack):
        what = f"the class {attack.__name__}: make one" if isinstance(attack, type) else type(attack).__name__
        raise TypeError(f"attack must be an Attack or None, got {what}")
    if attack is not None and attack.targeted:
        raise ValueError(
            "attack is targeted and would take the true classes for its goals: train with an untargeted one"
        )
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a torch tensor, got {type(images).__name__}")
    if len(images) == 0:
        raise ValueError("the batch is empty: give at least one image")
    labels = read_labels(labels, len(images), images.device)
    attacked = images if attack is None else attack.replaced(model=model)(images, labels)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    clean_logits = check_logits(model(images), len(images), "lower the learning rate")
    check_classes(labels, clean_logits.shape[1])
    logits = clean_logits
    loss = functional.cross_entropy(clean_logits, labels)
    if attack is not None:
        logits = model(attacked)
        loss = clean_share * loss + (1 - clean_share) * functional.cross_entropy(logits, labels)
    if not torch.isfinite(loss):
        raise ValueError("the loss is NaN or infinite: lower the learning rate")
    loss.backward()
    optimizer.step()
    return {
        "loss": float(loss.detach()),
        "clean_accuracy": float((clean_logits.argmax(1) == labels).double().mean()),
        "attacked_accuracy": float((logits.argmax(1) == labels).double().mean()),
    }


def adversarial_training(
    model: torch.nn.Module,
    images: Array,
    labels: Any,
    attack: Attack | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 100,
    optimizer: Optimizer | None = None,
    clean_share: float = 0.5,
    warm_up: int = 0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> TrainingHistory:
    """Train a network on images and on their adversaries; see :func:`adversarial_step`.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, and left in evaluation mode.
    images : array of shape (n, ...)
    labels : int array of shape (n,)
    attack : Attack, optional
        None is plain training, with the same batches. An `eps` or `alpha` with a number for each sample has them in the
        order of `images`.
    epochs : int, default=10
    batch_size : int, default=100
        The last batch of an epoch may be smaller; a single sample left over joins the batch before, since batch norm
        refuses one alone.
    optimizer : callable, optional
        Parameters -> optimizer; default: Adam with its own learning rate, 0.001.
    clean_share : float, default=0.5
    warm_up : int, default=0
        First epochs without attack.
    generator : torch.Generator, optional
        Order of the batches; None is a fresh one.
    progress : bool, default=False

    Returns
    -------
    TrainingHistory

    Examples
    --------
    >>> from manifoldkit.attacks import PGD
    >>> x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0.5).long()
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    >>> history = adversarial_training(model, x, y, PGD(model, 0.05, steps=3), epochs=20)
    >>> len(history.loss), history.loss[-1] < history.loss[0]
    (20, True)
    """
    x = read_images(images, *Network(read_module(model, "model"), cross_entropy, False).home(), None)
    y = read_labels(labels, len(x), x.device)
    epochs, batch_size = read_steps(epochs, "epochs", 1), read_steps(batch_size, "batch_size", 1)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a function from parameters to an optimizer, got a {type(optimizer).__name__}: pass its "
            "class, or lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("no parameter of the model requires a gradient: there is nothing to train")
    of_each = attack._of_each() if isinstance(attack, Attack) else {}
    for name, values in of_each.items():
        if len(values) != len(x):
            raise ValueError(f"{name} of the attack holds {len(values)} numbers for {len(x)} images: give one for each")
    algorithm = (torch.optim.Adam if optimizer is None else optimizer)(model.parameters())
    history = TrainingHistory([], [], [])
    for epoch in tqdm(range(epochs), desc="adversarial training", disable=not progress):
        sums = {"loss": 0.0, "clean_accuracy": 0.0, "attacked_accuracy": 0.0}
        now = attack if epoch >= warm_up else None
        for chosen in _batches(torch.randperm(len(x), generator=generator), batch_size):
            if now is not None and of_each:
                now = now.replaced(**{name: values[chosen] for name, values in of_each.items()})
            rows = chosen.to(x.device)
            figures = adversarial_step(model, algorithm, x[rows], y[rows], now, clean_share=clean_share)
            for name, value in figures.items():
                sums[name] += value * len(rows) / len(x)
        for name, value in sums.items():
            getattr(history, name).append(value)
    model.eval()
    return history


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
