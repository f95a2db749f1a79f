"""PGD inside the tangent space, the normal space or the whole space at each image."""

from __future__ import annotations

import math
from typing import Any

import torch

from manifoldkit.attacks._input import column, one_of, read_norm
from manifoldkit.attacks.constraints import Constraint, draw, norms, shorten, unit
from manifoldkit.attacks.manifold_constraint import ManifoldConstraint, ManifoldOptions
from manifoldkit.attacks.pgd import PGD
from manifoldkit.attacks.tangent import apply, bases, choose, coefficients
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["SubspacePGD"]

#: Share of the length of a change that may lie outside the subspace after clipping to the bounds (0.06 degrees).
OFF = 1e-3
#: Rounds of alternating projections; some ten are enough where the bounds do not touch the subspace.
MOST_ROUNDS = 200


class _SubspaceBall(Constraint):
    """The part of a ball that lies in the tangent or normal space at the image, and within the bounds.

    A point outside goes to the nearest one in the subspace and the box (the bounds and, for L_inf, the cube) by
    Dykstra's alternating projections [1]_, and is then shortened, which leaves neither. Where the gradient has no part
    in the subspace the step is a random one.

    References
    ----------
    .. [1] Boyle and Dykstra, "A method for finding projections onto the intersection of convex sets in Hilbert
       spaces", 1986.
    """

    def __init__(
        self,
        images: torch.Tensor,
        basis: torch.Tensor,
        normal: bool,
        eps: torch.Tensor,
        norm: float,
        bounds: tuple[float, float] | None,
        generator: torch.Generator,
    ) -> None:
        self.images, self.basis, self.normal = images, basis, normal
        self.radius, self.norm, self.generator = column(eps, images), norm, generator
        infinite = torch.full_like(images, torch.inf)
        self.lower, self.upper = -infinite, infinite
        if norm == math.inf:
            self.lower, self.upper = -self.radius.expand_as(images), self.radius.expand_as(images)
        if bounds is not None:
            self.lower = torch.maximum(self.lower, bounds[0] - images)
            self.upper = torch.minimum(self.upper, bounds[1] - images)
        self.bounds = bounds

    def start(self) -> torch.Tensor:
        return self.images

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        away = self._part(draw(self.images, generator, normal=True))
        away = away / column(norms(away, self.norm), away).clamp_min(torch.finfo(away.dtype).tiny)
        rank = self.basis.flatten(1).square().sum(dim=1)
        rank = (self.images[0].numel() - rank if self.normal else rank).clamp_min(1)
        share = draw(rank, generator, normal=False) ** (1 / rank)
        return self.project(self.images + self.radius * column(share, away) * away)

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is not None
        part = self._part(unit(gradient))
        lost = norms(part) == 0
        self.deterministic = ~lost  # a random step that changes nothing may be followed by one that does
        if lost.any():
            chance = self._part(unit(draw(part, self.generator, normal=True)))
            part = torch.where(column(lost, part).bool(), chance, part)
        return unit(part) if self.norm == 2 else part.sign()

    def project(self, x: torch.Tensor) -> torch.Tensor:
        change = self._part(x - self.images)
        rows = self._outside(change, torch.arange(len(x), device=x.device))
        if len(rows):
            change[rows] = self._intersect(change, rows)
        x = shorten(self.images + change, self.images, self.radius, self.norm)
        return x if self.bounds is None else x.clamp(*self.bounds)

    def _intersect(self, change: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The nearest changes in subspace and (nearly) in the box for those of `rows`; none where rounds do not do."""
        done, todo = change.clone(), rows
        inside, excess = change[rows], torch.zeros_like(change[rows])
        for _ in range(MOST_ROUNDS):
            wanted = inside + excess
            boxed = torch.minimum(torch.maximum(wanted, self.lower[todo]), self.upper[todo])
            excess, inside = wanted - boxed, self._part(boxed, todo)
            off = norms(boxed - inside) > OFF * norms(boxed)
            done[todo[~off]] = inside[~off]
            todo, excess, inside = todo[off], excess[off], inside[off]
            if not len(todo):
                break
        done[todo] = 0.0
        return done[rows]

    def _outside(self, change: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return rows[((change < self.lower) | (change > self.upper)).flatten(1).any(dim=1)]

    def select(self, keep: torch.Tensor) -> None:
        self.images, self.basis, self.radius = self.images[keep], self.basis[keep], self.radius[keep]
        self.lower, self.upper = self.lower[keep], self.upper[keep]

    def _part(self, v: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The part of vectors (of some rows) in the subspace; zero where it is lost in rounding."""
        basis = self.basis if rows is None else self.basis[rows]
        tangent = apply(basis, coefficients(basis, v.flatten(1))).reshape(v.shape)
        part = v - tangent if self.normal else tangent
        lost = norms(part) <= 16 * torch.finfo(v.dtype).eps * norms(v)
        return part.masked_fill(column(lost, v).bool(), 0.0)


class SubspacePGD(PGD):
    r"""PGD in the tangent, the normal or the whole space at each image: to see which kind of change breaks a network.

    Every gradient is projected, :math:`g \leftarrow P g`, with

    - "normal": :math:`P = I - T T^\top`, T the tangent basis at the image; searches the whole normal space,
    - "tangent": :math:`P = T T^\top` at the current point, and each step goes back onto the manifold (`retract`); or
      straight along the tangent space at the image, which leaves the manifold by :math:`\kappa t^2 / 2`,
    - "ambient": P = I, plain :class:`PGD`.

    Bounds are kept together with the subspace: a change is moved to the nearest normal (or tangent) one within them, up
    to a thousandth of its length.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    manifold : Manifold or LabelledManifold or None
        May be None for "ambient" alone.
    eps : float or array of shape (B,)
        Largest change, of the image or, with `retract`, of its projection, where the walk then starts.
    component : {"tangent", "normal", "ambient"}, default="normal"
    norm : {2, "inf"}, default=2
        Norm of the change.
    retract : bool, default=True
        Whether tangent steps go back onto the manifold.
    **options
        `alpha`, `steps`, `random_start`, `restarts`, `targeted`, `loss`, `bounds`, `generator`, `record_path`,
        `momentum`, `step_control` and `early_stop` of :class:`PGD`.

    Raises
    ------
    TypeError, ValueError
        As :class:`PGD`; a component other than "ambient" without a manifold is refused.

    References
    ----------
    .. [1] Zhang et al., "Manifold-driven decomposition for adversarial robustness", Front. Comput. Sci. 5, 2024.

    Examples
    --------
    >>> from manifoldkit.geometry.exact import Plane
    >>> model = torch.nn.Linear(2, 2, bias=False)  # class 0 is x > y
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> line = Plane([[1.0], [0.0]])
    >>> x, y = torch.tensor([[0.5, 0.0]]), torch.tensor([0])
    >>> SubspacePGD(model, line, 0.75, "normal", bounds=None).run(x, y).adversarial
    tensor([[0.5000, 0.5625]])
    >>> SubspacePGD(model, line, 0.75, "tangent", bounds=None).run(x, y).adversarial
    tensor([[-0.0625,  0.0000]])
    """

    component: str
    retract: bool

    def __init__(
        self,
        model: torch.nn.Module,
        manifold: Manifold | LabelledManifold | None,
        eps: Any,
        component: str = "normal",
        *,
        norm: str | float = 2,
        retract: bool = True,
        **options: Any,
    ) -> None:
        self._store(component=component, retract=retract)
        super().__init__(model, eps, norm=norm, manifold=manifold, **options)

    def _read(self, name: str, value: Any) -> Any:
        match name:
            case "component":
                return one_of(value, name, ("tangent", "normal", "ambient"))
            case "retract":
                return bool(value)
        return super()._read(name, value)

    def _check(self) -> None:
        super()._check()
        if self.component == "ambient":
            return
        if self.manifold is None:
            raise ValueError(f"component={self.component!r} needs a manifold whose tangents it can ask for, got None")
        read_norm(self.norm, allowed=(math.inf, 2))

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        assert eps is not None
        if self.component == "ambient":
            return super()._bind(images, eps, manifold_labels, generator)
        assert self.manifold is not None
        if self.component == "tangent" and self.retract:
            options = ManifoldOptions(refresh=True, normal_only=True, bounds=self.bounds, norm=self._norm)
            return ManifoldConstraint(images, self.manifold, manifold_labels, options, eps)
        basis = bases(choose(self.manifold, manifold_labels).tangent_basis(images), images)
        return _SubspaceBall(images, basis, self.component == "normal", eps, self._norm, self.bounds, generator)
