"""Fits and projections without a matrix are those with one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle, make_sphere, make_torus
from manifoldkit.exceptions import DisconnectedGraphWarning
from manifoldkit.geometry.block_krylov import block_krylov
from manifoldkit.geometry.kernels import SHAPES
from manifoldkit.geometry.matrix_free import KernelOperator
from manifoldkit.geometry.nystrom import NystromLayer
from manifoldkit.geometry.sampling import sample_neighborhoods
from manifoldkit.geometry.support import connected_pieces, kernel_matrix

SHIFTED = make_circle(300, density=0.5, noise=0.05, random_state=0).points
POINTS = np.concatenate([SHIFTED, SHIFTED[:20]])  # some have weight 2
# Sizes that KeOps rounds up to one formula: up to four coordinates, products with one vector, four components.
OPTIONS = {"chunked": {}, "keops": {"eigen_solver": "arpack"}}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(scope="module", params=OPTIONS)
def fitted(request):
    return DiffusionManifold(4, 15, dimension=1, reduction=request.param, **OPTIONS[request.param]).fit(POINTS)


@pytest.fixture(scope="module")
def exact():
    return DiffusionManifold(4, 15, dimension=1).fit(POINTS)


def test_the_fit_is_that_of_the_matrix(fitted, exact):
    np.testing.assert_allclose(fitted.markov_eigenvalues_, exact.markov_eigenvalues_, atol=1e-10)
    np.testing.assert_allclose(fitted.eigenvalues_, exact.eigenvalues_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fitted.measure_, exact.measure_, rtol=1e-10)
    assert fitted.n_connected_components_ == exact.n_connected_components_ == 1
    queries = POINTS[::7] * 1.1
    np.testing.assert_allclose(fitted.project(queries), exact.project(queries), atol=1e-8)
    overlap = fitted.eigenfunctions_.T @ (fitted.measure_[:, None] * exact.eigenfunctions_)
    np.testing.assert_allclose(np.abs(np.linalg.det(overlap)), 1, atol=1e-8)


def test_training_points_are_exact(fitted):
    np.testing.assert_allclose(fitted.transform(POINTS), fitted.eigenfunctions_, atol=1e-8)


def test_it_forms_no_matrix(monkeypatch):
    def refuse(*_):
        raise AssertionError("a dense kernel was made")

    monkeypatch.setattr("manifoldkit.geometry.support.dense_distances", refuse)
    DiffusionManifold(4, 15, reduction="chunked").fit(POINTS)
    with pytest.raises(AssertionError, match="a dense kernel"):
        DiffusionManifold(4, 15).fit(POINTS)


def test_the_kernel_is_not_cut_however_many_samples_there_are(exact):
    whole = DiffusionManifold(4, 15, dimension=1, reduction="chunked", dense_limit=10).fit(POINTS)
    np.testing.assert_allclose(whole.markov_eigenvalues_, exact.markov_eigenvalues_, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_the_layer_has_the_values_and_gradients_of_the_row(fitted, device):
    check_the_layer(fitted, "shift", device)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_the_plain_layer_has_the_values_and_gradients_of_the_row(fitted, device):
    """Slow by one more formula of KeOps."""
    check_the_layer(fitted, "plain", device)


def check_the_layer(fitted, far, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    made = fitted.to_module(far)
    assert made.reduction == fitted.reduction
    plain = NystromLayer(made.row, made.coefficients, made.sample_shape, far, "torch").to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(POINTS[:20]) * (1 + torch.rand(20, 1, generator=generator, dtype=torch.float64))
    x = x.to(device).requires_grad_()
    g = torch.randn(20, 2, generator=generator, dtype=torch.float64).to(device)
    answers = []
    for layer in (made.to(device), plain):
        y = layer(x)
        answers.append((y.detach(), torch.autograd.grad(y, x, g)[0]))
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=1e-9, atol=1e-11)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("reduction", OPTIONS)
def test_the_fit_runs_on_the_device_of_the_samples(reduction, exact):
    points = torch.from_numpy(POINTS).cuda()
    manifold = DiffusionManifold(4, 15, dimension=1, reduction=reduction).fit(points)
    np.testing.assert_allclose(manifold.markov_eigenvalues_, exact.markov_eigenvalues_, atol=1e-10)
    assert manifold.project(points[:5]).is_cuda


@pytest.mark.parametrize("reduction", OPTIONS)
@pytest.mark.parametrize("parameters", [{"n_kernel_neighbors": 50}, {"kernel": "indicator"}, {"far": "knn"}])
def test_what_needs_a_matrix_is_refused(reduction, parameters):
    with pytest.raises(ValueError, match=f"reduction='{reduction}' needs the full kernel"):
        DiffusionManifold(12, 15, reduction=reduction, **parameters).fit(POINTS)


def test_lapack_needs_a_matrix():
    with pytest.raises(ValueError, match="eigen_solver='lapack' needs the matrix"):
        DiffusionManifold(12, 15, reduction="chunked", eigen_solver="lapack").fit(POINTS)


def test_the_knn_mode_is_refused(fitted):
    with pytest.raises(ValueError, match="far other than 'knn'"):
        fitted.project(POINTS[:3], far="knn")


@pytest.mark.parametrize("n_components", [1, 30, 90, 100])
def test_few_samples_and_many_components(n_components):
    points = make_circle(100, grid=True).points
    options = {"n_components": n_components, "n_neighbors": 4, "dimension": 1, "epsilon": 1.0}
    found = DiffusionManifold(**options, reduction="chunked")
    wanted = DiffusionManifold(**options)
    for manifold in (found, wanted):
        if n_components > 40:  # the least Markov eigenvalues are too small to be kept
            with pytest.warns(match="have a Markov eigenvalue above"):
                manifold.fit(points)
        else:
            manifold.fit(points)
    np.testing.assert_allclose(found.markov_eigenvalues_, wanted.markov_eigenvalues_, atol=1e-10)


def clusters(gap: float, n: int = 60) -> np.ndarray:
    """Three circles, of which the second and third are `gap` apart."""
    circle = make_circle(n, grid=True).points
    return np.concatenate([circle + np.array([shift, 0]) for shift in (0, 100, 102 + gap)])


@pytest.mark.parametrize("gap", [0.0, 0.2, 0.5, 1.0, 50.0])
@pytest.mark.parametrize("k", [3, 20])
def test_pieces_are_those_of_the_matrix(gap, k):
    sampling, lists = sample_neighborhoods(clusters(gap), k, "mean", "auto")
    counts = []
    for reduction in ("torch", "chunked"):
        kernel = kernel_matrix(sampling, lists, SHAPES["exp(-z)"], 1.5, dense=True, reduction=reduction)[0]
        counts.append(connected_pieces(kernel))
    assert counts[0] == counts[1]
    assert counts[0] == (3 if gap == 50 else counts[0])
    assert 2 <= counts[0] <= 3


def test_neighbour_pieces_may_be_joined_by_the_kernel():
    """With one neighbour the graph of a grid falls apart, and the kernel does not."""
    points = np.arange(40.0)[:, None] + 0.1 * (np.arange(40) % 2)[:, None]
    sampling, lists = sample_neighborhoods(points, 1, "mean", "auto")
    assert lists.n_pieces() > 1
    assert KernelOperator(sampling, lists, SHAPES["exp(-z)"], 1.0).connected_pieces() == 1


def test_pieces_are_reported():
    points = clusters(50)
    with pytest.warns(DisconnectedGraphWarning, match="3 pieces"):
        manifold = DiffusionManifold(7, 5, dimension=1, reduction="chunked").fit(points)
    np.testing.assert_allclose(manifold.markov_eigenvalues_[:3], 1, atol=1e-9)


@pytest.mark.parametrize(
    "points",
    [make_torus(900, grid=True).points, make_sphere(900, grid=True).points, make_circle(500, random_state=0).points],
    ids=["torus", "sphere", "circle"],
)
def test_degenerate_eigenspaces_are_complete(points):
    options = {"n_components": 13, "n_neighbors": 12, "dimension": 2}
    found = DiffusionManifold(**options, reduction="chunked").fit(points)
    wanted = DiffusionManifold(**options, eigen_solver="lapack").fit(points)
    np.testing.assert_allclose(found.markov_eigenvalues_, wanted.markov_eigenvalues_, atol=1e-12)


def test_block_krylov_in_a_small_invariant_space():
    """A matrix of rank 3: the Krylov space is exhausted by its second block."""
    basis = np.linalg.qr(np.random.RandomState(0).normal(size=(200, 3)))[0]
    values, vectors = block_krylov(basis @ np.diag([3.0, 2.0, 2.0]) @ basis.T, 4, np.random.RandomState(1))
    np.testing.assert_allclose(values, [3, 2, 2, 0], atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(basis @ (basis.T @ vectors[:, :3]), vectors[:, :3], atol=1e-9)


def test_indicator_has_no_operator():
    sampling, lists = sample_neighborhoods(SHIFTED, 5, "mean", "auto")
    with pytest.raises(ValueError, match="need an exponential shape, got 'indicator'"):
        KernelOperator(sampling, lists, SHAPES["indicator"], 1.0)
