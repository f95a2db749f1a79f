"""Distances between leading components: the same in the fit and for new points, gradients included."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle

RNG = np.random.default_rng(0)
CIRCLE = make_circle(400, random_state=0).points
FRAME = np.linalg.qr(RNG.normal(size=(30, 30)))[0]
#: A circle in 30 dimensions, shifted, with small noise in all of them.
POINTS = CIRCLE @ FRAME[:2] + 0.01 * RNG.normal(size=(400, 30)) + 5
QUERIES = POINTS[:40] + 0.1 * RNG.normal(size=(40, 30))
OPTIONS = {"n_components": 11, "n_neighbors": 12, "dimension": 1}
KERNELS = {"full": {}, "masked": {"n_kernel_neighbors": 40}, "gathered": {"dense_limit": 200, "epsilon": 0.6}}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("far", ["shift", "plain", "knn"])
def test_the_geometry_is_that_of_the_components(kernel, far):
    """The kernel sees the components alone; what is extended or projected has all coordinates."""
    manifold = DiffusionManifold(**OPTIONS, **kernel, far=far, distance_components=2).fit(POINTS)
    pca = PCA(2).fit(POINTS)
    other = DiffusionManifold(**OPTIONS, **kernel, far=far).fit(pca.transform(POINTS))
    np.testing.assert_allclose(manifold.eigenvalues_, other.eigenvalues_, rtol=1e-8, atol=1e-9)
    near, near_other = manifold.project(QUERIES), other.project(pca.transform(QUERIES))
    assert near.shape == QUERIES.shape
    np.testing.assert_allclose(pca.transform(near), near_other, atol=1e-8)
    np.testing.assert_allclose(manifold.extend(POINTS, QUERIES), near, atol=1e-8)
    np.testing.assert_allclose(
        manifold.extend(POINTS, QUERIES), other.extend(POINTS, pca.transform(QUERIES)), atol=1e-8
    )
    np.testing.assert_array_equal(manifold.is_ambiguous(QUERIES), other.is_ambiguous(pca.transform(QUERIES)))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_training_points_are_exact(kernel):
    manifold = DiffusionManifold(**OPTIONS, **kernel, distance_components=3).fit(POINTS)
    np.testing.assert_allclose(manifold.transform(POINTS), manifold.eigenfunctions_, atol=1e-8)


@pytest.mark.parametrize("far", ["shift", "plain"])
def test_gradients(far):
    manifold = DiffusionManifold(**OPTIONS, distance_components=2).fit(POINTS)
    layer = manifold.to_module(far)
    x = torch.from_numpy(QUERIES[:4]).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-6)
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(manifold.project(QUERIES[:4], far=far)))


def test_all_components_change_nothing():
    """A rotation keeps every distance."""
    plain = DiffusionManifold(**OPTIONS).fit(POINTS)
    turned = DiffusionManifold(**OPTIONS, distance_components=30).fit(POINTS)
    np.testing.assert_allclose(turned.eigenvalues_, plain.eigenvalues_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(turned.project(QUERIES), plain.project(QUERIES), atol=1e-8)
    for method in ("pca", "sec", "smoothed"):
        basis, expected = (m.tangent_basis(QUERIES, method)[:, :, 0] for m in (turned, plain))
        np.testing.assert_allclose(np.abs((basis * expected).sum(axis=1)), 1, atol=1e-7)


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.ManifoldWarning")
def test_less_noise_in_the_distance():
    """What the front is for: noise in all directions but the first two no longer counts."""
    noisy = CIRCLE @ FRAME[:2] + 0.2 * RNG.normal(size=(400, 30))
    angle = np.column_stack([CIRCLE[:, 0], CIRCLE[:, 1]])
    errors = [
        np.abs(DiffusionManifold(**OPTIONS, distance_components=c).fit(noisy).extend(angle, CIRCLE @ FRAME[:2]) - angle)
        for c in (2, None)
    ]
    assert errors[0].mean() < 0.8 * errors[1].mean()


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.ManifoldWarning")
def test_a_share_of_the_variance():
    manifold = DiffusionManifold(**OPTIONS, distance_components=0.9).fit(POINTS)
    assert manifold._sampling.points.shape == (400, 2)
    assert manifold.inverse_transform(manifold.transform(POINTS[:5])).shape == (5, 30)


def test_images_pickles_and_workers():
    images = POINTS.reshape(400, 5, 6)
    manifold = DiffusionManifold(**OPTIONS, distance_components=2, n_jobs=2).fit(images)
    restored = pickle.loads(pickle.dumps(manifold))
    np.testing.assert_array_equal(restored.project(images), manifold.project(images))
    many = np.concatenate([images] * 3)
    np.testing.assert_allclose(manifold.project(many)[:400], manifold.project(images), atol=1e-12)


@pytest.mark.parametrize("neighbors", ["brute", "tree", "graph", NearestNeighbors()], ids=str)
def test_engines_measure_components(neighbors):
    expected = DiffusionManifold(**OPTIONS, distance_components=2).fit(POINTS)
    if neighbors == "graph":
        neighbors = kneighbors_graph(PCA(2).fit_transform(POINTS), 12, mode="distance")
    other = DiffusionManifold(**OPTIONS, distance_components=2, neighbors=neighbors).fit(POINTS)
    np.testing.assert_allclose(other.project(QUERIES), expected.project(QUERIES), atol=1e-9)


def test_copies_among_the_samples():
    manifold = DiffusionManifold(**OPTIONS, distance_components=2).fit(POINTS)
    doubled = DiffusionManifold(**OPTIONS, distance_components=2).fit(np.concatenate([POINTS, POINTS]))
    np.testing.assert_allclose(doubled.project(QUERIES), manifold.project(QUERIES), atol=1e-8)


@pytest.mark.parametrize("value", [0, -1, 31, 0.0, 1.0, 1.5, True, "mle", np.nan, [2]])
def test_wrong_numbers_of_components(value):
    with pytest.raises(ValueError, match="distance_components must be None, a share of variance between 0 and 1"):
        DiffusionManifold(**OPTIONS, distance_components=value).fit(POINTS)
