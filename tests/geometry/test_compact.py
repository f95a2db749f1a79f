"""Laws of kernels that end: no point is left alone, and nothing jumps as a new point moves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from manifoldkit.datasets import load_mnist
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import DiffusionManifold
from manifoldkit.geometry.compact import STRETCH, crowd, excess, fading, reaches
from manifoldkit.geometry.kernels import SHAPES


def sphere(dimension: int, n: int, seed: int) -> np.ndarray:
    """Points in many dimensions, all about equally far from each other, with distances of differing scale."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, dimension))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * rng.uniform(0.5, 2, (n, 1))


def fitted(points: np.ndarray, length: int, **options) -> DiffusionManifold:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        return DiffusionManifold(10, 5, dimension=2, n_kernel_neighbors=length, **options).fit(points)


def largest_step(manifold: DiffusionManifold, start: np.ndarray, end: np.ndarray, steps: int) -> float:
    s = np.linspace(0, 1, steps + 1)[:, None]
    projected = manifold.transform((1 - s) * start + s * end)
    return float(np.linalg.norm(np.diff(projected, axis=0), axis=1).max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [10, 30])
def test_projection_is_continuous_in_many_dimensions(length, seed):
    """Steps eight times shorter move the answer eight times less; a jump would stay as large."""
    manifold = fitted(sphere(40, 300, seed), length)
    start, end = 1.2 * sphere(40, 2, seed + 100)
    coarse, fine = (largest_step(manifold, start, end, steps) for steps in (500, 4000))
    assert 0 < fine < coarse / 6


@pytest.mark.parametrize("digit", [1, 3])
def test_projection_is_continuous_between_digits(digit):
    train = load_mnist("train", classes=[digit], n_per_class=500, random_state=0)[0].reshape(-1, 784)
    start, end = load_mnist("test", classes=[digit], n_per_class=2, random_state=0)[0].reshape(-1, 784)
    manifold = DiffusionManifold(40, 10, dimension=12, n_kernel_neighbors=40).fit(train)
    coarse, fine = (largest_step(manifold, start, end, steps) for steps in (200, 1600))
    assert 0 < fine < coarse / 6


@pytest.mark.parametrize("dense_limit", [10, 6000])
@pytest.mark.parametrize("length", [6, 12, 40])
@pytest.mark.parametrize("radius", [0.0, 1.0, 1e3, 1e9])
def test_no_query_is_left_without_weight(length, radius, dense_limit):
    manifold = fitted(sphere(20, 120, 0), length, dense_limit=dense_limit)
    row, queries = manifold._row(torch.device("cpu")), torch.from_numpy(radius * sphere(20, 50, 1))
    weights = row(queries)
    torch.testing.assert_close(weights.values.sum(dim=1), torch.ones(50, dtype=torch.float64))
    with torch.no_grad():
        torch.testing.assert_close(row(queries).values.sum(dim=1), torch.ones(50, dtype=torch.float64))


@pytest.mark.parametrize("dense_limit", [10, 6000])
@pytest.mark.parametrize("height", [1e2, 1e4, 1e6, 1e8, 1e12])
def test_height_over_a_flat_set_does_not_matter(height, dense_limit):
    """Along a normal all distances grow alike: their differences must not drown in them."""
    t = np.random.default_rng(0).uniform(0, 2 * np.pi, 300)
    manifold = fitted(np.column_stack([np.cos(t), np.sin(t), 0 * t]), 30, dense_limit=dense_limit)
    near, far = manifold.project([[0.3, 0.2, 10.0]])[0], manifold.project([[0.3, 0.2, height]])[0]
    assert np.linalg.norm(far) < 1.2
    if dense_limit == 6000:
        np.testing.assert_allclose(far, near, atol=0.1)
    layer = manifold.to_module().float()
    with torch.no_grad():
        low = layer(torch.tensor([[0.3, 0.2, height]]))
    assert bool(torch.isfinite(low).all())


