"""Laws of the multilevel eigen-solver: the pairs of LAPACK, whole eigenspaces, any order of the points."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle, make_sphere, make_swiss_roll, make_torus
from manifoldkit.geometry import multilevel
from manifoldkit.geometry.kernels import SHAPES
from manifoldkit.geometry.multilevel import coarsens, multilevel_eigenpairs
from manifoldkit.geometry.sampling import locality_order, sample_neighborhoods
from manifoldkit.geometry.support import kernel_matrix

SETS = {
    "circle": make_circle(3000, random_state=0).points,
    "torus grid": make_torus(2500, grid=True).points,
    "sphere": make_sphere(3000, random_state=0).points,
    "roll": make_swiss_roll(3000, random_state=0).points,
}


def normalised(points, neighbors="auto"):
    """Symmetric Markov matrix of sorted points, and its known eigenvector."""
    sampling, lists = sample_neighborhoods(points.copy(), 16, "mean", neighbors, 50)
    kernel = kernel_matrix(sampling, lists, SHAPES["exp(-z)"], 1.5, dense=False)[0]
    degree = kernel.sum(axis=1)
    root = degree**-0.5
    kernel.data *= np.repeat(root, np.diff(kernel.indptr)) * root[kernel.indices]
    return kernel, np.sqrt(degree / degree.sum())


@pytest.mark.parametrize("name", SETS)
def test_pairs_are_those_of_lapack(name):
    matrix, null = normalised(SETS[name])
    values, vectors = multilevel_eigenpairs(matrix, null, 12)
    truth = scipy.linalg.eigvalsh(matrix.toarray(), subset_by_index=[len(null) - 12, len(null) - 1])[::-1]
    np.testing.assert_allclose(1 - values, 1 - truth, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-8)
    residual = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    assert (residual <= 2e-4 * (1 - values) + 1e-10).all()


def test_several_levels(monkeypatch):
    monkeypatch.setattr(multilevel, "COARSEST", 40)
    matrix, null = normalised(SETS["roll"])
    assert len(multilevel.AggregationHierarchy(matrix, null).levels) == 1
    monkeypatch.setattr(multilevel, "AGGREGATE_COARSE", 4)
    assert len(multilevel.AggregationHierarchy(matrix, null).levels) == 2
    few = multilevel_eigenpairs(matrix, null, 8)[0]
    monkeypatch.undo()
    np.testing.assert_allclose(1 - few, 1 - multilevel_eigenpairs(matrix, null, 8)[0], rtol=1e-6, atol=1e-13)


def test_degenerate_eigenspaces_are_complete():
    """Four copies of each of the first eigenvalues of a flat torus, cut inside the third multiplet."""
    matrix, null = normalised(SETS["torus grid"])
    gaps = 1 - multilevel_eigenpairs(matrix, null, 11)[0]
    np.testing.assert_allclose(gaps[1:5], gaps[1], rtol=1e-6)
    np.testing.assert_allclose(gaps[5:9], gaps[5], rtol=1e-6)
    np.testing.assert_allclose(gaps[9:], gaps[9], rtol=1e-6)
    assert 1.8 < gaps[5] / gaps[1] < 2.2


def test_unsorted_points_need_their_order():
    matrix, null = normalised(SETS["roll"])
    shuffle = np.random.default_rng(0).permutation(len(null))
    mixed, back = matrix[shuffle][:, shuffle], np.argsort(shuffle)
    values, vectors = multilevel_eigenpairs(mixed, null[shuffle], 8, back)
    expected = multilevel_eigenpairs(matrix, null, 8)[0]
    np.testing.assert_allclose(1 - values, 1 - expected, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(mixed @ vectors, vectors * values, atol=1e-4)


def test_pieces_have_their_own_constant():
    """Two circles far from each other: the eigenvalue 1 twice."""
    one = make_circle(800, random_state=0).points
    matrix, null = normalised(np.concatenate([one, one + 100.0]))
    values = multilevel_eigenpairs(matrix, null, 6)[0]
    np.testing.assert_allclose(values[:2], 1, atol=1e-10)
    assert values[2] < 1 - 1e-6


def test_what_does_not_converge_is_said(monkeypatch):
    monkeypatch.setattr(multilevel, "MOST_ITERATIONS", 1)
    matrix, null = normalised(SETS["circle"])
    with pytest.raises(RuntimeError, match=r"after 1 iterations .* use eigen_solver='arpack'"):
        multilevel_eigenpairs(matrix, null, 8)


@pytest.mark.parametrize(("dimension", "pays"), [(2, True), (3, True), (10, False)])
def test_coarsening_pays_in_few_dimensions(dimension, pays):
    points = np.random.default_rng(0).normal(size=(4000, dimension))
    assert coarsens(normalised(points)[0]) is pays


def test_a_full_matrix_is_refused():
    with pytest.raises(ValueError, match="needs a sparse kernel"):
        DiffusionManifold(6, 10, eigen_solver="lobpcg").fit(SETS["circle"][:200])


def test_solvers_give_one_manifold():
    points = SETS["roll"]
    fits = [
        DiffusionManifold(8, 16, dimension=2, dense_limit=1000, eigen_solver=solver).fit(points)
        for solver in ("arpack", "lobpcg")
    ]
    np.testing.assert_allclose(fits[0].eigenvalues_, fits[1].eigenvalues_, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(fits[0].project(points[:50]), fits[1].project(points[:50]), atol=1e-3)


def test_points_are_sorted_by_place():
    points = SETS["roll"]
    order = locality_order(points)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(points)))
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    assert steps.mean() < 0.3 * np.linalg.norm(np.diff(points, axis=0), axis=1).mean()
