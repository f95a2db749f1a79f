"""Normal numbers that come from a generator alone, made where it lives, so that devices agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["fresh", "normal", "normal_like"]


def fresh(generator: Any) -> torch.Generator:
    """`generator` itself; for None a new one, seeded by the operating system."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {type(generator).__name__}: "
            "use torch.Generator().manual_seed(seed)"
        )
    return generator


def normal(shape: Sequence[int], like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal numbers of a shape, in the dtype and on the device of `like`."""
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=dtype).to(like)


def normal_like(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal numbers in the shape, dtype and on the device of `x`."""
    return normal(x.shape, x, generator)
