"""The classes that a network sees over two parameters of its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from numpy.typing import NDArray

from .._arrays import as_array
from ._input import Floats, axes_or_new, class_array, matrix
from ._style import PALETTE
from .embedding import draw_path
from .region_names import name_regions

__all__ = ["edges", "plot_decision_map", "ticks"]


def plot_decision_map(
    predict: Any,
    x: Any,
    y: Any,
    *,
    path: Any = None,
    true_class: int | None = None,
    class_names: Sequence[str] | None = None,
    xlabel: str = "$x$",
    ylabel: str = "$y$",
    ax: Axes | None = None,
) -> Axes:
    """Draw the predicted class over a grid of two parameters, with a path across.

    Regions carry the name of their class at their widest place that other names leave free; only a class that finds no
    such place is named in a legend on the right.

    Parameters
    ----------
    predict : int array or Tensor (len(y), len(x)), or callable
        The class at each point of the grid; or a function from points (n, 2) of parameters (x, y) to classes (n,).
    x, y : array or Tensor (n,)
        Values of the two parameters, ascending.
    path : array or Tensor (T, 2), optional
        Parameters along a walk, with start and end marked.
    true_class : int, optional
        The right class; its region is drawn almost white, so that colour means error.
    class_names : sequence of str, optional
        Default: the numbers of the classes.
    xlabel, ylabel : str
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the shapes do not fit together, or `x` or `y` does not ascend.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from manifoldkit.plotting import plot_decision_map
    >>> angles, scales = np.linspace(-90, 90, 19), np.linspace(0.5, 1.5, 11)
    >>> ax = plot_decision_map(lambda p: np.where(p[:, 0] > 0, 9, 6), angles, scales, true_class=6)
    >>> sorted(text.get_text() for text in ax.texts)
    ['6', '9']
    """
    xs, ys = ticks(x, "x"), ticks(y, "y")
    classes = _classes(predict, xs, ys)
    track = None if path is None else matrix(path, "path", (2,))
    present = np.unique(classes)
    if class_names is not None and (present.min() < 0 or present.max() >= len(class_names)):
        raise ValueError(f"class_names must name all classes up to {present.max()}, got {len(class_names)} names")
    ax = axes_or_new(ax)
    colors = [(0.97, 0.97, 0.97) if value == true_class else _pale(PALETTE[value % len(PALETTE)]) for value in present]
    ax.pcolormesh(
        xs, ys, np.searchsorted(present, classes), shading="nearest", cmap=ListedColormap(colors),
        norm=BoundaryNorm(np.arange(len(present) + 1) - 0.5, len(present)), rasterized=True,
    )  # fmt: skip
    ax.set_xlim(*edges(xs))
    ax.set_ylim(*edges(ys))
    names = {int(value): str(value) if class_names is None else class_names[value] for value in present}
    name_regions(ax, classes, xs, ys, names, dict(zip(names, colors, strict=True)), track)
    if track is not None:
        draw_path(ax, track)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return ax


def _classes(predict: Any | Callable[[Floats], Any], x: Floats, y: Floats) -> NDArray[np.int64]:
    shape = (len(y), len(x))
    if not callable(predict):
        return class_array(predict, "predict", shape)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    if hasattr(predict, "state_dict"):
        raise TypeError(
            "predict must give classes for points (n, 2) of parameters, got a network: pass a function, such as "
            "lambda p: net(images_at(p)).argmax(1)"
        )
    return class_array(predict(points), "predict(points)", (len(points),)).reshape(shape)


def ticks(values: Any, name: str) -> Floats:
    """An ascending vector, the values of one parameter of a map."""
    vector = as_array(values, name)
    if vector.ndim != 1 or len(vector) < 2:
        raise ValueError(f"{name} must be an ascending vector of at least two values, got shape {vector.shape}")
    if (np.diff(vector) <= 0).any():
        raise ValueError(
            f"{name} must be an ascending vector, got {vector[0]:g} to {vector[-1]:g}, not rising all along: sort it"
        )
    return vector


def edges(ticks: Floats) -> tuple[float, float]:
    """Outer edges of the cells whose centres are the ticks."""
    return float(1.5 * ticks[0] - 0.5 * ticks[1]), float(1.5 * ticks[-1] - 0.5 * ticks[-2])


def _pale(color: str) -> tuple[float, float, float]:
    red, green, blue = (0.4 + 0.6 * channel for channel in to_rgb(color))
    return red, green, blue
