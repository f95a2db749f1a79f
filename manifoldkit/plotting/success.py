"""How fast attacks break a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from .._arrays import as_array
from ._input import Floats, axes_or_new
from ._style import PALETTE, tidy

__all__ = ["LINES", "plot_success_curve", "spread_out"]

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
#: Least distance between the names of two curves, as a share of the height of the axes.
GAP = 0.065


def plot_success_curve(results: Mapping[str, Any], *, steps: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw the share of samples that each attack has broken after 0, 1, 2, ... steps.

    Parameters
    ----------
    results : dict of str to AttackResult
        Names and results; anything with `success` and `steps_taken`, both of shape (B,), will do. Samples broken
        after 0 steps are those that the starting point broke (for a walk on a manifold: the projection).
    steps : int, optional
        Length of the axis; default: the largest number of steps taken.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there are no results, or they have no samples.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from types import SimpleNamespace
    >>> from manifoldkit.plotting import plot_success_curve
    >>> fast = SimpleNamespace(success=[True, True, False, True], steps_taken=[1, 2, 4, 1])
    >>> ax = plot_success_curve({"PGD": fast})
    >>> ax.lines[0].get_ydata()[:5].tolist()  # after 0, 1, 2, 3 and 4 steps
    [0.0, 0.5, 0.75, 0.75, 0.75]
    """
    if not isinstance(results, Mapping) or not results:
        raise ValueError("results must be a dict of names and attack results, with one entry at the least")
    if steps is not None and (not isinstance(steps, (int, np.integer)) or steps < 1):
        raise ValueError(f"steps must be a positive integer or None, got {steps!r}")
    data = {name: _read(name, result) for name, result in results.items()}
    last = int(steps or max(1, max(taken.max() for _, taken in data.values())))
    ax = axes_or_new(ax)
    x, end = np.arange(last + 1), 1.02 * last  # the last jump shows only if the curve goes on
    ends = []
    for position, (name, (success, taken)) in enumerate(data.items()):
        share = np.array([np.mean(success & (taken <= step)) for step in x])
        color = PALETTE[position % len(PALETTE)]
        ax.plot(
            np.append(x, end), np.append(share, share[-1]), drawstyle="steps-post", color=color, linewidth=2,
            linestyle=LINES[position % len(LINES)], label=name,
        )  # fmt: skip
        ends.append((share[-1], name, color))
    for height, (share_end, name, color) in zip(
        spread_out(np.array([height for height, _, _ in ends])), ends, strict=True
    ):
        ax.annotate(
            f"{name}  {100 * share_end:.0f} %", (1.0, height), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", color=color, va="center", ha="left", annotation_clip=False,
        )  # fmt: skip
    ax.set_xlim(0, end)
    ax.set_ylim(-0.02, 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("steps")
    ax.set_ylabel("samples broken")
    tidy(ax)
    return ax


def _read(name: str, result: Any) -> tuple[NDArray[np.bool_], Floats]:
    if not (hasattr(result, "success") and hasattr(result, "steps_taken")):
        raise ValueError(f"results[{name!r}] has no success and steps_taken: pass what attack.run returned")
    success, taken = as_array(result.success, "success"), as_array(result.steps_taken, "steps_taken")
    if success.ndim != 1 or success.shape != taken.shape or len(success) == 0:
        raise ValueError(
            f"results[{name!r}]: success and steps_taken must be vectors of one length, "
            f"got shapes {success.shape} and {taken.shape}"
        )
    return success.astype(bool), taken


def spread_out(heights: Floats) -> Floats:
    """Heights moved apart to at least `GAP`, in their order, as little as a sweep up and one down need."""
    order = np.argsort(heights, kind="stable")
    moved = heights[order].astype(np.float64)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + GAP)
    moved -= max(0.0, moved[-1] - 1.0)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = min(max(moved[i], float(heights[order][i])), moved[i + 1] - GAP)
    result = np.empty_like(moved)
    result[order] = moved
    return result
