"""Colours that colour-blind readers can tell apart, and the look that all plots share."""

from __future__ import annotations

from typing import Any

from matplotlib import patheffects
from matplotlib.axes import Axes

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "PALETTE", "VERMILLION", "outline", "tidy"]

# The palette of M. Okabe and K. Ito (2008), without its yellow, which is too pale for lines on white.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#8C8C8C"

#: Colours of lines and classes, in the order of use; grey, brown and the yellow left out above make ten, for digits.
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY, "#7A5C3A", "#F0E442")


def tidy(ax: Axes) -> None:
    """Two spines and a faint grid behind the data."""
    if hasattr(ax, "zaxis"):
        return
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)


def outline(width: float = 2.5, color: Any = "white") -> list[Any]:
    """Path effects that set a text or a line off from what is below it."""
    return [patheffects.withStroke(linewidth=width, foreground=color)]
