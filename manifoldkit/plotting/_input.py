"""What the plots accept: arrays of numpy or torch, fitted manifolds, axes or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from .._arrays import as_array

__all__ = ["Floats", "axes_grid", "axes_or_new", "class_array", "fitted", "matrix"]

Floats = NDArray[np.float64]


def axes_or_new(ax: Axes | None, *, three: bool = False, size: tuple[float, float] = (5.6, 4.4)) -> Axes:
    """The axes given, or those of a new figure; `three` asks for axes in space.

    Raises
    ------
    ValueError
        If `ax` is no Axes, or has another number of dimensions.
    """
    if ax is None:
        keywords = {"projection": "3d"} if three else {}
        return plt.subplots(figsize=size, layout="constrained", subplot_kw=keywords)[1]
    if not isinstance(ax, Axes):
        raise ValueError(f"ax must be a matplotlib Axes or None, got {type(ax).__name__}")
    if hasattr(ax, "zaxis") != three:
        raise ValueError(
            "points in space need 3-d axes: make them with subplot_kw={'projection': '3d'}"
            if three
            else "this plot is drawn in the plane, but ax has 3-d axes"
        )
    return ax


def axes_grid(
    axes: Any, rows: int, cols: int, *, size: float = 1.1, pad: float = 0.25, names: Sequence[str] | None = None
) -> NDArray[np.object_]:
    """Axes (rows, cols): those given, or those of a new figure with cells of `size` inches.

    `pad` inches are added to the height of each row for titles, and room for the `names` of the rows at the left.

    Raises
    ------
    ValueError
        If `axes` has another number of members.
    """
    if axes is None:
        letters = max((len(line) for name in names or () for line in name.split("\n")), default=0)
        figsize = (cols * (size + 0.04) + 0.08 * letters + 0.1, rows * (size + pad) + 0.06)
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
        figure = plt.figure(figsize=figsize, layout=layout)
        made: NDArray[np.object_] = figure.subplots(rows, cols, squeeze=False)
        return made
    grid = np.atleast_1d(np.asarray(axes, dtype=object))
    if grid.size != rows * cols or not all(isinstance(ax, Axes) for ax in grid.ravel()):
        raise ValueError(f"axes must hold {rows} x {cols} matplotlib Axes, got an array of shape {grid.shape}")
    return grid.reshape(rows, cols)


def matrix(x: Any, name: str, columns: tuple[int, ...] | None = None) -> Floats:
    """Non-empty float64 matrix (n, D) of finite numbers, D among `columns`.

    Raises
    ------
    ValueError
        For another shape, no rows, or numbers that are not finite.
    """
    array = as_array(x, name)
    if array.ndim != 2 or len(array) == 0 or array.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix with a point in each row, (n, D), got shape {array.shape}")
    if columns is not None and array.shape[1] not in columns:
        allowed = " or ".join(map(str, columns))
        raise ValueError(f"{name} must have {allowed} columns, got {array.shape[1]}: choose the columns to draw")
    return array


def class_array(x: Any, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """Integer classes, as an array of `shape`.

    Raises
    ------
    ValueError
        If the classes are no whole numbers, or have another shape.
    """
    array = as_array(x, name)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if (array != np.round(array)).any():
        raise ValueError(f"{name} must hold classes, that is whole numbers: take the argmax of logits first")
    return array.astype(np.int64)


def fitted(manifold: Any, *names: str) -> None:
    """Raise ValueError unless `manifold` has all the attributes that fitting sets."""
    missing = [name for name in names if not hasattr(manifold, name)]
    if missing:
        raise ValueError(
            f"{type(manifold).__name__} has no {', '.join(missing)}: pass a DiffusionManifold after calling fit"
        )
