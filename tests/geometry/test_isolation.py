"""What a fitted manifold hands out and takes in does not tie it to others: layers, arrays, engines, clones."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.datasets import make_circle, make_swiss_roll, make_torus
from manifoldkit.geometry import Circle
from manifoldkit.risk import DistanceCalibration

POINTS = make_circle(300, random_state=0).points


def learn(points=POINTS, n_components=9, n_neighbors=12, **options):
    return DiffusionManifold(n_components, n_neighbors, dimension=1, **options).fit(points)


def test_a_layer_may_be_cast_and_overwritten_without_harm_to_the_manifold():
    manifold, before = learn(), learn().project(POINTS)
    layer = torch.nn.Sequential(manifold.to_module(), torch.nn.Linear(2, 2)).float()
    assert layer(torch.zeros(1, 2) + 0.8).dtype == torch.float32
    other = manifold.to_module()
    other.load_state_dict(learn(2 * POINTS).to_module().state_dict())
    np.testing.assert_array_equal(manifold.project(POINTS), before)


def test_the_state_of_a_layer_makes_an_equal_layer():
    layer, twice = learn().to_module(), learn(2 * POINTS).to_module()
    layer.load_state_dict(twice.state_dict())
    x = torch.from_numpy(POINTS[:9] * 2.1)
    torch.testing.assert_close(layer(x), twice(x))


def test_arrays_of_the_caller_may_change_after_fit():
    points = POINTS.copy()
    manifold = learn(points)
    before = manifold.tangent_basis(POINTS, "pca")
    points[:] = 0
    np.testing.assert_array_equal(manifold.tangent_basis(POINTS, "pca"), before)


def test_a_failed_fit_leaves_no_half_fitted_manifold():
    manifold = learn()
    with pytest.raises(ValueError, match="n_components=9 exceeds"):
        manifold.set_params(n_neighbors=3).fit(POINTS[:8])
    with pytest.raises(NotFittedError):
        manifold.project(POINTS)


@pytest.mark.parametrize("options", [{}, {"dense_limit": 100}], ids=str)
def test_equal_distances_do_not_break_the_extension(options):
    points = make_torus(900, grid=True).points
    manifold = DiffusionManifold(21, 10, dimension=2, n_kernel_neighbors=30, **options).fit(points)
    np.testing.assert_allclose(manifold.transform(points), manifold.eigenfunctions_, atol=1e-8)


class SquaredDistances:
    """An engine that calls squares distances, as some do."""

    def __init__(self, points):
        self._engine = NearestNeighbors().fit(points)

    def kneighbors(self, X, n_neighbors):
        distances, indices = self._engine.kneighbors(X, n_neighbors)
        return distances**2, indices


@pytest.mark.parametrize(
    "engine", [NearestNeighbors(), NearestNeighbors(metric="sqeuclidean"), SquaredDistances(POINTS)]
)
def test_distances_of_foreign_engines_are_measured_again(engine):
    np.testing.assert_allclose(learn(neighbors=engine).eigenvalues_, learn().eigenvalues_, rtol=1e-9)


def test_a_foreign_engine_survives_clone_and_copies_among_the_samples():
    manifold = clone(learn(neighbors=NearestNeighbors().fit(POINTS)))
    np.testing.assert_allclose(manifold.fit(np.concatenate([POINTS, POINTS])).bandwidth_[:300], learn().bandwidth_)


def test_an_engine_over_other_samples_is_refused():
    with pytest.raises(ValueError, match="must find 13 of the 100 samples"):
        learn(POINTS[:100], neighbors=SquaredDistances(POINTS))


def test_a_solver_that_misses_the_constant_is_refused():
    def second_to_last(matrix, count):
        values, vectors = np.linalg.eigh(matrix)
        return values[-count - 1 : -1], vectors[:, -count - 1 : -1]

    with pytest.raises(RuntimeError, match="missed the leading pair"):
        learn(eigen_solver=second_to_last)


def test_images_keep_their_shape_with_and_without_a_channel():
    generator = np.random.default_rng(0)
    t = generator.uniform(0, 2 * np.pi, 200)
    images = (np.cos(t[:, None] - np.arange(6) * np.pi / 3) / 3 + 0.5).reshape(200, 2, 3)
    manifold = learn(images)
    flat = manifold.project(images)
    assert flat.shape == (200, 2, 3)
    for shape in [(200, 6), (200, 1, 2, 3)]:
        torch_images = torch.from_numpy(images.reshape(shape)).float()
        projected = manifold.project(torch_images)
        assert projected.shape == shape
        assert projected.dtype == torch.float32
        np.testing.assert_allclose(projected.numpy().reshape(flat.shape), flat, atol=1e-6)
        assert manifold.to_module()(torch_images).shape == shape
    with pytest.raises(ValueError, match="must have shape"):
        manifold.project(images.transpose(0, 2, 1))


def test_singular_values_come_on_request():
    basis, values = learn().tangent_basis(POINTS, "pca", return_singular_values=True)
    assert values.shape == (300, 1)
    assert (values > 0).all()
    np.testing.assert_array_equal(basis, learn().tangent_basis(POINTS, "pca"))


def test_an_unknown_dimension_that_fills_the_space_is_flagged():
    square = np.random.default_rng(0).random((300, 2))
    manifold = DiffusionManifold(9, 12).fit(square)
    assert manifold.tangent_dimension_ == 2
    with pytest.warns(UserWarning, match="all of the 2-dimensional ambient space"):
        manifold.tangent_basis(square, "pca")


def test_edges_have_a_high_boundary_score():
    sample = make_swiss_roll(2500, random_state=0)
    manifold = DiffusionManifold(20, 8, dimension=2).fit(sample.points)
    length, height = sample.parameters.T
    edge = np.minimum.reduce([length, length.max() - length, height, 21 - height])
    score = manifold.boundary_score(sample.points)
    assert np.median(score[edge < 0.5]) > 0.5
    assert np.quantile(score[edge > 4], 0.95) < 0.5


def test_an_atlas_takes_lists_and_names():
    atlas = ManifoldAtlas(DiffusionManifold(9, 12, dimension=1))
    atlas.fit(np.concatenate([POINTS, POINTS + 10]).tolist(), ["here"] * 300 + ["there"] * 300)
    assert atlas.predict(np.array([[1.0, 0.0], [11.0, 10.0]])).tolist() == ["here", "there"]


def test_a_calibration_keeps_its_manifold_when_cloned():
    calibration = DistanceCalibration(Circle())
    assert clone(calibration).manifold is calibration.manifold


def test_an_atlas_warns_once_of_a_kind_and_names_the_classes():
    crowd = np.random.default_rng(0).normal(size=(90, 40))
    with pytest.warns(UserWarning, match="Markov") as caught:
        ManifoldAtlas(DiffusionManifold(9, 12, dimension=2)).fit(crowd, np.repeat([3, 5, 8], 30))
    assert len({warning.category for warning in caught}) == len(caught)
    assert all("classes 3, 5, 8: " in str(warning.message) for warning in caught)
    assert all(warning.filename == __file__ for warning in caught)
