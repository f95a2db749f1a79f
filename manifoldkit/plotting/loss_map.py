"""The loss of a network over two parameters of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._arrays import as_array
from ._input import Floats, axes_or_new, matrix
from .decision import edges, ticks
from .embedding import draw_path

__all__ = ["plot_loss_map"]


def plot_loss_map(
    loss: Any,
    x: Any,
    y: Any,
    *,
    path: Any = None,
    boundary: Any = None,
    xlabel: str = "$x$",
    ylabel: str = "$y$",
    ax: Axes | None = None,
) -> Axes:
    """Draw a loss over a grid of two parameters, with a path across: the slope that an attack climbs.

    Parameters
    ----------
    loss : array or Tensor (len(y), len(x)), or callable
        The loss at each point of the grid; or a function from points (n, 2) of parameters (x, y) to losses (n,).
    x, y : array or Tensor (n,)
        Values of the two parameters, ascending.
    path : array or Tensor (T, 2), optional
        Parameters along a walk, with start and end marked.
    boundary : array or Tensor (len(y), len(x)), optional
        Where the network is right (True) and wrong (False); the line between is drawn.
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
    >>> grid = np.linspace(-1, 1, 11)
    >>> ax = plot_loss_map(lambda p: (p**2).sum(axis=1), grid, grid, xlabel="angle")
    >>> ax.get_xlabel()
    'angle'
    """
    xs, ys = ticks(x, "x"), ticks(y, "y")
    values = _values(loss, xs, ys)
    track = None if path is None else matrix(path, "path", (2,))
    ax = axes_or_new(ax)
    mesh = ax.pcolormesh(xs, ys, values, shading="nearest", cmap="cividis", rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, label="loss", shrink=0.9)
    if boundary is not None:
        right = as_array(boundary, "boundary")
        if right.shape != values.shape:
            raise ValueError(f"boundary must have shape {values.shape}, got {right.shape}")
        if right.min() < right.max():
            ax.contour(xs, ys, right, levels=[0.5], colors="white", linewidths=1.5, linestyles="--")
    ax.set_xlim(*edges(xs))
    ax.set_ylim(*edges(ys))
    if track is not None:
        draw_path(ax, track)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return ax


def _values(loss: Any | Callable[[Floats], Any], x: Floats, y: Floats) -> Floats:
    shape = (len(y), len(x))
    if hasattr(loss, "state_dict"):
        raise TypeError(
            "loss must give numbers for points (n, 2) of parameters, got a network: pass a function, such as "
            "lambda p: cross_entropy(net(images_at(p)), labels, reduction='none')"
        )
    if callable(loss):
        points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        loss = np.asarray(as_array(loss(points), "loss(points)")).reshape(-1)
        if len(loss) != len(points):
            raise ValueError(f"loss must give {len(points)} numbers for as many points, got {len(loss)}")
        return loss.reshape(shape)
    values = as_array(loss, "loss")
    if values.shape != shape:
        raise ValueError(f"loss must have shape {shape}, (len(y), len(x)), got {values.shape}")
    return values
