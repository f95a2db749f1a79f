"""Random homographies of the plane, and images seen under them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import as_array, as_tensor, like
from ._validation import check_count, check_real, check_rng

__all__ = ["HOMOGRAPHY_GENERATORS", "random_homographies", "warp_homographies"]


def _unit(row: int, column: int) -> NDArray[np.float64]:
    matrix = np.zeros((3, 3))
    matrix[row, column] = 1.0
    return matrix


#: Basis of sl(3, R), (8, 3, 3): translation along x and y, rotation, scale, stretch, shear, perspective in x and y.
HOMOGRAPHY_GENERATORS: NDArray[np.float64] = np.stack(
    [
        _unit(0, 2),
        _unit(1, 2),
        _unit(1, 0) - _unit(0, 1),
        np.diag([1.0, 1.0, -2.0]),
        np.diag([1.0, -1.0, 0.0]),
        _unit(0, 1) + _unit(1, 0),
        _unit(2, 0),
        _unit(2, 1),
    ]
)
HOMOGRAPHY_GENERATORS.setflags(write=False)

#: Standard deviations at scale 1: digits keep most of their strokes inside the picture at scale 0.5.
_STRENGTHS = (0.3, 0.3, 1.0, 0.15, 0.3, 0.3, 0.4, 0.4)


def random_homographies(
    n_samples: int, *, scale: float = 0.5, strengths: Any = _STRENGTHS, random_state: Any = None
) -> NDArray[np.float64]:
    r"""Draw homographies near the identity through the exponential of their Lie algebra.

    .. math:: H = \exp \sum_{i=1}^{8} c_i B_i, \qquad c_i \sim N(0, (\text{scale} \cdot s_i)^2),

    with the eight generators :math:`B_i` of :math:`sl(3, \mathbb{R})` in :data:`HOMOGRAPHY_GENERATORS`. They act on
    homogeneous coordinates (x, y, 1) of the picture, which spans [-1, 1] in both, x to the right and y downwards.

    Parameters
    ----------
    n_samples : int
        How many.
    scale : float, default 0.5
        Common factor of the strengths, at least 0.
    strengths : array-like (8,), default (0.3, 0.3, 1, 0.15, 0.3, 0.3, 0.4, 0.4)
        The :math:`s_i`: translations in half widths of the picture, rotation in radians, scale, stretch, shear,
        and the two perspectives. Zeros leave out a kind of motion.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness.

    Returns
    -------
    (n_samples, 3, 3) float64 array
        Of determinant 1.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    References
    ----------
    .. [1] T. Mitchel, M. Taylor and V. Sitzmann. "Neural isometries: taming transformations for equivariant ML".
       NeurIPS 2024. The strengths are our own: the paper's summary does not give them.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import random_homographies
    >>> H = random_homographies(100, random_state=0)
    >>> H.shape, bool(np.allclose(np.linalg.det(H), 1.0))
    ((100, 3, 3), True)
    """
    n = check_count(n_samples)
    scale = check_real(scale, "scale", 0.0)
    weights = as_array(strengths, "strengths")
    if weights.shape != (8,) or weights.min() < 0.0:
        raise ValueError(f"strengths must be 8 numbers >= 0, one for each generator of sl(3), got {strengths!r}")
    coefficients = scale * weights * check_rng(random_state).standard_normal((n, 8))
    algebra = np.einsum("ni,ijk->njk", coefficients, HOMOGRAPHY_GENERATORS)
    return torch.linalg.matrix_exp(torch.from_numpy(algebra)).numpy()


def warp_homographies(images: Any, homographies: Any) -> Any:
    r"""Move the content of each image by a homography, with bilinear interpolation.

    The value at a point p of the answer is the value of the image at :math:`H^{-1} p`; outside the picture there is 0,
    and so there is where :math:`H^{-1} p` lies beyond the horizon, seen from the centre of the picture. H and its
    multiples are the same homography. Derivatives flow to images that are tensors.

    Parameters
    ----------
    images : array or Tensor (n, height, width) or (n, channels, height, width)
        Floating numbers.
    homographies : array or Tensor (n, 3, 3) or (3, 3)
        Invertible, in the coordinates of :func:`random_homographies`; one matrix serves all images.

    Returns
    -------
    array or Tensor
        Of the shape, kind, dtype and device of `images`.

    Raises
    ------
    TypeError, ValueError
        If images are no floating numbers, shapes do not fit, a number is NaN or infinite, or a matrix is singular.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import warp_homographies
    >>> picture = np.zeros((1, 2, 2)); picture[0, 0, 0] = 1.0
    >>> one_pixel_right = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> warp_homographies(picture, one_pixel_right)[0]
    array([[0., 1.],
           [0., 0.]])
    """
    pictures = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if not pictures.is_floating_point():
        raise TypeError(f"images must hold floating numbers, got dtype {pictures.dtype}: scale bytes by x / 255.0")
    if pictures.ndim not in (3, 4) or pictures.numel() == 0:
        raise ValueError(
            f"images must have shape (n, height, width) or (n, channels, height, width), got {tuple(pictures.shape)}"
        )
    if not torch.isfinite(pictures).all():
        raise ValueError("images contain NaN or infinity: remove or impute those entries first")
    matrices = as_tensor(homographies, "homographies", device=pictures.device)
    n = len(pictures)
    if matrices.shape not in ((n, 3, 3), (3, 3)):
        raise ValueError(
            f"homographies must have shape ({n}, 3, 3), one for each image, or (3, 3), got {tuple(matrices.shape)}"
        )
    inverse, info = torch.linalg.inv_ex(matrices)
    if info.any() or not torch.isfinite(inverse).all():
        raise ValueError("homographies must be invertible, and at least one is singular")
    grid = _positions(inverse.expand(n, 3, 3), *pictures.shape[-2:])
    stack = pictures if pictures.ndim == 4 else pictures[:, None]
    warped = torch.nn.functional.grid_sample(
        stack, grid.to(stack.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    warped = warped.reshape(pictures.shape)
    return warped if isinstance(images, Tensor) else like(warped, images)


def _positions(inverse: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the answer is in the image, (n, height, width, 2), outside of it beyond the horizon."""
    # The sign of a homography has no meaning: the centre is to lie on the near side.
    inverse = torch.where(inverse[:, 2:, 2:] < 0, -inverse, inverse)
    x, y = (
        (2.0 * torch.arange(size, dtype=inverse.dtype, device=inverse.device) + 1.0) / size - 1.0
        for size in (width, height)
    )
    points = torch.stack(
        [x[None, :].expand(height, width), y[:, None].expand(height, width), x.new_ones(height, width)], dim=-1
    )
    moved = torch.einsum("nij,hwj->nhwi", inverse, points)
    depth = moved[..., 2:]
    tiny = 1e-9 * inverse.abs().amax(dim=(1, 2))[:, None, None, None]
    return torch.where(depth > tiny, moved[..., :2] / torch.maximum(depth, tiny), -4.0).clamp(-4.0, 4.0)
