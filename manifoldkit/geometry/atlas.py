"""`ManifoldAtlas`: one manifold for each class, chosen by label."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._arrays import Array, as_tensor, like
from .._saving import SaveMixin, savable
from ..exceptions import EigenSolverError
from .diffusion import DiffusionManifold
from .landing import land
from .protocol import Manifold

__all__ = ["ManifoldAtlas"]

#: Projections, one after the other, before the distances to manifolds are compared.
SETTLING = 3


@savable
class ManifoldAtlas(SaveMixin, ClassifierMixin, BaseEstimator):
    """One manifold for each class: a sample is projected onto the manifold of its label.

    Parameters
    ----------
    estimator : DiffusionManifold, optional
        Prototype that is cloned for each class; default ``DiffusionManifold()``.
    progress : bool, default=False
        Show a progress bar while fitting.

    Attributes
    ----------
    classes_ : array (n_classes,)
    n_features_in_ : int
    manifolds_ : list of DiffusionManifold
        The fitted manifold of each class, in the order of `classes_`.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    >>> ring = np.column_stack([np.cos(t), np.sin(t)])
    >>> X, y = np.concatenate([ring, 3 * ring]), np.repeat([0, 1], 100)
    >>> atlas = ManifoldAtlas(DiffusionManifold(n_components=9)).fit(X, y)
    >>> atlas.project([[0.0, 1.1], [0.0, 2.9]], labels=[0, 1]).round(2) + 0.0
    array([[0., 1.],
           [0., 3.]])
    >>> atlas.predict([[0.0, 1.4], [0.0, 2.6]])
    array([0, 1])
    """

    def __init__(self, estimator: DiffusionManifold | None = None, *, progress: bool = False) -> None:
        self.estimator = estimator
        self.progress = progress

    def fit(self, X: Array, y: Any) -> ManifoldAtlas:
        """Fit a manifold to the samples of each class.

        Parameters
        ----------
        X : array or Tensor (n, *shape)
        y : array or Tensor (n,)
            Class labels.

        Raises
        ------
        ValueError
            If `y` does not match `X`, or a class cannot be fitted (the class is named).
        """
        if not isinstance(X, torch.Tensor):
            X = np.asarray(X)
        labels = _labels(y, len(X))
        self.classes_ = np.unique(labels)
        self.n_features_in_ = int(np.prod(X.shape[1:]))
        self.manifolds_: list[DiffusionManifold] = []
        prototype = DiffusionManifold() if self.estimator is None else self.estimator
        seen: dict[type[Warning], list[tuple[Any, str]]] = {}
        for label in tqdm(self.classes_.tolist(), desc="class manifolds", disable=not self.progress):
            chosen = np.flatnonzero(labels == label)
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    self.manifolds_.append(clone(prototype).fit(X[chosen]))
            except (ValueError, EigenSolverError) as error:
                raise type(error)(f"class {label!r} ({len(chosen)} samples): {error}") from error
            for warning in caught:
                seen.setdefault(warning.category, []).append((label, str(warning.message)))
        for category, found in seen.items():  # one warning of a kind, not one a class
            names = ", ".join(dict.fromkeys(repr(label) for label, _ in found))
            warnings.warn(f"classes {names}: {found[0][1]}", category, stacklevel=2)
        return self

    def at(self, labels: Any) -> Manifold:
        """The manifold on which sample i of a batch belongs to class ``labels[i]``."""
        return _Chart(self, self._members(labels))

    def _members(self, labels: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Index of the manifold of each label."""
        check_is_fitted(self)
        wanted = _labels(labels)
        unknown = np.setdiff1d(wanted, self.classes_)
        if len(unknown):
            raise ValueError(f"labels {unknown.tolist()} are not among the fitted classes {self.classes_.tolist()}")
        return np.searchsorted(self.classes_, wanted)

    def project(self, x: Array, labels: Any, **options: Any) -> Any:
        """Project each sample (B, *shape) onto the manifold of its label; options as in `DiffusionManifold`."""
        return _Chart(self, self._members(labels)).project(x, **options)

    def tangent_basis(self, x: Array, labels: Any, method: str | None = None) -> Any:
        """Tangent basis (B, D, d) of each sample on the manifold of its label.

        d is the largest tangent dimension among the classes; members of lower dimension have zero columns.
        """
        return _Chart(self, self._members(labels)).tangent_basis(x, method=method)

    def distance(self, x: Array, labels: Any) -> Any:
        """Distance (B,) of each sample to the manifold of its label."""
        return _Chart(self, self._members(labels)).distance(x)

    def predict(self, X: Array) -> Any:
        """Class (B,) of the nearest manifold."""
        check_is_fitted(self)
        distances = torch.stack([_settled_distance(m, X) for m in self.manifolds_], dim=1)
        return self.classes_[distances.argmin(dim=1).cpu().numpy()]


