r"""Eigenpairs of the diffusion operator, and their translation into those of the Laplace-Beltrami operator.

With degrees :math:`D_i = \sum_j K_{ij} w_j` (w: multiplicities of the points) the Markov matrix
:math:`P = D^{-1} K W` is similar to the symmetric matrix
:math:`S = (W/D)^{1/2} K (W/D)^{1/2}`. If :math:`S v = \lambda v` then :math:`\phi = (D W)^{-1/2} v` is an
eigenfunction of P, and the :math:`\phi` are orthonormal in the stationary measure :math:`\mu \propto D W`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from .._parallel import limited_threads
from ..exceptions import EigenSolverError
from .block_krylov import block_krylov, fits_in
from .kernels import KernelShape
from .matrix_free import rescaled
from .multilevel import TOLERANCE, coarsens, multilevel_eigenpairs
from .neighbors import Floats, Ints

__all__ = ["Spectrum", "diffusion_spectrum", "laplacian_eigenvalues"]

#: Largest residual |S v - lam v| of an accepted eigenpair, as a share of 1 - lam. An absolute limit would let vectors
#: pass that are wrong: on large sets the leading eigenvalues differ from 1, and from each other, by 1e-6.
RESIDUAL = 2 * TOLERANCE
#: Largest deviation of inner products of accepted vectors from 0 and 1.
SKEWNESS = 1e-5
#: Lanczos steps that look for a missed pair.
SECOND_LOOK = 12
#: Residuals that rounding may leave.
ROUNDING = 1e-10
#: Sparse kernels of this size that can be coarsened are solved by multilevel LOBPCG, others by ARPACK.
LOBPCG_SIZE = 10_000
#: Dense kernels up to this size are given to LAPACK, which never loses a copy of a degenerate pair.
LAPACK_SIZE = 1500
#: So are sparse ones up to this size, which cost next to nothing; ARPACK gives up where all eigenvalues are equal.
SMALL_SIZE = 400
#: Entries of a normalised kernel below this are nothing beside rounding. Without them ARPACK's products are sparse,
#: which pays if no more than this share of the entries is left.
NOTHING, SPARSE_SHARE = 1e-18, 0.4

EigenSolver = Callable[[Any, int], tuple[Any, Any]]


@dataclass(frozen=True)
class Spectrum:
    """Eigenpairs of the diffusion operator P.

    Attributes
    ----------
    markov : array (N,)
        Eigenvalues of P, descending, the first equal to 1.
    functions : array (n, N)
        Eigenfunctions at the training points: orthonormal in `measure`, the first equal to 1.
    measure : array (n,)
        Stationary measure of P: quadrature weights with sum 1.
    """

    markov: Floats
    functions: Floats
    measure: Floats


def diffusion_spectrum(
    kernel: Any,
    weights: Floats,
    n_components: int,
    *,
    solver: str | EigenSolver = "auto",
    order: Ints | None = None,
    random_state: np.random.RandomState | None = None,
) -> Spectrum:
    """Leading eigenpairs of the Markov matrix of `kernel`.

    Parameters
    ----------
    kernel : array, sparse array or LinearOperator (n, n)
        Symmetric kernel matrix; an array is overwritten.
    weights : array (n,)
        Multiplicities of the points.
    n_components : int
        Number of eigenpairs, the constant one included.
    solver : {"auto", "lapack", "arpack", "lobpcg"} or callable, default="auto"
        ``"auto"`` is LAPACK for dense kernels up to n = 1,500 and sparse ones up to 400; multilevel LOBPCG for sparse
        ones of 10,000 points and more if near points have common neighbours, as in few dimensions; for operators
        :func:`~manifoldkit.geometry.block_krylov.block_krylov`, which needs few products; and ARPACK for the others.
        A callable takes the symmetric matrix and the number of pairs and returns the largest eigenvalues and their
        vectors, in any order.
    order : array (n,), optional
        Permutation that puts neighbouring points next to each other; default: they are so already.
    random_state : RandomState, optional
        Draws the start vector of ARPACK.

    Raises
    ------
    ValueError
        If `solver` is unknown.
    EigenSolverError
        If an eigenpair does not satisfy its equation to 2e-4 of 1 - lambda, if the vectors are not orthonormal, if a
        larger eigenvalue was missed, or if ARPACK does not converge.
    """
    degree = np.asarray(kernel @ weights)
    scale = np.sqrt(weights / degree)
    if isinstance(kernel, LinearOperator):
        symmetric = rescaled(kernel, scale)
    elif sp.issparse(kernel):
        symmetric = kernel
        symmetric.data *= np.repeat(scale, np.diff(symmetric.indptr))
        symmetric.data *= scale[symmetric.indices]
    else:
        symmetric = kernel
        symmetric *= scale[:, None]
        symmetric *= scale[None, :]
    measure = weights * degree / (weights @ degree)
    values, vectors = _solve(symmetric, np.sqrt(measure), n_components, solver, order, random_state)
    rank = np.argsort(values)[::-1]
    values, vectors = values[rank], vectors[:, rank]
    residual = np.linalg.norm(symmetric @ vectors - vectors * values, axis=0)
    limit = RESIDUAL * np.abs(1 - values) + ROUNDING
    skewness = float(np.abs(vectors.T @ vectors - np.eye(len(values))).max())
    if not skewness <= SKEWNESS:
        raise EigenSolverError(
            f"the eigen-solver returned vectors that are not orthonormal: inner products are off by {skewness:.1e}, "
            "so that some are short or repeated"
        )
    if not (residual <= limit).all():
        worst = int(np.argmax(residual / limit))
        raise EigenSolverError(
            f"the eigen-solver left a residual of {residual[worst]:.1e} in pair {worst} (eigenvalue "
            f"1 - {1 - values[worst]:.1e}, limit {limit[worst]:.1e}): ask for fewer components, or use "
            "eigen_solver='arpack' or 'lapack'"
        )
    if abs(values[0] - 1) > 1e-7:
        raise EigenSolverError(f"the eigen-solver missed the leading pair: its largest value is {values[0]:.9f}, not 1")
    if callable(solver) and (missed := _largest_other(symmetric, vectors)) > values[-1] + ROUNDING:
        raise EigenSolverError(
            f"the eigen-solver missed a pair: there is an eigenvalue of at least {missed:.6f}, and the least of those "
            f"returned is {values[-1]:.6f}"
        )
    functions = vectors / np.sqrt(measure)[:, None]
    _make_first_constant(values, functions, measure)
    return Spectrum(values, functions, measure)


def _solve(
    matrix: Any,
    null: Floats,
    n_components: int,
    solver: str | EigenSolver,
    order: Ints | None,
    random_state: np.random.RandomState | None,
) -> tuple[Floats, Floats]:
    n = matrix.shape[0]
    if callable(solver):
        found = solver(matrix, n_components)
        try:
            values, vectors = (np.array(part, dtype=np.float64) for part in found)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the eigen_solver must return values and vectors, two arrays, got a {type(found).__name__}: {error}"
            ) from error
        if values.shape != (n_components,) or vectors.shape != (n, n_components):
            raise ValueError(
                f"the eigen_solver must return ({n_components},) values and ({n}, {n_components}) vectors, "
                f"got {values.shape} and {vectors.shape}"
            )
        return values, vectors
    if solver == "auto" and isinstance(matrix, LinearOperator) and fits_in(n_components, n):
        return block_krylov(matrix, n_components, random_state or np.random.RandomState(0))
    if solver == "auto":
        if n_components > n // 2 or n <= (SMALL_SIZE if sp.issparse(matrix) else LAPACK_SIZE):
            solver = "lapack"
        else:
            large = sp.issparse(matrix) and n >= max(LOBPCG_SIZE, 50 * n_components)
            solver = "lobpcg" if large and coarsens(matrix, order) else "arpack"
    if solver == "lapack":
        dense = matrix if isinstance(matrix, np.ndarray) else matrix @ np.eye(n)
        values, vectors = scipy.linalg.eigh(dense, subset_by_index=[n - n_components, n - 1])
        return values, vectors
    if solver == "arpack":
        start = (random_state or np.random.RandomState(0)).uniform(-1, 1, n)
        with limited_threads(1):  # BLAS threads only spin around these thin products
            try:
                values, vectors = eigsh(_thinned(matrix), k=n_components, which="LA", v0=start, tol=0)
            except ArpackError as error:  # no convergence, or no space to search in
                count = len(error.eigenvalues) if isinstance(error, ArpackNoConvergence) else "none"
                raise EigenSolverError(
                    f"ARPACK found {count} of {n_components} eigenpairs: ask for fewer components, use more "
                    "neighbours, or eigen_solver='lapack', which takes n^3 operations"
                ) from error
        return values, vectors
    if solver == "lobpcg":
        if not sp.issparse(matrix):
            raise ValueError("eigen_solver='lobpcg' needs a sparse kernel: pass n_kernel_neighbors, or use 'auto'")
        with limited_threads(1):
            return multilevel_eigenpairs(matrix, null, n_components, order)
    raise ValueError(f"eigen_solver must be 'auto', 'lapack', 'arpack', 'lobpcg' or a callable, got {solver!r}")


def _largest_other(matrix: Any, vectors: Floats) -> float:
    """Lower bound of the largest eigenvalue whose vector is orthogonal to `vectors`, by a few steps of Lanczos."""
    basis: list[Floats] = []
    products: list[Floats] = []
    step = np.random.RandomState(0).standard_normal(len(vectors))
    for _ in range(min(SECOND_LOOK, len(vectors) - vectors.shape[1])):
        for _ in range(2):  # once more for what rounding leaves
            for known in (vectors, *(column[:, None] for column in basis)):
                step = step - known @ (known.T @ step)
        if not (length := float(np.linalg.norm(step))) > ROUNDING:
            break
        basis.append(step / length)
        products.append(matrix @ basis[-1])
        step = products[-1]
    if not basis:
        return -np.inf
    projected = np.column_stack(basis).T @ np.column_stack(products)
    return float(np.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def _thinned(matrix: Any) -> Any:
    """A full matrix without what is nothing beside rounding, if that leaves it sparse."""
    if not isinstance(matrix, np.ndarray):
        return matrix
    n = len(matrix)
    kept = np.flatnonzero(matrix > NOTHING)
    if len(kept) >= SPARSE_SHARE * n**2:
        return matrix
    start = np.searchsorted(kept, np.arange(0, n**2 + 1, n))
    kind = np.int32 if len(kept) <= np.iinfo(np.int32).max else np.int64
    return sp.csr_array((matrix.ravel()[kept], (kept % n).astype(kind), start.astype(kind)), shape=(n, n))


def _make_first_constant(values: Floats, functions: Floats, measure: Floats) -> None:
    """Turn the eigenspace of 1 so that its first vector is the constant; fix all signs. In place."""
    block = max(1, int(np.sum(values > 1 - 1e-9)))
    constant = functions[:, :block].T @ measure
    rotation = np.linalg.qr(np.column_stack([constant, np.eye(block)]))[0]
    functions[:, :block] = functions[:, :block] @ rotation
    functions[:, 0], values[0] = 1.0, 1.0
    largest = functions[np.abs(functions).argmax(axis=0), np.arange(functions.shape[1])]
    functions *= np.where(largest < 0, -1.0, 1.0)


def laplacian_eigenvalues(markov: Floats, shape: KernelShape, unit: float) -> Floats:
    r"""Eigenvalues of the Laplacian, :math:`-\log \lambda / (c A)`, A the area of the squared kernel scale.

    The heat form has less bias than the generator form :math:`(1 - \lambda) / (c A)`; the latter serves shapes,
    such as the indicator, whose eigenvalues need not be positive. `unit` is c A.
    """
    form = 1 - markov if shape.width is None else -np.log(np.maximum(markov, np.finfo(float).tiny))
    result: Floats = np.maximum(form, 0.0) / unit
    return result
