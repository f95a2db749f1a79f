"""Laws of the exact manifolds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manifoldkit.exceptions import MedialAxisWarning
from manifoldkit.geometry.exact import Circle, FlatTorus, Plane, Sphere
from manifoldkit.geometry.protocol import Manifold

RNG = np.random.default_rng(0)
MANIFOLDS = [
    Circle(),
    Circle(2.0, center=[1.0, -3.0]),
    Sphere(1, 0.5),
    Sphere(2),
    Sphere(6, 3.0, center=np.arange(7.0)),
    FlatTorus(),
    FlatTorus((0.5, 2.0, 1.0)),
    Plane(RNG.normal(size=(5, 2)), origin=RNG.normal(size=5)),
    Plane(RNG.normal(size=(3, 3))),
]
on_each = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


def queries(manifold, n: int = 50, seed: int = 1) -> np.ndarray:
    return 2 * np.random.default_rng(seed).normal(size=(n, manifold.ambient_dimension))


@on_each
def test_is_a_manifold(manifold):
    assert isinstance(manifold, Manifold)


@on_each
def test_projection_is_idempotent(manifold):
    p = manifold.project(queries(manifold))
    np.testing.assert_allclose(manifold.project(p), p, atol=1e-12)


@on_each
def test_projection_lands_on_the_manifold(manifold):
    p = manifold.project(queries(manifold))
    if isinstance(manifold, Sphere):
        np.testing.assert_allclose(np.linalg.norm(p - manifold.center, axis=1), manifold.radius, rtol=1e-14)
    elif isinstance(manifold, FlatTorus):
        radii = np.linalg.norm(p.reshape(len(p), -1, 2), axis=2)
        np.testing.assert_allclose(radii, np.broadcast_to(manifold.radii, radii.shape), rtol=1e-14)
    else:
        offset = p - manifold.origin
        np.testing.assert_allclose(offset @ manifold.basis @ manifold.basis.T, offset, atol=1e-12)


@on_each
def test_projection_is_nearest(manifold):
    x = queries(manifold)
    others = manifold.project(queries(manifold, 3000, seed=2))
    distance = np.linalg.norm(manifold.project(x) - x, axis=1)
    best = np.linalg.norm(x[:, None] - others[None], axis=2).min(axis=1)
    assert (distance <= best + 1e-12).all()


@on_each
def test_tangents_are_orthonormal_and_orthogonal_to_the_way_back(manifold):
    x = queries(manifold)
    basis = manifold.tangent_basis(x)
    assert basis.shape == (len(x), manifold.ambient_dimension, manifold.dimension)
    gram = np.einsum("bik,bil->bkl", basis, basis)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(manifold.dimension), gram.shape), atol=1e-13)
    np.testing.assert_allclose(np.einsum("bik,bi->bk", basis, x - manifold.project(x)), 0, atol=1e-12)


@on_each
def test_tangents_are_velocities_of_curves_on_the_manifold(manifold):
    p = manifold.project(queries(manifold))
    basis, h = manifold.tangent_basis(p), 1e-5
    for k in range(manifold.dimension):
        t = basis[:, :, k]
        velocity = (manifold.project(p + h * t) - manifold.project(p - h * t)) / (2 * h)
        np.testing.assert_allclose(velocity, t, atol=1e-8)


@on_each
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_kind_and_dtype_of_the_input(manifold, dtype):
    x = (queries(manifold) + 0.5).astype(dtype)
    x = np.where(x == 0, 1, x).astype(dtype)
    expected = np.float64 if dtype == np.int64 else dtype
    for name in ("project", "tangent_basis"):
        array = getattr(manifold, name)(x)
        tensor = getattr(manifold, name)(torch.from_numpy(x))
        assert type(array) is np.ndarray
        assert array.dtype == expected
        assert tensor.numpy().dtype == expected
        np.testing.assert_array_equal(array, tensor.numpy())


@on_each
def test_other_sample_shapes(manifold):
    x = queries(manifold)
    p = manifold.project(x.reshape(len(x), 1, -1))
    np.testing.assert_array_equal(p, manifold.project(x).reshape(len(x), 1, -1))


@on_each
def test_projection_is_differentiable(manifold):
    x = torch.from_numpy(queries(manifold, 4)).requires_grad_()
    assert torch.autograd.gradcheck(manifold.project, (x,))
    y = torch.from_numpy(queries(manifold, 4)).float().requires_grad_()
    manifold.project(y).sum().backward()
    assert y.grad.dtype == torch.float32


@on_each
@pytest.mark.parametrize("size", [1e-200, 1e-7, 1e7, 1e200])
def test_extreme_points(manifold, size):
    if isinstance(manifold, Plane):
        return
    x = queries(manifold) * max(size, 1e-7 if not isinstance(manifold, FlatTorus) else 1e-9)
    p = manifold.project(x)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(manifold.project(p), p, atol=1e-9)


@on_each
def test_medial_axis(manifold):
    if isinstance(manifold, Plane):
        return
    centre = np.zeros(manifold.ambient_dimension) if isinstance(manifold, FlatTorus) else manifold.center
    x = np.stack([centre, centre + 1.0])
    with pytest.warns(MedialAxisWarning, match="equally near"):
        p = manifold.project(x)
    first = np.zeros(manifold.ambient_dimension)
    if isinstance(manifold, FlatTorus):
        first[0::2] = manifold.radii
    else:
        first[0] = manifold.radius
    np.testing.assert_allclose(p[0], centre + first, atol=1e-15)
    leaf = torch.from_numpy(x).requires_grad_()
    with pytest.warns(MedialAxisWarning):
        manifold.project(leaf).sum().backward()
    assert torch.isfinite(leaf.grad).all()


@on_each
def test_spectra_are_ascending_and_consistent(manifold):
    if isinstance(manifold, Plane):
        assert not hasattr(manifold, "eigenvalues")
        return
    for spectrum in (manifold.eigenvalues, manifold.hodge_eigenvalues):
        long = spectrum(60)
        assert long.shape == (60,)
        assert (np.diff(long) >= 0).all()
        for n in (1, 2, 17):
            np.testing.assert_allclose(spectrum(n), long[:n], rtol=1e-14)
        with pytest.raises(ValueError, match="n must be"):
            spectrum(0)
    values = manifold.eigenvalues(60)
    assert values[0] == 0
    assert values[1] > 0  # connected
    betti = {Circle: 1, FlatTorus: manifold.dimension, Sphere: int(manifold.dimension == 1)}[type(manifold)]
    assert (manifold.hodge_eigenvalues(60) == 0).sum() == betti


@on_each
def test_bad_points(manifold):
    size = manifold.ambient_dimension
    with pytest.raises(ValueError, match="must have shape"):
        manifold.project(np.zeros((3, size + 1)))
    with pytest.raises(ValueError, match=r"x\[None\]"):
        manifold.project(np.ones(size))
    with pytest.raises(ValueError, match="NaN"):
        manifold.tangent_basis(np.full((1, size), np.nan))
    with pytest.raises(TypeError, match="real numbers"):
        manifold.project(np.array([["a"] * size]))


def test_circle():
    np.testing.assert_allclose(Circle(2.0).eigenvalues(7) * 4, [0, 1, 1, 4, 4, 9, 9])
    np.testing.assert_allclose(Circle(2.0).hodge_eigenvalues(7) * 4, [0, 1, 1, 4, 4, 9, 9])
    np.testing.assert_allclose(Circle().eigenvalues(9), Sphere(1).eigenvalues(9))
    np.testing.assert_allclose(Circle().eigenvalues(9), FlatTorus((1.0,)).eigenvalues(9))


def test_sphere():
    np.testing.assert_allclose(Sphere(2).eigenvalues(16), np.repeat([0, 2, 6, 12], [1, 3, 5, 7]))
    np.testing.assert_allclose(Sphere(2, 0.5).eigenvalues(2), [0, 8])
    np.testing.assert_allclose(Sphere(3).eigenvalues(30), np.repeat([0, 3, 8, 15], [1, 4, 9, 16]))
    np.testing.assert_allclose(Sphere(2).hodge_eigenvalues(16), np.repeat([2, 6], [6, 10]))
    # the Killing fields of S^d are the lowest co-closed forms: d(d + 1)/2 of them, eigenvalue 2(d - 1)
    values = Sphere(4).hodge_eigenvalues(15)
    np.testing.assert_allclose(values, np.repeat([4, 6], [5, 10]))


def test_torus():
    np.testing.assert_allclose(FlatTorus().eigenvalues(10), np.repeat([0, 1, 2, 4], [1, 4, 4, 1]))
    np.testing.assert_allclose(FlatTorus().hodge_eigenvalues(12), np.repeat([0, 1, 2], [2, 8, 2]))
    brute = sorted(a**2 / 0.25 + b**2 / 4 + c**2 for a in range(-3, 4) for b in range(-9, 10) for c in range(-5, 6))
    np.testing.assert_allclose(FlatTorus((0.5, 2.0, 1.0)).eigenvalues(80), brute[:80])


def test_weyl_law():
    for space, volume in ((Sphere(2, 1.5), 4 * math.pi * 2.25), (FlatTorus((1.0, 0.7)), 4 * math.pi**2 * 0.7)):
        assert space.eigenvalues(4000)[-1] == pytest.approx(4 * math.pi * 4000 / volume, rel=0.03)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Circle(0), "radius must be a positive"),
        (lambda: Circle(float("nan")), "radius must be a positive"),
        (lambda: Circle(1, center=[0, 0, 0]), "center must have shape"),
        (lambda: Sphere(0), "dimension must be a positive"),
        (lambda: Sphere(1.5), "dimension must be a positive"),
        (lambda: FlatTorus(()), "at least one radius"),
        (lambda: FlatTorus((1, -1)), "every radius must be"),
        (lambda: Plane(np.ones((3, 2))), "linearly dependent"),
        (lambda: Plane(np.zeros((3, 1))), "linearly dependent"),
        (lambda: Plane(np.ones((2, 3))), "vectors are columns"),
        (lambda: Plane(np.ones(3)), "vectors are columns"),
        (lambda: Plane(np.ones((3, 1)), origin=[0.0]), "origin must have 3"),
    ],
)
def test_bad_parameters(build, message):
    with pytest.raises(ValueError, match=message):
        build()
