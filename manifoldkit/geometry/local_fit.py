r"""Tangent spaces by local polynomial fits, and what is known of their error without the truth.

In coordinates t = T^T (x_i - x) along a frame T the neighbours x_i of x are fitted by a polynomial,

.. math::  x_i - x \approx a + J t_i + \text{higher terms in } t_i,

and the columns of J span the next frame. Once J = T the point x stands over the foot of its perpendicular, so that the
frame is the tangent space there, also for noisy x. Degree 1 is local principal components with weights; degree 2 takes
the curvature out, which lets neighbourhoods grow, and noise average out, at no cost in bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["assess_fit", "local_frame", "n_monomials"]

#: Refinements of the frame; each multiplies its error by `contraction`, which is small wherever a fit is of use.
ITERATIONS = 3
#: Ridge of the normal equations, for directions that the neighbours do not fill.
RIDGE = 1e-10
#: Weight of the farthest neighbour.
LEAST_WEIGHT = 1e-3
#: Contraction beyond which the expected error grows no more: such a fit is all noise.
LEAST_TRUST = 0.95
#: Coordinates or neighbours from which the first principal components are found.
FEW = 64


def n_monomials(dimension: int, degree: int) -> int:
    """Number of monomials of degree 0 to `degree` in `dimension` variables."""
    return math.comb(dimension + degree, degree)


def local_frame(offsets: Tensor, dimension: int, degree: int) -> tuple[Tensor, Tensor]:
    """Tangent frames at points, by a polynomial fit of their neighbours.

    Parameters
    ----------
    offsets : Tensor (B, k, D)
        Vectors from the points to their neighbours; k at least `n_monomials`.
    dimension : int
    degree : int

    Returns
    -------
    frame : Tensor (B, D, dimension)
        Orthonormal columns, those along which the neighbours spread most first.
    spread : Tensor (B, dimension)
        Singular values of the centred and weighted neighbours along the columns, descending.

    Examples
    --------
    >>> t = torch.linspace(-0.1, 0.3, 9, dtype=torch.float64)
    >>> parabola = torch.stack([t, t**2], dim=1)[None]
    >>> [local_frame(parabola, 1, degree)[0].abs().round(decimals=2).ravel().tolist() for degree in (1, 2)]
    [[0.99, 0.12], [1.0, 0.0]]
    """
    frame = _principal_frame(offsets, dimension)
    weights, width = _weights(offsets)
    for _ in range(ITERATIONS):
        design = monomials(offsets @ frame / width, degree)
        slopes = _coefficients(design, weights, offsets)[:, 1 : 1 + dimension]
        frame = torch.linalg.qr(slopes.mT).Q
    squares, turn = torch.linalg.eigh(_covariance(offsets @ frame, weights))
    spread = (squares.flip(1).clamp_min(0) * offsets.shape[1]).sqrt()
    return frame @ turn.flip(2), spread


def assess_fit(offsets: Tensor, frame: Tensor, degree: int, finest: int) -> tuple[Tensor, Tensor]:
    r"""Expected squared error of `local_frame`, as variance and squared bias.

    The error is the sum of the squared sines of the principal angles. With L the linear map from the neighbours to the
    slopes, noise of variance :math:`\sigma^2` (of the residuals) gives :math:`\sigma^2 |L|^2`. The bias is what more
    degrees change, :math:`|J' - T|^2 - 2 \sigma'^2 |L' - L|^2`: less its expectation where the polynomial is right, and
    as much again, which is about its standard deviation. It may be negative: average it over neighbouring points before
    use. Both grow by :math:`(1 - r)^{-2}`, where r, the noise over the spread along the least tangent direction, is
    the factor by which one iteration contracts an error: noise in t hides a share r of it.

    Parameters
    ----------
    offsets : Tensor (B, k, D)
        k greater than `n_monomials` of degree `finest`.
    frame : Tensor (B, D, d)
    degree : int
    finest : int
        The fit is held against those of the degrees ``degree + 1`` to `finest`.

    Returns
    -------
    variance : Tensor (B,)
    squared_bias : Tensor (B, finest - degree)
        As seen by each of the finer degrees.
    """
    d, codimension = frame.shape[2], max(1, offsets.shape[2] - frame.shape[2])
    weights, width = _weights(offsets)
    along = offsets @ frame
    design = monomials(along / width, finest)
    weighted = (design * weights[:, :, None]).mT
    moments = weighted @ offsets
    total = (weights * offsets.square().sum(dim=2)).sum(dim=1)
    (noise, slopes, _), *finer = (
        _fit(design[:, :, :p], weighted[:, :p], moments[:, :p], total, weights, d)
        for p in (n_monomials(d, order) for order in range(degree, finest + 1))
    )
    scale = width[:, 0, 0].square()
    seen = []
    for finer_noise, finer_slopes, steeper in finer:
        change = steeper / width
        change = change - (change @ frame) @ frame.mT
        doubt = finer_noise * (finer_slopes - slopes).square().sum((1, 2)) / scale
        seen.append(change.square().sum((1, 2)) - 2 * doubt)
    least = torch.linalg.eigvalsh(_covariance(along, weights))[:, 0]
    contraction = (noise / codimension / least.clamp_min(torch.finfo(noise.dtype).tiny)).clamp_max(LEAST_TRUST)
    growth = (1 - contraction) ** -2
    return growth * noise * slopes.square().sum((1, 2)) / scale, growth[:, None] * torch.stack(seen, dim=1)


def monomials(t: Tensor, degree: int) -> Tensor:
    """Monomials (B, k, p) of degree 0, 1, ..., `degree` in t (B, k, d)."""
    columns = [torch.ones_like(t[:, :, :1]), t]
    for order in range(2, degree + 1):
        factors = torch.combinations(torch.arange(t.shape[2], device=t.device), order, with_replacement=True)
        columns.append(t[:, :, factors].prod(dim=3))
    return torch.cat(columns, dim=2)


def _principal_frame(offsets: Tensor, dimension: int) -> Tensor:
    """First principal directions (B, D, d): of every neighbour, or in many dimensions of some of them."""
    if offsets.shape[2] > FEW and offsets.shape[1] > FEW:
        offsets = offsets[:, :: -(-offsets.shape[1] // FEW)]
    centred = offsets - offsets.mean(dim=1, keepdim=True)
    if offsets.shape[2] <= offsets.shape[1]:
        return torch.linalg.eigh(centred.mT @ centred)[1].flip(2)[:, :, :dimension]
    leading = torch.linalg.eigh(centred @ centred.mT)[1].flip(2)[:, :, :dimension]
    return torch.linalg.qr(centred.mT @ leading).Q


def _weights(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Epanechnikov weights (B, k) with sum 1, and the distance (B, 1, 1) of the farthest neighbour."""
    distances = torch.linalg.vector_norm(offsets, dim=2)
    width = distances.amax(dim=1, keepdim=True)
    weights = (1 - (distances / width).square()).clamp_min(LEAST_WEIGHT)
    return weights / weights.sum(dim=1, keepdim=True), width[:, :, None]


