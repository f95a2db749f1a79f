"""Seven vehicles as coloured triangles, in metres: the front towards +x, the left side towards +y, +z up.

Only arrays are made here; drawing them is the business of :mod:`manifoldkit.datasets._stage`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["VEHICLES", "Part", "vehicle"]

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]

GLASS: Colour = (0.10, 0.13, 0.18)
RUBBER: Colour = (0.06, 0.06, 0.06)
STEEL: Colour = (0.33, 0.34, 0.36)
HUB: Colour = (0.72, 0.72, 0.74)
LAMP: Colour = (1.0, 0.96, 0.75)
TAIL: Colour = (0.85, 0.05, 0.05)

#: The faces of a block with corners in binary order (x, y, z), counter-clockwise seen from outside.
_FACES = {
    "back": (0, 1, 3, 2),
    "front": (4, 6, 7, 5),
    "right": (0, 4, 5, 1),
    "left": (2, 3, 7, 6),
    "bottom": (0, 2, 6, 4),
    "top": (1, 5, 7, 3),
}


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles of one material.

    Attributes
    ----------
    triangles : (f, 3, 3) float64 array
        Corners, counter-clockwise seen from outside.
    colour : tuple of 3 floats
        Red, green and blue in [0, 1].
    material : {"paint", "matte", "glass"}
        How it shines: a little, not at all, or like a mirror.
    """

    triangles: Floats
    colour: Colour
    material: str = "matte"


def vehicle(name: str, paint: Colour | None = None) -> list[Part]:
    """The parts of a vehicle, its body in a paint of its own or in the one given."""
    own, build = VEHICLES[name]
    return build(own if paint is None else paint)


def _fan(corners: Floats) -> Floats:
    """Triangles of a convex polygon (k, 3)."""
    middle = np.stack([corners[1:-1], corners[2:]], axis=1)
    return np.concatenate([np.broadcast_to(corners[0], (len(middle), 1, 3)), middle], axis=1)


def _corners(x: tuple[float, float], z: tuple[float, float], width: float, y: float = 0.0) -> Floats:
    """The eight corners of an upright block, (8, 3)."""
    return np.array([(a, y + b, c) for a in x for b in (-width / 2, width / 2) for c in z], dtype=np.float64)


def _cabin(base: tuple[float, float], top: tuple[float, float], z: tuple[float, float], widths: tuple[float, float]) -> Floats:  # fmt: skip  # noqa: E501
    """Corners of a block whose top is shorter and narrower than its base."""
    corners = _corners(base, z, widths[0])
    corners[1::2] = _corners(top, z, widths[1])[1::2]
    return corners


def _solid(corners: Floats, colour: Colour, material: str = "paint") -> Part:
    return Part(np.concatenate([_fan(corners[list(face)]) for face in _FACES.values()]), colour, material)


def _box(
    x: tuple[float, float],
    z: tuple[float, float],
    width: float,
    colour: Colour,
    material: str = "paint",
    y: float = 0.0,
) -> Part:
    return _solid(_corners(x, z, width, y), colour, material)


def _panes(corners: Floats, faces: Sequence[str], *, inset: float = 0.12, split: Sequence[str] = ()) -> list[Part]:
    """Windows a little outside of faces of a block, each with a frame around; those in `split` have a post between."""
    panes = []
    for face in faces:
        quad = corners[list(_FACES[face])]
        for part in _halves(quad, face) if face in split else (quad,):
            centre = part.mean(axis=0)
            normal = np.cross(part[1] - part[0], part[3] - part[0])
            panes.append(Part(_fan(centre + (1 - inset) * (part - centre) + 0.015 * normal / np.linalg.norm(normal)), GLASS, "glass"))  # fmt: skip  # noqa: E501
    return panes


def _halves(quad: Floats, face: str) -> tuple[Floats, Floats]:
    """A face cut across into its two halves along x."""
    a, b, c, d = quad
    if face == "left":  # its corners run up before they run along
        lower, upper = (a + d) / 2, (b + c) / 2
        return np.array([a, b, upper, lower]), np.array([lower, upper, c, d])
    lower, upper = (a + b) / 2, (d + c) / 2
    return np.array([a, lower, upper, d]), np.array([lower, b, c, upper])


