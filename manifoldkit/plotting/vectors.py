"""Tangent spaces and projections, drawn at the points they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import is_color_like

from .._arrays import as_array
from ._input import Floats, axes_or_new, matrix
from ._style import BLUE, GREY, PALETTE, VERMILLION, tidy

__all__ = ["plot_projection", "plot_vectors"]


def plot_vectors(
    points: Any,
    vectors: Any,
    *,
    ax: Axes | None = None,
    length: float | None = None,
    arrows: bool | None = None,
    colors: Any = None,
    linewidth: float = 1.2,
    point_size: float = 4.0,
    label: str | None = None,
) -> Axes:
    """Draw vectors, or the lines of tangent bases, at points of the plane or of space.

    Parameters
    ----------
    points : array or Tensor (n, D)
        D = 2 or 3; of more than three coordinates the first two are drawn.
    vectors : array or Tensor (n, D) or (n, D, d)
        One vector a point, or a basis, as ``tangent_basis`` gives it, whose columns have a colour each.
    ax : Axes, optional
        Where to draw, 3-d axes for D = 3; default: a new figure.
    length : float, optional
        Length at which a unit vector is drawn; default: 1/15 of the width of the cloud of points.
    arrows : bool, optional
        Draw arrows that start at the points, or lines centred at them. Default: arrows for vectors, lines for bases,
        whose signs mean nothing.
    colors : colour or sequence of colours, optional
        One for each column.
    linewidth : float
        In typographic points.
    point_size : float
        Area of the markers in square typographic points; 0 for no markers.
    label : str, optional
        Entry of a legend.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If shapes do not fit together.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from manifoldkit.datasets import make_circle
    >>> from manifoldkit.plotting import plot_vectors
    >>> sample = make_circle(24, grid=True)
    >>> ax = plot_vectors(sample.points, sample.tangents, label="tangents")
    >>> len(ax.collections[1].get_segments())
    24
    """
    X = as_array(points, "points")
    if X.ndim != 2 or X.shape[1] < 2 or len(X) == 0:
        raise ValueError(f"points must be a matrix (n, D) with D >= 2, got shape {X.shape}")
    V = as_array(vectors, "vectors")
    if V.shape[:2] != X.shape or V.ndim not in (2, 3):
        raise ValueError(f"vectors must have shape {X.shape} or {(*X.shape, 'd')}, got {V.shape}")
    arrows = V.ndim == 2 if arrows is None else arrows
    V = V.reshape(*X.shape, -1)
    shown = X.shape[1] if X.shape[1] <= 3 else 2
    X, V = X[:, :shown], V[:, :shown]
    three = shown == 3
    canvas: Any = axes_or_new(ax, three=three)
    if length is None:
        length = float(np.ptp(X, axis=0).max()) / 15 or 1.0
    palette = _colors(colors, V.shape[2])
    if point_size:
        canvas.scatter(*X.T, s=point_size, color=GREY, linewidths=0, zorder=2)
    for column, color in enumerate(palette):
        step = length * V[:, :, column]
        name = label if column == 0 else None
        if arrows:
            if three:
                canvas.quiver(*X.T, *step.T, color=color, linewidth=linewidth, arrow_length_ratio=0.3, label=name)
            else:
                canvas.quiver(
                    *X.T, *step.T, color=color, angles="xy", scale_units="xy", scale=1.0, zorder=3, label=name,
                    width=0.0032 * linewidth, headwidth=4.5, headlength=5.5, headaxislength=5.0,
                )  # fmt: skip
        else:
            _segments(canvas, X - step / 2, X + step / 2, color, linewidth, name)
    _cover(canvas, X, length)
    return canvas


def plot_projection(
    points: Any,
    projected: Any,
    *,
    samples: Any = None,
    colors: Any = VERMILLION,
    ax: Axes | None = None,
    point_size: float = 10.0,
    labels: tuple[str, str] | None = ("point", "projection"),
) -> Axes:
    """Draw points of the plane, their projections, and the way from one to the other.

    Parameters
    ----------
    points, projected : array or Tensor (n, 2)
    samples : array or Tensor (m, 2), optional
        The samples of the manifold, drawn behind.
    colors : colour or sequence of n colours
        Of the points and the segments.
    ax : Axes, optional
        Where to draw; default: a new figure.
    point_size : float
        Area of the markers in square typographic points.
    labels : (str, str), optional
        Legend entries of points and projections; None for no legend.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the shapes differ or are not (n, 2).

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from manifoldkit.geometry import Circle
    >>> from manifoldkit.plotting import plot_projection
    >>> far = [[2.0, 0.0], [0.0, 0.5]]
    >>> ax = plot_projection(far, Circle().project(far))
    >>> ax.collections[0].get_segments()[0].tolist()
    [[2.0, 0.0], [1.0, 0.0]]
    """
    start, end = matrix(points, "points", (2,)), matrix(projected, "projected", (2,))
    if start.shape != end.shape:
        raise ValueError(f"points and projected must have one shape, got {start.shape} and {end.shape}")
    behind = None if samples is None else matrix(samples, "samples", (2,))
    ax = axes_or_new(ax)
    ways = LineCollection(list(np.stack([start, end], axis=1)), colors=colors, linewidths=0.7, alpha=0.75, zorder=2)
    ax.add_collection(ways)
    if behind is not None:
        ax.scatter(
            behind[:, 0], behind[:, 1], s=3, color="0.72", linewidths=0, zorder=1, label="sample" if labels else None
        )
    names: tuple[str | None, str | None] = labels or (None, None)
    ax.scatter(start[:, 0], start[:, 1], s=point_size, c=colors, linewidths=0, zorder=3, label=names[0])
    ax.scatter(end[:, 0], end[:, 1], s=point_size, color=BLUE, linewidths=0, zorder=4, label=names[1])
    _cover(ax, np.concatenate([start, end] + ([] if behind is None else [behind])), 0.0)
    if labels:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, markerscale=1.6)
    return ax


def _segments(ax: Axes, start: Floats, end: Floats, color: Any, linewidth: float, label: str | None) -> None:
    lines = list(np.stack([start, end], axis=1))
    if start.shape[1] == 2:
        ax.add_collection(LineCollection(lines, colors=[color], linewidths=linewidth, zorder=3, label=label))
        return
    from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

    collection: Any = Line3DCollection(lines, colors=[color], linewidths=linewidth, label=label)
    ax.add_collection(collection)


def _cover(ax: Axes, points: Floats, margin: float) -> None:
    """Equal scales, and limits that hold all points with a margin."""
    three = points.shape[1] == 3
    data = np.concatenate([points - margin, points + margin])
    if three:
        ax.auto_scale_xyz(*data.T)  # type: ignore[attr-defined]
        ax.set_aspect("equal")
    else:
        ax.update_datalim(data)
        ax.set_aspect("equal")
        ax.autoscale_view()
    for axis in "xyz"[: points.shape[1]]:
        if not getattr(ax, f"get_{axis}label")():
            getattr(ax, f"set_{axis}label")(f"${axis}$")
    tidy(ax)


def _colors(colors: Any, count: int) -> list[Any]:
    if colors is None:
        return [PALETTE[i % len(PALETTE)] for i in range(count)]
    if is_color_like(colors):
        return [colors] * count
    chosen = list(colors)
    if len(chosen) != count:
        raise ValueError(f"colors must be one colour or one for each of {count} columns, got {len(chosen)}")
    return chosen
