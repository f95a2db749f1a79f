r"""The normalised kernel weights, with a derivative in few passes over the (B, n) numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["kernel_softmax"]


def kernel_softmax(
    score: Tensor,  # (B, n)
    shift: Tensor,  # (B,)
    inverse: Tensor,  # (B,)
    scale: Tensor,  # (n,) or (B, n)
    offset: Tensor,  # (n,) or (B, n)
) -> Tensor:
    r"""Row-wise softmax of :math:`o_j - (s_{bj} + t_b)\, a_b\, c_j`.

    Differentiable in the first three arguments, any number of times, backward and forward, and under `vmap`. Plain
    autograd would hold and pass over five times as many (B, n) arrays.
    """
    result: Tensor = _KernelSoftmax.apply(score, shift, inverse, scale, offset)
    return result


class _KernelSoftmax(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(score: Tensor, shift: Tensor, inverse: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        z = (score + shift[:, None]).mul_(scale)
        return torch.softmax(torch.addcmul(offset, z, inverse[:, None], value=-1), dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4], output)
        ctx.save_for_forward(*inputs[:4], output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        score, shift, inverse, scale, weights = ctx.saved_tensors
        share = grads[0] * weights
        share = torch.addcmul(share, weights, share.sum(dim=1, keepdim=True), value=-1).mul_(scale)
        total = share.sum(dim=1)
        moment = (share[:, None] @ score[:, :, None])[:, 0, 0] + shift * total
        return share * -inverse[:, None], -inverse * total, -moment, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        score, shift, inverse, scale, weights = ctx.saved_tensors
        moved = tangents[0] + tangents[1][:, None]
        logits = -(moved * inverse[:, None] + (score + shift[:, None]) * tangents[2][:, None]) * scale
        return weights * (logits - (weights * logits).sum(dim=1, keepdim=True))
