"""Normal numbers that come from a generator alone, made where it lives, so that devices agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["normal", "normal_like"]


def normal(shape: Sequence[int], like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal numbers of a shape, in the dtype and on the device of `like`."""
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=dtype).to(like)


def normal_like(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal numbers in the shape, dtype and on the device of `x`."""
    return normal(x.shape, x, generator)
