"""What an attack did to images: gradients, their tangent parts, the adversaries and how they were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._input import axes_grid, class_array
from ._style import GREEN, VERMILLION
from .images import _pictures, plot_images

__all__ = ["plot_attack_rows"]


def plot_attack_rows(
    originals: Any,
    gradients: Any,
    tangents: Any,
    adversaries: Any,
    predictions: Any,
    labels: Any,
    *,
    predictions_before: Any = None,
    row_labels: Sequence[str] = ("original", "gradient", "tangent\npart", "adversary"),
    limits: tuple[float, float] = (0.0, 1.0),
    axes: Any = None,
    size: float = 1.1,
) -> NDArray[np.object_]:
    """Draw four rows: images, gradients of the loss, their parts along the manifold, and the adversaries.

    Titles are predictions, with a tick in green where they are right and a cross in vermillion where they are wrong.
    Each gradient has its own symmetric limits; the title of its tangent part says what share of the gradient's
    length that part has.

    Parameters
    ----------
    originals, gradients, tangents, adversaries : array or Tensor (B, H, W) or (B, 1, H, W)
        `tangents` are the projections of `gradients` onto the tangent spaces.
    predictions : int array or Tensor (B,)
        Classes of the adversaries.
    labels : int array or Tensor (B,)
        True classes.
    predictions_before : int array or Tensor (B,), optional
        Classes of the originals; without them originals carry their labels, and no verdict.
    row_labels : sequence of 4 str
    limits : (float, float), default=(0, 1)
        Of originals and adversaries.
    axes : array of 4 x B Axes, optional
        Default: a new figure.
    size : float, default=1.1
        Width of an image in inches, in a new figure.

    Returns
    -------
    array (4, B) of Axes

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from manifoldkit.plotting import plot_attack_rows
    >>> x, g = np.zeros((2, 28, 28)), np.ones((2, 28, 28))
    >>> axes = plot_attack_rows(x, g, g / 2, x, predictions=[3, 8], labels=[3, 3])
    >>> [ax.get_title() for ax in axes[3]], axes[2, 0].get_title()
    (['3 ✓', '8 ✗'], '50 %')
    """
    stacks = {}
    for name, stack in (
        ("originals", originals),
        ("gradients", gradients),
        ("tangents", tangents),
        ("adversaries", adversaries),
    ):
        pictures = _pictures(stack)
        if pictures.ndim != 3:
            raise ValueError(f"{name} must have one channel, got shape {pictures.shape}")
        stacks[name] = pictures
    shapes = {name: stack.shape for name, stack in stacks.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"all four kinds of images must have one shape, got {shapes}")
    count = len(stacks["originals"])
    truth, after = class_array(labels, "labels", (count,)), class_array(predictions, "predictions", (count,))
    known = predictions_before is not None
    before = class_array(predictions_before, "predictions_before", (count,)) if known else truth
    if len(row_labels) != 4:
        raise ValueError(f"row_labels must have 4 members, got {len(row_labels)}")

    grid = axes_grid(axes, 4, count, size=size, names=row_labels)
    for row, name, classes in ((0, "originals", before), (3, "adversaries", after)):
        right = classes == truth
        plot_images(
            stacks[name],
            rows=1,
            titles=[f"{value} {'✓' if good else '✗'}" for value, good in zip(classes, right, strict=True)]
            if known or row == 3
            else [str(value) for value in classes],
            title_colors=[GREEN if good else VERMILLION for good in right] if known or row == 3 else None,
            row_labels=[row_labels[row]],
            limits=limits,
            axes=grid[row],
        )
    lengths = [np.sqrt(np.square(stacks[name]).sum(axis=(1, 2))) for name in ("gradients", "tangents")]
    shares = np.divide(lengths[1], lengths[0], out=np.zeros(count), where=lengths[0] > 0)
    for row, name in ((1, "gradients"), (2, "tangents")):
        for column, (picture, share) in enumerate(zip(stacks[name], shares, strict=True)):
            plot_images(
                picture[None],
                titles=None if row == 1 else [f"{100 * share:.0f} %"],
                row_labels=[row_labels[row]] if column == 0 else None,
                limits="symmetric",
                axes=grid[row, column],
            )
    return grid
