r"""Leading eigenpairs of large sparse Markov matrices: block iteration on a hierarchy of aggregated points.

Lanczos needs some :math:`1/\sqrt{1 - \lambda}` products with the matrix, and :math:`1 - \lambda` falls like
:math:`(k/n)^{2/d}`: its cost grows faster than the data. Here the smooth part of an error is solved for on aggregates
of neighbouring points, and a few damping products with the matrix remove the rest, so that the number of iterations
does not grow with n.

The matrix S is symmetric with largest eigenvalue 1 and known eigenvector v. On each level neighbouring points form
aggregates; the tentative prolongation is v restricted to the aggregates, multiplied once by S, which makes it smooth
("smoothed aggregation"). :math:`A = 1 - S` is projected onto it (Galerkin), and the coarsest matrix is factorised.

References
----------
.. [1] A. Knyazev, "Toward the optimal preconditioned eigensolver: locally optimal block preconditioned conjugate
   gradient method", SIAM J. Sci. Comput. 23 (2001), 517-541.
.. [2] P. Vanek, J. Mandel, M. Brezina, "Algebraic multigrid by smoothed aggregation for second and fourth order
   elliptic problems", Computing 56 (1996), 179-196.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import eigsh

from ..exceptions import EigenSolverError
from .neighbors import Floats

__all__ = ["AggregationHierarchy", "block_eigenpairs", "coarsens", "multilevel_eigenpairs"]

#: Points in an aggregate: on the finest level, where the kernel joins some fifty, and on the others.
AGGREGATE, AGGREGATE_COARSE = 8, 16
#: Levels of up to this many aggregates are inverted.
COARSEST = 500
#: Neighbours of a point fall into fewer aggregates than this share of their number, if levels are to be sparse.
WORTHWHILE = 0.5
#: Damping steps before and after the correction by the coarser level.
SWEEPS = 2
#: Share of the mass matrix added to the coarsest operator, whose kernel is the known eigenvector.
SHIFT = 1e-9
#: Residuals count as converged below this share of 1 - lambda: eigenvectors are as exact to a few such shares.
TOLERANCE = 1e-4
#: Gaps to which residuals of nearly equal leading eigenvalues are compared: rounding leaves some 1e-14.
LEAST_GAP = 1e-8
#: Most iterations; some ten are usual.
MOST_ITERATIONS = 60

Blocks = Callable[[torch.Tensor], torch.Tensor]


def _times(matrix: Any, block: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix @ block.numpy()))


class _Level:
    """One level: its operator A, how errors on it are damped, and the way to the next coarser one."""

    def __init__(self, operator: Any, mass: Any, inverse_diagonal: Floats, prolongation: Any) -> None:
        self.operator, self.mass = operator, mass
        self.damping = torch.from_numpy(inverse_diagonal)[:, None]
        self.prolongation, self.restriction = prolongation, sp.csr_array(prolongation.T)

    def damped(self, x: torch.Tensor, residual: torch.Tensor, sweeps: int) -> torch.Tensor:
        """`x` after Jacobi steps towards A x = residual."""
        for _ in range(sweeps):
            x = x + self.damping * (residual - _times(self.operator, x))
        return x


class AggregationHierarchy:
    r"""Approximate inverse of 1 - S by one symmetric V-cycle over levels of aggregates.

    Parameters
    ----------
    matrix : sparse array (n, n)
        Symmetric S with spectrum below 1.
    null : array (n,)
        Positive unit vector v with S v = v.
    order : array (n,), optional
        Permutation that puts neighbouring points next to each other; default: they are so already.
    """

    def __init__(self, matrix: Any, null: Floats, order: Any | None = None) -> None:
        self.matrix = matrix
        prolongation, null = _tentative(null, AGGREGATE, order)
        prolongation = matrix @ prolongation
        operator, mass = _galerkin(prolongation, prolongation - matrix @ prolongation)
        self.prolongation, self.restriction = prolongation, sp.csr_array(prolongation.T)
        self.levels: list[_Level] = []
        while operator.shape[0] > COARSEST:
            diagonal = operator.diagonal()
            inverse = 4 / (3 * _largest(operator, diagonal)) / diagonal
            prolongation, null = _tentative(null, AGGREGATE_COARSE)
            prolongation = sp.csr_array(prolongation - sp.diags_array(inverse) @ (operator @ prolongation))
            level = _Level(operator, mass, inverse, prolongation)
            self.levels.append(level)
            operator = sp.csr_array(level.restriction @ operator @ prolongation)
            mass = sp.csr_array(level.restriction @ mass @ prolongation)
        self.operator, self.mass = operator, mass
        shifted = (operator + SHIFT * mass).toarray()
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(shifted)))

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """Approximate solution (n, m) of (1 - S) x = residual, a symmetric positive map."""
        smooth = _times(self.matrix, residual)  # residual after one step of damping: r - (1 - S) r
        result = residual + _times(self.prolongation, self._coarse(_times(self.restriction, smooth), 0))
        return residual + _times(self.matrix, result)

    def _coarse(self, residual: torch.Tensor, depth: int) -> torch.Tensor:
        if depth == len(self.levels):
            return self.inverse @ residual
        level = self.levels[depth]
        result = level.damped(level.damping * residual, residual, SWEEPS - 1)
        rest = residual - _times(level.operator, result)
        result += _times(level.prolongation, self._coarse(_times(level.restriction, rest), depth + 1))
        return level.damped(result, residual, SWEEPS)

    def start(self, n_vectors: int) -> torch.Tensor:
        """Approximate eigenvectors (n, n_vectors), the known one left out: those of the coarsest level, carried up."""
        normal = _normaliser(torch.from_numpy(self.mass.toarray()), 1e-12)
        modes = normal @ torch.linalg.eigh(normal.T @ torch.from_numpy(self.operator.toarray()) @ normal).eigenvectors
        block = modes[:, 1 : n_vectors + 1].contiguous()
        for level in reversed(self.levels):
            block = _times(level.prolongation, block)
        return _times(self.prolongation, block)


def coarsens(matrix: Any, order: Any | None = None) -> bool:
    """Whether the neighbours of a point share aggregates, so that coarser levels are sparse and worth their cost.

    In many dimensions nearly every neighbour is in an aggregate of its own.
    """
    n = matrix.shape[0]
    labels = _labels(n, AGGREGATE, order)
    rows = np.linspace(0, n - 1, min(n, 500)).astype(np.int64)
    touched = [np.unique(labels[matrix.indices[matrix.indptr[i] : matrix.indptr[i + 1]]]).size for i in rows]
    entries = (matrix.indptr[rows + 1] - matrix.indptr[rows]).sum()
    return bool(sum(touched) < WORTHWHILE * entries)


def _labels(n: int, size: int, order: Any | None = None) -> Any:
    """Aggregate of each point: so many that follow each other."""
    labels = np.arange(n) // size
    if order is not None:
        labels[order] = labels.copy()
    return labels


def _tentative(null: Floats, size: int, order: Any | None = None) -> tuple[Any, Floats]:
    """Piecewise prolongation (n, m) with orthonormal columns that reproduces `null`, and `null` on the aggregates."""
    n = len(null)
    labels = _labels(n, size, order)
    coarse = np.sqrt(np.bincount(labels, null**2))
    return sp.csr_array((null / coarse[labels], labels, np.arange(n + 1)), shape=(n, len(coarse))), coarse


def _largest(operator: Any, diagonal: Floats) -> float:
    """Largest eigenvalue of D^-1 A, from below and to some per cent."""
    root = sp.diags_array(diagonal**-0.5)
    start = np.random.RandomState(0).uniform(-1, 1, len(diagonal))
    return float(eigsh(root @ operator @ root, k=1, tol=0.05, v0=start, return_eigenvectors=False)[0])


def _galerkin(prolongation: Any, image: Any) -> tuple[Any, Any]:
    """Operator and mass matrix on the aggregates."""
    restriction = sp.csr_array(prolongation.T)
    return sp.csr_array(restriction @ image), sp.csr_array(restriction @ prolongation)


def _orthonormal(block: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis of the span of columns, those that depend on others left out."""
    basis = _normaliser(block.T @ block, 1e-12)
    return block @ basis