def _cylinder(centre: tuple[float, float, float], radius: float, width: float, colour: Colour, axis: int = 1) -> Part:
    """A drum of 24 sides about the y axis (or another)."""
    t = 2 * np.pi * np.arange(24) / 24
    ring = np.zeros((24, 3))
    ring[:, (axis + 1) % 3], ring[:, (axis + 2) % 3] = radius * np.cos(t), radius * np.sin(t)
    half = np.zeros(3)
    half[axis] = width / 2
    low, high = ring - half + centre, ring + half + centre
    sides = [_fan(np.array([low[i - 1], low[i], high[i], high[i - 1]])) for i in range(24)]
    return Part(np.concatenate([_fan(high), _fan(low[::-1]), *sides]), colour)


def _wheels(axles: Sequence[float], radius: float, track: float, width: float = 0.28) -> list[Part]:
    """Pairs of wheels with hubs that stand out a little."""
    parts = []
    for x in axles:
        for side in (-1, 1):
            y = side * (track - width) / 2
            parts.append(_cylinder((x, y, radius), radius, width, RUBBER))
            parts.append(_cylinder((x, y, radius), 0.55 * radius, width + 0.04, HUB))
    return parts


def _lamps(front: float, back: float, z: float, spread: float, size: float = 0.26) -> list[Part]:
    """Two lamps in front and two tail lights."""
    ends = ((front, LAMP), (back, TAIL))
    return [
        _box((x - 0.03, x + 0.03), (z, z + 0.6 * size), size, colour, "matte", side * spread)
        for x, colour in ends
        for side in (-0.5, 0.5)
    ]


def _sedan(paint: Colour) -> list[Part]:
    cabin = _cabin((-1.65, 1.05), (-0.95, 0.25), (0.88, 1.45), (1.66, 1.26))
    return [
        _solid(_cabin((-2.3, 2.3), (-2.2, 2.1), (0.52, 0.88), (1.8, 1.66)), paint),
        _box((-2.3, 2.3), (0.26, 0.52), 1.8, paint),
        _solid(cabin, paint),
        *_panes(cabin, ("front", "back", "left", "right"), split=("left", "right")),
        *_wheels((-1.4, 1.4), 0.34, 1.86),
        *_lamps(2.29, -2.29, 0.58, 1.25),
    ]


def _suv(paint: Colour) -> list[Part]:
    cabin = _cabin((-2.3, 1.05), (-2.12, 0.45), (1.06, 1.8), (1.84, 1.56))
    rails = [_box((-1.9, 0.2), (1.8, 1.87), 0.06, STEEL, "matte", side * 0.66) for side in (-1, 1)]
    return [
        _box((-2.35, 2.3), (0.42, 1.06), 1.92, paint),
        _box((2.3, 2.36), (0.62, 0.92), 1.0, STEEL, "matte"),
        _solid(cabin, paint),
        *_panes(cabin, ("front", "back", "left", "right"), split=("left", "right"), inset=0.14),
        *rails,
        *_wheels((-1.42, 1.45), 0.42, 2.0, 0.3),
        *_lamps(2.31, -2.36, 0.75, 1.6),
    ]


def _pickup(paint: Colour) -> list[Part]:
    cabin = _cabin((-0.55, 1.25), (-0.4, 0.7), (1.05, 1.78), (1.8, 1.5))
    walls = [_box((-2.75, -0.55), (0.75, 1.18), 0.1, paint, y=side * 0.9) for side in (-1, 1)]
    return [
        _box((-0.55, 2.6), (0.45, 1.05), 1.9, paint),
        _solid(cabin, paint),
        *_panes(cabin, ("front", "back", "left", "right")),
        _box((-2.75, -0.55), (0.45, 0.75), 1.9, paint),
        _box((-2.7, -0.6), (0.75, 0.77), 1.7, STEEL, "matte"),
        *walls,
        _box((-2.75, -2.65), (0.75, 1.18), 1.9, paint),
        _box((2.6, 2.7), (0.45, 0.62), 1.9, STEEL, "matte"),
        *_wheels((-1.7, 1.65), 0.43, 2.0, 0.3),
        *_lamps(2.61, -2.76, 0.75, 1.5),
    ]


