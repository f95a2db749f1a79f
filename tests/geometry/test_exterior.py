"""Laws of the spectral exterior calculus: Hodge spectra, Betti numbers, fields, and its documented failures.

Bounds are those of table 5.2 of the specification plus a fifth.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle, make_sphere, make_swiss_roll, make_torus
from manifoldkit.exceptions import ScaleWarning
from manifoldkit.geometry import Circle, ExteriorCalculus, FlatTorus, Sphere
from manifoldkit.geometry.exterior import _forms

A_FIFTH = 1.2
SEEDS = range(5)


@pytest.fixture(scope="module")
def circles(learn):
    fits = {"grid": learn(make_circle(1000, grid=True).points, 40, 39, 1)}
    return fits | {seed: learn(make_circle(1000, random_state=seed).points, 40, 39, 1) for seed in SEEDS}


@pytest.fixture(scope="module")
def tori(learn):
    fits = {"grid": learn(make_torus(2500, grid=True).points, 20, 61, 2)}
    return fits | {seed: learn(make_torus(2500, random_state=seed).points, 20, 81, 2) for seed in range(3)}


@pytest.fixture(scope="module")
def spheres(learn):
    fits = {"grid": learn(make_sphere(2500, grid=True).points, 20, 49, 2)}
    return fits | {seed: learn(make_sphere(2500, random_state=seed).points, 20, 49, 2) for seed in SEEDS}


def zeros(exterior, below: float = 0.2) -> int:
    """Number of harmonic fields."""
    return int((exterior.eigenvalues_ < below * exterior.manifold.eigenvalues_[1]).sum())


def test_circle_grid(circles, spectrum_error):
    exterior = ExteriorCalculus(circles["grid"], 9, 21, 21).fit()
    truth = Circle().hodge_eigenvalues(9)
    assert spectrum_error(exterior.eigenvalues_, truth) < A_FIFTH * 0.003
    assert abs(exterior.eigenvalues_[0]) < 5e-4
    assert zeros(exterior) == 1


def test_random_circles(circles, spectrum_error):
    truth, errors, harmonic = Circle().hodge_eigenvalues(9), [], []
    for seed in SEEDS:
        exterior = ExteriorCalculus(circles[seed], 9, 21, 21).fit()
        errors.append(spectrum_error(exterior.eigenvalues_, truth))
        harmonic.append(abs(exterior.eigenvalues_[0]))
        assert zeros(exterior) == 1
    assert np.mean(errors) < A_FIFTH * 0.021, np.round(errors, 4)
    assert max(harmonic[:2]) < A_FIFTH * 0.004, np.round(harmonic, 4)  # the two seeds of the table
    assert max(harmonic) < 0.02, np.round(harmonic, 4)


def test_row_of_the_table_digit_by_digit(circles):
    """Seed 0: the table's row of the random circle, which was computed independently."""
    exterior = ExteriorCalculus(circles[0], 9, 21, 21).fit()
    np.testing.assert_allclose(exterior.eigenvalues_[:7], [0.00, 0.97, 1.04, 3.98, 4.06, 8.77, 9.21], atol=0.006)


# The table does not say its N0. On the grid 61 gives the zeros it has, 81 gives 0.014; on random tori it is 81 that
# does, and 61 gives 0.035 to 0.048.


def test_torus_grid(tori, spectrum_error):
    exterior = ExteriorCalculus(tori["grid"], 21, 61).fit()
    assert spectrum_error(exterior.eigenvalues_, FlatTorus().hodge_eigenvalues(18)) < A_FIFTH * 0.033
    assert np.abs(exterior.eigenvalues_[:2]).max() < A_FIFTH * 0.008
    assert zeros(exterior) == 2


def test_random_tori(tori, spectrum_error):
    errors, harmonic = [], []
    for seed in range(3):
        exterior = ExteriorCalculus(tori[seed], 21, 81).fit()
        errors.append(spectrum_error(exterior.eigenvalues_, FlatTorus().hodge_eigenvalues(18)))
        harmonic.append(np.abs(exterior.eigenvalues_[:2]).max())
        assert zeros(exterior) == 2
    assert np.mean(errors) < A_FIFTH * 0.047, np.round(errors, 4)
    assert np.mean(harmonic) < A_FIFTH * 0.034, np.round(harmonic, 4)


