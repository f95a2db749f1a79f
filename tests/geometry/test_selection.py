"""Laws of the automatic parameters: as good as the tables' hand-tuned ones, on every data set, noisy and clean.

The rules were chosen on seeds 0 to 4; the seeds here are others.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from manifoldkit.datasets import make_circle, make_noisy_circle, make_sphere, make_swiss_roll, make_torus
from manifoldkit.geometry import Circle, DiffusionManifold, ExteriorCalculus, FlatTorus, Sphere
from manifoldkit.geometry.neighbors import TreeNeighbors
from manifoldkit.geometry.sampling import sample_neighborhoods
from manifoldkit.geometry.selection import (
    adapt_neighbors,
    count_of_curve,
    noise_onset,
    short_circuit_share,
    start_count,
)

A_FIFTH = 1.2
SEEDS = (100, 101, 102)
DATA = {
    "circle": (lambda seed: make_circle(1000, random_state=seed), 1),
    "noisy circle": (lambda seed: make_circle(1000, noise=0.05, random_state=seed), 1),
    "uneven circle": (lambda seed: make_circle(1000, density=0.8, random_state=seed), 1),
    "Fig. 3": (lambda seed: make_noisy_circle(1000, random_state=seed), 1),
    "space of 4": (lambda seed: make_circle(1000, ambient_dimension=4, random_state=seed), 1),
    "Fig. 3 in 4": (lambda seed: make_noisy_circle(1000, ambient_dimension=4, random_state=seed), 1),
    "torus": (lambda seed: make_torus(2500, random_state=seed), 2),
    "noisy torus": (lambda seed: make_torus(2500, noise=0.1, random_state=seed), 2),
    "sphere": (lambda seed: make_sphere(2500, random_state=seed), 2),
    "noisy sphere": (lambda seed: make_sphere(2500, noise=0.1, random_state=seed), 2),
    "roll": (lambda seed: make_swiss_roll(2500, random_state=seed), 2),
    "noisy roll": (lambda seed: make_swiss_roll(2500, noise=0.4, random_state=seed), 2),
}


@pytest.fixture(scope="module")
def fits():
    """Samples and fits of all data sets with automatic parameters, one seed each; each is made when asked for."""
    made = {}

    def fit(name, seed=SEEDS[0]):
        if (name, seed) not in made:
            sample = DATA[name][0](seed)
            solver = "arpack" if len(sample.points) > 1500 else "auto"
            made[name, seed] = sample, DiffusionManifold(81, eigen_solver=solver).fit(sample.points)
        return made[name, seed]

    return fit


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.parametrize("name", DATA)
def test_dimension_is_within_three_tenths(fits, name):
    manifold = fits(name)[1]
    assert abs(manifold.dimension_ - DATA[name][1]) < 0.3
    assert manifold.tangent_dimension_ == DATA[name][1]


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.parametrize(
    ("name", "truth", "count", "error"),
    # The tables have 0.032 for the torus and 0.035 for the sphere; their own parameters give 0.043 on these seeds.
    [
        ("circle", Circle(), 11, 0.024),
        ("space of 4", Circle(), 11, 0.024),
        ("torus", FlatTorus(), 13, 0.043),
        ("sphere", Sphere(2), 16, 0.043),
    ],
)
def test_eigenvalues(fits, spectrum_error, name, truth, count, error):
    errors = [spectrum_error(fits(name, seed)[1].eigenvalues_, truth.eigenvalues(count)) for seed in SEEDS]
    assert np.mean(errors) < A_FIFTH * error, np.round(errors, 4)


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.parametrize(
    ("name", "truth", "count", "error"),
    [("circle", Circle(), 9, 0.021), ("torus", FlatTorus(), 18, 0.058), ("sphere", Sphere(2), 16, 0.038)],
)
def test_hodge_eigenvalues(fits, spectrum_error, name, truth, count, error):
    exterior = ExteriorCalculus(fits(name)[1]).fit()
    assert spectrum_error(exterior.eigenvalues_, truth.hodge_eigenvalues(count)) < A_FIFTH * error


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.parametrize(("name", "error", "ratio"), [("roll", 0.055, 0.11), ("noisy roll", 0.07, 0.3)])
def test_swiss_roll_is_not_short_circuited(fits, spectrum_error, name, error, ratio):
    """Noise of 0.4 brings the sheets so close that 6 neighbours, the fewest, still leave the slowest mode 30 % high."""
    strip = [(np.pi * i / 89.4045) ** 2 + (np.pi * j / 21) ** 2 for i in range(20) for j in range(5)]
    truth, manifold = np.sort(strip)[:13], fits(name)[1]
    assert spectrum_error(manifold.eigenvalues_, truth) < error
    assert spectrum_error(manifold.eigenvalues_ / manifold.eigenvalues_[1], truth / truth[1]) < ratio
    assert manifold.n_neighbors_ < 12
    wide = DiffusionManifold(14, start_count(2500), eigen_solver="arpack").fit(fits(name)[0].points)
    assert spectrum_error(wide.eigenvalues_, truth) > 0.2  # what the search for k avoids


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.parametrize(("name", "degrees"), [("Fig. 3", 3.1), ("Fig. 3 in 4", 5.7), ("circle", 1.4)])
def test_sec_tangents(fits, principal_angles, name, degrees):
    errors = []
    for seed in SEEDS:
        sample, manifold = fits(name, seed)
        fine = make_circle(7200, grid=True, ambient_dimension=sample.points.shape[1])
        feet = fine.tangents[cKDTree(fine.clean).query(sample.points)[1]]
        errors.append(principal_angles(manifold.tangent_basis(sample.points, method="sec"), feet).mean())
    assert np.mean(errors) < A_FIFTH * degrees, np.round(errors, 2)


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.parametrize(("name", "distance"), [("noisy circle", 0.006), ("Fig. 3", 0.008)])
def test_projection_of_held_out_points(fits, name, distance):
    errors = []
    for seed in SEEDS:
        manifold, fresh = fits(name, seed)[1], DATA[name][0](1000 + seed).points
        landed = manifold.inverse_transform(manifold.transform(fresh))
        errors.append(np.abs(np.linalg.norm(landed, axis=1) - 1).mean())
    assert np.mean(errors) < A_FIFTH * distance, np.round(errors, 4)


def test_clean_points_keep_all_clear_components(fits):
    for name in ("sphere", "torus"):
        manifold = fits(name)[1]
        assert manifold.n_projection_components_ == (manifold.markov_eigenvalues_ > 0.2).sum()
    assert fits("noisy sphere")[1].n_projection_components_ < 40


@pytest.mark.parametrize("name", ["circle", "torus", "sphere", "noisy torus", "noisy sphere"])
def test_no_short_circuit_where_there_is_none(name):
    points = DATA[name][0](SEEDS[0]).points
    sampling, lists = sample_neighborhoods(points, start_count(len(points)), "mean", "auto")
    counts = np.array([6, 12, start_count(len(points))])
    assert short_circuit_share(sampling, lists, counts, "mean", np.random.RandomState(0)).max() == 0


def test_short_circuits_grow_with_the_number_of_neighbours():
    sampling, lists = sample_neighborhoods(make_swiss_roll(2500, random_state=100).points, 23, "mean", "auto")
    shares = short_circuit_share(sampling, lists, np.array([6, 10, 16, 23]), "mean", np.random.RandomState(0))
    assert (np.diff(shares) > 0).all()
    assert shares[0] < 1e-4 < shares[2]


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.ScaleWarning")
def test_many_dimensions_are_left_alone():
    """Where the kernel reaches everything no k cures it, and neighbours do not multiply as on a curve."""
    points = np.random.default_rng(0).normal(size=(800, 60))
    manifold = DiffusionManifold(5, random_state=0).fit(points)
    assert manifold.n_neighbors_ == start_count(800)


@pytest.mark.parametrize("options", [{"n_kernel_neighbors": 30}, {"epsilon": 1.5}])
def test_k_is_not_searched_for_another_kernel(options):
    points = make_circle(900, random_state=0).points
    assert DiffusionManifold(5, **options).fit(points).n_neighbors_ == start_count(900)
    assert DiffusionManifold(5).fit(points).n_neighbors_ == count_of_curve(900)


def test_a_foreign_engine_is_asked_for_no_longer_lists():
    class Engine(TreeNeighbors):
        longest = 0

        def kneighbors(self, X, n_neighbors):
            self.longest = max(self.longest, n_neighbors)
            return super().kneighbors(X, n_neighbors)

    points = make_circle(900, random_state=0).points
    engine = Engine(points)
    sampling, lists = sample_neighborhoods(points, start_count(900), "mean", engine)
    _, adapted = adapt_neighbors(sampling, lists, "mean", 1.0, np.random.RandomState(0))
    assert engine.longest == start_count(900) + 1
    assert adapted.n_neighbors == lists.n_neighbors


def test_automatic_parameters_depend_on_the_random_state_alone():
    points = make_swiss_roll(1500, noise=0.2, random_state=100).points
    first, second = (DiffusionManifold(9, random_state=3).fit(points) for _ in range(2))
    assert first.n_neighbors_ == second.n_neighbors_
    assert first.dimension_ == second.dimension_
    np.testing.assert_array_equal(first.eigenvalues_, second.eigenvalues_)


def test_noise_onset_needs_a_rise():
    xi = np.arange(20.0) ** 2
    assert noise_onset(xi, 1e-6 / (1 + xi), 1) == []
    assert noise_onset(xi, np.full(20, 1e-2), 1)[0] == 5
    assert noise_onset(xi, np.full(20, 1e-2), 4)[0] == 10


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.ScaleWarning")
@pytest.mark.parametrize("n", [3, 5, 12, 50])
def test_few_samples(n):
    manifold = DiffusionManifold(2).fit(make_circle(n, random_state=1).points)
    assert 1 <= manifold.n_neighbors_ <= n - 2
    assert np.isfinite(manifold.dimension_)
