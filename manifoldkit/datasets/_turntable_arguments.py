"""Checks of what `make_turntable` is given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._meshes import is_mesh
from ._validation import check_count, check_numbers, check_real
from ._vehicles import VEHICLES

__all__ = ["check_angles", "check_classes", "check_lights", "check_paint", "check_size"]

Floats = NDArray[np.float64]

#: An intensity of 1 lights a surface fully; above this one all of a picture is white.
BRIGHTEST = 100.0


def check_classes(classes: Any) -> dict[str, Any]:
    """Name of each class -> the name of a vehicle of ours, the Path of a file, or a mesh."""
    if isinstance(classes, (str, Path)):
        raise TypeError(f"classes must be a list of names, got {classes!r}: write [{str(classes)!r}]")
    if isinstance(classes, (set, frozenset, Iterator)):
        fix = "sorted(classes)" if isinstance(classes, (set, frozenset)) else "list(classes)"
        raise TypeError(
            f"classes must be a list or a mapping, whose order numbers the labels, got a {type(classes).__name__}: "
            f"pass {fix}"
        )
    if not isinstance(classes, Iterable):
        raise TypeError(f"classes must be a list of names or a mapping of names to meshes, got {classes!r}")
    found: dict[str, Any] = {}
    pairs = classes.items() if isinstance(classes, Mapping) else [(None, entry) for entry in classes]
    for name, entry in pairs:
        if isinstance(entry, str) and entry in VEHICLES:
            entry = str(entry)  # of numpy, too
            name = entry if name is None else str(name)
        elif isinstance(entry, (str, Path)):
            if not Path(entry).is_file():
                if isinstance(entry, Path) or Path(entry).suffix:
                    raise FileNotFoundError(f"classes names {str(entry)!r}, which is no file: check its path")
                raise ValueError(_unknown(str(entry)))
            entry = Path(entry)
            name = entry.stem if name is None else str(name)
        elif name is None or not is_mesh(entry):
            raise TypeError(
                "classes must hold names of vehicles and paths of files, or map names to those or to meshes of pyvista "
                f"or trimesh, got {_told(entry, name)}"
            )
        name = str(name)
        if name in found:
            raise ValueError(
                f"class {name!r} is given twice: name each class once, or pass a mapping of names to files"
            )
        found[name] = entry
    if not found:
        raise ValueError(f"classes must name at least one class, such as {next(iter(VEHICLES))!r}, got none")
    return found


def _told(entry: Any, name: Any) -> str:
    kind = type(entry).__name__
    if name is None and is_mesh(entry):
        return f"a {kind} without a name: pass a mapping {{name: mesh}}"
    return f"{entry!r} of type {kind}" if isinstance(entry, (str, bytes, int, float, type(None))) else f"a {kind}"


def _unknown(entry: str) -> str:
    near = get_close_matches(entry.lower().replace("_", " "), VEHICLES, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"unknown class {entry!r}: it is neither a file nor one of {', '.join(VEHICLES)}{hint}"


def check_size(size: Any) -> int:
    """Pixels along each side."""
    size = check_count(size, "size", 8)
    if size > 512:
        raise ValueError(f"size must be at most 512 pixels, got {size}")
    return size


def check_angles(azimuth: Any, elevation: Any, lattice: bool, n_classes: int, size: int) -> Floats:
    """Angles (n, 2) of the views, if there is room for so many of `n_classes`."""
    a, e = _check_degrees(azimuth, "azimuth", -360, 360), _check_degrees(elevation, "elevation", -10, 90)
    if not lattice and 1 in (len(a), len(e)):
        a, e = np.broadcast_arrays(a, e)
    if not lattice and len(a) != len(e):
        raise ValueError(
            f"azimuth and elevation must be as many with lattice=False, or one of them alone, got {len(a)} and {len(e)}"
        )
    count = len(a) * len(e) if lattice else len(a)
    wanted, there = (16 * n_classes + 4) * size**2 * count, _memory()
    if wanted > there:
        raise ValueError(
            f"{n_classes} x {count} views of {size} pixels take {wanted:.3g} bytes, and this machine has {there:.3g}: "
            "render in parts, smaller, or fewer"
        )
    if lattice:
        return np.stack(np.meshgrid(a, e, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.column_stack([a, e])


def _memory() -> int:
    """Bytes of the machine's memory, a tebibyte where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**40


def _check_degrees(values: Any, name: str, low: float, high: float) -> Floats:
    array = np.atleast_1d(check_numbers(list(values) if isinstance(values, range) else values, name))
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one angle in degrees, got none")
    if array.ndim != 1:
        raise ValueError(f"{name} must be a number or a list of numbers, got shape {array.shape}: flatten it first")
    if array.min() < low or array.max() > high:
        worst = array[np.abs(array - (low + high) / 2).argmax()]
        hint = "wrap it with % 360" if low == -360 else "these are degrees"
        raise ValueError(f"{name} must lie between {low} and {high} degrees, got {worst:g}: {hint}")
    return array


def check_lights(lights: Any) -> Floats:
    """Rows (q, 3) of azimuth, elevation and intensity."""
    expected = "lights must be rows of azimuth, elevation and an intensity >= 0"
    if lights is None:
        raise TypeError(f"{expected}, got None: leave it out")
    array = check_numbers(lights, "lights")
    if array.ndim != 2 or array.shape[1] != 3 or len(array) == 0 or array[:, 2].min() < 0:
        raise ValueError(f"{expected}, got shape {array.shape}: {lights!r}")
    for column, name, largest in zip(array.T, ("azimuth", "elevation", "intensity"), (360, 90, BRIGHTEST), strict=True):
        if np.abs(column).max() > largest:
            raise ValueError(
                f"lights must have an azimuth within 360 degrees, an elevation within 90 and an intensity of at most "
                f"{BRIGHTEST:g}, got an {name} of {column[np.abs(column).argmax()]:g}"
            )
    return array


def check_paint(paint: Any) -> tuple[float, float, float] | None:
    """Red, green and blue."""
    if paint is None:
        return None
    values = check_numbers(paint, "paint") if not isinstance(paint, str) else np.empty(0)
    if values.shape != (3,):
        raise ValueError(f"paint must be three numbers (red, green, blue), got {paint!r}")
    red, green, blue = (check_real(float(value), "each colour of paint", 0.0, 1.0) for value in values)
    return red, green, blue
