"""What users hand to an attack, checked and turned into tensors where the network lives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = [
    "as_numpy",
    "column",
    "one_of",
    "read_bounds",
    "read_generator",
    "read_images",
    "read_labels",
    "read_manifold",
    "read_module",
    "read_norm",
    "read_number",
    "read_radius",
    "read_seed",
    "read_steps",
]


def read_images(
    images: Any,
    device: torch.device | None,
    dtype: torch.dtype | None,
    bounds: tuple[float, float] | None,
) -> torch.Tensor:
    """A fresh tensor (B, ...) on `device` in `dtype` (None: those of the images), within the bounds."""
    if isinstance(images, torch.Tensor):
        tensor = images.detach().clone()
    elif isinstance(images, np.ndarray):
        if images.dtype.kind != "f" or images.dtype.itemsize > 8:
            raise TypeError(f"images must hold floating numbers, got dtype {images.dtype}: scale bytes by x / 255.0")
        tensor = torch.from_numpy(np.array(images, dtype=images.dtype.newbyteorder("="), order="C"))
    else:
        raise TypeError(f"images must be a torch tensor or a numpy array, got {type(images).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"images must hold floating numbers, got dtype {tensor.dtype}: scale bytes by x / 255.0")
    if tensor.ndim < 2:
        raise ValueError(f"images must have shape (B, ...), got {tuple(tensor.shape)}: wrap a single image as x[None]")
    if tensor.numel() == 0:
        raise ValueError(f"images must hold at least one sample, got shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        bad = (~torch.isfinite(tensor)).flatten(1).any(dim=1)
        raise ValueError(f"images hold NaN or infinity in {int(bad.sum())} of {len(bad)} samples: remove those first")
    if bounds is not None:
        low, high = float(tensor.min()), float(tensor.max())
        excess = max(bounds[0] - low, high - bounds[1])
        if excess > 1e-6 * (bounds[1] - bounds[0]):
            raise ValueError(
                f"images must lie within bounds={bounds}, but they span [{low:.6g}, {high:.6g}] and leave the bounds "
                f"by {excess:.6g}: rescale them and put the normalisation into the model, or pass bounds=(low, high) "
                "or bounds=None; eps is measured in the units of the images"
            )
        tensor = tensor.clamp(*bounds)
    return tensor.to(device=device, dtype=dtype)


def read_labels(labels: Any, n: int, device: torch.device, name: str = "labels") -> torch.Tensor:
    """Int64 class indices of shape (n,) on `device`."""
    tensor = labels.detach() if isinstance(labels, torch.Tensor) else torch.from_numpy(_integers(labels, name))
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers (class indices), got dtype {tensor.dtype}")
    if tensor.shape != (n,):
        hint = ": turn one-hot rows into indices by argmax(1)" if tensor.ndim == 2 and len(tensor) == n else ""
        raise ValueError(f"{name} must have shape ({n},), one for each image, got {tuple(tensor.shape)}{hint}")
    return tensor.to(device=device, dtype=torch.int64)


def _integers(labels: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers (class indices), got dtype {array.dtype}")
    return np.array(array, dtype=np.int64)


def read_radius(value: Any, name: str) -> torch.Tensor:
    """A positive number as a tensor () or one for each sample as a tensor (B,), float64."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a number or one number for each sample, got {value!r}")
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number or one number for each sample, got {value!r}") from error
    if tensor.ndim > 1 or tensor.numel() == 0:
        raise ValueError(f"{name} must be a number or have shape (B,), got shape {tuple(tensor.shape)}")
    if not (torch.isfinite(tensor) & (tensor > 0)).all():
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return tensor


def read_steps(value: Any, name: str, least: int) -> int:
    """An integer that is not smaller than `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def read_number(value: Any, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number from `least` to `most`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and least <= value <= most):
        limits = f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
        raise ValueError(f"{name} must be finite and {limits}, got {value!r}")
    return float(value)


def read_bounds(bounds: Any, name: str = "bounds") -> tuple[float, float] | None:
    """(low, high) with low < high, or None for no bounds."""
    if bounds is None:
        return None
    try:
        low, high = (float(b) for b in bounds)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a pair (low, high) or None, got {bounds!r}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name} must be finite with low < high, or None, got {bounds!r}")
    return low, high


def read_seed(value: Any) -> int:
    """A seed: an integer that is not negative."""
    return read_steps(value, "random_state", 0)


def read_module(module: Any, name: str) -> torch.nn.Module:
    """A network."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}: wrap a function in one")
    return module


def read_manifold(manifold: Any) -> Any:
    """A manifold, or a family of manifolds chosen by label."""
    if not isinstance(manifold, Manifold | LabelledManifold):
        what = "None" if manifold is None else type(manifold).__name__
        raise TypeError(f"manifold must have project and tangent_basis, or at(labels), got {what}")
    return manifold


def read_generator(generator: Any) -> torch.Generator | None:
    """A source of random numbers, or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {type(generator).__name__}: "
            "use torch.Generator().manual_seed(seed)"
        )
    return generator


def read_norm(norm: Any, *, allowed: tuple[float, ...] = (math.inf, 2, 1)) -> float:
    """The number of a norm: of "inf" (or infinity, "Linf"), 2 (or "2", "L2"), 1 (or "1", "L1")."""
    name = norm.removeprefix("L").removeprefix("l") if isinstance(norm, str) else norm
    known = {"inf": math.inf, "2": 2, "1": 1}
    number = known.get(name) if isinstance(name, str) else name
    if isinstance(number, bool) or not isinstance(number, int | float) or number not in allowed:
        names = ["'inf'" if p == math.inf else str(int(p)) for p in allowed]
        raise ValueError(f"norm must be {', '.join(names[:-1])} or {names[-1]}, got {norm!r}")
    return float(number)


def one_of(value: str, name: str, options: tuple[str, ...]) -> str:
    """`value`, which must be one of the names."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) numbers as (B, 1, ..., 1), ready to multiply the samples of `like`."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


def as_numpy(x: Any) -> np.ndarray[Any, Any]:
    """Numbers on the CPU, those of tensors that are no integers in float64 (numpy has no bfloat16)."""
    if not isinstance(x, torch.Tensor):
        return np.asarray(x)
    x = x.detach().cpu()
    array: np.ndarray[Any, Any] = (x.double() if x.is_floating_point() else x).numpy()
    return array
