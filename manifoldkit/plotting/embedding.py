"""Diffusion coordinates as a map of the data, and paths drawn on that map."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from .._arrays import as_array
from ._input import Floats, axes_or_new, fitted, matrix
from ._style import BLACK, BLUE, PALETTE, VERMILLION, outline, tidy

__all__ = ["draw_path", "name_sides", "plot_embedding"]


def plot_embedding(
    manifold: Any,
    color: Any = None,
    *,
    components: tuple[int, int] = (1, 2),
    path: Any = None,
    ax: Axes | None = None,
    cmap: str = "viridis",
    color_label: str | None = None,
    point_size: float = 8.0,
) -> Axes:
    """Draw two diffusion coordinates of the samples, coloured by what is known of them, with a path across.

    Parameters
    ----------
    manifold : DiffusionManifold or array (n, N)
        A fitted manifold, of which the `eigenfunctions_` are drawn, or coordinates.
    color : array or Tensor (n,), optional
        Integers and truth values are classes and get a legend; real numbers get a colour bar.
    components : (int, int), default=(1, 2)
        Columns to draw; column 0 of a manifold is constant.
    path : array or Tensor (T, *shape), optional
        Points of the data space, such as ``result.path[:, i]`` of an attack, carried over by ``transform``; or
        coordinates (T, N) if coordinates were given.
    ax : Axes, optional
        Where to draw; default: a new figure.
    cmap : str, default="viridis"
        Colour map of real numbers, for instance "twilight" for angles.
    color_label : str, optional
        Label of the colour bar or title of the legend.
    point_size : float
        Area of the markers in square typographic points.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If shapes do not fit together or a component does not exist.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from manifoldkit import DiffusionManifold
    >>> from manifoldkit.datasets import make_circle
    >>> from manifoldkit.plotting import plot_embedding
    >>> sample = make_circle(200, grid=True)
    >>> m = DiffusionManifold(n_components=9).fit(sample.points)
    >>> ax = plot_embedding(m, sample.parameters[:, 0], path=sample.points[:40], cmap="twilight")
    >>> [text.get_text() for text in ax.texts]
    ['start', 'end']
    """
    is_manifold = hasattr(manifold, "transform") or hasattr(manifold, "fit")
    if is_manifold:
        fitted(manifold, "eigenfunctions_")
    Z = matrix(manifold.eigenfunctions_ if is_manifold else manifold, "coordinates")
    first, second = _components(components, Z.shape[1])
    shade = None if color is None else _shade(color, len(Z))
    track = None
    if path is not None:
        track = matrix(manifold.transform(path) if is_manifold else path, "path")
        if track.shape[1] != Z.shape[1]:
            raise ValueError(f"path must have the {Z.shape[1]} columns of the coordinates, got {track.shape[1]}")
    ax = axes_or_new(ax)
    x, y = Z[:, first], Z[:, second]
    if shade is None:
        ax.scatter(x, y, s=point_size, color=BLUE, linewidths=0, alpha=0.7)
    elif shade.dtype.kind in "biu":
        for position, value in enumerate(np.unique(shade)):
            ax.scatter(
                x[shade == value], y[shade == value], s=point_size, linewidths=0, alpha=0.85, label=str(value),
                color=PALETTE[position % len(PALETTE)],
            )  # fmt: skip
        ax.legend(
            title=color_label, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False,
            markerscale=float(np.clip(5 / np.sqrt(point_size), 1, 4)), handletextpad=0.3,
        )  # fmt: skip
    else:
        drawn = ax.scatter(x, y, s=point_size, c=shade, cmap=cmap, linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label=color_label or "", aspect=28, pad=0.02)
    if track is not None:
        draw_path(ax, track[:, [first, second]])
    symbol = r"\phi" if is_manifold else "z"
    ax.set_xlabel(rf"${symbol}_{{{first}}}$")
    ax.set_ylabel(rf"${symbol}_{{{second}}}$")
    tidy(ax)
    return ax


def draw_path(ax: Axes, path: Floats, *, names: tuple[str, str] = ("start", "end")) -> None:
    """Draw a path (T, 2) with its start (a circle) and its end (a cross) marked and named."""
    line = ax.plot(path[:, 0], path[:, 1], color=BLACK, linewidth=1.6, zorder=5, marker=".", markersize=4)[0]
    line.set_path_effects(outline(3.5))
    for point, name, marker, face in (
        (path[0], names[0], "o", "white"),
        (path[-1], names[1], "X", VERMILLION),
    ):
        ax.plot(
            point[0],
            point[1],
            marker=marker,
            markersize=9,
            color=BLACK,
            markerfacecolor=face,
            zorder=6,
            linestyle="none",
        )
        right, above = name_sides(ax, point)
        ax.annotate(
            name, tuple(point), xytext=(9 if right else -9, 6 if above else -6), textcoords="offset points", zorder=7,
            ha="left" if right else "right", va="bottom" if above else "top", weight="bold", path_effects=outline(),
        )  # fmt: skip


def name_sides(ax: Axes, point: Floats) -> tuple[bool, bool]:
    """Whether the name of an end of a path goes right of it, and above it: to where there is room."""
    ax.autoscale_view()  # limits are those of what is drawn only once somebody asks
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(point))
    return bool(x < 0.5), bool(y < 0.85)


def _components(components: Any, width: int) -> tuple[int, int]:
    try:
        first, second = (int(component) for component in components)
    except (TypeError, ValueError) as error:
        raise ValueError(f"components must be a pair of column numbers, got {components!r}") from error
    if not (0 <= first < width and 0 <= second < width):
        raise ValueError(f"components must lie between 0 and {width - 1}, got {components!r}")
    return first, second


def _shade(color: Any, n: int) -> NDArray[Any]:
    """Colours (n,), integers still integers."""
    values = as_array(color, "color")
    kind = str(color.dtype) if hasattr(color, "dtype") else np.asarray(color).dtype.name
    if values.shape != (n,):
        raise ValueError(f"color must hold a number for each of the {n} points, got shape {values.shape}")
    return values if "float" in kind else values.astype(np.int64)
