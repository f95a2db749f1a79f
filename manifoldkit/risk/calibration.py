"""Distances to a manifold, read as quantiles of the distances of real data that were held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._arrays import Array, as_array, as_tensor
from ..attacks._input import read_manifold
from ..geometry.protocol import LabelledManifold, Manifold

__all__ = ["DistanceCalibration"]

#: Shares of a sample's length that networks, which compute in float32, cannot tell from nothing.
ROUNDING = 8 * torch.finfo(torch.float32).eps

Floats = np.ndarray[Any, np.dtype[np.float64]]


class DistanceCalibration(BaseEstimator):
    r"""Tell whether points are as near to a manifold as real data are.

    A distance to the manifold means nothing by itself: real images have noise and detail that the manifold does
    not follow. Here the distance :math:`|x - \mathrm{project}(x)|` is compared with the distances of held-out
    real samples, on a `LabelledManifold` with those of the same label: a quantile of 0.5 is the distance of a
    typical real sample, and above 0.95 only one real sample in twenty is as far away.

    Parameters
    ----------
    manifold : Manifold or LabelledManifold
        Fitted on other samples than those given to `fit`.

    Attributes
    ----------
    distances_ : dict of arrays
        Sorted distances of the held-out samples of each label; one entry, None, for a plain manifold.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.geometry import Circle
    >>> radii = np.linspace(1.0, 1.1, 101)
    >>> calibration = DistanceCalibration(Circle()).fit(np.column_stack([radii, 0 * radii]))
    >>> calibration.quantile(np.array([[0.0, 1.025], [0.0, 2.0]])).round(2)
    array([0.26, 1.  ])
    """

    def __init__(self, manifold: Manifold | LabelledManifold) -> None:
        self.manifold = manifold

    def __sklearn_clone__(self) -> DistanceCalibration:
        """Keep the manifold, which unfitted would be of no use."""
        return type(self)(self.manifold)

    def fit(self, X: Array, labels: Any = None) -> DistanceCalibration:
        """Measure the distances of held-out real samples.

        Parameters
        ----------
        X : array or Tensor (n, *shape)
        labels : array (n,), optional
            Needed if the manifold is chosen by label.
        """
        read_manifold(self.manifold)
        distances = self.distance(X, labels)
        if len(distances) == 0:
            raise ValueError("X is empty: give held-out samples to compare with")
        groups = self.groups(labels, len(distances))
        self.distances_ = {group: np.sort(distances[groups == group]) for group in set(groups.tolist())}
        return self

    def distance(self, X: Array, labels: Any = None) -> Floats:
        """Distance (n,) of samples to (their) manifold, 0 where it is no more than the rounding of float32."""
        batch = as_tensor(X, "X")
        manifold = self.manifold
        if isinstance(manifold, LabelledManifold):
            if labels is None:
                raise ValueError("labels are needed, since the manifold is chosen by label")
            manifold = manifold.at(labels)
        projected = as_tensor(manifold.project(batch), "the projection")
        distance = torch.linalg.vector_norm((batch - projected).flatten(1), dim=1)
        rounding = ROUNDING * torch.linalg.vector_norm(batch.flatten(1), dim=1)
        return as_array(torch.where(distance > rounding, distance, 0.0))

    def quantile(self, X: Array, labels: Any = None) -> Floats:
        """Share (n,) of held-out samples that are at most as far from their manifold as each sample of `X`."""
        check_is_fitted(self)
        distances = self.distance(X, labels)
        groups = self.groups(labels, len(distances))
        if unknown := set(groups.tolist()) - set(self.distances_):
            raise ValueError(f"labels {sorted(unknown)} were not among the held-out samples")
        result = np.empty(len(distances))
        for group, reference in self.distances_.items():
            chosen = groups == group
            result[chosen] = np.searchsorted(reference, distances[chosen], side="right") / len(reference)
        return result

    def groups(self, labels: Any, n: int) -> np.ndarray[Any, Any]:
        """What each of n samples is compared with: its label, or None for a plain manifold."""
        if not isinstance(self.manifold, LabelledManifold):
            return np.full(n, None)
        return labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
