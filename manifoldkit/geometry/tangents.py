"""Tangent spaces at points of a learned manifold: by adaptive local fits, by smooth vector fields, by components."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._arrays import chunks
from ..exceptions import DegenerateTangentWarning

if TYPE_CHECKING:
    from .diffusion import DiffusionManifold

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
    d = manifold.tangent_dimension_
    if manifold.dimension is None and d == flat.shape[1] > 1:
        warnings.warn(
            f"the estimated dimension {manifold.dimension_:.2f} makes tangent spaces all of the {d}-dimensional "
            "ambient space: noise raises it, so pass dimension=",
            DegenerateTangentWarning,
            stacklevel=3,
        )
    if method == "auto" and not manifold._adaptive.candidates:
        method = "pca"  # too few samples, or too many dimensions, for a fit that can be checked
    basis, singular = manifold._adaptive.frames(flat) if method == "auto" else _spans(manifold, flat, method)
    spanning = (singular[:, 0] > 0) & (singular[:, -1] > DEGENERATE[method] * singular[:, 0])
    if (degenerate := int((~spanning).sum())) > 0:
        warnings.warn(
            f"method {method!r} does not span {d} tangent directions at {degenerate} of {len(flat)} points: "
            f"{ADVICE[method]}, or ask for a lower dimension",
            DegenerateTangentWarning,
            stacklevel=3,
        )
    return basis, singular


def _spans(manifold: DiffusionManifold, flat: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Leading directions of the vectors that a method finds at `flat` (B, D)."""
    d = manifold.tangent_dimension_
    directions = {"sec": _field_directions, "pca": _neighbor_directions, "smoothed": _smoothed_directions}[method]
    # Smoothed points lie in the span of few modes: their directions are found there, and carried to D dimensions.
    frame = manifold._smoothed_points[1].to(flat) if method == "smoothed" else None
    basis, singular = flat.new_empty(len(flat), flat.shape[1], d), flat.new_empty(len(flat), d)
    n_vectors = max(manifold._tangent_neighbors, 3 * d + 2)
    for part in chunks(len(flat), 24 * n_vectors * flat.shape[1]):
        vectors = directions(manifold, flat[part])
        if min(vectors.shape[1:]) < d:
            raise ValueError(
                f"method {method!r} has {min(vectors.shape[1:])} directions for {d} dimensions: raise n_components, "
                "or n_tangent_neighbors, or pass a lower dimension"
            )
        found, values = leading_directions(vectors, d)
        singular[part] = values[:, :d]
        basis[part] = found if frame is None else frame @ found
    return basis, singular


def _field_directions(manifold: DiffusionManifold, flat: Tensor) -> Tensor:
    """The smoothest vector fields (B, R, D)."""
    exterior = manifold.exterior
    wanted = 3 if manifold.tangent_dimension_ == 1 else 3 * manifold.tangent_dimension_ + 2
    return exterior._fields(flat, min(wanted, len(exterior.eigenvalues_)))


def _neighbor_directions(manifold: DiffusionManifold, flat: Tensor) -> Tensor:
    """Nearest training points less their mean (B, k, D)."""
    offsets = neighbor_offsets(manifold, flat, manifold._tangent_neighbors)
    return offsets - offsets.mean(dim=1, keepdim=True)


def neighbor_offsets(manifold: DiffusionManifold, flat: Tensor, n_neighbors: int) -> Tensor:
    """Vectors (B, k, D) from points to their nearest training points."""
    _, index = manifold._sampling.search.kneighbors(flat.cpu().numpy(), n_neighbors)
    return torch.from_numpy(manifold._sampling.points[index]).to(flat) - flat[:, None]


def _smoothed_directions(manifold: DiffusionManifold, flat: Tensor) -> Tensor:
    """Projections of the training points of largest weight, less their weighted mean, times root weight (B, k, r)."""
    with torch.no_grad():
        weights, index = manifold._row(flat.device)(flat, manifold.far)
    weights, top = weights.topk(min(manifold._tangent_neighbors, weights.shape[1]), dim=1)
    weights = (weights / weights.sum(dim=1, keepdim=True))[:, :, None]
    near = manifold._smoothed_points[0].to(flat)[top if index is None else index.gather(1, top)]
    return weights.sqrt() * (near - (weights * near).sum(dim=1, keepdim=True))
