"""The manifold of a decoder against closed forms: nearest points, tangent spaces, and attacks that walk on it."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from manifoldkit.attacks import OnManifoldPGD
from manifoldkit.exceptions import DegenerateTangentWarning, UnconvergedProjectionWarning
from manifoldkit.geometry import DecoderManifold, Manifold, Sphere


class SphereDecoder(nn.Module):
    """Polar angle and azimuth to the unit sphere."""

    def forward(self, z):
        t, p = z.T
        return torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], dim=1)


class SphereEncoder(nn.Module):
    """The angles, off by something that depends on the point."""

    def __init__(self, error=0.0):
        super().__init__()
        self.error = error

    def forward(self, x):
        length = torch.linalg.vector_norm(x, dim=1)
        t, p = torch.arccos(x[:, 2] / length), torch.atan2(x[:, 1], x[:, 0])
        return torch.stack([t, p], dim=1) + self.error * torch.sin(7 * x[:, :2])


def near_sphere(n, seed, spread=0.2):
    """Points near the sphere, away from the poles, where the angles are no coordinates."""
    rng = np.random.default_rng(seed)
    t, p = rng.uniform(0.6, math.pi - 0.6, n), rng.uniform(-3, 3, n)
    points = np.column_stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)])
    return points * (1 + spread * rng.uniform(-1, 1, (n, 1)))


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_the_nearest_point_though_the_encoder_is_off(seed):
    manifold, x = DecoderManifold(SphereEncoder(0.2), SphereDecoder(), n_refinements=40), near_sphere(100, seed)
    assert isinstance(manifold, Manifold)
    np.testing.assert_allclose(manifold.project(x), Sphere(2).project(x), atol=1e-6)
    np.testing.assert_allclose(manifold.distance(x), np.abs(np.linalg.norm(x, axis=1) - 1), atol=1e-10)
    unrefined = DecoderManifold(SphereEncoder(0.2), SphereDecoder(), n_refinements=0).project(x)
    assert np.abs(unrefined - Sphere(2).project(x)).max() > 0.05


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_idempotent_and_never_farther_than_the_encoders(seed):
    x = near_sphere(60, seed, spread=0.6)
    refined = DecoderManifold(SphereEncoder(0.3), SphereDecoder())
    coarse = DecoderManifold(SphereEncoder(0.3), SphereDecoder(), n_refinements=0)
    once = refined.project(x)
    np.testing.assert_allclose(refined.project(once), once, atol=1e-7)
    assert (refined.distance(x) <= coarse.distance(x) + 1e-12).all()


def test_tangents_are_orthonormal_and_those_of_the_sphere():
    manifold, x = DecoderManifold(SphereEncoder(0.1), SphereDecoder(), n_refinements=40), near_sphere(50, 4)
    points, basis = manifold.project_with_tangents(x)
    np.testing.assert_allclose(np.swapaxes(basis, 1, 2) @ basis, np.broadcast_to(np.eye(2), (50, 2, 2)), atol=1e-12)
    np.testing.assert_allclose(np.einsum("bi,bik->bk", points, basis), 0.0, atol=1e-6)
    np.testing.assert_array_equal(points, manifold.project(x))
    np.testing.assert_array_equal(basis, manifold.tangent_basis(x))


def test_codes_of_decoded_points_are_the_codes():
    manifold = DecoderManifold(SphereEncoder(0.2), SphereDecoder(), n_refinements=40)
    z = torch.tensor([[1.0, 0.5], [2.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(manifold.encode(SphereDecoder()(z)), z, atol=1e-6, rtol=0)


def test_kind_dtype_and_shape_follow_the_query_and_networks_are_left_as_found():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Dropout()).train()
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)), nn.Dropout()).train()
    manifold = DecoderManifold(encoder, decoder)
    x = torch.randn(7, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points, basis = manifold.project_with_tangents(x)
    assert (points.dtype, points.shape, basis.shape) == (torch.float64, x.shape, (7, 16, 2))
    assert isinstance(manifold.project(x.numpy().astype(np.float32)), np.ndarray)
    assert encoder.training
    assert decoder[2].training
    assert all(p.grad is None and p.requires_grad for p in [*encoder.parameters(), *decoder.parameters()])
    # The projection onto a plane is linear algebra.
    matrix, shift = decoder[0].weight.detach().double(), decoder[0].bias.detach().double()
    q = torch.linalg.qr(matrix)[0]
    exact = shift + (x.flatten(1) - shift) @ q @ q.T
    torch.testing.assert_close(points.flatten(1), exact, atol=1e-5, rtol=0)


class Graph(nn.Module):
    """The parabola over its first coordinate."""

    def forward(self, z):
        return torch.cat([z, z**2], dim=1)


class FirstCoordinate(nn.Module):
    """A code that is a view of the sample, which is overwritten as well."""

    def forward(self, x):
        x[:, 1:] = 0.0
        return x[:, :1]


def test_samples_are_not_written_into_by_encoders_that_return_views_or_work_in_place():
    x = np.array([[0.0, 1.0], [2.0, 1.0]])
    before = x.copy()
    manifold = DecoderManifold(FirstCoordinate(), Graph())
    for query in (x, torch.from_numpy(x)):
        z = np.asarray(manifold.project(query))[:, 0]
        np.testing.assert_array_equal(x, before)
        np.testing.assert_allclose((x[:, 0] - z) + 2 * z * (x[:, 1] - z**2), 0.0, atol=1e-5)  # normal to (1, 2 z)
    same = DecoderManifold(nn.Identity(), nn.Identity())
    np.testing.assert_array_equal(same.project(x), before)
    np.testing.assert_array_equal(x, before)


def test_steps_that_overflow_are_not_taken():
    class Diagonal(nn.Module):
        def forward(self, z):
            return torch.cat([z.exp(), z.exp()], dim=1)

    class Far(nn.Module):
        def forward(self, x):
            return 0 * x[:, :1] + torch.tensor([[-10.0], [-1.0]], dtype=x.dtype)

    x = np.array([[1.0, 2.0], [1.0, 2.0]])  # nearest to (1.5, 1.5); from -10, the first step is 3e4 long
    points = DecoderManifold(Far(), Diagonal(), n_refinements=60).project(x)
    np.testing.assert_allclose(points, 1.5, atol=1e-5)


def test_a_search_that_ends_too_early_says_at_how_many_points():
    """One coarse step suffices where the encoder is right, and nowhere else; the residual tells which these are."""

    class HalfRight(nn.Module):
        def forward(self, x):
            codes = SphereEncoder()(x)
            return codes + 0.8 * (torch.arange(len(x)) % 2)[:, None]

    x = near_sphere(10, 0)
    early = DecoderManifold(HalfRight(), SphereDecoder(), n_refinements=1)
    with pytest.warns(UnconvergedProjectionWarning, match=r"after 1 steps at 5 of 10 points.*raise n_refinements"):
        points, basis = early.project_with_tangents(x)
    residual = x - points
    oblique = np.abs(np.einsum("bik,bi->bk", basis, residual)).max(axis=1) > 0.01 * np.linalg.norm(residual, axis=1)
    np.testing.assert_array_equal(oblique, np.arange(10) % 2 == 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DecoderManifold(HalfRight(), SphereDecoder(), n_refinements=0).project(x)  # f(g(x)), as asked for
        DecoderManifold(HalfRight(), SphereDecoder(), n_refinements=40).project(x)
        on_it = SphereDecoder()(SphereEncoder()(torch.from_numpy(x)))
        DecoderManifold(SphereEncoder(), SphereDecoder(), n_refinements=1).project(on_it)  # a residual of rounding


def test_attacks_walk_on_it():
    manifold = DecoderManifold(SphereEncoder(), SphereDecoder())
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    x = torch.from_numpy(near_sphere(20, 0))
    result = OnManifoldPGD(model, manifold, alpha=0.1, steps=60, bounds=None).run(x, model(x).argmax(1))
    assert result.success.all()
    assert (result.adversarial.norm(dim=1) - 1).abs().max() < 1e-2
    assert result.distance_to_manifold.max() < 1e-2


def test_a_collapsed_decoder_warns():
    class Fold(nn.Module):
        def forward(self, z):
            return torch.stack([z.sum(dim=1), z.sum(dim=1), z.sum(dim=1)], dim=1)

    manifold = DecoderManifold(SphereEncoder(), Fold())
    with pytest.warns(DegenerateTangentWarning, match="full rank at 4 of 4"):
        basis = manifold.tangent_basis(near_sphere(4, 0))
    assert np.isfinite(basis).all()


@pytest.mark.parametrize(
    ("arguments", "x", "error", "message"),
    [
        ((lambda x: x, SphereDecoder()), None, TypeError, "encoder must be a torch.nn.Module"),
        ((SphereEncoder(), 3), None, TypeError, "decoder must be a torch.nn.Module"),
        ((SphereEncoder(), SphereDecoder()), np.zeros(3), ValueError, r"x\[None\]"),
        ((SphereEncoder(), SphereDecoder()), np.zeros((0, 3)), ValueError, "B >= 1"),
        ((SphereEncoder(), SphereDecoder()), np.full((2, 3), np.nan), ValueError, "NaN"),
        ((nn.Flatten(0), SphereDecoder()), np.ones((2, 3)), ValueError, "encoder must return codes"),
        ((nn.Linear(2, 3), nn.Linear(3, 2)), np.ones((4, 2), dtype=np.float32), ValueError, "1 to 2 entries.*got 3"),
        ((nn.Identity(), nn.Linear(3, 4)), np.ones((2, 3)), ValueError, "decoder must return 3 numbers"),
        ((nn.Identity(), nn.Threshold(9.0, float("nan"))), np.ones((2, 3)), ValueError, "NaN or infinite"),
    ],
)
def test_wrong_input_is_refused(arguments, x, error, message):
    with pytest.raises(error, match=message):
        DecoderManifold(*arguments).project(x)


@pytest.mark.parametrize("options", [{"n_refinements": -1}, {"n_refinements": 1.5}, {"tol": 0.0}])
def test_wrong_numbers_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DecoderManifold(SphereEncoder(), SphereDecoder(), **options)
