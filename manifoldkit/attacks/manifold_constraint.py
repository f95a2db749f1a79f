"""Walks along a manifold: gradients are projected onto its tangent space, and points back onto it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from manifoldkit.attacks._input import column
from manifoldkit.attacks.constraints import Constraint, draw, norms, shorten, unit
from manifoldkit.attacks.tangent import apply, bases, checked, choose, coefficients
from manifoldkit.exceptions import MedialAxisWarning
from manifoldkit.geometry.protocol import LabelledManifold, Manifold, project_with_tangents

__all__ = ["ManifoldConstraint", "ManifoldOptions", "RandomTangentConstraint"]


@dataclass(frozen=True)
class ManifoldOptions:
    """How to walk; see :class:`~manifoldkit.attacks.OnManifoldPGD` for the meaning of each."""

    normalize: bool = True
    refresh: bool = False
    normal_only: bool = False
    carry: bool = False
    bounds: tuple[float, float] | None = None
    norm: float = 2
    geodesic: bool = False


class ManifoldConstraint(Constraint):
    """Points of a manifold, each plus a residual of its own, within the bounds and a distance from the start.

    The walker is ``z = x - r`` with r = 0, or r = x0 - project(x0) when residuals are carried. A step goes along
    ``T T^T g`` and back by ``N(y) = project(y)`` or, normal-only, ``y + (I - T_y T_y^T)(project(y) - y)``.

    Parameters
    ----------
    images : Tensor of shape (B, ...)
        x0.
    manifold : Manifold or LabelledManifold
        Where to walk.
    members : Tensor of shape (B,) or None
        The member for each sample; None for a plain manifold.
    options : ManifoldOptions
        How to walk.
    eps : Tensor of shape (B,) or None
        Largest distance from the start, or largest length of the walk (`geodesic`: the sum of the chords). Points
        beyond it are moved radially inwards and projected again, in turn; what is left of the excess after eight
        rounds is cut off radially.
    """

    def __init__(
        self,
        images: torch.Tensor,
        manifold: Manifold | LabelledManifold,
        members: torch.Tensor | None,
        options: ManifoldOptions,
        eps: torch.Tensor | None,
    ) -> None:
        self.manifold, self.members, self.options = manifold, members, options
        self.here = choose(self.manifold, self.members)
        landed = self._call(images)[0]
        self.residual = images - landed if options.carry else None
        self.origin = images if options.carry else self._clip(landed)
        self.basis = None if options.refresh else self._call_tangents(landed)
        self.radius = None if eps is None else column(eps, images)
        self.last = self.origin  # where the walk was last seen, and the length that remains
        self.remaining = self.radius

    def start(self) -> torch.Tensor:
        """The projections of the images, or with carried residuals the images themselves."""
        return self.origin

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        """Uniform in the ball of radius eps in the tangent space of the start, then back onto the manifold."""
        if self.radius is None:
            raise ValueError("a random start needs eps, the distance within which to begin")
        basis = self._basis(self.origin)
        away = apply(basis, draw(basis[:, 0, :], generator, normal=True)).reshape(self.origin.shape)
        away = away / column(norms(away, self.options.norm), away).clamp_min(torch.finfo(away.dtype).tiny)
        rank = basis.flatten(1).square().sum(dim=1).clamp_min(1)
        share = draw(rank, generator, normal=False) ** (1 / rank)
        return self.project(self.origin + self.radius * column(share, away) * away)

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        """Tangent part of the gradient; zero where it is lost in the rounding of the gradient."""
        assert gradient is not None
        self._travel(x)
        full = unit(gradient).flatten(1)
        basis = self._basis(x)
        tangent = apply(basis, coefficients(basis, full))
        lost = torch.linalg.vector_norm(tangent, dim=1, keepdim=True) <= 16 * torch.finfo(x.dtype).eps
        tangent = tangent.masked_fill(lost, 0.0).reshape(x.shape)
        return unit(tangent) if self.options.normalize else tangent * column(norms(gradient), x)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Back onto the manifold, into the bounds and within the distance."""
        x = self._land(x)
        if self.radius is None:
            return x
        centre, radius, norm = self.last, self.remaining, self.options.norm
        assert radius is not None
        limit = radius.flatten() * (1 + 1e-6)
        for _ in range(8):
            far = norms(x - centre, norm) > limit
            if not far.any():
                break
            x = torch.where(column(far, x).bool(), self._land(shorten(x, centre, radius, norm)), x)
        return shorten(x, centre, radius, norm)

    def _travel(self, x: torch.Tensor) -> None:
        """Take the way to `x` off the length that remains."""
        if self.options.geodesic and self.remaining is not None:
            self.remaining = (self.remaining - column(norms(x - self.last, self.options.norm), x)).clamp_min(0)
            self.last = x

    def select(self, keep: torch.Tensor) -> None:
        self.origin = self.origin[keep]
        self.residual = None if self.residual is None else self.residual[keep]
        self.basis = None if self.basis is None else self.basis[keep]
        self.radius = None if self.radius is None else self.radius[keep]
        self.last = self.last[keep]
        self.remaining = None if self.remaining is None else self.remaining[keep]
        if self.members is not None:
            self.members = self.members[keep]
            self.here = choose(self.manifold, self.members)

    def _basis(self, x: torch.Tensor) -> torch.Tensor:
        return self._call_tangents(self._walker(x)) if self.basis is None else self.basis

    def _walker(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.residual is None else x - self.residual

    def _land(self, x: torch.Tensor) -> torch.Tensor:
        y = self._walker(x)
        z, basis = self._call(y, tangents=self.options.normal_only)
        if basis is not None:
            pull = (z - y).flatten(1)
            z = y + (pull - apply(basis, coefficients(basis, pull))).reshape(y.shape)
        return self._clip(z if self.residual is None else z + self.residual)

    def _clip(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.options.bounds is None else x.clamp(*self.options.bounds)

    def _call(self, x: torch.Tensor, *, tangents: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Projections, and tangent bases at `x` if asked for."""
        with warnings.catch_warnings():  # a walk may cross the medial axis; the result's distance tells where it ended
            warnings.simplefilter("ignore", MedialAxisWarning)
            points, basis = project_with_tangents(self.here, x) if tangents else (self.here.project(x), None)
        points = checked(points, x, "project", tuple(x.shape))
        return points, bases(basis, x) if tangents else None

    def _call_tangents(self, x: torch.Tensor) -> torch.Tensor:
        return bases(self.here.tangent_basis(x), x)


class RandomTangentConstraint(ManifoldConstraint):
    """The same walk in random tangent directions, which shows what the manifold alone does to the predictions."""

    needs_gradient = False
    deterministic = False

    def __init__(
        self,
        images: torch.Tensor,
        manifold: Manifold | LabelledManifold,
        members: torch.Tensor | None,
        options: ManifoldOptions,
        eps: torch.Tensor | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__(images, manifold, members, options, eps)
        self.generator = generator

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        """``T c`` with c standard normal, normalised if asked."""
        self._travel(x)
        basis = self._basis(x)
        tangent = apply(basis, draw(basis[:, 0, :], self.generator, normal=True)).reshape(x.shape)
        return unit(tangent) if self.options.normalize else tangent
