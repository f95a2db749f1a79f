"""What is behind the vehicles: one colour, random colours, or a ground and a sky."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._stage import OPENING
from ._validation import check_numbers

__all__ = ["BACKGROUNDS", "Backdrop", "check_background"]

Floats = NDArray[np.float64]

BACKGROUNDS = ("flat", "random", "scenes")
GREY = 0.62


class Backdrop:
    """Makes the background of one view after the other.

    Parameters
    ----------
    kind : str or (3, size, size) array
        One of `BACKGROUNDS`, or a picture for all views.
    size : int
    rng : numpy Generator
        Drawn from by "random" and "scenes", in the order of the views.
    """

    def __init__(self, kind: str | Floats, size: int, rng: np.random.Generator) -> None:
        self._kind, self._size, self._rng = kind, size, rng

    def draw(self, elevation: float) -> Floats:
        """Background (3, size, size) of a view from `elevation` degrees."""
        if not isinstance(self._kind, str):
            return self._kind
        if self._kind == "flat":
            return np.full((3, self._size, self._size), GREY)
        return self._random() if self._kind == "random" else self._scene(elevation)

    def _random(self) -> Floats:
        """Two colours mixed by a smooth pattern, and a finer one in a colour of its own."""
        first, second, third = self._rng.random((3, 3, 1, 1))
        coarse, fine = _pattern(self._rng, self._size, 2.0), _pattern(self._rng, self._size, 7.0)
        mixed = first + (second - first) * (0.5 + 0.5 * coarse) + 0.2 * (third - 0.5) * fine
        return np.clip(mixed, 0.0, 1.0)

    def _scene(self, elevation: float) -> Floats:
        """Ground with a texture that grows finer towards the horizon, and a sky above it if the camera sees one."""
        rng = self._rng
        rows = (0.5 - (np.arange(self._size) + 0.5) / self._size) * 2 * np.tan(np.deg2rad(OPENING / 2))
        down = np.deg2rad(elevation) - np.arctan(rows)  # angle below the horizon of each row
        ground = _GROUNDS[rng.integers(len(_GROUNDS))] * rng.uniform(0.7, 1.2)
        sky = np.array([0.55, 0.72, 0.95]) * rng.uniform(0.6, 1.1)
        texture = _pattern(rng, self._size, rng.uniform(3.0, 9.0))
        fade = np.clip(down / np.deg2rad(15.0), 0.15, 1.0)[:, None]
        below = ground[:, None, None] * (1 + 0.35 * fade * texture)
        above = sky[:, None, None] + (1 - sky[:, None, None]) * np.clip(1 + down / np.deg2rad(12.0), 0, 1)[:, None]
        hills = 0.02 * _pattern(rng, self._size, 4.0)[0]  # the horizon is not straight
        # A soft edge: half a row wide, so that the horizon moves smoothly with the elevation.
        edge = np.clip(0.5 + (down[:, None] + hills) / np.deg2rad(OPENING / self._size), 0.0, 1.0)
        return np.clip(edge * below + (1 - edge) * above, 0.0, 1.0)


_GROUNDS = np.array([[0.45, 0.45, 0.46], [0.36, 0.45, 0.24], [0.72, 0.62, 0.44], [0.55, 0.42, 0.32]])


def _pattern(rng: np.random.Generator, size: int, waves: float) -> Floats:
    """A smooth random pattern (size, size), of about so many waves across, within [-1, 1]."""
    x = np.arange(size) / size
    angle, phase = rng.uniform(0, 2 * np.pi, (2, 8))
    speed = 2 * np.pi * waves * rng.uniform(0.5, 1.0, 8)
    along = np.cos(angle) * speed, np.sin(angle) * speed
    pattern = np.zeros((size, size))
    for a, b, c in zip(*along, phase, strict=True):
        pattern += np.sin(a * x[None, :] + b * x[:, None] + c)
    return pattern / np.abs(pattern).max()


def check_background(background: Any, size: int) -> str | Floats:
    """One of the kinds, or a picture in [0, 1]."""
    if isinstance(background, str):
        if background not in BACKGROUNDS:
            raise ValueError(f"background must be one of {', '.join(BACKGROUNDS)}, or a picture, got {background!r}")
        return background
    expected = (
        f"background must be one of {', '.join(BACKGROUNDS)}, or a picture of shape (3, {size}, {size}) with values in "
        "[0, 1]"
    )
    try:
        picture = check_numbers(background, "background")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{expected}: {error}") from error
    if picture.shape != (3, size, size):
        raise ValueError(f"{expected}, got shape {picture.shape}")
    if picture.min() < 0 or picture.max() > 1:
        hint = ": divide by 255" if 1 < picture.max() <= 255 and picture.min() >= 0 else ""
        raise ValueError(f"{expected}, got values from {picture.min():g} to {picture.max():g}{hint}")
    return picture