def _normaliser(gram: torch.Tensor, tol: float) -> torch.Tensor:
    """Matrix B with B^T G B = 1 on the range of `gram`."""
    scale = gram.diagonal().clamp_min(torch.finfo(gram.dtype).tiny).rsqrt()
    values, vectors = torch.linalg.eigh(gram * scale[:, None] * scale)
    kept = values > tol * values[-1]
    return scale[:, None] * vectors[:, kept] / values[kept].sqrt()


def _symmetric(upper: torch.Tensor) -> torch.Tensor:
    """Symmetric matrix of which the upper triangle is given."""
    return upper.triu() + upper.triu(1).T


def block_eigenpairs(
    matrix: Any, null: Floats, precondition: Blocks, start: torch.Tensor, n_wanted: int, tol: float = TOLERANCE
) -> tuple[Floats, Floats]:
    r"""Smallest eigenpairs of 1 - S orthogonal to `null`, by LOBPCG.

    Parameters
    ----------
    matrix : sparse array (n, n)
        Symmetric S.
    null : array (n,)
        Known unit eigenvector of S to the eigenvalue 1.
    precondition : callable
        Approximate inverse of 1 - S on blocks (n, m).
    start : Tensor (n, m)
        First block; columns beyond `n_wanted` are guards which speed up the last pairs.
    n_wanted : int
    tol : float
        Pairs are done when :math:`|S v - \lambda v| \le tol (1 - \lambda)`.

    Returns
    -------
    array (n_wanted,)
        Values of 1 - lambda, ascending.
    array (n, n_wanted)

    Raises
    ------
    EigenSolverError
        If the iteration did not converge.
    """
    known = torch.from_numpy(null)

    def deflate(block: torch.Tensor) -> torch.Tensor:
        return block.sub_(torch.outer(known, known @ block))

    def apply(block: torch.Tensor) -> torch.Tensor:
        return block - _times(matrix, block)

    x = _orthonormal(deflate(start))
    width = x.shape[1]
    ax = apply(x)
    theta, rotation = torch.linalg.eigh(x.T @ ax)
    x, ax = x @ rotation, ax @ rotation
    p, ap = x[:, :0], ax[:, :0]
    worst = torch.inf
    for _ in range(MOST_ITERATIONS):
        residual = ax - x * theta
        share = torch.linalg.vector_norm(residual, dim=0) / theta.clamp_min(LEAST_GAP)
        worst = float(share[:n_wanted].max())
        if worst <= tol:
            return theta[:n_wanted].numpy(), x[:, :n_wanted].numpy()
        w = deflate(precondition(residual[:, share > tol].contiguous()))
        w = _orthonormal(torch.addmm(w, x, x.T @ w, alpha=-1))
        aw = apply(w)
        # Rayleigh-Ritz on the span of x, w and p, of which x and w are orthonormal.
        middle = width + w.shape[1]
        gram = torch.eye(middle + p.shape[1], dtype=x.dtype)
        form = torch.diag(torch.cat([theta, theta.new_zeros(len(gram) - width)]))
        gram[:width, middle:], gram[width:middle, middle:], gram[middle:, middle:] = x.T @ p, w.T @ p, p.T @ p
        form[:width, width:middle], form[:width, middle:] = x.T @ aw, x.T @ ap
        form[width:middle, width:middle], form[width:middle, middle:] = w.T @ aw, w.T @ ap
        form[middle:, middle:] = p.T @ ap
        normal = _normaliser(_symmetric(gram), 1e-11)
        values, vectors = torch.linalg.eigh(normal.T @ _symmetric(form) @ normal)
        theta, mixing = values[:width], normal @ vectors[:, :width]
        first, second, third = mixing[:width], mixing[width:middle], mixing[middle:]
        p, ap = torch.addmm(w @ second, p, third), torch.addmm(aw @ second, ap, third)
        x, ax = torch.addmm(p, x, first), torch.addmm(ap, ax, first)
    raise EigenSolverError(
        f"eigen_solver='lobpcg' left a residual of {worst:.1e} (1 - lambda) after {MOST_ITERATIONS} iterations "
        f"(limit {tol:.0e}): use eigen_solver='arpack', or more neighbours"
    )


