"""What users hand to losses, networks and reports, checked and turned into tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["all_finite", "cell_ids", "check_size", "finite_samples", "flat", "fresh", "level_ids"]


def all_finite(*tensors: torch.Tensor) -> bool:
    """Whether every entry is finite; where a sum is not, which may be an overflow, the entries are looked at."""
    if math.isfinite(sum(tensor.detach().sum() for tensor in tensors)):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def flat(x: Any, name: str) -> torch.Tensor:
    """Floating samples (N, ...) as a matrix (N, D), the graph kept."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}: use torch.as_tensor({name})")
    if not x.is_floating_point():
        raise TypeError(f"{name} must hold floating numbers, got dtype {x.dtype}: use {name}.float()")
    if x.ndim < 2:
        raise ValueError(f"{name} must have shape (N, ...), got {tuple(x.shape)}: wrap a single sample as {name}[None]")
    return x.flatten(1)


def cell_ids(ids: Any, n: int, name: str, device: torch.device | None = None) -> torch.Tensor:
    """Integer cell or class ids (n,) as int64."""
    if ids is None:
        raise ValueError(f"{name} is missing: the partition by class needs a label for each of the {n} samples")
    if isinstance(ids, torch.Tensor):
        tensor = ids.detach()
    else:
        array = np.array(ids)
        if array.dtype.kind not in "biufc":
            raise TypeError(
                f"{name} must hold integers, got dtype {array.dtype}: numpy.unique({name}, return_inverse=True)[1] "
                "numbers the classes"
            )
        tensor = torch.from_numpy(array)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got dtype {tensor.dtype}: number the cells 0, 1, 2, ...")
    if tensor.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one for each sample, got {tuple(tensor.shape)}")
    return tensor.to(device=device, dtype=torch.int64)


def level_ids(y: Any, levels: int, n: int, device: torch.device | None = None) -> list[torch.Tensor]:
    """Labels (n,) of every level as int64: a sequence or a matrix with a row for each, or one vector for one level."""
    nested = _holds_vectors(y)
    if levels > 1 and (not nested or len(y) != levels):
        what = f"{len(y)} vectors" if nested else type(y).__name__
        raise ValueError(f"y must be a sequence of {levels} label vectors, one for each level, got {what}")
    rows: Sequence[Any] = y if nested else [y]
    if len(rows) != levels:
        raise ValueError(f"y holds {len(rows)} label vectors for {levels} level: give one")
    return [cell_ids(row, n, "y", device) for row in rows]


def _holds_vectors(y: Any) -> bool:
    """Whether labels are vectors, one for each level, instead of one vector."""
    if isinstance(y, list | tuple):
        return len(y) > 0 and np.ndim(y[0]) > 0
    return isinstance(y, torch.Tensor | np.ndarray) and y.ndim == 2


def finite_samples(x: Any, name: str = "x") -> torch.Tensor:
    """Finite floating samples (N, ...), N >= 1, as a detached tensor; numpy arrays are accepted."""
    if isinstance(x, torch.Tensor):
        tensor = x.detach()
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold floating numbers, got dtype {array.dtype}")
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    flat(tensor, name)
    if len(tensor) == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        bad = (~torch.isfinite(tensor)).flatten(1).any(dim=1)
        raise ValueError(f"{name} holds NaN or infinity in {int(bad.sum())} of {len(bad)} samples: remove those first")
    return tensor


def check_size(value: Any, name: str, least: int = 1) -> int:
    """An integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def fresh(generator: torch.Generator | None) -> torch.Generator:
    """The generator given, or one that the operating system seeds."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {type(generator).__name__}: "
            "use torch.Generator().manual_seed(seed)"
        )
    return generator
