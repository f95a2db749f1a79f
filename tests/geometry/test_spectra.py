"""Laws of the learned spectrum: against analytic spectra, against the formulas, under motions of the data.

Bounds are the field measurements (mean relative error, table 5.1 of the specification) plus a fifth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from manifoldkit.datasets import make_circle, make_sphere, make_torus
from manifoldkit.exceptions import DisconnectedGraphWarning, ScaleWarning, SpectrumTruncatedWarning
from manifoldkit.geometry import Circle, DiffusionManifold, FlatTorus, Sphere

A_FIFTH = 1.2


@dataclass(frozen=True)
class Row:
    """A row of the table: `count` non-zero eigenvalues have a mean relative error of `error`."""

    make: object
    n: int
    k: int
    truth: object
    count: int
    error: float
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    options: dict = field(default_factory=dict)

    def __str__(self) -> str:
        name = self.make.__name__.removeprefix("make_")
        return f"{name}-k{self.k}-{'grid' if 'grid' in self.options else 'random'}"


TABLE = [
    Row(make_circle, 1000, 10, Circle(), 10, 0.0002, (0,), {"grid": True}),
    Row(make_circle, 1000, 40, Circle(), 10, 0.003, (0,), {"grid": True}),
    # With 10 neighbours random points nearly fall apart where they are thin, and seeds differ by a factor of five:
    # the mean over 24 of them is 0.059, that of the three of the table 0.034.
    Row(make_circle, 1000, 10, Circle(), 10, 0.039, (0, 1, 2)),
    Row(make_circle, 1000, 40, Circle(), 10, 0.024),
    Row(make_torus, 2500, 20, FlatTorus(), 12, 0.028, (0,), {"grid": True}),
    Row(make_torus, 2500, 20, FlatTorus(), 12, 0.032),
    Row(make_sphere, 2500, 20, Sphere(2), 15, 0.009, (0,), {"grid": True}),
    Row(make_sphere, 2500, 20, Sphere(2), 15, 0.035),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.DisconnectedGraphWarning")
def test_eigenvalues_of_uniform_samples(learn, spectrum_error, row):
    truth = row.truth.eigenvalues(row.count + 1)
    errors = []
    for seed in row.seeds:
        points = row.make(row.n, random_state=seed, **row.options).points
        manifold = learn(points, row.k, row.count + 1, row.truth.dimension)
        errors.append(spectrum_error(manifold.eigenvalues_, truth))
    assert np.mean(errors) < A_FIFTH * row.error, np.round(errors, 4)


def test_five_neighbours_leave_a_random_circle_nearly_apart(learn, spectrum_error):
    points = make_circle(1000, random_state=0).points
    with pytest.warns(DisconnectedGraphWarning, match="pieces"):
        manifold = learn(points, 5, 11, 1)
    assert spectrum_error(manifold.eigenvalues_, Circle().eigenvalues(11)) > 0.1


def circle_spectra(amplitude: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Physical and volume-one eigenvalues of a circle with density (1 + a cos) / 2 pi, in pairs of k^2."""
    q = (1 + amplitude * np.cos(2 * np.pi * np.arange(4096) / 4096)) / (2 * np.pi)
    geometric_mean = np.exp(2 * np.pi * np.mean(q * np.log(q)))
    volume_one = (2 * np.pi * ((np.arange(n) + 1) // 2)) ** 2
    return volume_one * geometric_mean**2, volume_one


def sphere_spectra(amplitude: float, n: int, degree: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """The same for a sphere with density (1 + a z) / 4 pi: l (l + 1) f = xi (1 + a z) f in spherical harmonics.

    Multiplication by z leaves the order m alone and couples neighbouring degrees l.
    """
    values = []
    for m in range(degree):
        ell = np.arange(m, degree + 1.0)
        coupling = amplitude * np.sqrt((ell[1:] ** 2 - m**2) / (4 * ell[1:] ** 2 - 1))
        mass = np.eye(len(ell)) + np.diag(coupling, 1) + np.diag(coupling, -1)
        level = scipy.linalg.eigh(np.diag(ell * (ell + 1)), mass, eigvals_only=True)
        values.extend(level if m == 0 else np.repeat(level, 2))
    z = (np.arange(20000) + 0.5) / 10000 - 1
    q = (1 + amplitude * z) / (4 * np.pi)
    geometric_mean = np.exp(4 * np.pi * np.mean(q * np.log(q)))
    volume_one = 4 * np.pi * np.sort(values)[:n]
    return volume_one * geometric_mean, volume_one


def test_conformal_spectra_reduce_to_the_known_ones():
    np.testing.assert_allclose(circle_spectra(0.0, 11)[0], Circle().eigenvalues(11), atol=1e-12)
    np.testing.assert_allclose(sphere_spectra(0.0, 16)[0], Sphere(2).eigenvalues(16), atol=1e-10)


@pytest.mark.parametrize(
    ("amplitude", "units", "error"),
    # The table has 0.019 and 0.032 for volume 1, of the first seed; these are the means of eight.
    [(0.5, "physical", 0.017), (0.9, "physical", 0.026), (0.5, "volume1", 0.025), (0.9, "volume1", 0.038)],
)
def test_uneven_circle_has_the_conformal_spectrum(learn, spectrum_error, amplitude, units, error):
    truth = circle_spectra(amplitude, 11)[0 if units == "physical" else 1]
    errors, plain = [], []
    for seed in range(6):
        manifold = learn(make_circle(1500, density=amplitude, random_state=seed).points, 40, 11, 1, units=units)
        errors.append(spectrum_error(manifold.eigenvalues_, truth))
        plain.append(spectrum_error(manifold.eigenvalues_, Circle().eigenvalues(11)))
        ratio = manifold.eigenvalues_[1:] / manifold.eigenvalues_[1]
        assert spectrum_error(ratio, Circle().eigenvalues(11)[1:]) < 0.08
    assert np.mean(errors) < A_FIFTH * error, np.round(errors, 4)
    assert np.mean(plain) > 4 * np.mean(errors)


@pytest.mark.parametrize("units", ["physical", "volume1"])
@pytest.mark.parametrize(("amplitude", "error"), [(0.5, 0.014), (0.8, 0.016)])
def test_uneven_sphere_has_the_conformal_spectrum(learn, spectrum_error, amplitude, error, units):
    """The table's figures are of the first eight non-zero eigenvalues of the first seed."""
    truth = sphere_spectra(amplitude, 16)[0 if units == "physical" else 1]
    values = [
        learn(make_sphere(2500, density=amplitude, random_state=seed).points, 30, 16, 2, units=units).eigenvalues_
        for seed in range(3)
    ]
    if units == "physical":
        assert spectrum_error(values[0], truth[:9]) < A_FIFTH * error
    assert np.mean([spectrum_error(v, truth) for v in values]) < 0.03


def least_cosine(found, wanted, measure) -> float:
    """Cosine of the largest angle between the spans of two systems of functions."""
    root = np.sqrt(measure)[:, None]
    bases = [np.linalg.qr(root * functions)[0] for functions in (found, wanted)]
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).min())


def test_uneven_circle_has_the_eigenfunctions_of_its_distribution_function(learn):
    sample = make_circle(1500, density=0.5, random_state=0)
    manifold = learn(sample.points, 40, 11, 1)
    theta = sample.parameters[:, 0]
    turn = theta + 0.5 * np.sin(theta)  # 2 pi F(theta)
    for pair in (1, 2, 3):
        wanted = np.column_stack([np.cos(pair * turn), np.sin(pair * turn)])
        found = manifold.eigenfunctions_[:, 2 * pair - 1 : 2 * pair + 1]
        assert least_cosine(found, wanted, manifold.measure_) > 0.98


@pytest.mark.parametrize(
    ("kernel", "error"), [("exp(-z)", 0.003), ("exp(-z/2)", 0.003), ("exp(-z/4)", 0.003), ("indicator", 0.057)]
)
def test_shapes_share_the_units(learn, spectrum_error, kernel, error):
    manifold = learn(make_circle(1000, grid=True).points, 40, 11, 1, kernel=kernel)
    assert spectrum_error(manifold.eigenvalues_, Circle().eigenvalues(11)) < A_FIFTH * error


def test_gaussian_shapes_are_one_kernel_in_three_notations(learn):
    points = make_circle(500, random_state=0).points
    narrow, middle, wide = (learn(points, 20, 9, 1, kernel=name) for name in ("exp(-z)", "exp(-z/2)", "exp(-z/4)"))
    for other, factor in ((middle, 2), (wide, 4)):
        np.testing.assert_allclose(other.eigenvalues_, narrow.eigenvalues_, rtol=1e-9, atol=1e-9)
        assert other.epsilon_ == pytest.approx(narrow.epsilon_ / np.sqrt(factor))


def formulas(points, k: int, n: int, bandwidth: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """Markov and physical eigenvalues straight from section 3.1, with dense matrices and no care for speed."""
    squared = cdist(points, points, "sqeuclidean")
    near = np.sqrt(np.sort(squared, axis=1)[:, 1 : k + 1])
    rho = near.mean(axis=1) if bandwidth == "mean" else near[:, -1]
    delta = squared / np.outer(rho, rho)
    index = np.argsort(squared, axis=1)[:, 1 : k + 1]
    eps2 = 2 * np.take_along_axis(delta, index, axis=1).mean()
    kernel = np.exp(-delta / eps2)
    degree = kernel.sum(axis=1)
    markov = np.sort(scipy.linalg.eigvalsh(kernel / np.sqrt(np.outer(degree, degree))))[::-1][:n]
    return markov, -np.log(markov) * 4 / eps2 / np.exp(2 * np.log(rho).mean())


@pytest.mark.parametrize("bandwidth", ["mean", "kth"])
@pytest.mark.parametrize(
    "points",
    [
        make_circle(300, density=0.6, noise=0.05, random_state=0).points,
        make_sphere(400, density=0.5, random_state=1).points,
        make_torus(400, noise=0.05, random_state=2).points,
    ],
    ids=["circle", "sphere", "torus"],
)
def test_spectrum_is_that_of_the_formulas(learn, points, bandwidth):
    manifold = learn(points, 15, 10, 1, bandwidth=bandwidth)
    markov, laplacian = formulas(points, 15, 10, bandwidth)
    np.testing.assert_allclose(manifold.markov_eigenvalues_, markov, atol=1e-12)
    np.testing.assert_allclose(manifold.eigenvalues_[1:], laplacian[1:], rtol=1e-9)


@pytest.mark.parametrize(
    ("sample", "k", "dimension"),
    [
        (make_circle(1000, grid=True), 10, 1),
        (make_circle(1000, random_state=0), 40, 1),
        (make_torus(900, grid=True), 20, 2),
        (make_sphere(900, grid=True), 20, 2),
    ],
    ids=["circle", "random circle", "torus", "sphere"],
)
def test_estimated_dimension(learn, sample, k, dimension):
    manifold = DiffusionManifold(4, k).fit(sample.points)
    assert manifold.dimension_ == pytest.approx(dimension, abs=0.1)
    assert manifold.tangent_dimension_ == dimension
    scales, slopes = manifold.scaling_curve_
    assert np.interp(manifold.epsilon_, scales, slopes) == pytest.approx(manifold.dimension_, abs=0.02)


def test_estimated_dimension_is_exact_on_a_grid(learn):
    points = make_circle(1000, grid=True).points
    assert learn(points, 10, 3, 1).dimension_ == pytest.approx(1.000, abs=5e-4)
    assert learn(points, 40, 3, 1).dimension_ == pytest.approx(1.001, abs=1e-3)


def spread(values) -> float:
    """Width of a multiplet relative to its mean."""
    return np.ptp(values) / np.mean(values)


def test_multiplicities_on_grids(learn):
    xi = learn(make_torus(2500, grid=True).points, 20, 13, 2).eigenvalues_
    assert max(spread(xi[i : i + 4]) for i in (1, 5, 9)) < 1e-9
    xi = learn(make_sphere(2500, grid=True).points, 20, 16, 2).eigenvalues_
    assert max(spread(xi[1:4]), spread(xi[4:9]), spread(xi[9:16])) < 0.01
    assert xi[4] / xi[3] > 2.9


def test_multiplicities_of_random_samples_are_split(learn):
    splits = []
    for seed in range(3):
        xi = learn(make_torus(2500, random_state=seed).points, 20, 13, 2).eigenvalues_
        splits.append(np.mean([spread(xi[i : i + 4]) for i in (1, 5, 9)]))
    assert 0.02 < np.mean(splits) < 0.2


SAMPLES = {
    "circle": (make_circle(400, density=0.6, random_state=0), 20, 9, 1),
    "noisy circle": (make_circle(400, noise=0.05, random_state=1), 30, 9, 1),
    "torus": (make_torus(500, random_state=2), 20, 9, 2),
    "sphere": (make_sphere(500, random_state=3), 20, 9, 2),
}
on_each = pytest.mark.parametrize("name", SAMPLES)


@on_each
@pytest.mark.parametrize("solver", ["lapack", "arpack"])
def test_eigenfunctions_are_orthonormal_in_the_measure(learn, name, solver):
    sample, k, count, d = SAMPLES[name]
    manifold = learn(sample.points, k, count, d, eigen_solver=solver)
    phi, mu = manifold.eigenfunctions_, manifold.measure_
    assert mu.sum() == pytest.approx(1)
    assert (mu > 0).all()
    np.testing.assert_allclose(phi.T @ (mu[:, None] * phi), np.eye(count), atol=1e-9)
    np.testing.assert_array_equal(phi[:, 0], 1)
    assert manifold.eigenvalues_[0] == 0
    assert (np.diff(manifold.eigenvalues_) >= 0).all()
    assert manifold.markov_eigenvalues_[0] == 1
    assert (np.diff(manifold.markov_eigenvalues_) <= 0).all()


def span_gap(first, second, measure) -> float:
    """Largest sine between the spans of two orthonormal systems."""
    overlap = np.linalg.svd(first.T @ (measure[:, None] * second), compute_uv=False)
    return float(np.sqrt(max(0.0, 1 - min(1.0, overlap.min()) ** 2)))


@on_each
@pytest.mark.parametrize("motion", ["rotation", "translation", "scaling", "duplication", "permutation"])
def test_motions_of_the_samples(learn, name, motion):
    sample, k, count, d = SAMPLES[name]
    points, rng = sample.points, np.random.default_rng(5)
    still = learn(points, k, count, d)
    rows, factor = np.arange(len(points)), 1.0
    if motion == "rotation":
        points = points @ np.linalg.qr(rng.normal(size=(points.shape[1],) * 2))[0]
    elif motion == "translation":
        points = points + 10 * rng.normal(size=points.shape[1])
    elif motion == "scaling":
        points, factor = 250.0 * points, 250.0
    elif motion == "duplication":
        rows = np.tile(rows, 2)
    else:
        rows = rng.permutation(len(points))
    moved = learn(points[rows], k, count, d)
    np.testing.assert_allclose(moved.markov_eigenvalues_, still.markov_eigenvalues_, atol=1e-9)
    np.testing.assert_allclose(moved.eigenvalues_ * factor**2, still.eigenvalues_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(moved.bandwidth_, factor * still.bandwidth_[rows], rtol=1e-9)
    repeats = len(rows) // len(points)
    np.testing.assert_allclose(moved.measure_, still.measure_[rows] / repeats, rtol=1e-8)
    complete = 1 + 2 * ((count - 1) // 2)  # no pair is cut in two
    cut = complete if still.eigenvalues_[complete - 1] < still.eigenvalues_[-1] else count
    assert span_gap(moved.eigenfunctions_[:, :cut], still.eigenfunctions_[rows, :cut], moved.measure_) < 1e-5


def test_duplicates_count_as_weight(learn):
    """Copies of a part of the samples shift the measure, not the bandwidths."""
    points = make_circle(300, random_state=0).points
    plain = learn(points, 20, 7, 1)
    uneven = learn(np.concatenate([points, points[:100]]), 20, 7, 1)
    np.testing.assert_allclose(uneven.bandwidth_[:300], plain.bandwidth_, rtol=1e-12)
    np.testing.assert_array_equal(uneven.eigenfunctions_[300:], uneven.eigenfunctions_[:100])
    np.testing.assert_array_equal(uneven.measure_[300:], uneven.measure_[:100])
    share = plain.measure_[:100].sum()
    assert uneven.measure_[:100].sum() + uneven.measure_[300:].sum() > 1.3 * share


@pytest.mark.parametrize("k", [10, 40])
def test_the_rule_of_the_steepest_slope_fails_on_the_circle(spectrum_error, k):
    points, truth = make_circle(1000, grid=True).points, Circle().eigenvalues(6)
    knn = DiffusionManifold(6, k, dimension=1).fit(points)
    with pytest.warns((ScaleWarning, SpectrumTruncatedWarning)):
        steepest = DiffusionManifold(9, k, "max", dimension=1).fit(points)
    assert steepest.epsilon_ > 5 * knn.epsilon_
    assert spectrum_error(steepest.eigenvalues_, truth) > 0.05
    assert spectrum_error(steepest.eigenvalues_, truth) > 10 * spectrum_error(knn.eigenvalues_, truth)
    scales, slopes = steepest.scaling_curve_
    assert slopes.max() > 1.1
    assert scales[slopes.argmax()] == pytest.approx(steepest.epsilon_)


def test_scale_given_by_number(learn):
    points = make_circle(400, random_state=0).points
    knn = learn(points, 20, 7, 1)
    same = learn(points, 20, 7, 1, epsilon=knn.epsilon_)
    np.testing.assert_allclose(same.eigenvalues_, knn.eigenvalues_, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n_kernel_neighbors", "tol"), [(50, 0.03), (100, 1e-3), (499, 1e-6)])
def test_sparse_kernel_has_the_spectrum_of_the_dense_one(learn, n_kernel_neighbors, tol):
    points = make_circle(500, density=0.5, noise=0.02, random_state=0).points
    exact = learn(points, 20, 9, 1)
    other = learn(points, 20, 9, 1, n_kernel_neighbors=n_kernel_neighbors)
    # Short lists end the kernel early, which leaves the scale of the eigenvalues to the constants of its shape.
    np.testing.assert_allclose(other.eigenvalues_, exact.eigenvalues_, rtol=tol, atol=1e-9)


def test_kernel_of_nearest_neighbours_keeps_the_functions(learn):
    sample = make_circle(500, random_state=0)
    manifold = learn(sample.points, 20, 7, 1, n_kernel_neighbors=20)
    assert least_cosine(manifold.eigenfunctions_[:, 1:3], sample.clean, manifold.measure_) > 0.98
