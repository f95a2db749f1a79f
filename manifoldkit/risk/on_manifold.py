"""Is an adversary on the manifold? A test against what real data do."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from .._arrays import Array, as_array, as_tensor
from ..attacks._input import column
from ..attacks.constraints import norms
from ..attacks.tangent import bases, choose, tangent_share
from ..exceptions import CalibrationWarning
from ..geometry.protocol import LabelledManifold, Manifold
from .calibration import DistanceCalibration

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
        Share of real changes, from a held-out sample to its nearest real neighbour, that are at most as tangent; 1
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
    the change is less tangent, :math:`|T T^\top (x - x_0)|^2 / |x - x_0|^2`, than the change from one real sample to
    its nearest real neighbour is. Each is ranked among the real ones, of the same label where the manifold is chosen
    by label, as a conformal p-value :math:`(1 + \#\{\text{real as extreme}\}) / (1 + n)`, and the two are combined.
    Real data that were not used to fit come out uniform in each, so at most 5 % of them below 0.05.

    Parameters
    ----------
    manifold : Manifold or LabelledManifold
        Fitted on other samples than those given to `fit`.

    Attributes
    ----------
    shares_ : dict of arrays
        Sorted tangent shares of real changes for each label; one entry, None, for a plain manifold.

    Notes
    -----
    Real neighbours are usually farther apart than an attack moves, and curvature makes their change less tangent; so
    the test of the share is mild for small changes. It is the other way round where real data have next to no noise
    (rendered scenes, samples of a decoder) and an attack moves further than neighbours are apart: the chord of a
    longer walk is less tangent than theirs, and walks that never left the manifold are rejected. Read `distance_p`
    alone there.

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
        flat = as_array(X, "X").reshape(len(X), -1)
        groups = self._distances.groups(labels, len(flat))
        changes = np.empty_like(flat)
        for group in set(groups.tolist()):
            rows = np.flatnonzero(groups == group)
            if len(rows) < 2:
                raise ValueError(f"label {group!r} has a single held-out sample: give at least two of each")
            near = NearestNeighbors(n_neighbors=1).fit(flat[rows]).kneighbors(return_distance=False)[:, 0]
            changes[rows] = flat[rows[near]] - flat[rows]
        shares = self._shares(X, changes.reshape(np.shape(X)), labels)
        real = {group: shares[groups == group] for group in set(groups.tolist())}
        self.shares_ = {group: np.sort(values[~np.isnan(values)]) for group, values in real.items()}
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
        if unknown := set(groups.tolist()) - set(self.shares_):
            raise ValueError(f"labels {sorted(unknown)} were not among the held-out samples")
        shares = self._shares(images, self._change(adversarial, images), labels)
        distance_p, tangent_p = np.ones(len(distances)), np.ones(len(distances))
        for group, real in self.shares_.items():
            rows = groups == group
            reference = self._distances.distances_[group]
            below = np.searchsorted(reference, distances[rows], side="left")
            distance_p[rows] = (1 + len(reference) - below) / (1 + len(reference))
            tangent_p[rows] = (1 + np.searchsorted(real, shares[rows], side="right")) / (1 + len(real))
        tangent_p[np.isnan(shares)] = 1.0
        return OnManifoldReport(distance_p, shares, tangent_p, np.minimum(1.0, 2 * np.minimum(distance_p, tangent_p)))

    @staticmethod
    def _change(adversarial: Array, images: Array) -> Floats:
        """What was changed, (B, *shape); zero for samples that differ by the rounding of a network in float32."""
        end, start = as_tensor(adversarial, "adversarial"), as_tensor(images, "images")
        if end.shape != start.shape:
            raise ValueError(f"images must have shape {tuple(end.shape)}, as the adversaries, got {tuple(start.shape)}")
        kinds = [x.dtype for x in (adversarial, images) if isinstance(x, torch.Tensor) and x.is_floating_point()]
        unit = max(torch.finfo(kind).eps for kind in [torch.float32, *kinds])
        change = end - start.to(end)
        rounding = norms(change) <= 4 * unit * norms(start.to(end))
        result: Floats = change.masked_fill(column(rounding, change).bool(), 0.0).cpu().numpy()
        return result

    def _shares(self, images: Array, change: Floats, labels: Any) -> Floats:
        """Tangent share of each change at its image, (B,); NaN without a change."""
        x = as_tensor(images, "images")
        members = torch.as_tensor(labels) if isinstance(self.manifold, LabelledManifold) else None
        moved = torch.as_tensor(change).to(x)
        share = tangent_share(moved, bases(choose(self.manifold, members).tangent_basis(x), x))
        still = ~moved.flatten(1).any(dim=1)
        result: Floats = share.masked_fill(still, torch.nan).cpu().numpy()
        return result
