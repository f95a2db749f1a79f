"""Tangent spaces at points of a learned manifold: by adaptive local fits, by smooth vector fields, by components."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._arrays import chunks
from .._parallel import in_batches
from ..exceptions import DegenerateTangentWarning

if TYPE_CHECKING:
    from .diffusion import DiffusionManifold
    from .nystrom import Weights

__all__ = ["TANGENT_METHODS", "leading_directions", "tangent_basis"]

TANGENT_METHODS = ("auto", "sec", "pca", "smoothed")

#: Ratio of the d-th to the first singular value below which directions do not span. Fields are of unit mean
#: length, so that a tenth tells; neighbours lie in an ellipsoid whose short axes are directions all the same.
DEGENERATE = {"auto": 1e-6, "sec": 0.1, "pca": 1e-8, "smoothed": 1e-8}
ADVICE = {
    "auto": "the samples around have no more directions",
    "sec": "more fields or components may help, or near edges method='pca'",
    "pca": "ask for more n_tangent_neighbors",
    "smoothed": "ask for more n_tangent_neighbors",
}


def leading_directions(vectors: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """Orthonormal basis of the dominant span of row vectors, and all their singular values.

    Parameters
    ----------
    vectors : Tensor (B, R, D)
    dimension : int

    Returns
    -------
    basis : Tensor (B, D, dimension)
    singular_values : Tensor (B, min(R, D)), descending
    """
    if 2 * vectors.shape[1] > vectors.shape[2]:
        _, values, rows = torch.linalg.svd(vectors, full_matrices=False)
        return rows[:, :dimension].transpose(1, 2), values
    # Few long vectors: their small Gram matrix has the same singular values, at a fraction of the cost.
    squares, mixing = torch.linalg.eigh(vectors @ vectors.transpose(1, 2))
    leading = mixing.flip(2)[:, :, :dimension]
    basis = torch.linalg.qr(vectors.transpose(1, 2) @ leading).Q
    return basis, squares.flip(1).clamp_min(0).sqrt()


def tangent_basis(manifold: DiffusionManifold, flat: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Basis (B, D, d) and singular values (B, d) at `flat` (B, D), see `DiffusionManifold.tangent_basis`."""
    method = prepare_tangents(manifold, method)
    basis, singular = in_batches(partial(tangent_pieces, manifold, method), flat, manifold.n_jobs)
    warn_of_tangents(manifold, method, flat.shape[1], singular)
    return basis, singular


def prepare_tangents(manifold: DiffusionManifold, method: str) -> str:
    """Make what all queries share, so that no worker makes it again; return the method that is to be used."""
    if method == "auto":
        # Too few samples, or too many dimensions, for a fit that can be checked, leave local components.
        return "auto" if manifold._adaptive.candidates else "pca"
    if method == "sec":
        _ = manifold.exterior
    elif method == "smoothed":
        _ = manifold._smoothed_points
    return method


def warn_of_tangents(manifold: DiffusionManifold, method: str, n_features: int, singular: Tensor) -> None:
    """Warn of bases that fill the space, and of those that do not span it, by their singular values (B, d)."""
    d = manifold.tangent_dimension_
    if manifold.dimension is None and d == n_features > 1:
        warnings.warn(
            f"the estimated dimension {manifold.dimension_:.2f} makes tangent spaces all of the {d}-dimensional "
            "ambient space: noise raises it, so pass dimension=",
            DegenerateTangentWarning,
            stacklevel=4,
        )
    spanning = (singular[:, 0] > 0) & (singular[:, -1] > DEGENERATE[method] * singular[:, 0])
    if degenerate := int((~spanning).sum()):
        warnings.warn(
            f"method {method!r} does not span {d} tangent directions at {degenerate} of {len(singular)} points: "
            f"{ADVICE[method]}, or ask for a lower dimension",
            DegenerateTangentWarning,
            stacklevel=4,
        )


def tangent_pieces(
    manifold: DiffusionManifold, method: str, flat: Tensor, weights: Weights | None = None
) -> tuple[Tensor, Tensor]:
    """Basis (B, D, d) and singular values (B, d), without warnings.

    The Nystrom weights at `flat` are computed if they are needed and not passed.
    """
    if method == "auto":
        center = torch.from_numpy(manifold._sampling.frame.center).to(flat)
        return manifold._adaptive.frames(flat - center)
    d = manifold.tangent_dimension_
    directions = {"sec": _field_directions, "pca": _neighbor_directions, "smoothed": _smoothed_directions}[method]
    # Smoothed points lie in the span of few modes: their directions are found there, and carried to D dimensions.
    frame = manifold._smoothed_points[1].to(flat) if method == "smoothed" else None
    basis, singular = flat.new_empty(len(flat), flat.shape[1], d), flat.new_empty(len(flat), d)
    n_vectors = max(manifold._tangent_neighbors, 3 * d + 2)
    for part in chunks(len(flat), 24 * n_vectors * flat.shape[1]):
        vectors = directions(manifold, flat[part], None if weights is None else weights.rows(part))
        if min(vectors.shape[1:]) < d:
            raise ValueError(
                f"method {method!r} has {min(vectors.shape[1:])} directions for {d} dimensions: raise n_components, "
                "or n_tangent_neighbors, or pass a lower dimension"
            )
        found, values = leading_directions(vectors, d)
        singular[part] = values[:, :d]
        if frame is not None:  # one product for all points
            found = (frame @ found.transpose(0, 1).flatten(1)).unflatten(1, (-1, d)).transpose(0, 1)
        basis[part] = found
    return basis, singular


def _field_directions(manifold: DiffusionManifold, flat: Tensor, weights: Weights | None) -> Tensor:
    """The smoothest vector fields (B, R, D)."""
    exterior = manifold.exterior
    wanted = 3 if manifold.tangent_dimension_ == 1 else 3 * manifold.tangent_dimension_ + 2
    return exterior._fields(flat, min(wanted, len(exterior.eigenvalues_)), weights)


def _neighbor_directions(manifold: DiffusionManifold, flat: Tensor, weights: Weights | None) -> Tensor:
    """Nearest training points less their mean (B, k, D)."""
    offsets = neighbor_offsets(manifold, flat, manifold._tangent_neighbors)
    return offsets - offsets.mean(dim=1, keepdim=True)


def neighbor_offsets(manifold: DiffusionManifold, flat: Tensor, n_neighbors: int) -> Tensor:
    """Vectors (B, k, D) from points to their nearest training points."""
    sampling = manifold._sampling
    _, index = sampling.search.kneighbors(sampling.frame(flat.cpu().numpy()), n_neighbors)
    return torch.from_numpy(sampling.ambient(index)).to(flat) - flat[:, None]


def _smoothed_directions(manifold: DiffusionManifold, flat: Tensor, weights: Weights | None) -> Tensor:
    """Projections of the training points of largest weight, less their weighted mean, times root weight (B, k, r)."""
    if weights is None:
        with torch.no_grad():
            weights = manifold._row(flat.device)(flat, manifold.far)
    shares, top = weights.values.topk(min(manifold._tangent_neighbors, weights.values.shape[1]), dim=1)
    shares = (shares / shares.sum(dim=1, keepdim=True))[:, :, None]
    points = manifold._smoothed_points[0].to(flat)
    near = points[top if weights.index is None else weights.index.gather(1, top)]
    return shares.sqrt() * (near - (shares * near).sum(dim=1, keepdim=True))
