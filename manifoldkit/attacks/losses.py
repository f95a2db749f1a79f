"""What an attack makes larger: losses of a batch of logits, one number a sample.

A loss is any function ``(logits, labels) -> (B,)`` whose value for sample i depends on row i alone; attacks accept
such a function wherever they accept a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn import functional

__all__ = ["Loss", "cross_entropy", "dlr", "dlr_of_targets", "margin", "resolve"]

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy ``log sum_j exp z_j - z_y``, which reads (B, K) logits and (B,) labels.

    Its gradient vanishes in finite precision for samples that the network is very sure of; :func:`margin` does not.
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Margin ``max_{j != y} z_j - z_y`` of (B, K) logits: positive where the label has lost.

    References
    ----------
    .. [1] Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017 (the loss f_6).

    Examples
    --------
    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    own = functional.one_hot(labels, logits.shape[1]).bool()
    rival: torch.Tensor = logits.masked_fill(own, -torch.inf).amax(dim=1)
    return rival - logits.gather(1, labels[:, None])[:, 0]


def dlr(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    r"""Difference of logits ratio :math:`(\max_{j \neq y} z_j - z_y) / (z_{\pi_1} - z_{\pi_3})` of (B, K) logits.

    Numbered by size, :math:`z_{\pi_1} \geq z_{\pi_2} \geq \dots`. Neither a shift nor a scale of the logits changes it,
    so that a network cannot hide its gradient by being very sure. Needs three classes.

    References
    ----------
    .. [1] Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
       attacks", ICML 2020.

    Examples
    --------
    >>> dlr(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-0.5000])
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the loss 'dlr' needs three classes, got {logits.shape[1]}: take loss='margin'")
    top = logits.topk(3, dim=1).values
    spread = (top[:, 0] - top[:, 2]).clamp_min(1e-12)
    return margin(logits, labels) / spread


def dlr_of_targets(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    r"""What a targeted attack lowers: the same ratio for a target t, over another spread.

    .. math:: (\max_{j \neq t} z_j - z_t) / (z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2)

    Negating :func:`dlr` would not do: a walk could raise its denominator instead of the target. Needs four classes.
    While the true class leads it is the loss of Croce and Hein, with the sign turned.

    Examples
    --------
    >>> dlr_of_targets(torch.tensor([[3.0, 1.0, 2.0, 1.0]]), torch.tensor([2]))
    tensor([0.5000])
    """
    if logits.shape[1] < 4:
        raise ValueError(f"the targeted loss 'dlr' needs four classes, got {logits.shape[1]}: take loss='margin'")
    top = logits.topk(4, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2:].mean(dim=1)).clamp_min(1e-12)


def resolve(loss: str | Loss) -> Loss:
    """The function behind a name; a function passes unchanged.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If `loss` is neither a name nor callable.
    """
    named: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
    if isinstance(loss, str):
        if loss not in named:
            raise ValueError(f"loss must be 'ce', 'margin', 'dlr' or a function (logits, labels) -> (B,), got {loss!r}")
        return named[loss]
    if not callable(loss):
        raise TypeError(f"loss must be 'ce', 'margin', 'dlr' or a function (logits, labels) -> (B,), got {loss!r}")
    return loss
