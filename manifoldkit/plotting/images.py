"""Images in grids, all with the same colour limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._arrays import as_array
from ._input import Floats, axes_grid

__all__ = ["plot_images", "plot_tangent_images"]

#: Zero is white, blue is negative and red positive: told apart in every kind of colour blindness.
DIVERGING = "RdBu_r"


def plot_images(
    images: Any,
    *,
    rows: int | None = None,
    cols: int | None = None,
    titles: Sequence[str] | None = None,
    title_colors: Sequence[Any] | None = None,
    row_labels: Sequence[str] | None = None,
    limits: tuple[float, float] | Literal["symmetric"] = (0.0, 1.0),
    cmap: str | None = None,
    axes: Any = None,
    size: float = 1.1,
) -> NDArray[np.object_]:
    """Draw images in a grid, row by row.

    Parameters
    ----------
    images : array or Tensor (B, H, W), (B, 1, H, W), (B, 3, H, W) or (B, H, W, 3)
    rows, cols : int, optional
        Shape of the grid; default: as nearly square as it can be, wider than high. Cells left over stay empty.
    titles : sequence of B str, optional
    title_colors : sequence of B colours, optional
    row_labels : sequence of str, optional
        One for each row, at its left.
    limits : (float, float) or "symmetric", default=(0, 1)
        Values of the darkest and the brightest colour, for all images; "symmetric" centres them at zero.
    cmap : str, optional
        Default: "gray", or a diverging map when the limits are symmetric.
    axes : array of Axes, optional
        As many as the grid has cells; default: a new figure.
    size : float, default=1.1
        Width of an image in inches, in a new figure.

    Returns
    -------
    array (rows, cols) of Axes

    Raises
    ------
    ValueError
        If the images do not fit in the grid, or titles and labels do not fit the images.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from manifoldkit.plotting import plot_images
    >>> axes = plot_images(np.zeros((6, 28, 28)), rows=2, row_labels=["before", "after"])
    >>> axes.shape, axes[0, 0].images[0].get_clim()
    ((2, 3), (0.0, 1.0))
    """
    pictures = _pictures(images)
    n_rows, n_cols = _grid(len(pictures), rows, cols)
    low, high = color_limits(limits, pictures)
    for name, given, count in (
        ("titles", titles, len(pictures)),
        ("title_colors", title_colors, len(pictures)),
        ("row_labels", row_labels, n_rows),
    ):
        if given is not None and len(given) != count:
            raise ValueError(f"{name} must have {count} members, got {len(given)}")
    if cmap is None:
        cmap = DIVERGING if limits == "symmetric" else "gray"
    grid = axes_grid(axes, n_rows, n_cols, size=size, pad=0.25 if titles is not None else 0.05, names=row_labels)
    for position, ax in enumerate(grid.ravel()):
        ax.set_xticks([])
        ax.set_yticks([])
        if position >= len(pictures):
            ax.set_axis_off()
            continue
        picture = pictures[position]
        if picture.ndim == 3:
            picture = np.clip((picture - low) / (high - low), 0, 1)
        ax.imshow(picture, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
        ax.spines[:].set_color("0.7")
        ax.spines[:].set_linewidth(0.6)
        if titles is not None:
            color = "black" if title_colors is None else title_colors[position]
            ax.set_title(titles[position], fontsize=9, color=color, pad=3)
    for ax, name in zip(grid[:, 0], row_labels or (), strict=False):
        ax.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center", labelpad=6)
    return grid


def plot_tangent_images(
    image: Any,
    basis: Any,
    shape: tuple[int, ...] | None = None,
    *,
    titles: Sequence[str] | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    axes: Any = None,
    size: float = 1.3,
) -> NDArray[np.object_]:
    """Draw an image and the directions tangent to its manifold, as images.

    Where a direction is red, a step along it brightens the pixel; where it is blue, it darkens it. All directions
    have the same limits, centred at zero.

    Parameters
    ----------
    image : array or Tensor (H, W) or (D,)
    basis : array or Tensor (D, d)
        Tangent vectors in the columns, as a member of what ``tangent_basis`` returns.
    shape : (int, int), optional
        Height and width; needed when `image` is flat.
    titles : sequence of d + 1 str, optional
    limits : (float, float), default=(0, 1)
        Of the image.
    axes : array of d + 1 Axes, optional
        Default: a new figure.
    size : float, default=1.3
        Width of an image in inches, in a new figure.

    Returns
    -------
    array (1, d + 1) of Axes

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from manifoldkit.plotting import plot_tangent_images
    >>> axes = plot_tangent_images(np.zeros((4, 4)), np.eye(16)[:, :2])
    >>> [ax.images[0].get_clim() for ax in axes[0]]
    [(0.0, 1.0), (-1.0, 1.0), (-1.0, 1.0)]
    """
    picture, T = as_array(image, "image"), as_array(basis, "basis")
    shape = picture.shape if shape is None else tuple(shape)
    if len(shape) != 2 or np.prod(shape) != picture.size:
        raise ValueError(f"image of shape {picture.shape} is no image (H, W) of shape {shape}: give shape=(H, W)")
    if T.ndim != 2 or len(T) != picture.size or T.shape[1] == 0:
        raise ValueError(f"basis must have shape ({picture.size}, d), got {T.shape}: pass that of one image")
    d = T.shape[1]
    if titles is None:
        titles = ["image", *(f"tangent {i + 1}" for i in range(d))]
    if len(titles) != d + 1:
        raise ValueError(f"titles must have {d + 1} members, got {len(titles)}")
    grid = axes_grid(axes, 1, d + 1, size=size)
    plot_images(picture.reshape(1, *shape), titles=titles[:1], limits=limits, axes=grid[0, :1])
    plot_images(T.T.reshape(d, *shape), rows=1, titles=titles[1:], limits="symmetric", axes=grid[0, 1:])
    return grid


def color_limits(limits: Any, images: Floats) -> tuple[float, float]:
    """The pair itself, or the largest absolute value with both signs."""
    if isinstance(limits, str) and limits == "symmetric":
        largest = float(np.abs(images).max()) or 1.0
        return -largest, largest
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError) as error:
        raise ValueError(f"limits must be a pair (low, high) or 'symmetric', got {limits!r}") from error
    if not low < high:
        raise ValueError(f"limits must be (low, high) with low < high, got {limits!r}")
    return low, high


def _pictures(images: Any) -> Floats:
    """Images (B, H, W) or (B, H, W, 3)."""
    pictures = as_array(images, "images")
    if pictures.ndim == 4 and pictures.shape[1] == 1:
        pictures = pictures[:, 0]
    elif pictures.ndim == 4 and pictures.shape[1] == 3:
        pictures = pictures.transpose(0, 2, 3, 1)
    if len(pictures) == 0 or not (pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] == 3)):
        hint = ": wrap a single image as image[None]" if pictures.ndim == 2 else ""
        raise ValueError(f"images must have shape (B, H, W), (B, C, H, W) or (B, H, W, 3), got {pictures.shape}{hint}")
    return pictures


def _grid(count: int, rows: int | None, cols: int | None) -> tuple[int, int]:
    for name, value in (("rows", rows), ("cols", cols)):
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"{name} must be a positive integer or None, got {value!r}")
    if cols is None:
        cols = -(-count // (rows or max(1, int(np.sqrt(count)))))
    rows = rows or -(-count // cols)
    if rows * cols < count:
        raise ValueError(f"a grid of {rows} x {cols} has no room for {count} images")
    return int(rows), int(cols)
