"""How accuracy falls with the budget of attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from .._arrays import as_array
from ._input import axes_or_new
from ._style import PALETTE, tidy
from .success import LINES, spread_out

__all__ = ["plot_robustness"]


def plot_robustness(curves: Any, *, xlabel: str = r"$\epsilon$", ax: Axes | None = None) -> Axes:
    """Draw robust accuracy against the budget, a curve for each attack.

    Parameters
    ----------
    curves : Evaluation, or dict of str to (eps, accuracy)
        An evaluation with lists of budgets, or as from :meth:`manifoldkit.attacks.Evaluation.curves`.
    xlabel : str
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no curve, or budgets and accuracies do not fit together.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> ax = plot_robustness({"PGD": ([0, 0.1, 0.2], [0.98, 0.6, 0.1])})
    >>> ax.get_ylabel()
    'accuracy'
    """
    curves = curves.curves() if hasattr(curves, "curves") else curves
    if not isinstance(curves, Mapping) or not curves:
        raise ValueError(
            "curves must be a dict of names and (eps, accuracy), with one entry at the least, or an evaluation with "
            "lists of budgets: evaluate(..., eps=[0.1, 0.2])"
        )
    data = {}
    for name, curve in curves.items():
        eps, accuracy = (as_array(part, f"curves[{name!r}]") for part in curve)
        if eps.ndim != 1 or eps.shape != accuracy.shape or len(eps) == 0:
            raise ValueError(
                f"curves[{name!r}] must be two vectors of one length, got {eps.shape} and {accuracy.shape}"
            )
        data[name] = eps, accuracy
    ax = axes_or_new(ax)
    last = max(float(eps.max()) for eps, _ in data.values())
    ends = []
    for position, (name, (eps, accuracy)) in enumerate(data.items()):
        color, line = PALETTE[position % len(PALETTE)], LINES[position % len(LINES)]
        ax.plot(eps, accuracy, color=color, linestyle=line, linewidth=2, marker="o", markersize=3.5, label=name)
        ends.append((float(accuracy[-1]), name, color))
    for height, (_, name, color) in zip(spread_out(np.array([end[0] for end in ends])), ends, strict=True):
        ax.annotate(
            name, (1.0, height), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            color=color, va="center", annotation_clip=False,
        )  # fmt: skip
    ax.set_xlim(0, last or 1)
    ax.set_ylim(-0.02, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel(xlabel)
    ax.set_ylabel("accuracy")
    tidy(ax)
    return ax
