r"""Sums over a few training points of each query, differentiable without forming (B, K, D) differences.

Products and sums are each other's adjoint: :math:`(Ax)_{bk} = x_b \cdot t_{i_{bk}}` and
:math:`(A^* w)_b = \sum_k w_{bk} t_{i_{bk}}`, so that each is the derivative of the other, any number of
times, backward, forward and under `vmap`.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from .._arrays import chunks

__all__ = ["folded", "gathered_distances", "gathered_products", "gathered_sums"]

#: Sums of up to this many columns include the rows of weight zero.
FEW_COLUMNS = 32
#: A gathered product costs about as much as this many of a matrix product.
GATHERED_COST = 32


def gathered_products(
    x: Tensor,  # (B, D)
    table: Tensor,  # (n, D)
    index: Tensor,  # (B, K)
    known: Tensor | None = None,  # (B, n)
) -> Tensor:
    """Inner products (B, K) of each `x` with its rows of `table`; differentiable in `x`.

    Those with all rows are passed as `known` if they have been computed already.
    """
    result: Tensor = _Products.apply(x, table, index, known)
    return result


def gathered_sums(
    weights: Tensor,  # (B, K)
    table: Tensor,  # (n, D)
    index: Tensor,  # (B, K)
) -> Tensor:
    """Sums (B, D) of the rows of `table` with `weights`, of which zeros cost little; differentiable in `weights`."""
    result: Tensor = _Sums.apply(weights, table, index)
    return result


def gathered_distances(
    x: Tensor,  # (B, D)
    table: Tensor,  # (n, D)
    index: Tensor,  # (B, K)
) -> Tensor:
    """Distances (B, K) of each `x` to its rows of `table`, from differences; the derivative at distance 0 is 0."""
    result: Tensor = _Distances.apply(x, table, index)
    return result


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
        out = x.new_empty(index.shape)
        for part in chunks(len(x), 8 * index.shape[1] * x.shape[1], 2**21):  # what fits in a cache
            torch.linalg.vector_norm(table[index[part]].sub_(x[part, None]), dim=2, out=out[part])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, table, index, distances = ctx.saved_tensors
        weights = grads[0] * _inverse(distances)
        return x * weights.sum(dim=1, keepdim=True) - gathered_sums(weights, table, index), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        x, table, index, distances = ctx.saved_tensors
        along = (x * tangents[0]).sum(dim=1, keepdim=True) - gathered_products(tangents[0], table, index)
        return along * _inverse(distances)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _as_one_call(_Distances, info, in_dims, inputs)


def _inverse(distances: Tensor) -> Tensor:
    """1 / distance, and 0 where that is infinite."""
    zero = distances == 0
    return torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, distances))


def folded(value: Tensor, dim: int | None, size: int) -> Tensor:
    """Inputs (B, ...) of `size` calls, stacked along `dim` or common to all, as those of one call with more queries."""
    value = value[None].expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
    return value.reshape(-1, *value.shape[2:])


def _as_one_call(function: Any, info: Any, in_dims: Any, inputs: Any) -> Any:
    """A batch of calls as one call; the table (second) is common to all."""
    size = info.batch_size
    result = function.apply(
        *(
            value if place == 1 or value is None else folded(value, in_dims[place], size)
            for place, value in enumerate(inputs)
        )
    )
    return result.reshape(size, len(result) // size, *result.shape[1:]), 0


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, table: Tensor, index: Tensor, known: Tensor | None) -> Tensor:
        if known is not None:
            return known.gather(1, index)
        if GATHERED_COST * index.shape[1] >= len(table):
            return (x @ table.T).gather(1, index)
        out = x.new_empty(index.shape)
        for part in chunks(len(x), 8 * index.shape[1] * x.shape[1], 2**24):
            torch.matmul(table[index[part]], x[part, :, None], out=out[part, :, None])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])
        ctx.save_for_forward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return gathered_sums(grads[0], *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        return gathered_products(tangents[0], *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _as_one_call(_Products, info, in_dims, inputs)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(weights: Tensor, table: Tensor, index: Tensor) -> Tensor:
        _hush()
        if table.shape[1] <= FEW_COLUMNS:  # to sort the zeros out would cost more than they do
            size = index.shape[1]
            ends = torch.arange(0, index.numel() + 1, size, device=index.device)
            entries = index.reshape(-1), weights.reshape(-1)
        else:
            used = weights != 0
            ends = torch.nn.functional.pad(used.sum(dim=1).cumsum(0), (1, 0))
            entries = index[used], weights[used]
        return torch.sparse_csr_tensor(ends, *entries, (len(weights), len(table))) @ table

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])
        ctx.save_for_forward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return gathered_products(grads[0], *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        return gathered_sums(tangents[0], *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _as_one_call(_Sums, info, in_dims, inputs)


@functools.cache
def _hush() -> None:
    """Torch says once a process that its CSR matrices are in beta, which is no news to a user of this library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))
