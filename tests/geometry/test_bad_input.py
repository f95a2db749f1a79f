"""Wrong input to every public entry of the learned geometry, and degenerate data: an error or a warning that helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from manifoldkit import exceptions
from manifoldkit.datasets import make_circle, make_sphere, make_torus
from manifoldkit.geometry import DiffusionManifold, ExteriorCalculus, ManifoldAtlas
from manifoldkit.geometry.neighbors import neighbor_search

POINTS = make_circle(120, random_state=0).points


@pytest.fixture(scope="module")
def fitted():
    return DiffusionManifold(25, 10, dimension=1).fit(POINTS)


@pytest.fixture(scope="module")
def atlas():
    return ManifoldAtlas(DiffusionManifold(7, 8)).fit(np.concatenate([POINTS, 3 * POINTS]), np.repeat([1, 5], 120))


# ------------------------------------------------------------ samples


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.where(np.arange(240).reshape(120, 2) == 7, np.nan, POINTS), "NaN"),
        (np.where(np.arange(240).reshape(120, 2) == 7, np.inf, POINTS), "infinity"),
        (POINTS[:, 0], "1D array"),
        (np.ones((50, 3)), "constant"),
        (np.zeros((0, 2)), "0 sample"),
        (POINTS[:1], "1 sample|minimum of 2"),
        (POINTS[:11], r"n_samples=11 is too few for n_neighbors=10"),
        (np.repeat(POINTS[:6], 20, axis=0), "6 distinct samples"),
        (POINTS + 1j, "[Cc]omplex"),
        (np.full((120, 2), "a"), "could not convert|real numbers"),
        (torch.full((120, 2), torch.nan), "NaN"),
    ],
    ids=["nan", "inf", "vector", "constant", "none", "one", "few", "copies", "complex", "text", "tensor"],
)
def test_samples(samples, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DiffusionManifold(5, 10).fit(samples)


# ------------------------------------------------------------ parameters

PARAMETERS = [
    ({"n_components": 0}, "n_components must be a positive integer"),
    ({"n_components": 2.5}, "n_components must be a positive integer"),
    ({"n_components": True}, "n_components must be a positive integer"),
    ({"n_components": 121}, "n_components=121 exceeds n_samples=120"),
    ({"n_neighbors": 0}, "n_neighbors must be a positive integer or 'auto'"),
    ({"n_neighbors": "all"}, "n_neighbors must be a positive integer or 'auto'"),
    ({"n_neighbors": 1.0}, "n_neighbors must be a positive integer"),
    ({"n_neighbors": 119}, "too few for n_neighbors=119"),
    ({"epsilon": "best"}, "epsilon must be one of"),
    ({"epsilon": 0.0}, "epsilon must be 'knn', 'max' or a positive number"),
    ({"epsilon": -1.0}, "epsilon must be 'knn', 'max' or a positive number"),
    ({"epsilon": np.nan}, "epsilon must be 'knn', 'max' or a positive number"),
    ({"epsilon": np.inf}, "epsilon must be 'knn', 'max' or a positive number"),
    ({"epsilon": None}, "epsilon must be 'knn', 'max' or a positive number"),
    ({"epsilon": [1.0]}, "epsilon must be 'knn', 'max' or a positive number"),
    ({"dimension": 0}, "dimension must be a positive integer or None"),
    ({"dimension": 1.5}, "dimension must be a positive integer or None"),
    ({"dimension": 3}, "dimension=3 exceeds the 2 features"),
    ({"bandwidth": "median"}, "bandwidth must be one of"),
    ({"kernel": "gauss"}, "kernel must be one of"),
    ({"units": "metres"}, "units must be one of"),
    ({"n_projection_components": 0}, "n_projection_components must be a positive integer or None"),
    ({"far": "away"}, "far must be one of"),
    ({"tangent_method": "svd"}, "tangent_method must be one of"),
    ({"n_tangent_neighbors": -3}, "n_tangent_neighbors must be a positive integer or None"),
    ({"neighbors": "hnsw"}, "neighbors must be"),
    ({"neighbors": 3}, "kneighbors"),
    ({"eigen_solver": "lanczos"}, "eigen_solver must be"),
    ({"eigen_solver": 7}, "eigen_solver must be"),
    ({"n_kernel_neighbors": 5}, "n_kernel_neighbors=5 must not be less than n_neighbors=10"),
    ({"n_kernel_neighbors": 0}, "n_kernel_neighbors must be a positive integer or None"),
    ({"random_state": "seed"}, "cannot be used to seed"),
    ({"dense_limit": "big"}, "dense_limit"),
    ({"dense_limit": -1}, "dense_limit"),
]


@pytest.mark.parametrize(("options", "message"), PARAMETERS, ids=lambda value: str(value)[:30])
def test_parameters_of_the_manifold(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DiffusionManifold(**({"n_components": 5, "n_neighbors": 10} | options)).fit(POINTS)


def test_constructor_checks_nothing():
    """As scikit-learn wants it: values are stored as they are and judged in `fit`."""
    for options, _ in PARAMETERS:
        for name, value in DiffusionManifold(**options).get_params().items():
            if name in options:
                assert value is options[name]


# ------------------------------------------------------------ methods of the manifold

METHODS = ["project", "distance", "is_ambiguous", "tangent_basis", "transform"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.array([[np.nan, 0.0]]), "NaN"),
        (np.array([[np.inf, 0.0]]), "infinity"),
        (np.zeros((3, 3)), "3 features|must have shape"),
        (np.array([1.0, 0.0]), r"1D array|x\[None\]"),
        (np.zeros((2, 2, 2)), "dim 3|must have shape"),
        (torch.tensor([[torch.nan, 0.0]]), "NaN"),
        (torch.zeros(3, 3), "must have shape"),
        (torch.tensor([1.0, 0.0]), r"wrap a single sample as x\[None\]"),
        (torch.zeros(2, 2, dtype=torch.complex64), "real numbers"),
        (np.array([["a", "b"]]), "could not convert|real numbers"),
    ],
    ids=["nan", "inf", "width", "vector", "cube", "tensor nan", "tensor width", "tensor vector", "complex", "text"],
)
def test_queries(fitted, method, query, message):
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(fitted, method)(query)


@pytest.mark.parametrize("method", METHODS)
def test_queries_to_a_manifold_that_is_not_fitted(method):
    with pytest.raises(NotFittedError):
        getattr(DiffusionManifold(), method)(POINTS)


def test_other_methods_of_a_manifold_that_is_not_fitted():
    manifold = DiffusionManifold()
    for call in (
        lambda: manifold.to_module(),
        lambda: manifold.exterior,
        lambda: manifold.inverse_transform(np.ones((2, 3))),
        lambda: manifold.extend(np.ones(3), POINTS),
        lambda: manifold.local_average(np.ones(3), POINTS),
        lambda: manifold.get_feature_names_out(),
        lambda: ExteriorCalculus(manifold).fit(),
        lambda: ExteriorCalculus(manifold).fields(POINTS),
        lambda: ManifoldAtlas().predict(POINTS),
        lambda: ManifoldAtlas().at([0]),
    ):
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.project(POINTS, n_iter=0), "n_iter must be a positive integer"),
        (lambda m: m.project(POINTS, n_iter=1.5), "n_iter must be a positive integer"),
        (lambda m: m.project(POINTS, n_iter=2, n_full=-1), "n_full"),
        (lambda m: m.project(POINTS, far="away"), "far must be one of"),
        (lambda m: m.to_module(far="away"), "far must be one of"),
        (lambda m: m.tangent_basis(POINTS, method="svd"), "method must be one of"),
        (lambda m: m.extend(np.ones(7), POINTS), "each of the 120 training samples"),
        (lambda m: m.extend(np.ones((120, 2, 2)), POINTS), "each of the 120 training samples"),
        (lambda m: m.local_average(np.ones(7), POINTS), "each of the 120 training samples"),
        (lambda m: m.local_average(np.full(120, np.nan), POINTS), "NaN"),
        (lambda m: m.local_average(np.ones(120), POINTS, far="away"), "far must be one of"),
        (lambda m: m.extend(np.full(120, np.nan), POINTS), "NaN"),
        (lambda m: m.extend(np.array(["a"] * 120), POINTS), "real numbers"),
        (lambda m: m.extend(np.ones(120), POINTS, 0), "n_components must be a positive integer"),
        (lambda m: m.extend(np.ones(120), POINTS, far="away"), "far must be one of"),
        (lambda m: m.inverse_transform(np.ones((3, 4))), r"must have shape \(B, 25\)"),
        (lambda m: m.inverse_transform(np.full((1, 25), np.nan)), "NaN"),
        (lambda m: m.to_module()(torch.ones(2, 3)), "must have shape"),
    ],
)
def test_arguments_of_methods(fitted, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(fitted)


# ------------------------------------------------------------ exterior calculus


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame": "orthogonal"}, "frame must be"),
        ({"pushforward": "pull"}, "pushforward must be"),
        ({"tol": 0.0}, "tol must be a number between 0 and 1"),
        ({"tol": 1.0}, "tol must be a number between 0 and 1"),
        ({"tol": np.nan}, "tol must be a number between 0 and 1"),
        ({"n_functions": 1}, "n_functions=1 must lie between 2"),
        ({"n_functions": 26}, "n_functions=26 must lie between"),
        ({"n_functions": 9, "n_products": 8}, "n_products=8 must lie between 9"),
        ({"n_functions": 9, "n_products": 26}, "n_products=26 must lie between"),
        ({"n_coordinates": 1}, "n_coordinates=1 must lie between 2"),
        ({"n_coordinates": 26}, "n_coordinates=26 must lie between"),
        ({"n_functions": 0}, "n_functions"),
        ({"n_functions": 2.5}, "n_functions"),
        ({"tol": "small"}, "tol"),
    ],
    ids=str,
)
def test_parameters_of_the_exterior_calculus(fitted, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ExteriorCalculus(fitted, **options).fit()


@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_number_of_fields(fitted, count):
    with pytest.raises(ValueError, match="n_fields must"):
        ExteriorCalculus(fitted, 9, 23).fit().fields(POINTS, count)


def test_queries_of_fields(fitted):
    with pytest.raises(ValueError, match=r"3 features|must have shape"):
        ExteriorCalculus(fitted, 9, 23).fit().fields(np.zeros((1, 3)))


# ------------------------------------------------------------ atlas


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(100), "each of the 240 samples"),
        (np.zeros((240, 1)), "each of the 240 samples"),
        (np.where(np.arange(240) < 4, 0, 1), r"class .*0.* \(4 samples\): n_samples=4 is too few"),
    ],
    ids=["short", "column", "small class"],
)
def test_labels_of_an_atlas(y, message):
    with pytest.raises(ValueError, match=message):
        ManifoldAtlas(DiffusionManifold(7, 8)).fit(np.concatenate([POINTS, 3 * POINTS]), y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.at([1, 2]), r"labels \[2\] are not among the fitted classes \[1, 5\]"),
        (lambda a: a.at([[1]]), "labels must be a vector"),
        (lambda a: a.project(POINTS[:3], [1, 5]), "3 samples and 2 labels"),
        (lambda a: a.tangent_basis(POINTS[:1], [0]), "not among the fitted classes"),
        (lambda a: a.distance(POINTS[:1], [0]), "not among the fitted classes"),
        (lambda a: a.project(np.full((1, 2), np.nan), [1]), "NaN"),
        (lambda a: a.project(np.zeros((1, 3)), [1]), "must have shape"),
        (lambda a: a.project(np.zeros((0, 2)), []), "empty"),
        (lambda a: a.predict(np.full((1, 2), np.nan)), "NaN"),
        (lambda a: a.at([1]).tangent_basis(POINTS[:1], method="svd"), "method must be one of"),
    ],
)
def test_arguments_of_an_atlas(atlas, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(atlas)


# ------------------------------------------------------------ neighbour search


def test_names_and_objects_of_neighbour_engines():
    with pytest.raises(ValueError, match="neighbors must be 'auto', 'tree', 'brute'"):
        neighbor_search(POINTS, "hnsw")
    with pytest.raises(TypeError, match=r"kneighbors\(X, n_neighbors\)"):
        neighbor_search(POINTS, object())


# ------------------------------------------------------------ degenerate data: a warning and a usable answer


def test_many_copies_of_a_sample():
    copies = np.concatenate([POINTS, np.repeat(POINTS[:1], 30, axis=0)])
    with pytest.warns(exceptions.DuplicatePointsWarning, match="31 copies"):
        manifold = DiffusionManifold(7, 10).fit(copies)
    assert (manifold.markov_eigenvalues_[1:] < 1 - 1e-6).all()
    assert (manifold.bandwidth_ > 0).all()
    assert len(manifold.eigenfunctions_) == 150


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.ScaleWarning")
def test_almost_copies_of_a_sample():
    rng = np.random.default_rng(0)
    copies = np.concatenate([POINTS, POINTS[:1] + 1e-12 * rng.normal(size=(30, 2))])
    with pytest.warns(exceptions.DuplicatePointsWarning, match="31 copies"):
        manifold = DiffusionManifold(7, 10).fit(copies)
    assert manifold.n_components_ == 7
    assert manifold.n_connected_components_ == 1
    np.testing.assert_allclose(manifold.eigenfunctions_[len(POINTS) :], manifold.eigenfunctions_[[0] * 30])
    np.testing.assert_allclose(manifold.measure_.sum(), 1)


def test_two_components():
    with pytest.warns(exceptions.DisconnectedGraphWarning, match="2 pieces that the kernel leaves apart"):
        manifold = DiffusionManifold(7, 10).fit(np.concatenate([POINTS, POINTS + 100]))
    assert manifold.n_connected_components_ == 2
    np.testing.assert_allclose(manifold.markov_eigenvalues_[:2], 1, atol=1e-9)
    np.testing.assert_array_equal(manifold.eigenfunctions_[:, 0], 1)
    second = manifold.eigenfunctions_[:, 1]
    assert np.ptp(second[:120]) < 1e-6
    assert second[0] * second[-1] < 0


def test_one_component_is_the_rule(fitted):
    assert fitted.n_connected_components_ == 1


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.DisconnectedGraphWarning")
def test_outlier():
    with pytest.warns(exceptions.OutlierWarning, match="1 samples lie more than 100"):
        DiffusionManifold(7, 10).fit(np.concatenate([make_circle(800, random_state=0).points, [[40.0, 40.0]]]))


def test_more_components_than_can_be_used():
    with pytest.warns(exceptions.SpectrumTruncatedWarning, match="n_components=100"):
        manifold = DiffusionManifold(100, 10).fit(POINTS)
    assert manifold.n_components_ < 100
    assert manifold.eigenfunctions_.shape == (120, manifold.n_components_)
    assert (manifold.markov_eigenvalues_ >= 0.05).all()


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.SpectrumTruncatedWarning")
def test_scale_that_is_too_large():
    with pytest.warns(exceptions.ScaleWarning, match="the kernel is so wide"):
        DiffusionManifold(2, 10, epsilon=100.0).fit(POINTS)


def test_unknown_dimension_is_estimated():
    assert DiffusionManifold(5, 20).fit(make_torus(900, random_state=0).points).tangent_dimension_ == 2
    assert DiffusionManifold(5, 20, dimension=1).fit(make_torus(900, random_state=0).points).tangent_dimension_ == 1


def test_fields_that_vanish_are_flagged():
    """The circle has no second tangent direction."""
    manifold = DiffusionManifold(61, 10, dimension=2).fit(make_circle(800, grid=True).points)
    with pytest.warns(exceptions.DegenerateTangentWarning, match="more fields"):
        basis = manifold.tangent_basis(make_circle(800, grid=True).points, method="sec")
    assert np.isfinite(basis).all()


def test_neighbours_that_do_not_span_are_flagged():
    line = np.outer(np.arange(100.0), [1.0, 2.0, 0.0])
    manifold = DiffusionManifold(9, 8, dimension=2, tangent_method="pca").fit(line)
    with pytest.warns(exceptions.DegenerateTangentWarning, match="n_tangent_neighbors"):
        manifold.tangent_basis(line[40:50])


def test_medial_axis(fitted):
    with pytest.warns(exceptions.MedialAxisWarning, match="ill-defined"):
        fitted.project(np.zeros((1, 2)))


def test_single_precision_samples_are_fitted_in_double():
    points = make_sphere(300, random_state=0).points
    single, double = (DiffusionManifold(9, 15).fit(points.astype(t)) for t in (np.float32, np.float64))
    assert single.eigenvalues_.dtype == np.float64
    np.testing.assert_allclose(single.eigenvalues_, double.eigenvalues_, rtol=1e-4, atol=1e-9)


def test_solver_that_fails_is_reported():
    def wrong(matrix, count):
        vectors = np.random.default_rng(0).normal(size=(matrix.shape[0], count))
        return np.linspace(0.5, 1, count), np.linalg.qr(vectors)[0]

    with pytest.raises(RuntimeError, match="residual"):
        DiffusionManifold(5, 10, eigen_solver=wrong).fit(POINTS)
