"""Where the names of regions go on a map: inside, off the path, off the rim and off each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import ndimage

from ._input import Floats
from ._style import outline
from .embedding import name_sides

__all__ = ["name_regions"]

Box = tuple[float, float, float, float]  # left, bottom, right, top in shares of the axes

#: Width and height of bold letters in font sizes.
WIDTH, HEIGHT = 0.68, 1.25


def name_regions(
    ax: Axes,
    classes: NDArray[np.int64],
    x: Floats,
    y: Floats,
    names: Mapping[int, str],
    colors: Mapping[int, tuple[float, float, float]],
    path: Floats | None,
) -> None:
    """Write the name of each class into the parts of its region; classes whose names find no room get a legend."""
    inches = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    letter = FontProperties().get_size_in_points() / 72
    width, height = float(inches.width) / letter, float(inches.height) / letter
    regions = {value: list(_parts(classes == value, path, x, y)) for value in names}
    boxes, nameless = _places(ax, regions, x, y, names, path, width, height)
    if nameless:  # A layout engine will take the room for the legend from the axes.
        width -= 4 + WIDTH * max(len(names[value]) for value in nameless)
        boxes, nameless = _places(ax, regions, x, y, names, path, width, height)
    for value, (left, bottom, right, top) in boxes:
        middle = ax.transAxes.transform(((left + right) / 2, (bottom + top) / 2))
        place = ax.transData.inverted().transform(middle)
        ax.text(
            float(place[0]),
            float(place[1]),
            names[value],
            ha="center",
            va="center",
            weight="bold",
            path_effects=outline(),
            zorder=4,
        )
    if nameless:
        handles = [Patch(facecolor=colors[value], edgecolor="0.5", label=names[value]) for value in sorted(nameless)]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _places(
    ax: Axes, regions: Mapping[int, list[Floats]], x: Floats, y: Floats, names: Mapping[int, str], path: Floats | None,
    width: float, height: float,
) -> tuple[list[tuple[int, Box]], list[int]]:  # fmt: skip
    """Boxes of names in axes of some width and height in font sizes, and the classes that found no room."""
    ends = [] if path is None else [(path[0], "start"), (path[-1], "end")]
    blocked = [_end_box(ax, point, text, width, height) for point, text in ends]
    found: list[tuple[int, Box]] = []
    for value in sorted(names, key=lambda value: -sum(np.count_nonzero(depth) for depth in regions[value])):
        size = WIDTH * max(len(names[value]), 2) / width, HEIGHT / height
        for depth in regions[value]:
            box = _room(ax, depth, x, y, size, blocked)
            if box is not None:
                blocked.append(box)
                found.append((value, box))
    return found, sorted(set(names) - {value for value, _ in found})


def _parts(region: NDArray[np.bool_], path: Floats | None, x: Floats, y: Floats) -> Iterator[Floats]:
    """Depth of the cells inside each connected part of a region; parts below 1 % of the map only if largest."""
    taken = np.zeros(region.shape, dtype=bool) if path is None else _near_path(path, x, y)
    parts, count = ndimage.label(region)
    sizes = np.bincount(parts.ravel())[1:]
    for part in range(1, count + 1):
        if sizes[part - 1] < 0.01 * region.size and sizes[part - 1] < sizes.max():
            continue
        inside = parts == part
        free = inside & ~taken
        # Zeros around the map keep names off its rim.
        depth: Floats = ndimage.distance_transform_edt(np.pad(free if free.any() else inside, 1))[1:-1, 1:-1]
        yield depth


def _room(ax: Axes, depth: Floats, x: Floats, y: Floats, size: tuple[float, float], boxes: list[Box]) -> Box | None:
    """Box of a name at the deepest, most central cell of a part where it overlaps no other."""
    cells = np.argwhere(depth > 0)
    depths = depth[depth > 0]
    middle = cells[depths >= depths.max() - 1e-9].mean(axis=0)
    for i, j in cells[np.lexsort((np.square(cells - middle).sum(axis=1), -depths.round(6)))]:
        at = ax.transAxes.inverted().transform(ax.transData.transform((x[j], y[i])))
        box = _inside(float(at[0]), float(at[1]), *size)
        if not any(_overlap(box, other) for other in boxes):
            return box
    return None


def _inside(x: float, y: float, width: float, height: float) -> Box:
    """A box around a point, pushed into the axes."""
    left = min(max(x - width / 2, 0.0), max(1.0 - width, 0.0))
    bottom = min(max(y - height / 2, 0.0), max(1.0 - height, 0.0))
    return left, bottom, left + width, bottom + height


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _end_box(ax: Axes, point: Floats, text: str, width: float, height: float) -> Box:
    """Where :func:`~manifoldkit.plotting.embedding.draw_path` writes the name of an end, its marker included."""
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(point))
    reach = (1.4 + WIDTH * len(text)) / width
    right, above = name_sides(ax, point)
    left = x - 0.6 / width if right else x - reach
    up, down = (0.6 + HEIGHT, 0.6) if above else (0.6, 0.6 + HEIGHT)
    return left, y - down / height, left + reach + 0.6 / width, y + up / height


def _near_path(path: Floats, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Cells within 6 % of the width of the map of the path, where names would be in the way."""
    dense = np.concatenate([np.linspace(a, b, 50) for a, b in itertools.pairwise(path)] or [path])
    crossed = np.zeros((len(y), len(x)), dtype=bool)
    crossed[np.abs(y[:, None] - dense[:, 1]).argmin(axis=0), np.abs(x[:, None] - dense[:, 0]).argmin(axis=0)] = True
    shape = crossed.shape
    distance = ndimage.distance_transform_edt(~crossed, sampling=[1 / shape[0], 1 / shape[1]])
    near: NDArray[np.bool_] = np.asarray(distance) < 0.06
    return near
