"""Images with binary attributes, as every source of them returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AttributedImages"]


class AttributedImages(NamedTuple):
    """Colour images and their binary attributes; unpacks as ``images, attributes, names``.

    Attributes
    ----------
    images : (n, 3, height, width) float32 array
        Values in [0, 1].
    attributes : (n, a) int64 array
        0 or 1.
    names : tuple of a str
    """

    images: NDArray[np.float32]
    attributes: NDArray[np.int64]
    names: tuple[str, ...]
