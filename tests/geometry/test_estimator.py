"""`DiffusionManifold` and `ManifoldAtlas` as scikit-learn estimators and as members of the protocol."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from manifoldkit.datasets import make_circle, make_sphere
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import DiffusionManifold, ExteriorCalculus, LabelledManifold, Manifold, ManifoldAtlas

CIRCLE = make_circle(300, noise=0.02, random_state=0)
POINTS = CIRCLE.points

#: Checks of scikit-learn that cannot hold, by name, with the reason. There are none.
EXCEPTIONS: dict[str, str] = {}


@parametrize_with_checks(
    [DiffusionManifold(n_components=3, n_neighbors=4)], expected_failed_checks=lambda estimator: EXCEPTIONS
)
def test_contract_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)  # the data of the checks are blobs of a few points
        check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return DiffusionManifold(25, 15, dimension=1).fit(POINTS)


def test_clone_is_unfitted_and_equal():
    original = DiffusionManifold(7, 12, 1.2, 1, far="plain", tangent_method="pca", random_state=3).fit(POINTS)
    copy = clone(original)
    assert copy.get_params() == original.get_params()
    assert not hasattr(copy, "eigenvalues_")
    np.testing.assert_array_equal(copy.fit(POINTS).eigenvalues_, original.eigenvalues_)


def test_clone_of_the_exterior_calculus(fitted):
    copy = clone(ExteriorCalculus(fitted, 9, 23, tol=0.05))
    assert (copy.n_functions, copy.n_products, copy.tol) == (9, 23, 0.05)
    assert copy.fit().manifold is fitted


@pytest.mark.parametrize("options", [{}, {"dense_limit": 50}, {"n_kernel_neighbors": 40}], ids=str)
def test_pickle(options):
    manifold = DiffusionManifold(25, 15, dimension=1, **options).fit(POINTS)
    basis, projected = manifold.tangent_basis(POINTS[:9]), manifold.project(1.1 * POINTS[:9])
    restored = pickle.loads(pickle.dumps(manifold))
    np.testing.assert_array_equal(restored.tangent_basis(POINTS[:9]), basis)
    np.testing.assert_array_equal(restored.project(1.1 * POINTS[:9]), projected)
    np.testing.assert_array_equal(restored.transform(POINTS[:9]), manifold.transform(POINTS[:9]))


def test_names_of_features(fitted):
    names = fitted.get_feature_names_out()
    assert len(names) == fitted.n_components_
    assert names[0] == "diffusionmanifold0"
    assert names[-1] == "diffusionmanifold24"


def test_pandas_in_and_out():
    frame = pd.DataFrame(POINTS, columns=["x", "y"], index=[f"row{i}" for i in range(300)])
    manifold = DiffusionManifold(7, 15).set_output(transform="pandas").fit(frame)
    out = manifold.transform(frame)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == list(manifold.get_feature_names_out())
    assert list(out.index) == list(frame.index)
    np.testing.assert_allclose(out, manifold.eigenfunctions_, atol=1e-8)
    assert list(manifold.feature_names_in_) == ["x", "y"]
    assert isinstance(manifold.fit_transform(frame), pd.DataFrame)
    with pytest.raises(ValueError, match="feature names"):
        manifold.transform(frame[["y", "x"]])


def test_in_a_pipeline():
    out = make_pipeline(StandardScaler(), DiffusionManifold(7, 15)).fit_transform(POINTS)
    assert out.shape == (300, 7)


def test_fit_has_no_memory():
    other = make_sphere(200, random_state=0).points
    manifold = DiffusionManifold(25, 15).fit(other)
    manifold.fit(POINTS)
    manifold.tangent_basis(POINTS[:3])
    np.testing.assert_array_equal(manifold.eigenvalues_, DiffusionManifold(25, 15).fit(POINTS).eigenvalues_)
    assert manifold.n_features_in_ == 2


def test_randomness_is_an_argument():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (DiffusionManifold(7, 15, eigen_solver="arpack", random_state=4).fit(POINTS) for _ in range(2))
    np.testing.assert_array_equal(first.eigenfunctions_, second.eigenfunctions_)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    shared = DiffusionManifold(7, 15, random_state=np.random.RandomState(0)).fit(POINTS)
    np.testing.assert_allclose(shared.eigenvalues_, first.eigenvalues_, rtol=1e-8, atol=1e-10)


def test_samples_are_not_changed():
    for points in (POINTS.copy(), torch.from_numpy(POINTS.copy())):
        manifold = DiffusionManifold(7, 15).fit(points)
        manifold.project(points)
        np.testing.assert_array_equal(np.asarray(points), POINTS)
    locked = POINTS.copy()
    locked.flags.writeable = False
    DiffusionManifold(7, 15).fit(locked).project(locked)


@pytest.mark.parametrize("kind", ["tensor", "list", "single", "fortran"])
def test_kinds_of_samples(fitted, kind):
    given = {
        "tensor": torch.from_numpy(POINTS),
        "list": POINTS.tolist(),
        "single": POINTS.astype(np.float32),
        "fortran": np.asfortranarray(POINTS),
    }[kind]
    other = DiffusionManifold(25, 15, dimension=1).fit(given)
    np.testing.assert_allclose(other.eigenvalues_, fitted.eigenvalues_, rtol=1e-4, atol=1e-8)


# ------------------------------------------------------------ exchangeable parts


@pytest.mark.parametrize("neighbors", ["tree", "brute", "sklearn", "ball tree"])
def test_neighbour_engines_agree(fitted, neighbors):
    engine = {
        "sklearn": NearestNeighbors().fit(POINTS),
        "ball tree": NearestNeighbors(algorithm="ball_tree").fit(POINTS),
    }.get(neighbors, neighbors)
    other = DiffusionManifold(25, 15, dimension=1, neighbors=engine).fit(POINTS)
    np.testing.assert_allclose(other.eigenvalues_, fitted.eigenvalues_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(other.project(1.1 * POINTS), fitted.project(1.1 * POINTS), atol=1e-9)
    basis, expected = (m.tangent_basis(POINTS, method="pca") for m in (other, fitted))
    np.testing.assert_allclose(np.abs(np.einsum("bdk,bdk->b", basis, expected)), 1, atol=1e-9)


def test_own_neighbour_engine_and_copies(fitted):
    """A user's engine knows the samples with their copies, the fit works on distinct ones."""
    doubled = np.concatenate([POINTS, POINTS])
    other = DiffusionManifold(25, 15, dimension=1, neighbors=NearestNeighbors().fit(doubled)).fit(doubled)
    np.testing.assert_allclose(other.eigenvalues_, fitted.eigenvalues_, rtol=1e-8, atol=1e-9)


