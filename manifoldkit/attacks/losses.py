"""What an attack makes larger: losses of a batch of logits, one number a sample.

A loss is any function ``(logits, labels) -> (B,)`` whose value for sample i depends on row i alone; attacks accept
such a function wherever they accept a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn import functional

__all__ = ["Loss", "cross_entropy", "margin", "resolve"]

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


def resolve(loss: str | Loss) -> Loss:
    """The function behind a name; a function passes unchanged.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If `loss` is neither a name nor callable.
    """
    named: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}
    if isinstance(loss, str):
        if loss not in named:
            raise ValueError(f"loss must be 'ce', 'margin' or a function (logits, labels) -> (B,), got {loss!r}")
        return named[loss]
    if not callable(loss):
        raise TypeError(f"loss must be 'ce', 'margin' or a function (logits, labels) -> (B,), got {loss!r}")
    return loss