def test_weights_with_and_without_derivatives_are_equal_between_near_copies():
    """The nearest samples may be out of reach, and the others then counted from them nothing."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(60, 3))
    centres *= np.exp(rng.uniform(-2, 2, (60, 1))) / np.linalg.norm(centres, axis=1, keepdims=True)
    manifold = fitted(np.repeat(centres, 7, axis=0) + 3e-5 * rng.normal(size=(420, 3)), 40, dense_limit=10)
    queries = rng.normal(size=(1000, 3))
    queries *= np.exp(rng.uniform(-2, 3, (1000, 1))) / np.linalg.norm(queries, axis=1, keepdims=True)
    row, x = manifold._row(torch.device("cpu")), torch.from_numpy(queries)
    table = torch.from_numpy(centres.repeat(7, axis=0))
    expected = row(x).average(table)
    with torch.no_grad():
        found = row(x).average(table)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_empty_batch():
    layer = fitted(sphere(20, 120, 0), 12).to_module()
    assert layer(torch.empty(0, 20, dtype=torch.float64)).shape == (0, 20)


def test_points_all_equally_far_are_joined():
    """Vertices of a simplex: all neighbours are the last one."""
    manifold = fitted(np.eye(60), 59, epsilon=0.5)
    assert manifold.n_connected_components_ == 1
    np.testing.assert_allclose(manifold.markov_eigenvalues_[1:], manifold.markov_eigenvalues_[1])


def test_a_lonely_point_is_joined_to_the_others():
    """A point ten times as far from its neighbours as these are from each other stands in nobody's list."""
    points = sphere(20, 200, 0)
    points[0] *= 5
    manifold = fitted(points, 20)
    row = manifold._row(torch.device("cpu"))(torch.from_numpy(points[:1]))
    assert manifold.n_connected_components_ == 1
    assert int((row.values > 1e-3).sum()) > 2


@pytest.mark.parametrize("seed", range(5))
def test_reach_is_at_least_the_last_neighbour_and_some_are_well_inside(seed):
    rng = np.random.default_rng(seed)
    squared = torch.from_numpy(np.sort(rng.random((20, 30)), axis=1)) + 0.5
    lengths = torch.from_numpy(rng.uniform(0.1, 1, (20, 30)))
    reach = reaches(squared, lengths, STRETCH)
    t = squared / (reach[:, None] * lengths)
    assert (reach >= squared.amax(dim=1).sqrt()).all()
    assert (t.amin(dim=1) <= 1 / STRETCH + 1e-9).all()


def test_reach_does_not_notice_a_neighbour_that_comes_or_goes():
    squared = torch.linspace(0.5, 1, 30, dtype=torch.float64)[None]
    lengths = torch.full((1, 30), 0.6, dtype=torch.float64)
    before = reaches(squared, lengths, STRETCH)
    lengths[0, -1] = 0.1
    torch.testing.assert_close(reaches(squared, lengths, STRETCH), before, rtol=1e-8, atol=0)


def test_excess_is_most_of_the_distance_far_away():
    points = sphere(30, 200, 0)
    squared = np.sort(((points[:, None] - points) ** 2).sum(axis=2), axis=1)[:, :31]
    limit = torch.from_numpy(crowd(squared))
    noisy = points + 10 * sphere(30, 200, 1)
    far = torch.from_numpy(((noisy[:, None] - points) ** 2).sum(axis=2))
    ratio = excess(far, limit)[:, 0] / far.amin(dim=1)
    assert (ratio > 0.8).all()
    assert (ratio < 1).all()


def test_the_end_is_that_of_the_shape():
    """In bandwidths that are all equal, t is z over the reach: the matrix and the constant use one shape."""
    z = np.linspace(0, 5, 101)
    shape = SHAPES["exp(-z)"]
    np.testing.assert_allclose(shape.compact(4.0)(z), shape(z) * fading(z / 4.0))
    assert fading(np.array([0.999, 1.0, 1.5])).tolist()[1:] == [0.0, 0.0]
