"""The KeOps engine gives the numbers and the derivatives of the plain torch formula."""

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle
from manifoldkit.geometry.nystrom import NystromLayer

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
POINTS = np.concatenate([make_circle(300, density=0.5, noise=0.05, random_state=0).points] * 2)[:320]  # some twice


@pytest.fixture(scope="module")
def fitted():
    return DiffusionManifold(12, 15, dimension=1, reduction="keops").fit(POINTS)


def layers(manifold, far, device):
    made = manifold.to_module(far)
    assert made.reduction == "keops"
    plain = NystromLayer(made.row, made.coefficients, made.sample_shape, far, "torch")
    return made.to(device), plain.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("far", ["shift", "plain"])
def test_values_and_gradients_equal_those_of_torch(fitted, far, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(POINTS[:20]) * (1 + torch.rand(20, 1, generator=generator, dtype=torch.float64))
    x = x.to(device).requires_grad_()
    g = torch.randn(20, 2, generator=generator, dtype=torch.float64).to(device)
    answers = []
    for layer in layers(fitted, far, device):
        y = layer(x)
        answers.append((y.detach(), torch.autograd.grad(y, x, g)[0]))
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=1e-9, atol=1e-11)


def test_training_points_are_exact(fitted):
    coordinates = fitted.transform(POINTS)
    np.testing.assert_allclose(coordinates, fitted.eigenfunctions_, atol=1e-8)


@pytest.mark.parametrize("parameters", [{"n_kernel_neighbors": 50}, {"dense_limit": 100}, {"kernel": "indicator"}])
def test_truncated_kernels_are_refused(parameters):
    with pytest.raises(ValueError, match="reduction='keops' needs the full kernel"):
        DiffusionManifold(12, 15, reduction="keops", **parameters).fit(POINTS)


def test_the_knn_mode_is_refused(fitted):
    with pytest.raises(ValueError, match="far other than 'knn'"):
        fitted.project(POINTS[:3], far="knn")
