"""Drawn faces with binary attributes: what face data sets are, small, free and with a known law."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._validation import check_count, check_rng
from .attributed import AttributedImages

__all__ = ["FACE_ATTRIBUTES", "draw_faces", "face_is_possible", "make_faces"]

#: Names of the attributes, in the order of their columns.
FACE_ATTRIBUTES = ("male", "bald", "beard", "lipstick", "long_hair", "glasses", "smiling", "blue_background")

_SKIN = np.array([[0.96, 0.80, 0.69], [0.55, 0.36, 0.26]])  # ends of the range of skin colours
_HAIR = np.array([[0.85, 0.68, 0.30], [0.15, 0.10, 0.08]])
_SHIFT, _EDGE = 0.06, 0.04  # range of the position, softness of the edges, in half-widths of the image

Floats = NDArray[np.float64]


def make_faces(n_samples: int = 1000, *, size: int = 24, random_state: Any = None) -> AttributedImages:
    r"""Drawn faces with eight binary attributes, correlated, some combinations impossible.

    The law of the attributes, each 0 or 1:

    ================== ======================================================================
    male               p = 1/2; a longer, wider jaw and thicker brows: global
    bald               0.3 if male, else impossible
    beard              0.4 if male, else impossible
    lipstick           0.6 if not male, else impossible
    long_hair          0.75 if not male, 0.15 if male and not bald; impossible if bald
    glasses            0.5 if bald, else 0.25
    smiling            1/2, independent
    blue_background    1/2, independent
    ================== ======================================================================

    Smiles, glasses, lipstick and beards are local, a few pixels. Position, colours of skin and hair, and brightness
    vary as well, uniformly and independently of the attributes.

    Parameters
    ----------
    n_samples : int, default 1000
    size : int, default 24
        Height and width in pixels, 16 at least.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    AttributedImages

    Raises
    ------
    TypeError, ValueError
        If an argument lies outside its range.

    Examples
    --------
    >>> from manifoldkit.datasets import make_faces
    >>> images, attributes, names = make_faces(100, random_state=0)
    >>> images.shape, attributes.shape
    ((100, 3, 24, 24), (100, 8))
    >>> male, bald = attributes[:, names.index("male")], attributes[:, names.index("bald")]
    >>> bool((bald <= male).all())
    True
    """
    n, rng = check_count(n_samples), check_rng(random_state)
    u = rng.random((n, len(FACE_ATTRIBUTES)))
    male = u[:, 0] < 0.5
    bald = male & (u[:, 1] < 0.3)
    beard = male & (u[:, 2] < 0.4)
    lipstick = ~male & (u[:, 3] < 0.6)
    long_hair = ~bald & (u[:, 4] < np.where(male, 0.15, 0.75))
    glasses = u[:, 5] < np.where(bald, 0.5, 0.25)
    chosen = [male, bald, beard, lipstick, long_hair, glasses, u[:, 6] < 0.5, u[:, 7] < 0.5]
    attributes = np.column_stack(chosen).astype(np.int64)
    return AttributedImages(draw_faces(attributes, rng.random((n, 5)), size=size), attributes, FACE_ATTRIBUTES)


def face_is_possible(attributes: Any) -> NDArray[np.bool_]:
    """Whether combinations of attributes (n, 8) occur in :func:`make_faces`.

    Examples
    --------
    >>> from manifoldkit.datasets import face_is_possible
    >>> face_is_possible([[1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]])  # a bald man, a bald woman
    array([ True, False])
    """
    male, bald, beard, lipstick, long_hair = _binary(attributes)[:, :5].astype(bool).T
    return ~((bald & ~male) | (beard & ~male) | (lipstick & male) | (long_hair & bald))


def draw_faces(attributes: Any, variation: Any = None, *, size: int = 24) -> NDArray[np.float32]:
    """Faces with given attributes, possible or not.

    Parameters
    ----------
    attributes : array (n, 8)
        0 or 1, in the order of :data:`FACE_ATTRIBUTES`.
    variation : array (n, 5), optional
        Horizontal and vertical position, skin, hair and brightness, in [0, 1]; all 1/2 by default.
    size : int, default 24

    Returns
    -------
    (n, 3, size, size) float32 array
        Values in [0, 1].

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit or numbers lie outside their ranges.

    Examples
    --------
    >>> from manifoldkit.datasets import draw_faces
    >>> plain, smile = draw_faces([[0] * 8, [0, 0, 0, 0, 0, 0, 1, 0]])
    >>> float((plain != smile).any(axis=0).mean()) < 0.25
    True
    """
    flags = _binary(attributes)
    side = check_count(size, "size", 16)
    vary = np.full((len(flags), 5), 0.5) if variation is None else np.asarray(variation, dtype=np.float64)
    if vary.shape != (len(flags), 5) or not ((vary >= 0) & (vary <= 1)).all():
        raise ValueError(f"variation must have shape {(len(flags), 5)} and values in [0, 1], got shape {vary.shape}")
    male, bald, beard, lipstick, long_hair, glasses, smiling = (f[:, None, None] for f in flags[:, :7].T.astype(float))
    grid = (np.arange(side) + 0.5) / side * 2 - 1  # pixel centres between -1 and 1
    x = grid[None, None, :] - _SHIFT * (2 * vary[:, 0, None, None] - 1)
    y = grid[None, :, None] - _SHIFT * (2 * vary[:, 1, None, None] - 1)
    skin, hair = (ends[0] + vary[:, k, None] * (ends[1] - ends[0]) for k, ends in ((2, _SKIN), (3, _HAIR)))
    canvas = np.broadcast_to(np.array([0.85, 0.85, 0.80]), (len(flags), 3))
    picture = np.where(flags[:, 7, None] == 1, np.array([0.35, 0.55, 0.85]), canvas)[:, :, None, None]
    picture = picture * np.ones((1, 1, side, side))

    def paint(mask: Floats, colour: Floats, opacity: float | Floats = 1.0) -> None:
        nonlocal picture
        cover = (mask * opacity)[:, None]
        picture = picture * (1 - cover) + cover * colour.reshape(-1, 3)[:, :, None, None]

    wide, tall = 0.48 + 0.08 * male, 0.60 + 0.10 * male
    head = _ellipse(x, y - 0.05, wide, tall)
    paint(_ellipse(x, y - 0.15, wide + 0.22, 0.80) * _below(y, -0.9), hair, long_hair)
    paint(_ellipse(x, y + 0.12, wide + 0.10, tall), hair, 1 - bald)
    paint(head, skin)
    paint(head * _below(-y, 0.30), hair, 1 - bald)  # a fringe above y = -0.3
    paint(head * _below(y, 0.28), hair * 0.8, beard)
    dark = np.array([0.08, 0.08, 0.10])
    for sign in (-1.0, 1.0):
        eye = x - sign * 0.22
        paint(_ellipse(eye, y + 0.05, 0.07, 0.07), dark)
        paint(_box(eye, y + 0.20, 0.13, 0.02 + 0.035 * male), dark, 0.5 + 0.5 * male)
        ring = _ellipse(eye, y + 0.05, 0.19, 0.17) - _ellipse(eye, y + 0.05, 0.12, 0.10)
        paint(np.clip(ring, 0, 1), dark, glasses)
    paint(_box(x, y + 0.05, 0.06, 0.03), dark, glasses)
    lips = np.where(flags[:, 3, None] == 1, np.array([0.85, 0.05, 0.20]), skin * 0.55)
    paint(_box(x, y - 0.38, 0.20, 0.05 + 0.02 * lipstick), lips, 1 - smiling)
    smile = _ellipse(x, y - 0.30, 0.29, 0.24) * _below(y, 0.33)  # the lower part of an ellipse: lips around teeth
    paint(smile, lips, smiling)
    paint(_ellipse(x, y - 0.32, 0.20, 0.14) * _below(y, 0.35), np.array([0.97, 0.97, 0.95]), smiling)
    brightness = 0.85 + 0.15 * vary[:, 4, None, None, None]
    return np.clip(picture * brightness, 0.0, 1.0).astype(np.float32)


def _step(depth: Floats) -> Floats:
    """1 inside, 0 outside, with a soft edge of fixed width."""
    return 1 / (1 + np.exp(-np.clip(depth / (_EDGE / 4), -40, 40)))


def _ellipse(x: Floats, y: Floats, a: Any, b: Any) -> Floats:
    return _step((1 - np.hypot(x / a, y / b)) * np.minimum(a, b))


def _box(x: Floats, y: Floats, a: Any, b: Any) -> Floats:
    return _step(a - np.abs(x)) * _step(b - np.abs(y))


def _below(y: Floats, edge: float) -> Floats:
    """Where y, which grows downwards, exceeds the edge."""
    return _step(y - edge)


def _binary(attributes: Any) -> NDArray[np.int64]:
    flags = np.asarray(attributes)
    if flags.ndim != 2 or flags.shape[1] != len(FACE_ATTRIBUTES) or len(flags) == 0:
        raise ValueError(
            f"attributes must have shape (n, {len(FACE_ATTRIBUTES)}), in the order of FACE_ATTRIBUTES, got "
            f"{flags.shape}"
        )
    if not np.isin(flags, (0, 1)).all():
        raise ValueError("attributes must be 0 or 1: recode -1 as 0")
    return flags.astype(np.int64)
