"""The attacks behind a risk decomposition, and what their adversaries are witnesses of."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ..attacks import PGD, SubspacePGD, tnar_tangent
from ..attacks._input import column
from ..attacks._model import as_found, check_logits
from ..attacks.constraints import norms
from ..attacks.tangent import bases, choose, tangent_share
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
        feet, _ = foot_points(self.manifold, x, members, n_iter=self.n_refine)
        feet = feet if self.bounds is None else feet.clamp(*self.bounds)
        delta = norms(x - feet)
        at = feet if self.off_manifold == "project" else x
        centre = x if self.off_manifold == "raw" else feet
        radius = torch.full_like(delta, self.eps) + (delta if self.off_manifold == "inflate" else 0.0)
        found = {
            "delta": delta,
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
        attack = SubspacePGD(self.model, self.manifold, radius, "normal", **common)
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
            attack = SubspacePGD(self.model, self.manifold, budget[rows], "tangent", **options)
            which = None if members is None else members[rows]
            result: Any = attack.run(centre[rows], y[rows], manifold_labels=which, start=start[rows])
            # The walk's ball lies about the foot of the centre, which is another point if the centre is off ("raw").
            near = norms(result.adversarial - centre[rows], self.norm) <= budget[rows] * (1 + 1e-6)
            # Clipped to the bounds, or learned and not idempotent, it may have left the manifold.
            back = choose(self.manifold, which).project(result.adversarial)
            landed = norms(result.adversarial - back, self.norm) <= self.tolerance**0.5 * budget[rows] / 2
            hit = result.success & near & landed
            found["in_manifold"][rows] = hit
            found["in_manifold_at"][rows[hit]] = result.adversarial[hit]

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
        feet, share = foot_points(self.manifold, adversary, members, n_iter=self.n_refine)
        found["share"][rows] = share
        classes, wrong = self._classes(feet), y[rows]
        within = norms(feet - centre, self.norm) <= 2 * radius
        self._add(found, "in_manifold", rows, within & (classes != wrong), feet)
        basis = bases(choose(self.manifold, members).tangent_basis(centre), centre)
        straight = tangent_share(adversary - centre, basis)
        self._add(found, "normal", rows, straight <= self.tolerance, adversary)
        low = norms(adversary - feet, self.norm) <= radius  # and so the foot within 2 radius of the centre
        # Where the foot has the class of the adversary, it is a witness in the manifold, which goes before this one.
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
