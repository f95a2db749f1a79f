"""One picture under rotation and scale: a surface in image space whose coordinates are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .._arrays import as_array, like
from ._validation import check_count, check_real, check_rng

__all__ = ["RenderedImages", "make_rotated_digit", "render_digit"]

Order: TypeAlias = Literal[0, 1, 2, 3, 4, 5]


@dataclass(frozen=True, eq=False)
class RenderedImages:
    """Renderings of one picture and the coordinates at which they were made.

    Attributes
    ----------
    images : (n, height, width) array or tensor
        Values in [0, 1], of the kind and floating dtype of the picture.
    parameters : (n, 2) float64 array
        Angle in degrees and scale of each image.
    parameter_names : tuple of str
        Names of the two columns.
    """

    images: Any
    parameters: NDArray[np.float64]
    parameter_names: tuple[str, ...] = ("angle", "scale")


def render_digit(image: Any, angle: float, scale: float = 1.0, *, order: int = 3) -> Any:
    r"""Turn and scale a picture about its centre.

    A pixel at the position p relative to the centre takes the value of the picture at
    :math:`R(-\text{angle})\, p / \text{scale}`, interpolated by splines; outside the picture there is 0.

    Parameters
    ----------
    image : (height, width) array or tensor
        Values in [0, 1].
    angle : float
        Degrees, counter-clockwise as the picture is displayed (first row on top).
    scale : float, default 1.0
        Larger than 1 enlarges.
    order : int, default 3
        Degree of the splines, 0 to 5. Cubic splines make images that depend smoothly on the angle, up to the clipping
        of overshoots to [0, 1]; 1 is bilinear, with kinks wherever a sampling position crosses a pixel.

    Returns
    -------
    (height, width) array or tensor
        The rendered picture, of the kind and floating dtype of `image`.

    Raises
    ------
    TypeError, ValueError
        If the picture is not a matrix of numbers in [0, 1], or an argument lies outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import render_digit
    >>> picture = np.zeros((3, 3)); picture[0, 1] = 1.0
    >>> render_digit(picture, 90.0, order=1).round(3) + 0.0
    array([[0., 0., 0.],
           [1., 0., 0.],
           [0., 0., 0.]])
    """
    picture = _check_image(image)
    angle = check_real(angle, "angle")
    scale = check_real(scale, "scale", 0.0, open_low=True)
    return like(_render(picture, angle, scale, _check_order(order)), image)


def make_rotated_digit(
    image: Any,
    *,
    angles: Any,
    scales: Any = 1.0,
    n_samples: int | None = None,
    order: int = 3,
    random_state: Any = None,
) -> RenderedImages:
    """Render one picture at many angles and scales: a manifold of images with known coordinates.

    Image i is exactly ``render_digit(image, *parameters[i], order=order)``, so that coordinates which a method reads
    off can be rendered again and compared.

    Parameters
    ----------
    image : (height, width) array or tensor
        Values in [0, 1], for example an image from :func:`load_mnist`.
    angles : array-like or float
        Degrees, counter-clockwise. All values of the lattice; or, with `n_samples`, the ends (lowest, highest) of the
        range to draw from. A single number is a constant.
    scales : array-like or float, default 1.0
        The same for the scale.
    n_samples : int, optional
        Draw that many angles and scales uniformly and independently. By default, take the lattice of all pairs of
        `angles` and `scales`, angles slowest.
    order : int, default 3
        Degree of the interpolating splines, 0 to 5.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness, used with `n_samples` only.

    Returns
    -------
    RenderedImages
        With `images` (n, height, width) and `parameters` (n, 2), the angle in degrees and the scale.

    Raises
    ------
    TypeError, ValueError
        If the picture is not a matrix of numbers in [0, 1], or an argument lies outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import make_rotated_digit
    >>> bar = np.zeros((28, 28)); bar[6:22, 13:15] = 1.0
    >>> turned = make_rotated_digit(bar, angles=np.arange(0, 360, 10), scales=[0.8, 1.0])
    >>> turned.images.shape, turned.parameters[1]
    ((72, 28, 28), array([0., 1.]))
    """
    picture = _check_image(image)
    degree = _check_order(order)
    angle_values, scale_values = _check_values(angles, "angles"), _check_values(scales, "scales")
    if scale_values.min() <= 0.0:
        raise ValueError(f"scales must be positive, got {scale_values.min()}: 1 keeps the size")
    if n_samples is None:
        pairs = np.meshgrid(angle_values, scale_values, indexing="ij")
        parameters = np.stack(pairs, axis=-1).reshape(-1, 2)
    else:
        n = check_count(n_samples)
        rng = check_rng(random_state)
        ranges = np.array([_check_range(angle_values, "angles"), _check_range(scale_values, "scales")])
        parameters = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * rng.random((n, 2))
    images = np.stack([_render(picture, angle, scale, degree) for angle, scale in parameters])
    return RenderedImages(like(images, image), parameters)


def _render(picture: NDArray[np.float64], angle: float, scale: float, order: Order) -> NDArray[np.float64]:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    # Rows count downwards, which turns the usual sign of the sine around.
    matrix = np.array([[cos, sin], [-sin, cos]]) / scale
    centre = (np.array(picture.shape) - 1.0) / 2.0
    # "grid-constant" also interpolates at the border, where rounding may put a position 1e-16 outside.
    rendered = ndimage.affine_transform(
        picture, matrix, offset=centre - matrix @ centre, order=order, mode="grid-constant", cval=0.0
    )
    return np.clip(rendered, 0.0, 1.0)


def _check_image(image: Any) -> NDArray[np.float64]:
    picture = as_array(image, "image")
    if picture.ndim != 2 or picture.size == 0:
        raise ValueError(f"image must have shape (height, width), got {picture.shape}: pass one picture, images[i]")
    if picture.min() < 0.0 or picture.max() > 1.0:
        raise ValueError(
            f"image must hold values in [0, 1], got [{picture.min():g}, {picture.max():g}]: divide bytes by 255"
        )
    return picture


def _check_order(order: Any) -> Order:
    order = check_count(order, "order", 0)
    if order > 5:
        raise ValueError(f"order must be a spline degree from 0 to 5, got {order}: 3 is cubic")
    return cast("Order", order)


def _check_values(values: Any, name: str) -> NDArray[np.float64]:
    array = np.atleast_1d(as_array(values, name))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a number or a list of numbers, got shape {array.shape}: flatten it first")
    return array


def _check_range(values: NDArray[np.float64], name: str) -> tuple[float, float]:
    if values.size > 2 or values[0] > values[-1]:
        raise ValueError(
            f"{name} must be a number or a pair (lowest, highest) when n_samples is given, "
            f"got {values.tolist()}: leave n_samples out to render a list"
        )
    return float(values[0]), float(values[-1])