def test_sphere_grid(spheres, spectrum_error):
    exterior = ExteriorCalculus(spheres["grid"], 16, 49).fit()
    assert spectrum_error(exterior.eigenvalues_, Sphere(2).hodge_eigenvalues(16)) < A_FIFTH * 0.010
    assert zeros(exterior) == 0


def test_random_spheres(spheres, spectrum_error):
    errors = []
    for seed in SEEDS:
        exterior = ExteriorCalculus(spheres[seed], 16, 49).fit()
        errors.append(spectrum_error(exterior.eigenvalues_, Sphere(2).hodge_eigenvalues(16)))
        assert zeros(exterior) == 0
    assert np.mean(errors) < A_FIFTH * 0.038, np.round(errors, 4)


def test_swiss_roll_is_a_strip(learn):
    """In units of xi_1: 1, 4, 9, 16 along it, then 19.7 and 20.7 across and along."""
    manifold = learn(make_swiss_roll(grid=(93, 21)).points, 8, 61, 2)
    exterior = ExteriorCalculus(manifold, 16, 61).fit()
    length, height = 89.4, 21.0
    strip = sorted((np.pi * i / length) ** 2 + (np.pi * j / height) ** 2 for i in range(6) for j in range(2))
    np.testing.assert_allclose(exterior.eigenvalues_[:4], strip[1:5], rtol=0.06)
    assert zeros(exterior) == 0
    ratios = exterior.eigenvalues_[:6] / manifold.eigenvalues_[1]
    np.testing.assert_allclose(ratios, [1.02, 3.88, 8.54, 15.5, 17.4, 18.1], rtol=0.05)


def test_too_many_neighbours_short_circuit_the_swiss_roll(learn):
    manifold = learn(make_swiss_roll(grid=(93, 21)).points, 30, 5, 2)
    assert manifold.eigenvalues_[1] > 3 * (np.pi / 89.4) ** 2


def test_as_many_products_as_functions_are_too_few(spheres):
    with pytest.warns(ScaleWarning, match="energies may be far off"):
        exterior = ExteriorCalculus(spheres["grid"], 16, 16).fit()
    truth = Sphere(2).hodge_eigenvalues(16)
    assert np.abs(exterior.eigenvalues_[:16] / truth - 1).mean() > 0.2


def test_plain_frame_with_a_small_tolerance_has_spurious_zeros(tori):
    exterior = ExteriorCalculus(tori[0], 21, 61, frame="plain", tol=1e-3).fit()
    assert zeros(exterior) > 10
    stable = ExteriorCalculus(tori[0], 21, 61, frame="plain").fit()
    assert zeros(stable) == 2


def test_too_large_a_frame_on_a_random_circle_moves_the_zero(circles):
    sizes = ((9, 21), (15, 39))
    small, large = ([ExteriorCalculus(circles[s], m, n).fit().eigenvalues_[0] for s in SEEDS] for m, n in sizes)
    assert np.mean(np.abs(large)) > 2 * np.mean(np.abs(small))
    assert min(large) < -0.04


def test_defaults_find_the_betti_numbers(circles, tori, spheres):
    for fits, betti in ((circles, 1), (tori, 2), (spheres, 0)):
        exterior = ExteriorCalculus(fits[0]).fit()
        assert zeros(exterior) == betti
        assert exterior.n_functions_ <= exterior.n_products_ <= fits[0].n_components_


@pytest.mark.parametrize("frame", ["antisymmetric", "plain"])
@pytest.mark.parametrize("pushforward", ["markov", "spectral"])
def test_fields_on_the_circle(circles, frame, pushforward):
    manifold = circles["grid"]
    exterior = ExteriorCalculus(manifold, 9, 21, 21, frame=frame, pushforward=pushforward).fit()
    sample = make_circle(1000, grid=True)
    fields = exterior.fields(sample.points, 7)
    assert fields.shape == (1000, 7, 2)
    normal = np.einsum("brd,bd->br", fields, sample.points)
    assert np.sqrt((normal**2).mean(axis=0)).max() < 0.05
    square = np.einsum("b,brd->r", manifold.measure_, fields**2)
    np.testing.assert_allclose(square, 1, atol=0.07)  # unit mean square length
    lengths = np.einsum("bd,bd->b", fields[:, 0], sample.tangents[:, :, 0])
    np.testing.assert_allclose(np.abs(lengths), 1, atol=0.02)  # the harmonic field turns at constant speed
    assert np.abs(lengths.sum()) > 980