def subspace(matrix, count):
    """A solver from outside: all of LAPACK's pairs, in its own order."""
    dense = matrix.toarray() if hasattr(matrix, "toarray") else np.array(matrix)
    values, vectors = scipy.linalg.eigh(dense)
    return values[-count:], vectors[:, -count:]


@pytest.mark.parametrize("solver", ["lapack", "arpack", subspace], ids=["lapack", "arpack", "callable"])
@pytest.mark.parametrize("dense_limit", [50, 6000], ids=["sparse", "dense"])
def test_solvers_agree(solver, dense_limit):
    """Also on a grid, whose pairs are degenerate."""
    for points in (POINTS, make_circle(300, grid=True).points):
        reference = DiffusionManifold(9, 15, eigen_solver="lapack", dense_limit=dense_limit).fit(points)
        other = DiffusionManifold(9, 15, eigen_solver=solver, dense_limit=dense_limit).fit(points)
        np.testing.assert_allclose(other.markov_eigenvalues_, reference.markov_eigenvalues_, atol=1e-10)
        overlap = reference.eigenfunctions_.T @ (reference.measure_[:, None] * other.eigenfunctions_)
        np.testing.assert_allclose(np.linalg.svd(overlap, compute_uv=False), 1, atol=1e-8)


def test_fit_transform_of_tensors_and_images():
    tensor = torch.from_numpy(POINTS).float()
    out = DiffusionManifold(5, 15).fit_transform(tensor)
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.float32
    images = make_sphere(150, random_state=0).points.reshape(150, 3, 1)
    assert DiffusionManifold(5, 15).fit_transform(images).shape == (150, 5)


# ------------------------------------------------------------ protocol and atlas


def test_is_a_manifold(fitted):
    assert isinstance(fitted, Manifold)
    assert not isinstance(fitted, LabelledManifold)


