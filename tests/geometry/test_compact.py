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
    weights = manifold._row(torch.device("cpu"))(torch.from_numpy(radius * sphere(20, 50, 1)))
    torch.testing.assert_close(weights.values.sum(dim=1), torch.ones(50, dtype=torch.float64))


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


def test_excess_is_nothing_at_samples_and_most_of_the_distance_far_away():
    points = sphere(30, 200, 0)
    squared = np.sort(((points[:, None] - points) ** 2).sum(axis=2), axis=1)[:, :31]
    limit = torch.from_numpy(crowd(squared))
    at = torch.from_numpy(((points[:, None] - points) ** 2).sum(axis=2))
    assert (excess(at, limit) < 0).all()
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