def multilevel_eigenpairs(
    matrix: Any,
    null: Floats,
    n_components: int,
    order: Any | None = None,
) -> tuple[Floats, Floats]:
    """Largest eigenvalues of S, descending from 1, and their vectors (n, n_components).

    Parameters
    ----------
    matrix : sparse array (n, n)
        Symmetric S with spectrum below 1.
    null : array (n,)
        Positive unit vector v with S v = v.
    n_components : int
        Number of pairs, the known one included.
    order : array (n,), optional
        Permutation that puts neighbouring points next to each other; default: they are so already.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> n = 600
    >>> ring = sum(sp.eye_array(n, k=s) for s in (-2, -1, 0, 1, 2, n - 2, n - 1, 1 - n, 2 - n)) / 5
    >>> values, vectors = multilevel_eigenpairs(sp.csr_array(ring), np.full(n, n**-0.5), 5)
    >>> ((1 - values) / (1 - values[1])).round(2) + 0.0
    array([0., 1., 1., 4., 4.])
    """
    hierarchy = AggregationHierarchy(matrix, null, order)
    wanted = n_components - 1
    guards = max(4, n_components // 4)
    gaps, vectors = block_eigenpairs(matrix, null, hierarchy, hierarchy.start(wanted + guards), wanted)
    return np.concatenate([[1.0], 1 - gaps]), np.column_stack([null, vectors])
