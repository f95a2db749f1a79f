"""Walks along a manifold: gradients are projected onto its tangent space, and points back onto it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import cast

import torch

from manifoldkit.attacks._input import column
from manifoldkit.attacks.constraints import Constraint, draw, norms, shorten, unit
from manifoldkit.exceptions import MedialAxisWarning
from manifoldkit.geometry.protocol import LabelledManifold, Manifold, project_with_tangents

__all__ = ["ManifoldConstraint", "ManifoldOptions", "RandomTangentConstraint", "checked", "choose"]


@dataclass(frozen=True)
class ManifoldOptions:
    """How to walk; see :class:`~manifoldkit.attacks.OnManifoldPGD` for the meaning of each."""

    normalize: bool = True
    refresh: bool = False
    normal_only: bool = False
    carry: bool = False
    bounds: tuple[float, float] | None = None


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
        Largest distance from the start. Points beyond it are moved radially inwards and projected again, in turn;
        what is left of the excess after eight rounds is cut off radially.
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

    def start(self) -> torch.Tensor:
        """The projections of the images, or with carried residuals the images themselves."""
        return self.origin

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        """Tangent part of the gradient; zero where it is lost in the rounding of the gradient."""
        assert gradient is not None
        full = unit(gradient).flatten(1)
        basis = self._basis(x)
        tangent = _apply(basis, _coefficients(basis, full))
        lost = torch.linalg.vector_norm(tangent, dim=1, keepdim=True) <= 16 * torch.finfo(x.dtype).eps
        tangent = tangent.masked_fill(lost, 0.0).reshape(x.shape)
        return unit(tangent) if self.options.normalize else tangent * column(norms(gradient), x)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Back onto the manifold, into the bounds and within the distance."""
        x = self._land(x)
        if self.radius is None:
            return x
        limit = self.radius.flatten() * (1 + 1e-6)
        for _ in range(8):
            far = norms(x - self.origin) > limit
            if not far.any():
                break
            x = torch.where(column(far, x).bool(), self._land(shorten(x, self.origin, self.radius)), x)
        return shorten(x, self.origin, self.radius)

    def select(self, keep: torch.Tensor) -> None:
        self.origin = self.origin[keep]
        self.residual = None if self.residual is None else self.residual[keep]
        self.basis = None if self.basis is None else self.basis[keep]
        self.radius = None if self.radius is None else self.radius[keep]
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
            z = y + (pull - _apply(basis, _coefficients(basis, pull))).reshape(y.shape)
        return self._clip(z if self.residual is None else z + self.residual)

    def _clip(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.options.bounds is None else x.clamp(*self.options.bounds)

    def _call(self, x: torch.Tensor, *, tangents: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Projections, and tangent bases at `x` if asked for."""
        with warnings.catch_warnings():  # a walk may cross the medial axis; the result's distance tells where it ended
            warnings.simplefilter("ignore", MedialAxisWarning)
            points, basis = project_with_tangents(self.here, x) if tangents else (self.here.project(x), None)
        points = checked(points, x, "project", tuple(x.shape))
        return points, self._checked_basis(basis, x) if tangents else None

    def _call_tangents(self, x: torch.Tensor) -> torch.Tensor:
        return self._checked_basis(self.here.tangent_basis(x), x)

    @staticmethod
    def _checked_basis(basis: object, x: torch.Tensor) -> torch.Tensor:
        return checked(basis, x, "tangent_basis", (len(x), x[0].numel(), None))


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
        basis = self._basis(x)
        tangent = _apply(basis, draw(basis[:, 0, :], self.generator, normal=True)).reshape(x.shape)
        return unit(tangent) if self.options.normalize else tangent


def choose(manifold: Manifold | LabelledManifold, members: torch.Tensor | None) -> Manifold:
    """The manifold itself, or the members of a family that the samples belong to."""
    if members is None:
        return cast("Manifold", manifold)
    return cast("LabelledManifold", manifold).at(members)


def _coefficients(basis: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """T^T v: (B, D, d), (B, D) -> (B, d)."""
    return torch.einsum("bik,bi->bk", basis, vectors)


def _apply(basis: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """T c: (B, D, d), (B, d) -> (B, D)."""
    return torch.einsum("bik,bk->bi", basis, coefficients)


def checked(value: object, x: torch.Tensor, name: str, shape: tuple[int | None, ...]) -> torch.Tensor:
    """The answer of a manifold in the dtype and device of `x`, or an error that names the manifold as its cause."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"the manifold's {name} must return a tensor when given one, got {type(value).__name__}")
    fits = value.ndim == len(shape) and all(e is None or e == s for e, s in zip(shape, value.shape, strict=True))
    if not fits:
        expected = "(" + ", ".join("d" if e is None else str(e) for e in shape) + ")"
        raise ValueError(f"the manifold's {name} must return shape {expected}, got {tuple(value.shape)}")
    if not torch.isfinite(value).all():
        raise ValueError(f"the manifold's {name} returned NaN or infinity: fit it on data like these images")
    return value.detach().to(x)
