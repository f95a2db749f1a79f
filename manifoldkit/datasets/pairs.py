"""Two digits side by side: images with a known product structure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._validation import check_count, check_flag, check_rng
from .mnist import load_mnist

__all__ = ["DigitPairs", "load_digit_pairs"]


class DigitPairs(NamedTuple):
    """Images of two digits and their labels; unpacks as ``images, labels``.

    Attributes
    ----------
    images : (n, 28 / pool, 56 / pool) float32 array
        Values in [0, 1], 0 is the background.
    labels : (n, 2) int64 array
        The left and the right digit.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_digit_pairs(
    split: Literal["train", "test"] = "train",
    n_samples: int = 10_000,
    *,
    digits: Any = range(6),
    pool: int = 1,
    download: bool = True,
    random_state: Any = None,
) -> DigitPairs:
    """Two-digit MNIST: the left and the right digit are drawn independently, uniformly by class.

    With the six digits of the default there are 36 classes, equally likely. Pairs of the training split are made of
    MNIST's training digits, pairs of the test split of its test digits, so that no digit is in both.

    Parameters
    ----------
    split : {"train", "test"}, default "train"
    n_samples : int, default 10000
        Number of pairs.
    digits : sequence of int, default 0 to 5
        Classes that occur.
    pool : {1, 2, 4}, default 1
        Side of the squares of pixels that are averaged; 2 makes images of 14 x 28.
    download : bool, default True
        Of :func:`load_mnist`.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    DigitPairs

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ImportError, OSError
        As :func:`load_mnist`, and if `pool` is another number.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers in
       Computer Science 5, 2023.

    Examples
    --------
    >>> from manifoldkit.datasets import load_digit_pairs
    >>> images, labels = load_digit_pairs("test", 100, pool=2, random_state=0)
    >>> images.shape, labels.shape, int(labels.max())
    ((100, 14, 28), (100, 2), 5)
    """
    n, side = check_count(n_samples), check_count(pool, "pool")
    if side not in (1, 2, 4):
        raise ValueError(f"pool must be 1, 2 or 4, got {side}")
    rng = check_rng(random_state)
    singles, classes = load_mnist(split, classes=list(digits) if isinstance(digits, range) else digits,
                                  download=check_flag(download, "download"))  # fmt: skip
    if side > 1:
        singles = singles.reshape(-1, 28 // side, side, 28 // side, side).mean(axis=(2, 4))
    present = np.unique(classes)
    labels = present[rng.integers(len(present), size=(n, 2))]
    rows = np.empty((n, 2), dtype=np.int64)
    for digit in present:
        wanted = labels == digit
        rows[wanted] = rng.choice(np.flatnonzero(classes == digit), size=int(wanted.sum()))
    images = np.concatenate([singles[rows[:, 0]], singles[rows[:, 1]]], axis=2)
    return DigitPairs(images, labels.astype(np.int64))
