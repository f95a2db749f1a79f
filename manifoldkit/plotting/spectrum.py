"""The two curves by which a fitted manifold is judged: its scaling curve and its spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .._arrays import as_array
from ._input import Floats, axes_or_new, fitted
from ._style import BLUE, GREY, VERMILLION, outline, tidy

__all__ = ["plot_scaling_curve", "plot_spectrum"]


def plot_scaling_curve(manifold: Any, *, ax: Axes | None = None, color: Any = BLUE, label: str | None = None) -> Axes:
    r"""Draw the slope of the kernel sum, :math:`T(\epsilon) = d \log S / d \log \epsilon`, and the scale in use.

    Plateaus of the curve are dimensions; `epsilon_` should lie on one.

    Parameters
    ----------
    manifold : DiffusionManifold
        Fitted.
    ax : Axes, optional
        Where to draw; default: a new figure.
    color : colour
    label : str, optional
        Legend entry of the curve.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the manifold is not fitted.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from manifoldkit import DiffusionManifold
    >>> from manifoldkit.datasets import make_circle
    >>> from manifoldkit.plotting import plot_scaling_curve
    >>> m = DiffusionManifold(n_components=9).fit(make_circle(200, random_state=0).points)
    >>> plot_scaling_curve(m).get_xscale()
    'log'
    """
    fitted(manifold, "scaling_curve_", "epsilon_", "dimension_")
    ax = axes_or_new(ax)
    epsilon, slope = as_array(manifold.scaling_curve_, "scaling_curve_")
    at, dimension = float(manifold.epsilon_), float(manifold.dimension_)
    ax.plot(epsilon, slope, color=color, linewidth=1.8, label=label)
    ax.set_xscale("log")
    ax.set_xlim(epsilon[0], epsilon[-1])
    ax.set_ylim(0, 1.15 * max(float(slope.max()), dimension))
    ax.plot([at, at], [0, dimension], color=VERMILLION, linewidth=1, linestyle="--")
    ax.plot([epsilon[0], at], [dimension, dimension], color=VERMILLION, linewidth=1, linestyle="--")
    ax.plot(at, dimension, "o", color=VERMILLION, markersize=6)
    ax.annotate(
        rf"$\epsilon$ = {at:.2f},  $T(\epsilon)$ = {dimension:.2f}", (1.0, 1.0), xytext=(-4, -4),
        xycoords="axes fraction", textcoords="offset points", ha="right", va="top", color=VERMILLION,
        path_effects=outline(),
    )  # fmt: skip
    ax.set_xlabel(r"global bandwidth $\epsilon$")
    ax.set_ylabel(r"slope $T(\epsilon)$ of the kernel sum")
    tidy(ax)
    return ax


def plot_spectrum(
    manifold: Any,
    truth: Any = None,
    *,
    n_values: int | None = None,
    relative: bool = False,
    ax: Axes | None = None,
    label: str = "estimated",
    truth_label: str = "exact",
) -> Axes:
    """Draw eigenvalues, ascending, against their exact values.

    Parameters
    ----------
    manifold : DiffusionManifold, ExteriorCalculus, NeuralIsometry or array (N,)
        Something that has `eigenvalues_`, or the eigenvalues.
    truth : array or Tensor (M,), optional
        Exact eigenvalues, drawn as bars across the stems; M may differ from N.
    n_values : int, optional
        How many to draw; default: all, or as many as both have.
    relative : bool, default=False
        Divide by the first eigenvalue that is not zero (more than 1e-9 of the last).
    ax : Axes, optional
        Where to draw; default: a new figure.
    label, truth_label : str
        Legend entries.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If nothing can be drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from manifoldkit.plotting import plot_spectrum
    >>> ax = plot_spectrum([0, 1.01, 1.01, 4.2, 4.2], truth=[0, 1, 1, 4, 4])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['estimated', 'exact']
    """
    if hasattr(manifold, "fit") or hasattr(manifold, "eigenvalues_"):
        fitted(manifold, "eigenvalues_")
        manifold = manifold.eigenvalues_
    values, exact = _eigenvalues(manifold, "eigenvalues"), None if truth is None else _eigenvalues(truth, "truth")
    count = min(len(values), len(values) if exact is None else len(exact))
    if n_values is not None:
        if not isinstance(n_values, (int, np.integer)) or n_values < 1:
            raise ValueError(f"n_values must be a positive integer or None, got {n_values!r}")
        count = min(count, int(n_values))
    if relative:
        values = _relative(values)
        exact = None if exact is None else _relative(exact)
    ax = axes_or_new(ax)
    index = np.arange(count)
    ax.vlines(index, 0, values[:count], color=GREY, linewidth=1)
    ax.plot(index, values[:count], "o", color=BLUE, markersize=5, label=label)
    if exact is not None:
        ax.plot(
            index, exact[:count], linestyle="none", marker="_", markersize=13, markeredgewidth=1.8,
            color=VERMILLION, label=truth_label,
        )  # fmt: skip
        ax.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(-0.7, count - 0.3)
    ax.set_xlabel("index $l$")
    ax.set_ylabel(r"eigenvalue $\xi_l\,/\,\xi_1$" if relative else r"eigenvalue $\xi_l$")
    tidy(ax)
    return ax


def _eigenvalues(x: Any, name: str) -> Floats:
    values = as_array(x, name)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} must be a non-empty vector, got shape {values.shape}")
    return values


def _relative(values: Floats) -> Floats:
    positive = values[values > 1e-9 * values.max()]
    if len(positive) == 0:
        raise ValueError("relative=True needs an eigenvalue above zero")
    return np.asarray(values / positive[0])
