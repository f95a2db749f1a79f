"""Arrays in, arrays out: one place that turns numpy and torch input into float64 tensors and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = "np.ndarray[Any, Any] | torch.Tensor"


def as_tensor(x: Any, name: str = "X", *, device: torch.device | str | None = None) -> torch.Tensor:
    """Float64 tensor of real, finite numbers, on `device` (default: where `x` lives).

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.
    ValueError
        If `x` holds NaN or infinity.
    """
    if isinstance(x, torch.Tensor):
        tensor = x.detach()
    else:
        array = np.asarray(x)
        if array.dtype == object:
            try:
                array = array.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{name} must hold real numbers, got {type(x).__name__}") from error
        if array.dtype.kind not in "buif":
            raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
        array = np.ascontiguousarray(array, dtype=np.float64)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if tensor.is_complex():
        raise TypeError(f"{name} must hold real numbers, got dtype {tensor.dtype}")
    tensor = tensor.to(device=device, dtype=torch.float64)
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} contains NaN or infinity: remove or impute those entries first")
    return tensor


def as_array(x: Any, name: str = "X") -> np.ndarray[Any, np.dtype[np.float64]]:
    """Float64 numpy array of real, finite numbers (see :func:`as_tensor`)."""
    result: np.ndarray[Any, np.dtype[np.float64]] = as_tensor(x, name, device="cpu").numpy()
    return result


def like(result: torch.Tensor | np.ndarray[Any, Any], reference: Any) -> Any:
    """`result` as the kind, floating dtype and device of `reference` (integers become float64)."""
    tensor = result if isinstance(result, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(result))
    if isinstance(reference, torch.Tensor):
        dtype = reference.dtype if reference.is_floating_point() else torch.float64
        return tensor.to(device=reference.device, dtype=dtype)
    kind = np.asarray(reference).dtype
    return tensor.detach().cpu().numpy().astype(kind if kind.kind == "f" else np.float64, copy=False)


def flatten(x: torch.Tensor, shape: tuple[int, ...], name: str = "X") -> torch.Tensor:
    """Batch `x` of samples of `shape` as a matrix (B, prod(shape)).

    Axes of length 1 do not matter, so that images (B, 1, H, W) and (B, H, W) are the same; a flat batch is one, too.
    """
    size = int(np.prod(shape))
    got = tuple(length for length in x.shape[1:] if length != 1)
    if x.ndim > 1 and got in (tuple(length for length in shape if length != 1), (size,) if size != 1 else ()):
        return x.reshape(len(x), size)
    expected = "(B, " + ", ".join(map(str, shape)) + ")"
    hint = ": wrap a single sample as x[None]" if tuple(x.shape) in (shape, (size,)) else ""
    raise ValueError(f"{name} must have shape {expected}, got {tuple(x.shape)}{hint}")


def chunks(n: int, bytes_per_row: int, budget: int = 256 * 2**20) -> Iterator[slice]:
    """Slices that cut `n` rows into pieces of at most `budget` bytes (one row at the least)."""
    step = max(1, budget // max(1, bytes_per_row))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))
