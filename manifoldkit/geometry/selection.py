r"""Automatic parameters: how many neighbours, how many components, and the dimension behind noise.

**Neighbours.** The bias of the kernel is its squared width, :math:`(k/n)^{2/d}`; sampling leaves an error of about
:math:`n^{-1/2}` in each eigenvalue, and the noise of the bandwidths one of about 1/k. ``k = 2 log2 n`` balances them
on surfaces. On curves the kernel is so narrow that the noise of the bandwidths is what remains, and k may grow like
the square root of n, where all three are of one order. Where sheets run close to each other the kernel must not reach
from one to the next, however many neighbours the rest would like: there k is lowered.

**Components.** Past the components that carry the shape come those that carry noise: the normal directions of a tube
of standard deviation :math:`\sigma` have Laplacian eigenvalues from :math:`1/\sigma^2` on. The variance that l
components leave over, times :math:`\xi_l`, is small and shrinks for as long as they carry the shape, and grows like
:math:`\xi_l \sigma^2` once they do not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from .._distances import pairwise_distances
from .growth import growth, neighbors_beyond_noise
from .kernels import CUTOFF, KernelShape, bandwidth, neighbor_deltas
from .neighbors import Floats, ForeignNeighbors, Ints
from .sampling import FLOOR, NeighborLists, Sampling, neighbor_lists
from .scale import KernelScale, sampled_deltas, scaling_dimension

__all__ = [
    "adapt_neighbors",
    "choose_components",
    "count_for",
    "count_of_curve",
    "noise_onset",
    "residual_correlation",
    "short_circuit_share",
    "start_count",
]

#: Fewest neighbours to which a short circuit may lower k: below, graphs of random points fall apart.
LEAST = 6
#: Most neighbours on curves.
MOST = 100
#: Dimension by which neighbours multiply, below which samples lie on a curve, noisy or not.
CURVE_GROWTH = 1.6
#: Points this many times further apart in the graph than in space are joined by a short circuit.
DETOUR = 3.0
#: Share of the kernel's Dirichlet energy that short circuits may have. The slowest mode feels it about a hundred-fold.
HARMLESS = 1e-4
#: If fewer neighbours do not lower that share by this factor, they are of no use.
WORTHWHILE = 4.0
#: Mean kernel value of all pairs above which the kernel reaches everything, and its sum has no slope to speak of.
GLOBAL = 0.2
#: Points at which short circuits are looked for, and at which residuals are compared.
N_DETOURS, N_RESIDUALS = 32, 512
#: Components whose xi sigma^2 exceeds this are those of noise: half the wave number at which normal modes begin.
NOISE_RATIO = 0.25
#: And they must exceed the least such product of the components before by this factor.
NOISE_RISE = 5.0
#: Residuals that neighbours share to a greater part are shape that was cut off, not noise.
SHARED = 0.7
#: Residuals that they share to a lesser part than this are noise, even if no onset of noise was seen.
NOISE = 0.35
#: Noise raises the slope of the kernel sum by more than this.
DROP = 0.15


def start_count(n: int) -> int:
    """``2 log2 n`` neighbours, at most n - 2: what surfaces need, and the start of every search for k."""
    return max(1, min(n - 2, round(2 * np.log2(n))))


def count_of_curve(n: int) -> int:
    """``1.25 sqrt n`` neighbours, at most 100: what curves need."""
    return min(MOST, round(1.25 * np.sqrt(n)))


def count_for(points: Floats, k: int, wide: float, random_state: np.random.RandomState) -> int:
    """Number of neighbours for points (n, D): k, more on a curve, and more where there are so many that noise shows.

    Parameters
    ----------
    points : array (n, D)
    k : int
        What surfaces need.
    wide : float
        Dimension at a wide scale, see `wide_growth`.
    random_state : RandomState
        Draws the points that are looked at.
    """
    longer = count_of_curve(len(points))
    if k < longer < len(points) // 2 and growth(points, longer, random_state) < CURVE_GROWTH:
        k = longer
    return neighbors_beyond_noise(points, k, wide, random_state)


def adapt_neighbors(
    sampling: Sampling, lists: NeighborLists, convention: str, wide: float, random_state: np.random.RandomState
) -> tuple[Sampling, NeighborLists]:
    """The same points with the neighbours of `count_for`, and with fewer where the kernel would join separate sheets.

    An engine of the user's is asked for no more neighbours than it gave.

    Parameters
    ----------
    sampling : Sampling
    lists : NeighborLists
        Neighbour lists of the length `start_count`.
    convention : {"mean", "kth"}
        Bandwidth convention.
    wide : float
        Dimension at a wide scale, see `wide_growth`.
    random_state : RandomState
        Draws the points that are looked at.

    Returns
    -------
    Sampling, NeighborLists
    """
    k = lists.n_neighbors
    longer = k if isinstance(sampling.search, ForeignNeighbors) else count_for(sampling.points, k, wide, random_state)
    if k < longer < sampling.search.longest:
        lists = NeighborLists(*neighbor_lists(sampling.search, sampling.points, longer, longer), longer)
        sampling, k = _with_bandwidths(sampling, lists, convention), longer
    counts = np.unique(np.geomspace(min(k, LEAST), k, 10).round().astype(int))
    shares = short_circuit_share(sampling, lists, counts, convention, random_state)
    harmless = counts[shares <= HARMLESS]
    chosen = int(harmless.max()) if len(harmless) else int(counts[0])
    if shares[0] * WORTHWHILE > shares[-1]:  # the kernel reaches everything whatever k is, as in many dimensions
        chosen = k
    if chosen == k:
        return sampling, lists
    lists = replace(lists, n_neighbors=chosen)
    return _with_bandwidths(sampling, lists, convention), lists


def _with_bandwidths(sampling: Sampling, lists: NeighborLists, convention: str) -> Sampling:
    rho = bandwidth(lists.nearest()[0], convention)
    return replace(sampling, rho=rho, floor=FLOOR * float(np.median(rho)))


def short_circuit_share(
    sampling: Sampling, lists: NeighborLists, counts: Ints, convention: str, random_state: np.random.RandomState
) -> Floats:
    r"""Share of the kernel's Dirichlet energy that joins points which are far apart in the neighbour graph.

    The energy of a function of slope 1 is :math:`\sum_{ij} K_{ij} |x_i - x_j|^2`. Pairs are short circuits if the way
    along the graph of nearest neighbours is more than three times the straight one: chords of a circle or a sphere
    are at most 1.6 times shorter than their arcs, while sheets of a roll are as far apart as its turns are long.

    Parameters
    ----------
    sampling : Sampling
    lists : NeighborLists
    counts : array (q,) of int
        Numbers of neighbours, ascending, at most the length of the lists.
    convention : {"mean", "kth"}
    random_state : RandomState
        Draws 32 points whose pairs are looked at.

    Returns
    -------
    array (q,)

    Notes
    -----
    Cost: 32 rows of distances, and 32 runs of Dijkstra's algorithm, cut off at three times the kernel's reach.
    """
    points, n, k = sampling.points, len(sampling.points), lists.n_neighbors
    distances, indices = lists.nearest()
    rows = random_state.permutation(n)[:N_DETOURS]
    straight = pairwise_distances(torch.from_numpy(points[rows]), torch.from_numpy(points)).numpy()
    places = np.arange(0, n * k + 1, k)
    graph = csr_array((distances[:, 1:].ravel(), indices[:, 1:].ravel(), places), shape=(n, n))
    scale = sampling.rho * 2 * neighbor_deltas(sampling.rho, distances, indices).mean()
    near = straight**2 < CUTOFF * sampling.rho[rows, None] * scale
    along = dijkstra(graph, directed=False, indices=rows, limit=DETOUR * float(straight[near].max()))
    pieces = connected_components(graph, directed=False)[1]
    row, column = np.nonzero(near)
    detour = along[row, column] > DETOUR * straight[row, column]
    detour &= pieces[rows[row]] == pieces[column]  # what the graph leaves apart is for the kernel to join
    if not detour.any():
        return np.zeros(len(counts))
    squared, shares = straight[row, column] ** 2, []
    for count in counts:
        distances, indices = replace(lists, n_neighbors=int(count)).nearest()
        rho = bandwidth(distances, convention)
        z = squared / (2 * neighbor_deltas(rho, distances, indices).mean() * rho[rows[row]] * rho[column])
        energy = np.where(z < CUTOFF, np.exp(-z), 0.0) * squared
        shares.append(energy[detour].sum() / energy.sum())
    return np.array(shares)


def noise_onset(eigenvalues: Floats, left_over: Floats, codimension: int) -> list[int]:
    r"""Numbers of components after which noise may begin, in ascending order; empty if there is no sign of it.

    With :math:`f_l = \xi_l r_l / (D - d)`, r the variance that components 0 to l leave over, noise begins where f
    exceeds 1/4 and five times its least value before.

    Parameters
    ----------
    eigenvalues : array (N,)
        Laplacian eigenvalues, the first 0.
    left_over : array (N,)
        Variance that components 0 to l leave over, in the measure of the eigenfunctions.
    codimension : int
        Number of normal directions.

    Examples
    --------
    A tube of standard deviation 0.1 round a circle, of which three components carry all but the noise:

    >>> import numpy as np
    >>> xi = ((np.arange(21) + 1) // 2) ** 2.0
    >>> noise_onset(xi, np.where(np.arange(21) < 2, 0.5, 0.01), codimension=1)[0]
    9
    """
    product = eigenvalues * left_over / codimension
    least = np.minimum.accumulate(product[1:])
    risen = product[2:] >= np.maximum(NOISE_RATIO, NOISE_RISE * least[:-1])
    return [int(count) for count in np.flatnonzero(risen) + 2]


def choose_components(
    sampling: Sampling,
    functions: Floats,
    measure: Floats,
    eigenvalues: Floats,
    scale: KernelScale,
    shape: KernelShape,
    random_state: np.random.RandomState,
    n_neighbors: int,
) -> tuple[int, float]:
    """Number of components that carry the shape and not the noise, and the dimension that they show.

    Points are smoothed with these components. If that lowers the slope of the kernel sum clearly, and what was
    smoothed away is noise, the slope of the smoothed points is the dimension; else that of the points themselves is.

    Parameters
    ----------
    sampling : Sampling
    functions : array (u, N)
        Eigenfunctions that may be used, at the distinct points.
    measure : array (u,)
    eigenvalues : array (N,)
        Laplacian eigenvalues in physical units.
    scale : KernelScale
        With the slope of the raw points.
    shape : KernelShape
    random_state : RandomState
        Draws the points that are compared.
    n_neighbors : int
        Neighbours with which their residuals are compared.

    Returns
    -------
    int, float
    """
    count, raw = functions.shape[1], scale.dimension
    if count < 3:
        return count, raw
    n_features = sampling.points.shape[1]
    modes = (functions * measure[:, None]).T @ sampling.points
    energies = (modes**2).sum(axis=1)
    energies[0] = 0.0  # the mean
    left_over = np.maximum(measure @ ((sampling.points - modes[0]) ** 2).sum(axis=1) - np.cumsum(energies), 0.0)
    codimension = max(1, n_features - max(1, round(raw)))
    rows = random_state.permutation(len(functions))[:N_RESIDUALS]
    found = next(
        (
            guess
            for guess in noise_onset(eigenvalues, left_over, codimension)[:10]
            if residual_correlation(sampling, functions[:, :guess], modes[:guess], rows, n_neighbors) < SHARED
        ),
        count,
    )
    functions, modes = functions[:, :found], modes[:found]
    reach = float(shape(sampled_deltas(sampling, random_state) / scale.eps2).mean())
    if reach < GLOBAL and (
        found < count or residual_correlation(sampling, functions, modes, rows, n_neighbors) < NOISE
    ):
        smoothed = replace(sampling, points=functions @ modes)
        slope = float(scaling_dimension(sampled_deltas(smoothed, random_state), scale.eps2, shape)[0])
        if raw - slope > DROP:
            return found, slope
    return found, raw


def residual_correlation(sampling: Sampling, functions: Floats, modes: Floats, rows: Ints, n_neighbors: int) -> float:
    """Part of the residuals of a truncated series at points `rows` that neighbours share.

    It is 1 for shape that was cut off, and 0 for noise.

    Parameters
    ----------
    sampling : Sampling
    functions : array (u, L)
    modes : array (L, D)
        Coefficients of the coordinates.
    rows : array (r,) of int
    n_neighbors : int

    Returns
    -------
    float
    """
    own = sampling.points[rows] - functions[rows] @ modes
    shared = np.zeros_like(own)
    for column in np.asarray(sampling.search.kneighbors(sampling.points[rows], n_neighbors + 1)[1])[:, 1:].T:
        shared += sampling.points[column] - functions[column] @ modes
    total = (own**2).sum() * n_neighbors
    return float((own * shared).sum() / max(total, np.finfo(float).tiny))