class _Chart:
    """An atlas with the member of each sample fixed: a `Manifold`."""

    def __init__(self, atlas: ManifoldAtlas, members: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self._manifolds, self._members = atlas.manifolds_, members

    def project(self, x: Any, **options: Any) -> Any:
        return self._gather(x, lambda manifold, part: manifold.project(part, **options))

    def tangent_basis(self, x: Any, method: str | None = None) -> Any:
        return self._gather(x, lambda manifold, part: self._padded(manifold.tangent_basis(part, method=method)))

    def project_with_tangents(self, x: Any) -> tuple[Any, Any]:
        def both(manifold: DiffusionManifold, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            points, basis = manifold.project_with_tangents(part)
            return points, self._padded(basis)

        return self._gather(x, both)

    def _padded(self, basis: torch.Tensor) -> torch.Tensor:
        """Bases with columns of zeros up to the largest dimension of the members."""
        width = max(manifold.tangent_dimension_ for manifold in self._manifolds)
        return torch.nn.functional.pad(basis, (0, width - basis.shape[2]))

    def distance(self, x: Any) -> Any:
        return self._gather(x, lambda manifold, part: manifold.distance(part))

    def _gather(self, x: Any, evaluate: Any) -> Any:
        """What `evaluate(manifold, part)` returns for the samples of each member: a tensor, or several."""
        batch = as_tensor(x, "x")
        if len(batch) != len(self._members):
            raise ValueError(f"got {len(batch)} samples and {len(self._members)} labels")
        if len(batch) == 0:
            raise ValueError("the batch is empty")
        results: list[torch.Tensor] = []
        several = False
        for member in np.unique(self._members):
            chosen = torch.from_numpy(np.flatnonzero(self._members == member)).to(batch.device)
            parts = evaluate(self._manifolds[member], batch[chosen])
            several = isinstance(parts, tuple)
            parts = parts if several else (parts,)
            results = results or [part.new_empty(len(batch), *part.shape[1:]) for part in parts]
            for result, part in zip(results, parts, strict=True):
                result[chosen] = part
        answers = tuple(like(result, x) for result in results)
        return answers if several else answers[0]


def _settled_distance(manifold: DiffusionManifold, X: Array) -> torch.Tensor:
    """Distance (B,) to what a few projections lead to: one alone stays inside of what is curved, as seen from afar."""
    flat = manifold._query(X)
    points = flat
    for _ in range(SETTLING):
        points = land(manifold, points).points
    return torch.linalg.vector_norm(flat - points, dim=1)


def _labels(y: Any, n: int | None = None) -> np.ndarray[Any, Any]:
    """Labels as a one-dimensional numpy array, of length `n` if given."""
    labels = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if labels.ndim != 1 or (n is not None and len(labels) != n):
        expected = "one label for each sample" if n is None else f"one label for each of the {n} samples"
        raise ValueError(f"labels must be a vector with {expected}, got shape {labels.shape}")
    return labels
