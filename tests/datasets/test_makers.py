"""Laws that every sampled manifold obeys, and the densities, lattices and noise that the docstrings promise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from manifoldkit.datasets import (
    ManifoldSample,
    make_circle,
    make_linked_rings,
    make_noisy_circle,
    make_open_sphere,
    make_ring_torus,
    make_s_curve,
    make_sphere,
    make_swiss_roll,
    make_torus,
)


def plane_circle(p):
    return np.stack([np.cos(p[:, 0]), np.sin(p[:, 0])], axis=1)


def space_circle(p):
    t = p[:, 0]
    return np.stack([np.cos(t), np.sin(t), np.cos(2 * t) / 2, np.sin(2 * t) / 2], axis=1) / math.sqrt(2)


def torus(p):
    a, b = p.T
    return np.stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b)], axis=1)


def ring_torus(p):
    a, b = p.T
    radius = 2 + np.cos(b)
    return np.stack([radius * np.cos(a), radius * np.sin(a), np.sin(b)], axis=1)


def s_curve(p):
    s, y = p.T
    return np.stack([np.sin(s), y, np.sign(s) * (np.cos(s) - 1)], axis=1)


def open_sphere(p):
    r, phi = p.T
    return np.stack([np.sin(r) * np.cos(phi), np.sin(r) * np.sin(phi), -np.cos(r)], axis=1)


def sphere(p):
    theta, phi = p.T
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)


# name: (maker, parametrisation, whether unit speed along each coordinate is claimed)
MANIFOLDS = {
    "circle": (make_circle, plane_circle, True),
    "small circle": (lambda n, **k: make_circle(n, radius=0.3, **k), lambda p: 0.3 * plane_circle(p), False),
    "uneven circle": (lambda n, **k: make_circle(n, density=-0.9, **k), plane_circle, True),
    "circle in 4d": (lambda n, **k: make_circle(n, ambient_dimension=4, **k), space_circle, True),
    "torus": (make_torus, torus, True),
    "sphere": (make_sphere, sphere, False),
    "ring torus": (make_ring_torus, ring_torus, False),
    "s curve": (make_s_curve, s_curve, True),
    "open sphere": (make_open_sphere, open_sphere, False),
    "uneven sphere": (lambda n, **k: make_sphere(n, density=0.8, **k), sphere, False),
}
RANDOM = {
    **{name: maker for name, (maker, _, _) in MANIFOLDS.items()},
    "noisy circle": make_noisy_circle,
    "swiss roll": make_swiss_roll,
}


@pytest.mark.parametrize("name", RANDOM)
def test_arrays_have_the_promised_shapes(name):
    sample = RANDOM[name](37, random_state=0)
    n, dimension = sample.points.shape
    assert n == 37
    assert sample.clean.shape == (n, dimension)
    assert sample.parameters.shape == (n, len(sample.parameter_names))
    assert sample.tangents.shape == (n, dimension, sample.parameters.shape[1])
    assert sample.noise_scale.shape == (n,)
    assert all(getattr(sample, field.name).dtype == np.float64 for field in dataclasses.fields(sample)[3:])
    assert sample.points.dtype == sample.parameters.dtype == np.float64


@pytest.mark.parametrize("name", RANDOM)
def test_tangents_are_orthonormal(name):
    tangents = RANDOM[name](50, random_state=1).tangents
    gram = np.einsum("nDi,nDj->nij", tangents, tangents)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(gram.shape[-1]), gram.shape), atol=1e-12)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_clean_points_are_the_parametrisation_and_tangents_its_derivatives(name):
    maker, embed, unit_speed = MANIFOLDS[name]
    sample = maker(60, noise=0.1, random_state=2)
    np.testing.assert_allclose(embed(sample.parameters), sample.clean, atol=1e-12)
    check_derivatives(sample, embed, unit_speed)


def check_derivatives(sample, embed, unit_speed, step=1e-5):
    for i in range(sample.parameters.shape[1]):
        shift = np.zeros(sample.parameters.shape[1])
        shift[i] = step
        velocity = (embed(sample.parameters + shift) - embed(sample.parameters - shift)) / (2 * step)
        speed = np.linalg.norm(velocity, axis=1)
        along = np.einsum("nD,nD->n", velocity, sample.tangents[:, :, i])
        # Central differences of a smooth map are exact to step^2, and equal length along the tangent means parallel.
        np.testing.assert_allclose(along, speed, rtol=1e-7, atol=1e-9)
        if unit_speed:
            np.testing.assert_allclose(speed, 1.0, rtol=1e-8)


def test_swiss_roll_lies_on_its_spiral_and_arclength_unrolls_it():
    sample = make_swiss_roll(200, random_state=0)
    t = np.hypot(sample.clean[:, 0], sample.clean[:, 2])
    assert t.min() >= 1.5 * np.pi - 1e-9
    assert t.max() <= 4.5 * np.pi + 1e-9
    np.testing.assert_allclose(sample.clean, np.stack([t * np.cos(t), sample.clean[:, 1], t * np.sin(t)], 1), atol=1e-9)
    lengths = [integrate.quad(lambda u: math.sqrt(1 + u * u), 1.5 * np.pi, end)[0] for end in t]
    np.testing.assert_allclose(sample.parameters[:, 0], lengths, atol=1e-7)
    np.testing.assert_array_equal(sample.parameters[:, 1], sample.clean[:, 1])

    def embed(p):  # by Newton's method independent of the library's: bisection of the quadrature's closed form
        low, high = np.full(len(p), 4.0), np.full(len(p), 15.0)
        length = lambda u: (u * np.sqrt(1 + u * u) + np.arcsinh(u)) / 2  # noqa: E731
        for _ in range(80):
            middle = (low + high) / 2
            above = length(middle) - length(1.5 * np.pi) > p[:, 0]
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.stack([low * np.cos(low), p[:, 1], low * np.sin(low)], axis=1)

    check_derivatives(sample, embed, True, step=1e-4)


@pytest.mark.parametrize("amplitude", [0.7, -0.5, 1.0])
def test_circle_angles_follow_the_density(amplitude):
    theta = make_circle(4000, density=amplitude, random_state=3).parameters[:, 0]
    law = lambda t: (t + amplitude * np.sin(t)) / (2 * np.pi)  # noqa: E731
    assert stats.kstest(theta, law).pvalue > 1e-3
    assert stats.kstest(theta, "uniform", args=(0, 2 * np.pi)).pvalue < 1e-10  # the test has the power to tell


@pytest.mark.parametrize("amplitude", ["uniform", 0.0, 0.7, -1.0])
def test_circle_lattice_has_the_quantiles(amplitude):
    theta = make_circle(100, density=amplitude, grid=True).parameters[:, 0]
    a = 0.0 if amplitude == "uniform" else amplitude
    # Where the density vanishes (a = -1 at 0) the quantile is ill-conditioned, its probability is not.
    np.testing.assert_allclose((theta + a * np.sin(theta)) / (2 * np.pi), np.arange(100) / 100, atol=1e-13)


@pytest.mark.parametrize("amplitude", [0.0, 0.9, -1.0])
def test_sphere_heights_follow_the_density(amplitude):
    sample = make_sphere(4000, density=amplitude, random_state=4)
    law = lambda z: (z + 1) / 2 + amplitude * (z * z - 1) / 4  # noqa: E731
    assert stats.kstest(sample.clean[:, 2], law).pvalue > 1e-3
    assert stats.kstest(sample.parameters[:, 1], "uniform", args=(0, 2 * np.pi)).pvalue > 1e-3
    lattice = make_sphere(300, density=amplitude, grid=True).clean[:, 2]
    np.testing.assert_allclose(law(lattice), (np.arange(300) + 0.5) / 300, atol=1e-12)


def test_fibonacci_lattice_is_even():
    points = make_sphere(500, grid=True).points
    nearest = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 1]
    assert nearest.max() / nearest.min() < 1.6  # random points have ratios in the hundreds


def test_torus_lattice_is_square_and_random_torus_is_uniform():
    angles = make_torus(49, grid=True).parameters
    np.testing.assert_allclose(np.unique(angles[:, 0].round(12)), 2 * np.pi * np.arange(7) / 7, atol=1e-11)
    assert len(np.unique(angles.round(12), axis=0)) == 49
    drawn = make_torus(3000, random_state=0).parameters
    for column in drawn.T:
        assert stats.kstest(column, "uniform", args=(0, 2 * np.pi)).pvalue > 1e-3


def test_swiss_roll_is_uniform_in_area():
    s, y = make_swiss_roll(4000, random_state=0).parameters.T
    assert stats.kstest(s, "uniform", args=(0, 89.37)).pvalue > 1e-3
    assert stats.kstest(y, "uniform", args=(0, 21)).pvalue > 1e-3
    lattice = make_swiss_roll(grid=(93, 21)).parameters.reshape(93, 21, 2)
    steps = np.diff(lattice[:, 0, 0]), np.diff(lattice[0, :, 1])
    np.testing.assert_allclose(steps[0], steps[0][0])
    np.testing.assert_allclose(steps[1], 1.0)
    assert lattice[0, 0, 0] == pytest.approx(steps[0][0] / 2)


def test_noise_has_the_promised_scale_in_every_coordinate():
    for sample in (
        make_torus(20_000, noise=0.3, random_state=0),
        make_noisy_circle(20_000, ambient_dimension=4, random_state=0),
    ):
        standard = (sample.points - sample.clean) / sample.noise_scale[:, None]
        for column in standard.T:
            assert stats.kstest(column, "norm").pvalue > 1e-3


def test_noise_free_points_are_clean():
    sample = make_sphere(30, random_state=0)
    np.testing.assert_array_equal(sample.points, sample.clean)
    assert not sample.noise_scale.any()


def test_noisy_circle_law():
    sample = make_noisy_circle(3000, random_state=0)
    theta = sample.parameters[:, 0]
    np.testing.assert_allclose(sample.noise_scale, 0.01 + 0.14 * (1 + np.sin(theta)) / 2, atol=1e-15)
    assert stats.kstest(theta, lambda t: (t + 0.7 * np.sin(t)) / (2 * np.pi)).pvalue > 1e-3
    # E|N(0, sigma)| averaged over the circle is sqrt(2 / pi) (0.01 + 0.15) / 2 = 0.064, up to curvature.
    assert np.abs(np.linalg.norm(sample.points, axis=1) - 1).mean() == pytest.approx(0.064, abs=0.004)


@pytest.mark.parametrize("name", RANDOM)
def test_random_state_alone_decides(name):
    maker = RANDOM[name]
    np.random.seed(0)  # noqa: NPY002 - the global seed must have no influence
    first = maker(20, random_state=5).points
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(first, maker(20, random_state=5).points)
    np.testing.assert_array_equal(first, maker(20, random_state=np.random.default_rng(5)).points)
    assert not np.array_equal(first, maker(20, random_state=6).points)
    assert not np.array_equal(maker(20).points, maker(20).points)
    legacy = [maker(20, random_state=np.random.RandomState(5)).points for _ in range(2)]
    np.testing.assert_array_equal(*legacy)
    stream = np.random.RandomState(5)
    assert not np.array_equal(maker(20, random_state=stream).points, maker(20, random_state=stream).points)


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for maker in RANDOM.values():
        maker(10)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), density=st.floats(-1, 1), radius=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_every_circle_has_its_radius_and_angles_in_range(n, density, radius, seed):
    sample = make_circle(n, density=density, radius=radius, random_state=seed)
    np.testing.assert_allclose(np.linalg.norm(sample.points, axis=1), radius)
    assert sample.parameters.min() >= 0.0
    assert sample.parameters.max() < 2 * np.pi


def test_samples_are_frozen():
    sample = make_circle(5)
    assert isinstance(sample, ManifoldSample)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.points = sample.clean


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_circle(0), ValueError, "n_samples must be at least 1, got 0"),
        (lambda: make_circle(10.0), TypeError, "n_samples must be an integer, got 10.0"),
        (lambda: make_circle(True), TypeError, "n_samples must be an integer"),
        (lambda: make_circle(5, radius=0.0), ValueError, r"radius must be a finite number in \(0, inf\), got 0.0"),
        (lambda: make_circle(5, radius="1"), TypeError, "radius must be a real number"),
        (lambda: make_circle(5, density=1.5), ValueError, r"density must be a finite number in \[-1, 1\], got 1.5"),
        (lambda: make_circle(5, density="flat"), ValueError, "density must be \"uniform\" or a number .* got 'flat'"),
        (lambda: make_circle(5, noise=-0.1), ValueError, "noise must be a finite number"),
        (lambda: make_circle(5, noise=float("nan")), ValueError, "noise must be a finite number"),
        (lambda: make_circle(5, grid=1), TypeError, "grid must be True or False, got 1"),
        (lambda: make_circle(5, ambient_dimension=3), ValueError, "ambient_dimension must be 2 or 4, got 3"),
        (lambda: make_circle(5, random_state="0"), TypeError, "random_state must be None, an int"),
        (lambda: make_circle(5, random_state=-1), ValueError, "random_state must not be negative, got -1"),
        (lambda: make_noisy_circle(5, noise=0.1), TypeError, r"noise must be a pair .* got 0.1"),
        (lambda: make_noisy_circle(5, noise=(0.2, 0.1)), ValueError, "swap the two"),
        (lambda: make_noisy_circle(5, noise=(-0.2, 0.1)), ValueError, r"noise\[0\] must be a finite number"),
        (lambda: make_torus(10, grid=True), ValueError, "n_samples must be a square number .* got 10: use 9 or 16"),
        (lambda: make_sphere(5, density=[0.1]), TypeError, "density must be a real number"),
        (lambda: make_swiss_roll(grid=93), TypeError, r"grid must be a pair \(n_s, n_y\)"),
        (lambda: make_swiss_roll(grid=(0, 3)), ValueError, r"grid\[0\] must be at least 1"),
        (lambda: make_swiss_roll(10, grid=(3, 3)), ValueError, "has 9 points but n_samples is 10"),
    ],
)
def test_wrong_arguments_say_what_came_and_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("ring", [0, 1])
def test_linked_rings_are_circles_through_each_others_middle(ring):
    sample, labels = make_linked_rings(401, random_state=5)
    assert np.bincount(labels).tolist() == [201, 200]
    own = labels == ring
    centre = np.array([float(ring), 0.0, 0.0])
    arms, tangents = sample.points[own] - centre, sample.tangents[own, :, 0]
    np.testing.assert_allclose(np.linalg.norm(arms, axis=1), 1.0)
    assert (arms[:, 2 - ring] == 0).all()  # in the plane z = 0 or y = 0
    np.testing.assert_allclose(np.einsum("nD,nD->n", arms, tangents), 0.0, atol=1e-12)
    assert stats.kstest(sample.parameters[own, 0], "uniform", args=(0, 2 * np.pi)).pvalue > 1e-3
    nearest = np.linalg.norm(sample.points[~own] - centre, axis=1).min()
    assert nearest < 0.1  # the other ring goes through the centre


def test_ring_torus_and_open_sphere_are_uniform_in_area():
    beta = make_ring_torus(4000, major=1.5, minor=1.2, random_state=6).parameters[:, 1]
    assert stats.kstest(beta, lambda b: (b + 0.8 * np.sin(b)) / (2 * np.pi)).pvalue > 1e-3
    heights = make_open_sphere(4000, opening=np.pi / 3, random_state=6).clean[:, 2]
    assert stats.kstest(heights, "uniform", args=(-1, 1.5)).pvalue > 1e-3  # Archimedes: area is proportional to height


def test_parameters_of_the_s_curve_are_geodesic():
    sample = make_s_curve(4000, random_state=7)
    near = np.linalg.norm(sample.parameters[:, None] - sample.parameters[None, :200], axis=2)
    i, j = np.nonzero((near > 0) & (near < 0.1))
    chord = np.linalg.norm(sample.points[i] - sample.points[j], axis=1)
    np.testing.assert_allclose(chord, near[i, j], rtol=0.1**2 / 20)  # a chord of curvature 1: 1 - l^2 / 24
