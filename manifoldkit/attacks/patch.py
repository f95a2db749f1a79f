"""Attacks that repaint a few pixels and leave the others alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from manifoldkit.attacks._input import read_number, read_steps
from manifoldkit.attacks.constraints import Constraint
from manifoldkit.attacks.losses import Loss
from manifoldkit.attacks.pgd import PGD
from manifoldkit.attacks.steps import NesterovSteps, StepRule
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["Masked", "PatchPGD", "read_mask", "rectangle_mask"]


def rectangle_mask(shape: Sequence[int], top: int, left: int, height: int, width: int) -> torch.Tensor:
    """Mask of an image that is 1 in a rectangle of pixels and 0 elsewhere, for patch attacks and purification.

    Parameters
    ----------
    shape : (..., H, W)
        Shape of an image; leading axes (channels) share the rectangle.
    top, left : int
        First row and column.
    height, width : int
        Rows and columns, at least one each.

    Returns
    -------
    Tensor of that shape, float32

    Raises
    ------
    TypeError, ValueError
        If a number is no integer, or the rectangle is empty or leaves the image.

    Examples
    --------
    >>> rectangle_mask((3, 4), 0, 1, 2, 2)
    tensor([[0., 1., 1., 0.],
            [0., 1., 1., 0.],
            [0., 0., 0., 0.]])
    """
    if len(shape) < 2:
        raise ValueError(f"shape must end in height and width, got {tuple(shape)}")
    rows, columns = shape[-2:]
    top, left = read_steps(top, "top", 0), read_steps(left, "left", 0)
    height, width = read_steps(height, "height", 1), read_steps(width, "width", 1)
    if top + height > rows or left + width > columns:
        raise ValueError(
            f"the rectangle ends at row {top + height} and column {left + width}, outside an image of {rows} x "
            f"{columns}: move or shrink it"
        )
    mask = torch.zeros(tuple(shape))
    mask[..., top : top + height, left : left + width] = 1.0
    return mask


def check_mask(mask: torch.Tensor) -> None:
    """Refuse numbers other than 0 and 1."""
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold zeros and ones alone, 1 where pixels may change")


def read_mask(mask: Any, images: torch.Tensor) -> torch.Tensor:
    """A mask of zeros and ones that broadcasts to the images, as bool in their shape (B, ...)."""
    tensor = torch.as_tensor(mask, device=images.device).detach()
    check_mask(tensor)
    try:
        full = tensor.bool().expand(images.shape)
    except RuntimeError as error:
        raise ValueError(
            f"mask of shape {tuple(tensor.shape)} does not broadcast to images of shape {tuple(images.shape)}"
        ) from error
    if not full.flatten(1).any(1).all():
        raise ValueError("mask has no ones for at least one image, so nothing may change: mark pixels with 1")
    return full


class Masked(Constraint):
    """Another constraint on the pixels of a mask; all other pixels stay as they are.

    Parameters
    ----------
    inner : LinfBall or L2Ball
        Bound to `images`.
    images : Tensor (B, ...)
    mask : bool Tensor (B, ...)
        True where pixels may change.
    """

    def __init__(self, inner: Constraint, images: torch.Tensor, mask: torch.Tensor) -> None:
        self.inner, self.images, self.mask = inner, images, mask

    def start(self) -> torch.Tensor:
        return self.images

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        return torch.where(self.mask, self.inner.random_start(generator), self.images)

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is not None
        return self.inner.direction(x, gradient * self.mask)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner.project(torch.where(self.mask, x, self.images))

    def select(self, keep: torch.Tensor) -> None:
        self.inner.select(keep)
        self.images, self.mask = self.images[keep], self.mask[keep]


class PatchPGD(PGD):
    r"""Projected gradient descent on the pixels of a patch, any value within the bounds being allowed there.

    .. math:: x \leftarrow \operatorname{clip}(x + \alpha\, M \odot \operatorname{sign} \nabla_x L)

    or, with `nesterov` > 0, along a sum of normalised gradients taken at a look-ahead point (see
    :class:`~manifoldkit.attacks.steps.NesterovSteps`; two passes of the model a step).

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    mask : tensor or array of zeros and ones
        1 where pixels may change; broadcasts to the images, (B, ...). See :func:`rectangle_mask`.
    alpha : float or array of shape (B,), default=4 / 255
        Step length.
    steps : int, default=256
        Most steps of each walk.
    nesterov : float, default=0.0
        Decay of the sum of gradients; 1 is the source's choice, 0 plain steps.
    step_control : {"fixed", "apgd"}, default="fixed"
        As of :class:`PGD`: "apgd" shortens its steps and answers with the best patch that it saw. With
        ``early_stop=False`` it suits networks that draw random numbers.
    eps : float or array of shape (B,), optional
        Largest change of a pixel; by default only the bounds limit it.
    bounds : (low, high), default=(0, 1)
        Range of valid image entries.
    random_start, restarts, targeted, loss, generator, manifold, record_path, early_stop
        As for :class:`PGD`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; in the call, if the mask does not broadcast, holds other numbers than 0 and 1, or has
        no ones.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers
       in Computer Science 5:1253682, 2023.
    .. [2] Lin, Song, He, Wang and Hopcroft, "Nesterov accelerated gradient and scale invariance for adversarial
       attacks", ICLR 2020.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> attack = PatchPGD(model, rectangle_mask((2, 2), 0, 0, 1, 2), alpha=0.25, early_stop=False)
    >>> attack(torch.full((1, 2, 2), 0.5), torch.tensor([0]))
    tensor([[[0.0000, 0.0000],
             [0.5000, 0.5000]]])
    """

    mask: Any
    nesterov: float

    def __init__(
        self,
        model: torch.nn.Module,
        mask: Any,
        alpha: Any = 4 / 255,
        steps: int = 256,
        *,
        nesterov: float = 0.0,
        step_control: str = "fixed",
        eps: Any = None,
        bounds: tuple[float, float] = (0, 1),
        random_start: bool = False,
        restarts: int = 1,
        targeted: bool = False,
        loss: str | Loss = "ce",
        generator: torch.Generator | None = None,
        manifold: Manifold | LabelledManifold | None = None,
        record_path: bool = False,
        early_stop: bool = True,
    ) -> None:
        super().__init__(
            model,
            eps,
            alpha,
            steps,
            random_start=random_start,
            restarts=restarts,
            targeted=targeted,
            loss=loss,
            bounds=bounds,
            generator=generator,
            manifold=manifold,
            record_path=record_path,
            step_control=step_control,
            early_stop=early_stop,
        )
        self._store(mask=mask, nesterov=nesterov)
        self._check()

    def _read(self, name: str, value: Any) -> Any:
        match name:
            case "eps" if value is None:
                return None
            case "alpha" if value is None:
                raise TypeError("alpha must be a number or one number for each sample, got None")
            case "bounds" if value is None:
                raise ValueError("a patch may take any value within the bounds: pass bounds=(low, high)")
            case "mask":
                check_mask(torch.as_tensor(value))
            case "nesterov":
                return read_number(value, name, 0)
        return super()._read(name, value)

    def _check(self) -> None:
        super()._check()
        if vars(self).get("nesterov") and self.step_control == "apgd":
            raise ValueError("step_control='apgd' has a momentum of its own: leave nesterov out")

    @property
    def limited_by_eps(self) -> bool:  # type: ignore[override]
        """Whether a radius was given; without one the bounds are all that limits the pixels of the patch."""
        return self.eps is not None and bool((self.eps < self._width()).any())

    def _width(self) -> float:
        assert self.bounds is not None
        return float(self.bounds[1]) - float(self.bounds[0])

    def _step_sizes(self, n: int, eps: torch.Tensor | None) -> torch.Tensor:
        assert self.alpha is not None
        return self.alpha if self.alpha.ndim else self.alpha.expand(n)

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        free = torch.full((len(images),), self._width(), dtype=torch.float64)
        inner = super()._bind(images, free if eps is None else eps, manifold_labels, generator)
        return Masked(inner, images, read_mask(self.mask, images))

    def _rule(self, alpha: torch.Tensor, like: torch.Tensor) -> StepRule:
        return NesterovSteps(alpha, like, self.nesterov) if self.nesterov else super()._rule(alpha, like)
