"""Properties of the learned geometry that hold for any shape, kind, place and size of the samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldkit.datasets import make_circle
from manifoldkit.geometry import DiffusionManifold

quick = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)
scales = st.floats(-4, 4).map(lambda exponent: 10.0**exponent)
shapes = st.sampled_from([(2,), (1, 2), (2, 1), (1, 2, 1), (5,), (2, 3)])
dtypes = st.sampled_from([torch.float32, torch.float64])


def curve(seed: int, n: int = 90, shape: tuple[int, ...] = (2,)) -> np.ndarray:
    """Noisy circle, evenly sampled and turned into a space of any shape."""
    rng = np.random.default_rng(seed)
    t = 2 * np.pi * (np.arange(n) + 0.6 * rng.random(n)) / n
    flat = np.column_stack([np.cos(t), np.sin(t)])
    frame = np.linalg.qr(rng.normal(size=(math.prod(shape), 2)))[0]
    return (flat @ frame.T + 0.005 * rng.normal(size=(n, len(frame)))).reshape(n, *shape)


def fit(points, **options) -> DiffusionManifold:
    return DiffusionManifold(7, 8, dimension=1, tangent_method="pca", **options).fit(points)


@quick
@given(seeds, shapes, dtypes, st.integers(1, 9))
def test_shapes_and_kinds(seed, shape, dtype, batch):
    points = curve(seed, shape=shape)
    manifold = fit(points)
    query = torch.from_numpy(points[:batch]).to(dtype)
    size = math.prod(shape)
    answers = {
        "project": (batch, *shape),
        "transform": (batch, 7),
        "tangent_basis": (batch, size, 1),
        "distance": (batch,),
    }
    for method, expected in answers.items():
        answer = getattr(manifold, method)(query)
        assert answer.shape == expected
        assert answer.dtype == dtype
        array = getattr(manifold, method)(query.numpy())
        np.testing.assert_array_equal(array, answer.numpy())
    layer = manifold.to_module()
    torch.testing.assert_close(layer(query), manifold.project(query))


@quick
@given(seeds, scales, st.floats(-5, 5), st.floats(-5, 5))
def test_projection_moves_with_the_samples(seed, scale, right, up):
    """Similarities of space and samples commute with the projection."""
    points, rng = curve(seed), np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]

    def move(x):
        return scale * (x @ turn.T + [right, up])

    query = points + 0.1 * rng.normal(size=points.shape)
    still, moved = fit(points), fit(move(points))
    np.testing.assert_allclose(moved.project(move(query)), move(still.project(query)), rtol=1e-7, atol=1e-7 * scale)
    np.testing.assert_allclose(moved.eigenvalues_ * scale**2, still.eigenvalues_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(moved.distance(move(query)), scale * still.distance(query), atol=1e-7 * scale)
    assert moved.dimension_ == pytest.approx(still.dimension_, rel=1e-6)


@quick
@given(seeds, st.lists(st.integers(0, 89), min_size=1, max_size=60))
def test_copies_of_samples(seed, copied):
    """Answers at copies are equal, the fit is exact, and the measure counts them all."""
    points = curve(seed)
    rows = np.concatenate([np.arange(90), copied])
    if np.bincount(rows).max() > 8:
        return
    manifold = fit(points[rows])
    np.testing.assert_array_equal(manifold.eigenfunctions_, manifold.eigenfunctions_[:90][rows])
    np.testing.assert_allclose(manifold.transform(points[rows]), manifold.eigenfunctions_, atol=1e-8)
    assert manifold.measure_.sum() == pytest.approx(1)
    assert len(manifold.bandwidth_) == len(rows)


@quick
@given(seeds, st.permutations(range(90)))
def test_order_of_samples(seed, order):
    points = curve(seed)
    query = 1.1 * points[:20]
    first, second = fit(points), fit(points[list(order)])
    np.testing.assert_allclose(second.eigenvalues_, first.eigenvalues_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(second.project(query), first.project(query), atol=1e-8)


@quick
@given(seeds, st.lists(st.integers(0, 89), min_size=2, max_size=30))
def test_samples_of_a_batch_do_not_influence_each_other(seed, rows):
    manifold, query = fit(curve(seed)), 1.05 * curve(seed)
    for method in ("project", "transform", "distance"):
        together = getattr(manifold, method)(query[rows])
        alone = np.concatenate([getattr(manifold, method)(query[row : row + 1]) for row in rows])
        np.testing.assert_allclose(together, alone, atol=1e-10)


@quick
@given(seeds, st.floats(1.3, 1e8), st.sampled_from(["shift", "plain", "knn"]), st.floats(0, 2 * np.pi))
def test_extension_is_an_average_at_any_distance(seed, radius, far, angle):
    """The constant extends to itself, and nothing is NaN."""
    manifold = fit(curve(seed), far=far)
    query = radius * np.array([[np.cos(angle), np.sin(angle)]])
    np.testing.assert_allclose(manifold.extend(np.full(90, 3.5), query), 3.5, rtol=1e-9)
    assert np.isfinite(manifold.transform(query)).all()
    assert np.linalg.norm(manifold.project(query)) < 1.5


@quick
@given(seeds, st.integers(2, 6))
def test_extension_is_linear(seed, length):
    manifold, rng = fit(curve(seed)), np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 90))
    query = 1.1 * curve(seed)[:15]
    both = manifold.extend(2 * first - 3 * second, query, length)
    parts = 2 * manifold.extend(first, query, length) - 3 * manifold.extend(second, query, length)
    np.testing.assert_allclose(both, parts, atol=1e-10)


@quick
@given(st.integers(30, 400), st.integers(4, 12))
def test_grids_of_any_size_have_the_spectrum_of_the_circle(n, k):
    xi = DiffusionManifold(5, k, dimension=1).fit(make_circle(n, grid=True).points).eigenvalues_
    np.testing.assert_allclose(xi[1:3], 1, rtol=0.1 + (k / n) ** 2)
    np.testing.assert_allclose(xi[1], xi[2], rtol=1e-8)
    np.testing.assert_allclose(xi[3], xi[4], rtol=1e-8)
