"""Networks in evaluation mode for a while, and Jacobians of networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import jvp

__all__ = ["evaluating", "jacobian"]


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule has the mode it had."""
    parts = [part for module in modules for part in module.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def jacobian(network: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (B, D), flattened, and Jacobians (B, D, d) of a network at (B, d), by d forward products.

    Row i of the output must depend on row i of the input alone: no batch statistics.

    Examples
    --------
    >>> layer = nn.Linear(2, 3)
    >>> values, matrices = jacobian(layer, torch.zeros(5, 2))
    >>> bool((matrices == layer.weight).all())
    True
    """
    columns = []
    for k in range(z.shape[1]):
        direction = torch.zeros_like(z)
        direction[:, k] = 1.0
        product = jvp(network, (z,), (direction,))
        columns.append(product[1].flatten(1))
    return product[0].flatten(1), torch.stack(columns, dim=2)
