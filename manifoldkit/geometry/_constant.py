"""Functions of queries that have no derivative, such as a neighbour search, under the transforms of `torch.func`.

They may leave torch, and the shape of what they return may depend on the values: inside `vmap`, `jacrev` or `jacfwd`
neither would work, since tensors there have no storage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._gathered import folded

__all__ = ["constant"]


def constant(
    function: Callable[[Tensor], tuple[Tensor, ...]],
    x: Tensor,  # (B, ...)
) -> tuple[Tensor, ...]:
    """Results (B, ...) of `function` at plain tensors, all levels of `vmap` in one batch, with derivative zero."""
    result: tuple[Tensor, ...] = _Constant.apply(x.detach(), function)
    return result


class _Constant(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, function: Any) -> Any:
        return function(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.n_outputs = len(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return (None,) * ctx.n_outputs

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, function: Any) -> Any:
        batch = folded(x, in_dims[0], info.batch_size)
        result = _Constant.apply(batch, function)
        size = info.batch_size
        parts = tuple(part.reshape(size, len(part) // size, *part.shape[1:]) for part in result)
        return parts, (0,) * len(parts)
