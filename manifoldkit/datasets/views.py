"""Several views of one image under unknown transformations, made on the fly: what isometries are learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import as_tensor
from ._validation import check_count, check_real, check_rng
from .homographies import random_homographies, warp_homographies

__all__ = ["HomographyViews", "ShiftViews"]


class HomographyViews:
    """Views of images under random homographies.

    Parameters
    ----------
    images : array or Tensor (n, height, width)
        The images to draw from, for example those of :func:`load_mnist`.
    n_views : int, default 2
        Pairs, or triplets with 3.
    scale : float, default 0.5
        Of :func:`random_homographies`, whose default strengths are used.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness; each draw is a new one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import HomographyViews
    >>> views = HomographyViews(np.ones((5, 28, 28)), random_state=0)
    >>> views.draw(16).shape
    torch.Size([2, 16, 1, 28, 28])
    """

    def __init__(self, images: Any, *, n_views: int = 2, scale: float = 0.5, random_state: Any = None) -> None:
        self.images = _read_images(images)
        self.n_views = check_count(n_views, "n_views", 2)
        self.scale = check_real(scale, "scale", 0.0)
        self._rng = check_rng(random_state)

    def draw(self, n_samples: int) -> Tensor:
        """`n_samples` images, each under `n_views` homographies: (n_views, n_samples, 1, height, width), float32."""
        n = check_count(n_samples)
        chosen = self.images[torch.from_numpy(self._rng.integers(len(self.images), size=n))]
        matrices = random_homographies(self.n_views * n, scale=self.scale, random_state=self._rng)
        views = warp_homographies(chosen.repeat(self.n_views, 1, 1), matrices)
        return views.reshape(self.n_views, n, 1, *views.shape[1:])


class ShiftViews:
    """Stacks of images under random cyclic shifts, which act on all images of a stack alike.

    Parameters
    ----------
    images : array or Tensor (n, height, width)
        The images to draw from, without repetition within a stack.
    channels : int
        Images in each stack, at most n.
    shifts : int array (m, 2), optional
        Rows and columns to shift by, drawn from uniformly; default: every shift. Leave some out to test on them.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness; each draw is a new one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import ShiftViews
    >>> views = ShiftViews(np.random.default_rng(0).standard_normal((50, 8, 8)), channels=20, random_state=0)
    >>> views.draw(4).shape
    torch.Size([2, 4, 20, 8, 8])
    """

    n_views = 2

    def __init__(self, images: Any, channels: int, *, shifts: Any = None, random_state: Any = None) -> None:
        self.images = _read_images(images)
        self.channels = check_count(channels, "channels")
        if self.channels > len(self.images):
            raise ValueError(f"channels must be at most the {len(self.images)} images, got {channels}")
        height, width = self.images.shape[1:]
        given = np.argwhere(np.ones((height, width))) if shifts is None else np.array(shifts)
        if given.ndim != 2 or given.shape[1] != 2 or not len(given) or given.dtype.kind not in "iu":
            raise ValueError(
                f"shifts must be pairs of integers, (m, 2), got shape {given.shape} and dtype {given.dtype}"
            )
        self.shifts: NDArray[np.int64] = given.astype(np.int64)
        self._rng = check_rng(random_state)

    def draw(self, n_samples: int) -> Tensor:
        """`n_samples` stacks before and after a shift: (2, n_samples, channels, height, width), float32."""
        n = check_count(n_samples)
        before = torch.stack(
            [self.images[self._rng.choice(len(self.images), self.channels, replace=False)] for _ in range(n)]
        )
        drawn = self.shifts[self._rng.integers(len(self.shifts), size=n)]
        after = [torch.roll(stack, tuple(shift), (1, 2)) for stack, shift in zip(before, drawn.tolist(), strict=True)]
        return torch.stack([before, torch.stack(after)])


def _read_images(images: Any) -> Tensor:
    dtype = images.dtype if isinstance(images, Tensor) else np.asarray(images).dtype
    if str(dtype).removeprefix("torch.") == "uint8":
        raise TypeError("images must hold floating numbers, got dtype uint8: scale bytes by images / 255.0")
    tensor = as_tensor(images, "images", device="cpu").float()
    if tensor.ndim != 3 or tensor.numel() == 0:
        raise ValueError(f"images must have shape (n, height, width), got {tuple(tensor.shape)}")
    return tensor
