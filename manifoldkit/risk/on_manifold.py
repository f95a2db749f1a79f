"""Is an adversary on the manifold? A test against what real data do."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._arrays import Array, as_array, as_tensor
from ..attacks._input import column
from ..attacks.constraints import norms
from ..attacks.tangent import bases, choose, tangent_share
from ..exceptions import CalibrationWarning
from ..geometry.protocol import LabelledManifold, Manifold
from .calibration import ROUNDING, DistanceCalibration
from .real_changes import RealChanges

__all__ = ["OnManifoldReport", "OnManifoldTest"]

#: Held-out samples from which on the least p-value is 0.05.
ENOUGH = 39

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OnManifoldReport:
    """What the test says of each of B samples.

    Attributes
    ----------
    distance_p : float array of shape (B,)
        Share of real samples that are at least as far from the manifold, the sample counted among them.
    tangent_share : float array of shape (B,)
        Share of the change that is tangent to the manifold at the original, NaN without a change.
    tangent_p : float array of shape (B,)
        Share of real changes about as long, from one held-out sample to another, that are at most as tangent; 1
        without a change (of more than the rounding of single precision, in which networks answer).
    p_value : float array of shape (B,)
        ``min(1, 2 min(distance_p, tangent_p))``, Bonferroni's joint value of the two: below 0.05 the adversary is off
        the manifold by the standards of real data.
    """

    distance_p: Floats
    tangent_share: Floats
    tangent_p: Floats
    p_value: Floats


class OnManifoldTest(BaseEstimator):
    r"""Give adversaries a p-value for being on a manifold, from held-out real samples.

    Two things tell that a change has left the manifold: the adversary is farther from it than real samples are, and
    the change is less tangent, :math:`|T T^\top (x - x_0)|^2 / |x - x_0|^2`, than the changes from one real sample to
    another of about the same length are: noise turns short ones, curvature long ones. Each is ranked among the real
    ones, of the same label where the manifold is chosen by label, as a conformal p-value
    :math:`(1 + \#\{\text{real as extreme}\}) / (1 + n)`, and the two are combined. Real data that were not used to fit
    come out uniform in each, so at most 5 % of them below 0.05.

    Parameters
    ----------
    manifold : Manifold or LabelledManifold
        Fitted on other samples than those given to `fit`.

    Attributes
    ----------
    changes_ : dict of RealChanges
        What gives the real changes of any length, for each label; one entry, None, for a plain manifold.

    Notes
    -----
    No real neighbours are as near as a small change is long; it is compared with those that are nearest, whose change
    noise and curvature make less tangent. So the test of the share is mild for changes smaller than the data are dense.

    Examples
    --------
    >>> from manifoldkit.geometry import Circle
    >>> rng = np.random.default_rng(0)
    >>> angles = 2 * np.pi * rng.random(400)
    >>> ring = np.column_stack([np.cos(angles), np.sin(angles)]) * (1 + 0.01 * rng.standard_normal((400, 1)))
    >>> test = OnManifoldTest(Circle()).fit(ring)
    >>> turned = np.array([[np.cos(0.1), np.sin(0.1)]])
    >>> report = test.test(np.concatenate([turned, [[1.5, 0.0]]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    >>> report.p_value > 0.05
    array([ True, False])
    """

    def __init__(self, manifold: Manifold | LabelledManifold) -> None:
        self.manifold = manifold

    def __sklearn_clone__(self) -> OnManifoldTest:
        """Keep the manifold, which unfitted would be of no use."""
        return type(self)(self.manifold)

    def fit(self, X: Array, labels: Any = None) -> OnManifoldTest:
        """Measure held-out real samples.

        Parameters
        ----------
        X : array or Tensor (n, *shape)
            At least two of each label; with fewer than 39 no p-value is below 0.05.
        labels : array (n,), optional
            Needed if the manifold is chosen by label.

        Warns
        -----
        CalibrationWarning
            If there are so few held-out samples of a label that nothing could be rejected.
        """
        self._distances = DistanceCalibration(self.manifold).fit(X, labels)
        x = as_tensor(X, "X")
        groups = self._distances.groups(labels, len(x))
        basis = self._basis(x, labels)
        self.changes_: dict[Any, RealChanges] = {}
        for group in set(groups.tolist()):
            rows = torch.from_numpy(np.flatnonzero(groups == group)).to(x.device)
            if len(rows) < 2:
                raise ValueError(f"label {group!r} has a single held-out sample: give at least two of each")
            self.changes_[group] = RealChanges(x[rows].flatten(1), basis[rows])
        fewest = min(map(len, self._distances.distances_.values()))
        if fewest < ENOUGH:
            warnings.warn(
                f"with {fewest} held-out samples of a label no p_value can be below {2 / (fewest + 1):.2f}: give at "
                f"least {ENOUGH} of each, or nothing will be found off the manifold",
                CalibrationWarning,
                stacklevel=2,
            )
        return self

    def test(self, adversarial: Array, images: Array, labels: Any = None) -> OnManifoldReport:
        """Rank adversaries, (B, *shape), among real samples; `images` are the originals."""
        check_is_fitted(self)
        distances = self._distances.distance(adversarial, labels)
        groups = self._distances.groups(labels, len(distances))
        if unknown := set(groups.tolist()) - set(self.changes_):
            raise ValueError(f"labels {sorted(unknown)} were not among the held-out samples")
        change = self._change(adversarial, images)
        shares, lengths = self._shares(images, change, labels), as_array(norms(change))
        rounding = 8 * ROUNDING * as_array(norms(as_tensor(images, "images")))
        with np.errstate(divide="ignore"):  # the normal part that single precision may have put in
            slack = 1e-12 + np.minimum(1e-3, (rounding / lengths) ** 2)
        distance_p, tangent_p = np.ones(len(distances)), np.ones(len(distances))
        for group, real in self.changes_.items():
            rows = groups == group
            reference = self._distances.distances_[group]
            below = np.searchsorted(reference, distances[rows], side="left")
            distance_p[rows] = (1 + len(reference) - below) / (1 + len(reference))
            tangent_p[rows] = real.p_value(shares[rows], lengths[rows], slack[rows])
        tangent_p[np.isnan(shares)] = 1.0
        return OnManifoldReport(distance_p, shares, tangent_p, np.minimum(1.0, 2 * np.minimum(distance_p, tangent_p)))

    @staticmethod
    def _change(adversarial: Array, images: Array) -> torch.Tensor:
        """What was changed, (B, *shape); zero for samples that differ by the rounding of a network in float32."""
        end, start = as_tensor(adversarial, "adversarial"), as_tensor(images, "images")
        if end.shape != start.shape:
            raise ValueError(f"images must have shape {tuple(end.shape)}, as the adversaries, got {tuple(start.shape)}")
        kinds = [x.dtype for x in (adversarial, images) if isinstance(x, torch.Tensor) and x.is_floating_point()]
        unit = max(torch.finfo(kind).eps for kind in [torch.float32, *kinds])
        change = end - start.to(end)
        rounding = norms(change) <= 4 * unit * norms(start.to(end))
        return change.masked_fill(column(rounding, change).bool(), 0.0)

    def _shares(self, images: Array, change: torch.Tensor, labels: Any) -> Floats:
        """Tangent share of each change at its image, (B,); NaN without a change."""
        x = as_tensor(images, "images")
        moved = change.to(x)
        still = ~moved.flatten(1).any(dim=1)
        share = tangent_share(moved, self._basis(x, labels)).masked_fill(still, torch.nan)
        result: Floats = share.cpu().numpy()
        return result

    def _basis(self, x: torch.Tensor, labels: Any) -> torch.Tensor:
        members = torch.as_tensor(labels) if isinstance(self.manifold, LabelledManifold) else None
        return bases(choose(self.manifold, members).tangent_basis(x), x)
