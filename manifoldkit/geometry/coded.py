"""`CodedManifold`: what estimators with an encoder and a decoder share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from .._arrays import as_tensor, chunks, flatten, like
from .._modules import evaluating
from .decoder import DecoderManifold, _home

__all__ = ["CodedManifold"]


class CodedManifold(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of estimators that learn codes and the way back: transformers that are manifolds as well.

    A subclass sets in `fit` the modules `encoder_` (B, *shape) -> (B, d) and `decoder_` (B, d) -> (B, *shape), in the
    units of the samples, `sample_shape_`, and `_n_features_out`, which is d.
    """

    encoder_: nn.Module
    decoder_: nn.Module
    sample_shape_: tuple[int, ...]
    _n_features_out: int

    def transform(self, X: Any) -> Any:
        """Codes (B, d) of samples (B, *shape), of their kind, dtype and device: the encoder alone."""
        x = self._query(X)
        return like(self._run(self.encoder_, x), X)

    def inverse_transform(self, Z: Any) -> Any:
        """Samples (B, *shape) of codes (B, d), of their kind, dtype and device."""
        check_is_fitted(self)
        codes = flatten(as_tensor(Z, "Z"), (self._n_features_out,), "Z")
        return like(self._run(self.decoder_, codes), Z)

    def project(self, x: Any) -> Any:
        """Nearest points (B, *shape) of the manifold of the decoder."""
        return self._as_queried(self.manifold.project(self._query(x)), x)

    def tangent_basis(self, x: Any) -> Any:
        """Orthonormal tangent vectors (B, D, d) at the projections of `x`."""
        return like(self.manifold.tangent_basis(self._query(x)), x)

    def project_with_tangents(self, x: Any) -> tuple[Any, Any]:
        """`project(x)` and `tangent_basis(x)` from one search of the codes."""
        points, basis = self.manifold.project_with_tangents(self._query(x))
        return self._as_queried(points, x), like(basis, x)

    def distance(self, x: Any) -> Any:
        """Distance (B,) of points to the manifold."""
        return like(self.manifold.distance(self._query(x)), x)

    @property
    def manifold(self) -> DecoderManifold:
        """The decoder's image as a manifold, to set the number of refinements, say."""
        check_is_fitted(self)
        return DecoderManifold(self.encoder_, self.decoder_)

    def _samples(self, X: Any) -> tuple[Any, torch.Tensor]:
        """Samples as rows, with the names of their columns if they have any, and checked ones (n, *shape) in float64.

        Nothing is set, so that an estimator that refuses them remains what it was.
        """
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        shape = np.asarray(X).shape
        rows = np.reshape(X, (shape[0], -1)) if len(shape) > 2 else X
        flat = check_array(rows, dtype=np.float64, ensure_min_samples=2, copy=True, estimator=self, input_name="X")
        return rows, torch.from_numpy(flat.reshape(len(flat), *shape[1:]))

    def _query(self, X: Any) -> torch.Tensor:
        """Queries (B, *shape) in float64."""
        check_is_fitted(self)
        vectors = len(self.sample_shape_) == 1 or hasattr(X, "columns")
        if not isinstance(X, torch.Tensor) and vectors and np.asarray(X).ndim <= 2:
            X = validate_data(self, X, dtype=np.float64, reset=False)
        flat = flatten(as_tensor(X, "X"), self.sample_shape_, "X")
        if len(flat) == 0:
            raise ValueError(f"X is empty: found array with 0 samples, of shape {tuple(flat.shape)}")
        return flat.reshape(len(flat), *self.sample_shape_)

    def _as_queried(self, points: torch.Tensor, x: Any) -> Any:
        return like(points.reshape(np.shape(x)), x)

    @torch.no_grad()
    def _run(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        home = _home(self.encoder_, self.decoder_, x)
        with evaluating(network):
            parts = [network(x[rows].to(home)) for rows in chunks(len(x), 64 * x[0].numel() * 8)]
        return torch.cat(parts)