def _covariance(along: Tensor, weights: Tensor) -> Tensor:
    """Covariance (B, d, d) of coordinates (B, k, d) under weights (B, k)."""
    centred = along - weights[:, None] @ along
    return (weights[:, :, None] * centred).mT @ centred


def _coefficients(design: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Coefficients (B, p, D) of the weighted least squares fit of offsets (B, k, D) by columns (B, k, p)."""
    weighted = (design * weights[:, :, None]).mT
    return torch.linalg.solve(_normal(weighted, design), weighted @ offsets)


def _normal(weighted: Tensor, design: Tensor) -> Tensor:
    normal = weighted @ design
    normal.diagonal(dim1=1, dim2=2).add_(RIDGE)
    return normal


def _fit(
    design: Tensor, weighted: Tensor, moments: Tensor, total: Tensor, weights: Tensor, d: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual variance (B,), map (B, d, k) from values to slopes, and slopes (B, d, D), of a least squares fit.

    The variance is summed over coordinates, and the degrees of freedom of the fit are taken off. Residuals are found
    from moments: the fit's largest arrays, (B, k, D), need not be formed.
    """
    solved = torch.linalg.solve(_normal(weighted, design), torch.cat([weighted, moments], dim=2))
    solver, coefficients = solved.split([design.shape[1], moments.shape[2]], dim=2)
    explained = (moments * coefficients).sum((1, 2)) + RIDGE * coefficients.square().sum((1, 2))
    leverage = (design * solver.mT).sum(dim=2)
    noise = (total - explained).clamp_min(0) / (weights * (1 - leverage)).sum(dim=1)
    return noise, solver[:, 1 : 1 + d], coefficients[:, 1 : 1 + d]
