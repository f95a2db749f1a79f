"""Where an attack may walk: one object for each set of allowed images, bound to one batch.

A constraint turns a gradient into a step direction and a trial point into an allowed point. That is all in which FGSM,
PGD and on-manifold PGD differ; the loop is in :mod:`manifoldkit.attacks.base`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from manifoldkit.attacks._input import column

__all__ = ["Constraint", "L2Ball", "LinfBall", "draw", "norms", "shorten", "unit"]


def norms(x: torch.Tensor, norm: float = 2) -> torch.Tensor:
    """Length of every sample, (B, ...) -> (B,), of norm 2 (without overflow or underflow of the squares) or inf."""
    flat = x.flatten(1)
    scale = flat.abs().amax(dim=1, keepdim=True)
    if norm == math.inf:
        return scale[:, 0]
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    result: torch.Tensor = torch.linalg.vector_norm(flat / scale, dim=1) * scale[:, 0]
    return result


def unit(x: torch.Tensor) -> torch.Tensor:
    """Every sample divided by its length; zero stays zero."""
    flat = x.flatten(1)
    scale = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / torch.where(scale > 0, scale, torch.ones_like(scale))
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return (flat / torch.where(length > 0, length, torch.ones_like(length))).reshape(x.shape)


class Constraint(ABC):
    """The allowed images of one batch; row i of every argument belongs to the i-th sample still in the batch.

    Attributes
    ----------
    needs_gradient : bool
        Whether `direction` reads the gradient; the loop computes none otherwise.
    deterministic : bool or Tensor (B,)
        Whether a step from the same point is the same again, so that a walk that stands still will do so for ever; a
        tensor tells of each sample, as the last direction was.
    """

    needs_gradient = True
    deterministic: bool | torch.Tensor = True

    @abstractmethod
    def start(self) -> torch.Tensor:
        """Where the walk begins, (B, ...)."""

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        """A random allowed point for every sample, (B, ...)."""
        raise TypeError(f"{type(self).__name__} has no random start")

    def enter(self, images: torch.Tensor) -> torch.Tensor:
        """Where a walk from other images than those bound begins, (B, ...)."""
        return self.project(images)

    def view(self, x: torch.Tensor) -> torch.Tensor:
        """The images that the network sees at points of the walk; differentiable, by default the points themselves."""
        return x

    @abstractmethod
    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        """Direction of ascent at `x`, (B, ...); a sample of zeros has none and has stalled."""

    @abstractmethod
    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Allowed points near `x`, (B, ...)."""

    @abstractmethod
    def select(self, keep: torch.Tensor) -> None:
        """Forget the samples where `keep`, a (B,) bool tensor, is False."""


class LinfBall(Constraint):
    r"""Images with ``max |x - x0| <= eps`` and within the bounds; steps follow the sign of the gradient.

    Parameters
    ----------
    images : Tensor of shape (B, ...)
        x0, the centres.
    eps : Tensor of shape (B,)
        Radii.
    bounds : (low, high) or None
        Limits of the entries of an image.
    """

    def __init__(self, images: torch.Tensor, eps: torch.Tensor, bounds: tuple[float, float] | None) -> None:
        self.images = images
        radius = column(eps, images)
        self.lower, self.upper = images - radius, images + radius
        if bounds is not None:
            self.lower, self.upper = self.lower.clamp_min(bounds[0]), self.upper.clamp_max(bounds[1])
        self.radius = radius

    def start(self) -> torch.Tensor:
        return self.images

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        """Uniform in the cube around the image, then clipped to the bounds."""
        return self.project(self.images + self.radius * (2 * draw(self.images, generator, normal=False) - 1))

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is not None
        return gradient.sign()

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(torch.maximum(x, self.lower), self.upper)

    def select(self, keep: torch.Tensor) -> None:
        self.images, self.radius = self.images[keep], self.radius[keep]
        self.lower, self.upper = self.lower[keep], self.upper[keep]


class L2Ball(Constraint):
    r"""Images with ``|x - x0|_2 <= eps`` and within the bounds; steps follow the normalised gradient.

    A point outside is moved radially onto the ball and then clipped to the bounds. Clipping towards a box that holds
    x0 only shortens the perturbation, so that both limits are kept (it is not the nearest point of the intersection).

    Parameters
    ----------
    images, eps, bounds
        As for :class:`LinfBall`.
    """

    def __init__(self, images: torch.Tensor, eps: torch.Tensor, bounds: tuple[float, float] | None) -> None:
        self.images = images
        self.radius = column(eps, images)
        self.bounds = bounds

    def start(self) -> torch.Tensor:
        return self.images

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        """Uniform in the ball around the image, then clipped to the bounds."""
        away = unit(draw(self.images, generator, normal=True))
        share = draw(self.images.flatten(1)[:, 0], generator, normal=False) ** (1 / self.images[0].numel())
        return self.project(self.images + self.radius * column(share, self.images) * away)

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is not None
        return unit(gradient)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        x = shorten(x, self.images, self.radius)
        return x if self.bounds is None else x.clamp(*self.bounds)

    def select(self, keep: torch.Tensor) -> None:
        self.images, self.radius = self.images[keep], self.radius[keep]


def shorten(x: torch.Tensor, centre: torch.Tensor, radius: torch.Tensor, norm: float = 2) -> torch.Tensor:
    """Points of `x` farther from the centre than `radius` (B, 1, ...) moved radially to that distance."""
    change = x - centre
    size = column(norms(change, norm), x)
    safe = radius * (1 - 4 * torch.finfo(x.dtype).eps)
    outside = size > radius
    return torch.where(outside, centre + change * (safe / torch.where(outside, size, torch.ones_like(size))), x)


def draw(like: torch.Tensor, generator: torch.Generator, *, normal: bool) -> torch.Tensor:
    """Numbers in the shape of `like`, drawn where the generator lives so that devices agree."""
    sampler = torch.randn if normal else torch.rand
    return sampler(like.shape, generator=generator, device=generator.device, dtype=torch.float64).to(like)
