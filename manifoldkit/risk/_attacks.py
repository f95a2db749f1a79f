"""The attacks behind a risk decomposition, and what their adversaries are witnesses of."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import torch

from ..attacks import PGD, SubspacePGD, tnar_tangent
from ..attacks._input import column
from ..attacks._model import as_found, check_logits
from ..attacks.constraints import norms
from ..attacks.tangent import bases, checked, choose, tangent_share
from ..exceptions import MedialAxisWarning
from ..geometry.protocol import LabelledManifold, Manifold
from .feet import foot_points

__all__ = ["RiskAttacks"]


@dataclasses.dataclass
class RiskAttacks:
    """Attacks in the ball, the normal space and the manifold about each sample of a batch.

    See :func:`~manifoldkit.risk.decompose_risk` for the options. `run` returns tensors with a row for each sample: the
    masks `std`, `adv`, `normal`, `in_manifold` and `near` (a foot point nearby has an adversary on its normal), their
    witnesses under the name with "_at", NaN where there is none; `centre` and its class, about which the normal and
    in-manifold sets lie; and the budgets, distances and shares.
    """

    model: torch.nn.Module
    manifold: Manifold | LabelledManifold
    eps: float
    norm: float
    steps: int
    restarts: int
    loss: Any
    bounds: tuple[float, float] | None
    tnar: bool
    n_refine: int
    tolerance: float
    off_manifold: str

    def run(
        self, x: torch.Tensor, y: torch.Tensor, members: torch.Tensor | None, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Attack a batch (B, ...) with classes (B,), and follow the adversaries to their foot points.

        `members` (B,) are the labels by which a `LabelledManifold` is chosen; None for a plain manifold.
        """
        foot, _ = foot_points(self.manifold, x, members, n_iter=self.n_refine)
        feet, inside = self._clipped(foot)
        delta = norms(x - feet, self.norm)
        at = feet if self.off_manifold == "project" else x
        centre = x if self.off_manifold == "raw" else feet
        radius = torch.full_like(delta, self.eps) + (delta if self.off_manifold == "inflate" else 0.0)
        found = {
            "delta": delta,
            "off": norms(x - foot),
            "foot": foot,
            "inside": inside,
            "radius": radius,
            "centre": centre,
            "centre_class": self._classes(centre),
            "std": self._classes(at) != y,
        }
        common = {
            "norm": "inf" if self.norm == torch.inf else 2, "steps": self.steps, "random_start": True,
            "restarts": self.restarts, "loss": self.loss, "bounds": self.bounds, "generator": generator,
        }  # fmt: skip
        # The ball of the theorem is open.
        ambient: Any = PGD(self.model, self.eps * (1 - 1e-6), **common).run(at, y, start=at)
        self._put(found, "adv", ambient.success, ambient.adversarial)
        attack = SubspacePGD(self.model, self.manifold, self._within_range(radius), "normal", **common)
        normal: Any = attack.run(centre, y, manifold_labels=members, start=centre)
        self._put(found, "normal", normal.success & (normal.tangent_share <= self.tolerance), normal.adversarial)
        self._in_manifold(found, y, members, common)
        self._follow(found, at, y, members)
        return found

    def _in_manifold(
        self, found: dict[str, torch.Tensor], y: torch.Tensor, members: torch.Tensor | None, common: dict[str, Any]
    ) -> None:
        centre, budget = found["centre"], 2 * found["radius"]
        starts = [centre]
        if self.tnar:
            here = choose(self.manifold, members)
            r = tnar_tangent(self.model, here, centre, budget / 2, generator=common["generator"])
            starts += [centre + r, centre - r]
        self._put(found, "in_manifold", torch.zeros_like(y, dtype=torch.bool), centre)
        for number, start in enumerate(starts):
            rows = (~found["in_manifold"]).nonzero()[:, 0]
            if not len(rows):
                return
            options = common if number == 0 else common | {"restarts": 1}
            attack = SubspacePGD(self.model, self.manifold, self._within_range(budget[rows]), "tangent", **options)
            which = None if members is None else members[rows]
            result: Any = attack.run(centre[rows], y[rows], manifold_labels=which, start=start[rows])
            hit, points = self._landed(result.adversarial, y[rows], which, centre[rows], budget[rows])
            shallow = (result.success & ~hit).nonzero()[:, 0]
            if len(shallow):  # broken, but not where it lands: walk on from there
                limit = self._within_range(budget[rows][shallow])
                deeper = attack.replaced(eps=limit, early_stop=False, random_start=False, restarts=1)
                into, which = rows[shallow], None if which is None else which[shallow]
                begin = result.adversarial[shallow]
                end = deeper.run(centre[into], y[into], manifold_labels=which, start=begin).adversarial
                hit[shallow], points[shallow] = self._landed(end, y[into], which, centre[into], budget[into])
            found["in_manifold"][rows] = hit
            found["in_manifold_at"][rows[hit]] = points[hit]

    def _landed(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        members: torch.Tensor | None,
        centre: torch.Tensor,
        budget: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which ends of walks have an adversary below them, on the manifold, near the centre and within bounds; and it.

        Clipped to the bounds, or learned and not idempotent, a walk may have left the manifold.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MedialAxisWarning)
            points = checked(choose(self.manifold, members).project(x), x, "project", tuple(x.shape))
        points, inside = self._clipped(points)
        # The walk's ball lies about the foot of the centre, which is another point if the centre is off ("raw").
        near = norms(points - centre, self.norm) <= budget * (1 + 1e-6)
        return near & inside & (self._classes(points) != y), points

    def _clipped(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points of the manifold within the bounds, and where clipping has not taken them off it, (B,) bool."""
        if self.bounds is None:
            return points, torch.ones(len(points), dtype=torch.bool, device=points.device)
        clipped = points.clamp(*self.bounds)
        return clipped, norms(clipped - points, self.norm) <= self.tolerance**0.5 * self.eps

    def _within_range(self, radius: torch.Tensor) -> torch.Tensor:
        """Radii of balls that reach no farther than the bounds, whose whole range is allowed anyway."""
        if self.bounds is None or self.norm != torch.inf:
            return radius
        return radius.clamp_max(self.bounds[1] - self.bounds[0])

    def _follow(
        self, found: dict[str, torch.Tensor], at: torch.Tensor, y: torch.Tensor, members: torch.Tensor | None
    ) -> None:
        """What the ambient adversaries are witnesses of, by their foot points."""
        found["near"] = torch.zeros_like(found["adv"])
        found["near_at"] = torch.full_like(at, torch.nan)
        found["share"] = torch.full_like(found["delta"], torch.nan)
        rows = found["adv"].nonzero()[:, 0]
        if not len(rows):
            return
        members = None if members is None else members[rows]
        adversary, centre, radius = found["adv_at"][rows], found["centre"][rows], found["radius"][rows] * (1 + 1e-6)
        # No adversary is farther from the centre than `radius`: within eps of x, which is within delta of the centre.
        # Steps from a projection may end at a foot farther away than that of the sample: they begin there, too.
        begins = [None, found["foot"][rows]] if self.n_refine else [None]
        candidates = [
            foot_points(self.manifold, adversary, members, n_iter=self.n_refine, start=begin) for begin in begins
        ]
        found["share"][rows] = torch.stack([share for _, share in candidates]).amin(dim=0)
        for foot, _ in candidates:
            feet, inside = self._clipped(foot)
            within = norms(feet - centre, self.norm) <= 2 * radius
            self._add(found, "in_manifold", rows, within & inside & (self._classes(feet) != y[rows]), feet)
        basis = bases(choose(self.manifold, members).tangent_basis(centre), centre)
        straight = tangent_share(adversary - centre, basis)
        self._add(found, "normal", rows, straight <= self.tolerance, adversary)
        for feet, share in candidates:
            low = norms(adversary - feet, self.norm) <= radius  # and so the foot within 2 radius of the centre
            # Where the foot has the class of the adversary, it is a witness in the manifold, which goes before.
            self._add(found, "near", rows, low & (share <= self.tolerance), adversary)

    def _classes(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), as_found(self.model):
            return check_logits(self.model(x), len(x)).argmax(dim=1)

    @staticmethod
    def _put(found: dict[str, torch.Tensor], name: str, mask: torch.Tensor, points: torch.Tensor) -> None:
        found[name] = mask.clone()
        found[name + "_at"] = torch.where(column(mask, points).bool(), points, torch.nan)

    @staticmethod
    def _add(
        found: dict[str, torch.Tensor], name: str, rows: torch.Tensor, mask: torch.Tensor, points: torch.Tensor
    ) -> None:
        mask = mask & ~found[name][rows]
        found[name][rows[mask]] = True
        found[name + "_at"][rows[mask]] = points[mask]
