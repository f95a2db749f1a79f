"""What sets of odd sizes, scales and places show: noise that many samples resolve, underflow, centres, few samples."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.datasets import make_circle, make_sphere
from manifoldkit.exceptions import EigenSolverError, ScaleWarning, SpectrumTruncatedWarning
from manifoldkit.geometry import spectrum
from manifoldkit.geometry.adaptive import AdaptiveTangents
from manifoldkit.geometry.growth import growth, neighbors_beyond_noise, wide_growth
from manifoldkit.geometry.neighbors import neighbor_search
from manifoldkit.geometry.selection import count_of_curve, start_count


def circle(n: int, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(t), np.sin(t)]) + noise * rng.normal(size=(n, 2))


class TestNoiseThatManySamplesResolve:
    @pytest.mark.parametrize("n", [6000, 7000])  # either side of dense_limit
    def test_a_noisy_circle_stays_a_circle(self, n):
        points = make_circle(n, noise=0.05, random_state=100).points
        with warnings.catch_warnings():
            warnings.simplefilter("error", ScaleWarning)
            manifold = DiffusionManifold(24).fit(points)
        assert manifold.tangent_dimension_ == 1
        assert abs(manifold.dimension_ - 1) < 0.1
        assert manifold.n_projection_components_ < 24

    def test_a_noisy_sphere_stays_a_sphere(self):
        points = make_sphere(7000, random_state=1).points
        points = points + 0.1 * np.random.default_rng(0).normal(size=points.shape)
        assert abs(DiffusionManifold(24).fit(points).dimension_ - 2) < 0.2

    def test_clean_curves_have_the_neighbours_of_curves_on_either_side_of_dense_limit(self):
        points = make_circle(3000, random_state=0).points
        for limit in (6000, 1000):
            assert DiffusionManifold(9, dense_limit=limit).fit(points).n_neighbors_ == count_of_curve(3000)

    @pytest.mark.parametrize("dimension", [1, 2, 3])
    def test_growth_is_the_dimension_and_clean_sets_keep_their_neighbours(self, dimension):
        rng = np.random.RandomState(0)
        points = rng.normal(size=(8000, dimension + 1))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        k, wide = start_count(8000), wide_growth(points, rng)
        assert abs(growth(points, k, rng) - dimension) < 0.15
        assert abs(wide - dimension) < 0.25
        assert neighbors_beyond_noise(points, k, wide, rng) == k

    def test_what_remains_is_told(self, monkeypatch):
        monkeypatch.setattr("manifoldkit.geometry.growth.MOST", 30)  # as memory does for a million points
        points = make_circle(8000, noise=0.1, random_state=100).points
        with pytest.warns(ScaleWarning, match=r"dimension 1\.9, and 1\.\d at a larger scale"):
            DiffusionManifold(9).fit(points)


class TestTangentsInClumps:
    @pytest.mark.parametrize(("n", "noise", "seed"), [(1000, 0.2, 2), (1000, 0.15, 5), (500, 0.1, 3), (2000, 0.15, 5)])
    def test_no_spot_of_a_noisy_circle_has_the_direction_of_a_clump(self, n, noise, seed):
        points = circle(n, noise, seed)
        tangents = AdaptiveTangents(points, 1, neighbor_search(points))
        angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        normal = np.column_stack([np.cos(angle), np.sin(angle)])
        frames = tangents.frames(torch.from_numpy(normal))[0][:, :, 0].numpy()
        assert np.abs((frames * normal).sum(axis=1)).max() < np.sin(np.radians(20))


class TestScalesAndSizes:
    @pytest.mark.parametrize("tiny", [1e-200, 1e-170])
    def test_samples_that_differ_by_less_than_can_be_squared_are_one(self, tiny):
        points = np.pad(circle(60, 0, 0), ((0, 1), (0, 1)))
        points[-1] = points[0] + [0, 0, tiny]
        manifold = DiffusionManifold(7).fit(points)
        assert manifold.eigenfunctions_[0].tolist() == manifold.eigenfunctions_[-1].tolist()

    @pytest.mark.parametrize("scale", [1e-160, 1e155])
    def test_what_cannot_be_squared_is_refused(self, scale):
        with pytest.raises(ValueError, match="rescale it"):
            DiffusionManifold(7).fit(scale * circle(60, 0, 0))

    @pytest.mark.parametrize("n", [30, 63, 200])
    def test_the_default_number_of_components_fits_any_set(self, n):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SpectrumTruncatedWarning)
            manifold = DiffusionManifold().fit(circle(n, 0, 0))
        assert 3 <= manifold.n_components_ <= min(n, 64)

    def test_volume_units_need_no_dimension_to_be_passed(self):
        points = circle(1500, 0, 0)
        given, estimated = (DiffusionManifold(9, units="volume1", dimension=d).fit(points) for d in (1, None))
        np.testing.assert_allclose(estimated.eigenvalues_, given.eigenvalues_)

    def test_tangent_spaces_do_not_make_the_pickle_larger(self):
        points = make_sphere(800, random_state=0).points
        manifold = DiffusionManifold(12).fit(points)
        before = len(pickle.dumps(manifold))
        expected = manifold.tangent_basis(points[:5])
        manifold.exterior.fields(points[:2])
        assert len(pickle.dumps(manifold)) == before
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(manifold)).tangent_basis(points[:5]), expected)


class TestTheMiddleOfThings:
    def test_distances_near_the_centre_of_a_circle(self):
        manifold = DiffusionManifold(15).fit(circle(300, 0, 1))
        radius = np.array([0.0, 0.1, 0.2, 0.3])
        found = manifold.distance(np.column_stack([radius, 0 * radius]))
        np.testing.assert_allclose(found, 1 - radius, atol=0.03)

    def test_the_nearest_of_two_spheres(self):
        rng = np.random.default_rng(0)
        shells = [radius * make_sphere(400, random_state=seed).points for seed, radius in enumerate((1.0, 0.3))]
        atlas = ManifoldAtlas(DiffusionManifold(30)).fit(np.concatenate(shells), np.repeat([0, 1], 400))
        inside = make_sphere(300, random_state=2).points * rng.uniform(0, 0.6, (300, 1))
        assert (atlas.predict(inside) == 1).mean() > 0.98


class TestEigenSolvers:
    POINTS = np.random.default_rng(0).random((400, 2))

    @staticmethod
    def noise(matrix, k):
        return np.linspace(1, 0.6, k), 1e-12 * np.random.default_rng(0).normal(size=(len(matrix), k))

    @staticmethod
    def repeated(matrix, k):
        values, vectors = np.linalg.eigh(matrix)
        return values[[-1] + [-2] * (k - 1)], vectors[:, [-1] + [-2] * (k - 1)]

    @staticmethod
    def skipping(matrix, k):
        values, vectors = np.linalg.eigh(matrix)
        places = [-1, *range(-4, -3 - k, -1)]
        return values[places], vectors[:, places]

    @staticmethod
    def rough(matrix, k):
        values, vectors = np.linalg.eigh(matrix)
        noise = np.random.default_rng(0).normal(size=(len(matrix), k)) / np.sqrt(len(matrix))
        return values[-k:], np.linalg.qr(vectors[:, -k:] + 3e-3 * noise)[0]

    @pytest.mark.parametrize(
        ("solver", "message"),
        [("noise", "not orthonormal"), ("repeated", "not orthonormal"), ("skipping", "missed a pair"),
         ("rough", "residual")],
    )  # fmt: skip
    def test_wrong_answers_do_not_pass(self, solver, message):
        with pytest.raises(EigenSolverError, match=message):
            DiffusionManifold(8, eigen_solver=getattr(self, solver)).fit(self.POINTS)

    def test_right_answers_pass(self):
        def dense(matrix, k):
            values, vectors = np.linalg.eigh(matrix)
            return values[-k:], vectors[:, -k:]

        found = DiffusionManifold(8, eigen_solver=dense).fit(self.POINTS)
        np.testing.assert_allclose(found.eigenvalues_, DiffusionManifold(8).fit(self.POINTS).eigenvalues_, atol=1e-8)

    def test_no_convergence_has_a_name_says_what_to_change_and_names_the_class(self, monkeypatch):
        def fails(*args, **options):
            raise ArpackNoConvergence("no convergence", np.ones(2), np.ones((400, 2)))

        monkeypatch.setattr(spectrum, "eigsh", fails)
        with pytest.raises(EigenSolverError, match=r"found 2 of 8 .*'lapack'"):
            DiffusionManifold(8, eigen_solver="arpack").fit(self.POINTS)
        with pytest.raises(EigenSolverError, match=r"class 'a' .* found 2 of 8"):
            ManifoldAtlas(DiffusionManifold(8, eigen_solver="arpack")).fit(self.POINTS, np.repeat("a", 400))

    def test_one_thread_round_the_solvers(self, monkeypatch):
        before, seen = torch.get_num_threads(), []
        torch.set_num_threads(2)
        try:
            for name in ("eigsh", "multilevel_eigenpairs"):
                solve = getattr(spectrum, name)
                monkeypatch.setattr(
                    spectrum, name, lambda *a, f=solve, **o: (seen.append(torch.get_num_threads()), f(*a, **o))[1]
                )
            for solver in ("arpack", "lobpcg"):
                DiffusionManifold(8, eigen_solver=solver, n_kernel_neighbors=40).fit(make_sphere(3000).points)
            assert seen == [1, 1]
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("answer", [7, (np.ones(3),), "ab"])
    def test_answers_of_another_kind(self, answer):
        with pytest.raises(ValueError, match="must return"):
            DiffusionManifold(8, eigen_solver=lambda matrix, k: answer).fit(self.POINTS)


@pytest.mark.parametrize("query", [np.zeros((2, 2)), torch.zeros(2, 2, dtype=torch.int64), [[0.0, 1.0]]])
def test_the_layer_says_what_it_takes(query):
    layer = DiffusionManifold(7).fit(circle(80, 0, 0)).to_module()
    with pytest.raises(TypeError, match=r"takes floating tensors of torch, got a .*; `project` takes arrays"):
        layer(query)