def _tilt(points: Floats, angle: float, pivot: tuple[float, float]) -> Floats:
    """Turn points (..., 3) about an axis along y through `pivot` (x, z), so that the front rises."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    x, z = points[..., 0] - pivot[0], points[..., 2] - pivot[1]
    return np.stack([pivot[0] + cos * x - sin * z, points[..., 1], pivot[1] + sin * x + cos * z], axis=-1)


def _dump_truck(paint: Colour) -> list[Part]:
    cab = _cabin((1.75, 3.1), (1.75, 2.85), (1.6, 2.45), (2.1, 1.9))
    walls = []
    for side in (-1, 1):
        wall = _corners((-3.1, 1.5), (1.15, 2.35), 0.12, side * 1.1)
        wall[0::2, 1] -= side * 0.25  # the bucket is narrower below
        wall[[1, 3], 0] -= 0.35
        walls.append(wall)
    bucket = [
        _corners((-3.1, 1.5), (1.05, 1.17), 1.9),
        *walls,
        _cabin((1.4, 1.52), (1.4, 1.52), (1.15, 2.35), (1.8, 2.3)),
        _corners((1.4, 2.5), (2.33, 2.45), 2.3),  # the shield over the cab
        *(_corners((x, x + 0.14), (1.3, 2.3), 0.1, side * 1.15) for x in (-2.2, -1.2, -0.2, 0.8) for side in (-1, 1)),
    ]
    return [
        _box((-3.0, 3.1), (0.65, 0.95), 1.0, STEEL, "matte"),
        _box((1.75, 3.2), (0.65, 1.6), 2.1, paint),
        _solid(cab, paint),
        *_panes(cab, ("front", "left", "right")),
        *(_solid(_tilt(corners, 20.0, (-2.9, 1.05)), paint) for corners in bucket),
        _solid(_tilt(_corners((-3.0, 1.4), (1.17, 1.19), 1.7), 20.0, (-2.9, 1.05)), STEEL, "matte"),
        _box((-0.4, 0.2), (0.95, 2.0), 0.3, STEEL, "matte"),  # what lifts the bucket
        *_wheels((-2.3, -1.1, 2.3), 0.56, 2.3, 0.42),
        *_lamps(3.21, -3.01, 0.95, 1.6, 0.34),
    ]


def _box_truck(paint: Colour) -> list[Part]:
    cab = _cabin((1.55, 3.1), (1.55, 2.6), (1.25, 2.15), (2.0, 1.8))
    return [
        _box((-3.2, 3.0), (0.5, 0.8), 1.0, STEEL, "matte"),
        _box((1.55, 3.15), (0.5, 1.25), 2.0, paint),
        _solid(cab, paint),
        *_panes(cab, ("front", "left", "right")),
        _box((-3.3, 1.4), (0.8, 3.2), 2.3, (0.93, 0.93, 0.92)),
        _box((-3.34, -3.3), (0.95, 3.05), 0.06, STEEL, "matte"),  # between the doors
        _box((-3.34, 1.42), (0.74, 0.88), 2.36, paint),
        *_wheels((-2.1, 2.3), 0.48, 2.15, 0.34),
        *_lamps(3.16, -3.36, 0.78, 1.6, 0.3),
    ]


def _jeep(paint: Colour) -> list[Part]:
    screen = _cabin((0.42, 0.5), (0.22, 0.3), (1.1, 1.72), (1.5, 1.4))
    posts = [_box((x, x + 0.08), (1.0, 1.75), 0.08, RUBBER, "matte", side * 0.66) for x in (-0.75, -1.7) for side in (-1, 1)]  # fmt: skip  # noqa: E501
    bars = [_box((-1.7, 0.3), (1.7, 1.78), 0.08, RUBBER, "matte", side * 0.66) for side in (-1, 1)]
    across = [_box((x, x + 0.08), (1.7, 1.78), 1.4, RUBBER, "matte") for x in (-0.75, -1.7)]
    fenders = [_box((x - 0.55, x + 0.55), (0.86, 0.94), 0.36, RUBBER, "matte", side * 0.86) for x in (-1.15, 1.3) for side in (-1, 1)]  # fmt: skip  # noqa: E501
    seats = [_box((x, x + 0.14), (0.8, 1.35), 0.45, RUBBER, "matte", side * 0.35) for x in (-0.5,) for side in (-1, 1)]
    round_lamps = [_cylinder((1.83, side * 0.5, 0.88), 0.14, 0.06, LAMP, axis=0) for side in (-1, 1)]
    slots = [_box((1.8, 1.83), (0.68, 1.0), 0.05, RUBBER, "matte", y) for y in (-0.24, -0.12, 0.0, 0.12, 0.24)]
    walls = [_box((-1.75, 0.5), (0.5, 0.98), 0.08, paint, y=side * 0.71) for side in (-1, 1)]
    return [
        _box((0.5, 1.8), (0.5, 1.08), 1.3, paint),
        _box((-1.75, 0.5), (0.45, 0.6), 1.5, paint),
        *walls,
        _box((-1.75, -1.67), (0.5, 0.98), 1.5, paint),
        _solid(screen, paint),
        *_panes(screen, ("front", "back"), inset=0.16),
        *posts, *bars, *across, *fenders, *seats, *round_lamps, *slots,
        _cylinder((-1.9, 0.0, 0.98), 0.4, 0.24, RUBBER, axis=0),  # the spare wheel
        _cylinder((-1.92, 0.0, 0.98), 0.2, 0.26, HUB, axis=0),
        _box((1.8, 1.95), (0.45, 0.58), 1.5, STEEL, "matte"),
        *_wheels((-1.15, 1.3), 0.43, 1.95, 0.34),
    ]  # fmt: skip


def _forklift(paint: Colour) -> list[Part]:
    posts = [_box((x, x + 0.08), (1.0, 2.1), 0.08, RUBBER, "matte", side * 0.46) for x in (-0.85, 0.45) for side in (-1, 1)]  # fmt: skip  # noqa: E501
    roof = [_box((-0.9 + 0.22 * i, -0.8 + 0.22 * i), (2.08, 2.15), 1.04, RUBBER, "matte") for i in range(7)]
    mast = [_box((0.86, 1.0), (0.12, 2.5), 0.13, STEEL, "matte", side * 0.4) for side in (-1, 1)]
    rungs = [_box((0.88, 0.98), (z, z + 0.12), 0.9, STEEL, "matte") for z in (0.6, 2.35)]
    forks = [_box((1.0, 2.2), (0.22, 0.29), 0.16, STEEL, "matte", side * 0.3) for side in (-1, 1)]
    shanks = [_box((1.0, 1.08), (0.22, 0.85), 0.16, STEEL, "matte", side * 0.3) for side in (-1, 1)]
    rear = _cabin((-1.35, -0.55), (-1.2, -0.55), (0.3, 1.12), (1.1, 1.0))
    return [
        _box((-0.55, 0.8), (0.3, 0.72), 1.05, paint),
        _solid(rear, paint),
        _box((0.6, 0.8), (0.72, 1.05), 1.0, paint),
        _box((-0.5, -0.05), (0.72, 0.9), 0.5, RUBBER, "matte"),
        _box((-0.55, -0.4), (0.9, 1.35), 0.5, RUBBER, "matte"),
        _box((0.98, 1.04), (0.5, 1.0), 0.95, STEEL, "matte"),
        *posts, *roof, *mast, *rungs, *forks, *shanks,
        *_wheels((0.55,), 0.36, 1.2, 0.26),
        *_wheels((-0.9,), 0.28, 1.12, 0.22),
    ]  # fmt: skip


#: Name of each vehicle: its own paint, and what builds it.
VEHICLES: dict[str, tuple[Colour, Callable[[Colour], list[Part]]]] = {
    "pickup": ((0.75, 0.12, 0.10), _pickup),
    "suv": ((0.10, 0.33, 0.22), _suv),
    "sedan": ((0.20, 0.42, 0.75), _sedan),
    "dump truck": ((0.95, 0.72, 0.08), _dump_truck),
    "box truck": ((0.15, 0.30, 0.60), _box_truck),
    "jeep": ((0.38, 0.42, 0.24), _jeep),
    "forklift": ((0.95, 0.50, 0.08), _forklift),
}
