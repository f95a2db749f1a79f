"""Networks in evaluation mode for a while, and Jacobians of networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import jvp, vmap

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
    """Values (B, D), flattened, and Jacobians (B, D, d) of a network at (B, d), by d forward products at once.

    Row i of the output must depend on row i of the input alone: no batch statistics, no random layers.

    Examples
    --------
    >>> layer = nn.Linear(2, 3)
    >>> values, matrices = jacobian(layer, torch.zeros(5, 2))
    >>> bool((matrices == layer.weight).all())
    True
    """
    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None, :].expand(-1, len(z), -1)

    def along(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        product = jvp(network, (z,), (u,))
        return product[0].flatten(1), product[1].flatten(1)

    # The values do not depend on u and are computed once. (The annotation of vmap lacks None within tuples.)
    values, columns = vmap(along, out_dims=(None, 2))(basis)  # type: ignore[arg-type]
    return values, columns