def test_fields_are_orthonormal_and_smooth_first(tori):
    manifold, points = tori["grid"], make_torus(2500, grid=True).points
    exterior = ExteriorCalculus(manifold, 21, 61).fit()
    assert (np.diff(exterior.eigenvalues_) >= -1e-12).all()
    fields = exterior.fields(points, 6)
    gram = np.einsum("b,brd,bsd->rs", manifold.measure_, fields, fields)
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=0.01)
    assert ((np.diag(gram) > 0.8) & (np.diag(gram) < 1.02)).all()  # the Markov form shortens fields a little


def test_antisymmetric_coefficients_are_antisymmetric(circles):
    exterior = ExteriorCalculus(circles[0], 9, 21).fit()
    np.testing.assert_array_equal(exterior.coefficients_, -exterior.coefficients_.transpose(0, 2, 1))
    assert exterior.coefficients_.shape == (len(exterior.eigenvalues_), 9, 9)


def test_units_follow_the_manifold(learn):
    """Energies are inverse squared lengths."""
    points = make_circle(400, random_state=0).points
    small, large = (ExteriorCalculus(learn(s * points, 20, 21, 1), 9, 21).fit() for s in (1.0, 5.0))
    np.testing.assert_allclose(25 * large.eigenvalues_[1:9], small.eigenvalues_[1:9], rtol=1e-5)


def test_manifold_is_left_as_it_was(circles):
    manifold = circles[0]
    before = {name: np.copy(value) for name, value in vars(manifold).items() if isinstance(value, np.ndarray)}
    ExteriorCalculus(manifold, 9, 21).fit().fields(make_circle(10, grid=True).points)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(manifold, name), value)


@pytest.mark.parametrize("frame", ["antisymmetric", "plain"])
def test_forms_are_their_definition(circles, frame):
    """Gram matrix and energy, written out with all four indices."""
    exterior = ExteriorCalculus(circles[0], 7, 21, frame=frame).fit()
    xi = circles[0].eigenvalues_[:21] / circles[0].eigenvalues_[1]
    c = exterior._triple_products()[:, :7]
    x = xi[:7]
    g = (x[:, None, None] + x[:, None] - xi) / 2 * c
    first, second = exterior._pairs
    gram, energy = _forms(c, g, xi, (first, second), frame == "antisymmetric")
    mixed, curl = np.einsum("iks,jls->ijkl", c, g), np.einsum("iks,jls->ijkl", g, g)
    curl = curl - curl.transpose(0, 1, 3, 2)
    if frame == "antisymmetric":
        mixed = mixed - mixed.transpose(0, 1, 3, 2)
        mixed = mixed - mixed.transpose(1, 0, 2, 3)
        difference = x - x[:, None]
        energies = 4 * curl + np.einsum("ij,kl,ijs,kls->ijkl", difference, difference, c, c)
    else:
        delta = x[:, None] * c - g
        energies = curl + np.einsum("ijs,kls->ijkl", delta, delta)
    for found, full in ((gram, mixed), (energy, energies)):
        wanted = full[first, second][:, first, second]
        np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())
        np.testing.assert_array_equal(found, found.T)


def test_the_smallest_frame(circles):
    assert len(ExteriorCalculus(circles["grid"], 2, 21).fit().eigenvalues_) == 1


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_lengths_of_fields_do_not_depend_on_the_scale(radius):
    """In the metric of the eigenvalues, which is that of the circle itself where samples are uniform."""
    points = radius * make_circle(400, grid=True).points
    manifold = DiffusionManifold(24, dimension=1).fit(points)
    calculus = ExteriorCalculus(manifold).fit()
    squares = (calculus.fields(points, 3) ** 2).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(squares, 1, atol=0.06)
    np.testing.assert_allclose(calculus.eigenvalues_[1:3] * radius**2, 1, atol=0.05)


def test_energies_below_zero_are_told():
    for seed in range(20):
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, (2000, 2))
        points = np.column_stack([np.cos(angle), np.sin(angle)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            calculus = ExteriorCalculus(DiffusionManifold(30, dimension=2).fit(points)).fit()
        told = any("none is negative" in str(warning.message) for warning in caught)
        assert told == (calculus.eigenvalues_[0] < -0.1 * calculus.manifold.eigenvalues_[1])
        if told:
            return
    raise AssertionError("no sample of the torus had a field of negative energy")