@pytest.fixture(scope="module")
def atlas():
    """A circle with class "ring" and, far off, a sphere with class "ball", both in three dimensions."""
    ring = np.column_stack([POINTS, np.zeros(300)])
    ball = make_sphere(400, random_state=0).points + np.array([6.0, 0.0, 0.0])
    labels = np.repeat(["ring", "ball"], [300, 400])
    return ManifoldAtlas(DiffusionManifold(49, 15, tangent_method="pca")).fit(np.concatenate([ring, ball]), labels)


QUERY = np.array([[0.0, 1.2, 0.1], [6.0, 0.0, 1.2], [0.9, 0.0, 0.0], [6.0, -0.8, 0.0]])
LABELS = ["ring", "ball", "ring", "ball"]


def test_atlas_is_a_family_of_manifolds(atlas):
    assert isinstance(atlas, LabelledManifold)
    assert isinstance(atlas.at(LABELS), Manifold)
    assert atlas.classes_.tolist() == ["ball", "ring"]
    assert [m.tangent_dimension_ for m in atlas.manifolds_] == [2, 1]


def test_label_chooses_the_manifold(atlas):
    ball, ring = atlas.manifolds_
    found = atlas.project(QUERY, LABELS)
    np.testing.assert_allclose(found[[0, 2]], ring.project(QUERY[[0, 2]]), atol=1e-12)
    np.testing.assert_allclose(found[[1, 3]], ball.project(QUERY[[1, 3]]), atol=1e-12)
    np.testing.assert_array_equal(atlas.at(LABELS).project(QUERY), found)
    np.testing.assert_allclose(atlas.distance(QUERY, LABELS), np.linalg.norm(found - QUERY, axis=1), atol=1e-12)
    other = atlas.project(QUERY[:1], ["ball"])
    assert np.linalg.norm(other - [6, 0, 0]) == pytest.approx(1, abs=0.25)  # noise-free, but far off


def test_members_of_lower_dimension_have_zero_columns(atlas):
    basis = atlas.tangent_basis(QUERY, LABELS)
    assert basis.shape == (4, 3, 2)
    np.testing.assert_array_equal(basis[[0, 2], :, 1], 0)
    np.testing.assert_allclose(np.linalg.norm(basis[[0, 2], :, 0], axis=1), 1)
    gram = np.einsum("bik,bil->bkl", basis[[1, 3]], basis[[1, 3]])
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(2), (2, 2, 2)), atol=1e-10)
    np.testing.assert_array_equal(atlas.at(LABELS).tangent_basis(QUERY), basis)
    assert atlas.tangent_basis(QUERY[:1], ["ring"]).shape == (1, 3, 2)  # also alone


def test_prediction_is_the_nearest_manifold(atlas):
    assert atlas.predict(QUERY).tolist() == LABELS
    assert atlas.predict(torch.from_numpy(QUERY)).tolist() == LABELS


def test_atlas_answers_in_kind(atlas):
    labels = np.array(LABELS)
    single = torch.from_numpy(QUERY).float()
    for method in ("project", "tangent_basis", "distance"):
        answer = getattr(atlas, method)(single, labels)
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == torch.float32
        assert isinstance(getattr(atlas, method)(QUERY, labels), np.ndarray)


def test_atlas_takes_tensors_as_labels():
    points = torch.from_numpy(np.concatenate([POINTS, 3 * POINTS]))
    labels = torch.arange(2).repeat_interleave(300)
    atlas = ManifoldAtlas(DiffusionManifold(9, 15)).fit(points, labels)
    found = atlas.project(points, labels)
    assert torch.equal(torch.as_tensor(atlas.predict(points)), labels)
    radii = torch.linalg.vector_norm(found, dim=1)
    torch.testing.assert_close(radii, labels * 2.0 + 1.0, atol=0.05, rtol=0, check_dtype=False)


def test_prototype_stays_unfitted():
    prototype = DiffusionManifold(9, 15)
    ManifoldAtlas(prototype).fit(POINTS, np.zeros(300))
    assert not hasattr(prototype, "eigenvalues_")


def test_pickle_of_an_atlas(atlas):
    restored = pickle.loads(pickle.dumps(atlas))
    np.testing.assert_array_equal(restored.project(QUERY, LABELS), atlas.project(QUERY, LABELS))
