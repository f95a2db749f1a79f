"""Files of fitted manifolds: what is read equals what was written, and nothing else is read."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

import manifoldkit
from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.datasets import make_circle, make_sphere

KINDS = {
    "full": {},
    "local": {"n_kernel_neighbors": 40},
    "gathered": {"n_kernel_neighbors": 40, "dense_limit": 50},
    "indicator": {"kernel": "indicator", "n_neighbors": 12},
    "fewer coordinates": {"distance_components": 3},
    "brute": {"neighbors": "brute"},
    "chunked": {"reduction": "chunked"},
    "faiss": {"neighbors": "faiss"},
    "graph": {"neighbors": "graph", "n_neighbors": 8},
}


@pytest.fixture(scope="module")
def points():
    return make_sphere(250, random_state=0).points @ np.random.default_rng(1).normal(size=(3, 5))


@pytest.fixture(params=KINDS)
def fitted(request, points):
    options = dict(KINDS[request.param])
    if options.get("neighbors") == "faiss":
        pytest.importorskip("faiss")
    if options.get("neighbors") == "graph":
        options["neighbors"] = kneighbors_graph(points, 60, mode="distance")
    return DiffusionManifold(12, dimension=2, **options).fit(points)


def test_what_is_read_computes_the_same_to_the_last_bit(fitted, points, tmp_path):
    queries = 1.1 * points[:20] + 0.01
    expected = [fitted.transform(queries), fitted.project(queries), fitted.tangent_basis(queries)]
    fitted.save(tmp_path / "file")
    again = DiffusionManifold.load(tmp_path / "file")
    found = [again.transform(queries), again.project(queries), again.tangent_basis(queries)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("eigenvalues_", "eigenfunctions_", "measure_", "bandwidth_", "epsilon_", "dimension_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))
    parameters, others = again.get_params(), fitted.get_params()
    graph, other = parameters.pop("neighbors"), others.pop("neighbors")
    assert parameters == others
    assert (graph != other).nnz == 0 if hasattr(other, "nnz") else graph == other
    clone(again).fit(points)


def test_nothing_is_kept_twice(points, tmp_path):
    fitted = DiffusionManifold(12).fit(points)
    fitted.tangent_basis(points[:3])  # what is made when needed is not written
    fitted.save(tmp_path / "file")
    again = manifoldkit.load(tmp_path / "file")
    assert again._sampling.search.points is again._sampling.points
    size = (tmp_path / "file").stat().st_size
    assert size < 1.02 * len(pickle.dumps(DiffusionManifold(12).fit(points))) + 8000  # the JSON is some kilobytes


def test_copies_images_and_names(tmp_path):
    import pandas as pd

    circle = make_circle(100, random_state=0).points
    repeated = np.concatenate([circle, circle[:30]])
    fitted = DiffusionManifold(7).fit(pd.DataFrame(repeated, columns=["east", "north"]))
    fitted.save(tmp_path / "file")
    again = manifoldkit.load(tmp_path / "file")
    assert list(again.feature_names_in_) == ["east", "north"]
    np.testing.assert_array_equal(again.eigenfunctions_, fitted.eigenfunctions_)
    images = torch.from_numpy(circle).reshape(-1, 1, 2, 1)
    fitted = DiffusionManifold(7).fit(images)
    fitted.save(tmp_path / "file")
    again = manifoldkit.load(tmp_path / "file")
    assert torch.equal(again.project(images[:4]), fitted.project(images[:4]))
    assert torch.equal(again.to_module()(images[:4]), fitted.to_module()(images[:4]))


@pytest.mark.parametrize("names", [[0, 1], ["inner", "outer"]])
def test_an_atlas(names, tmp_path):
    circle = make_circle(100, random_state=0).points
    X, y = np.concatenate([circle, 3 * circle]), np.repeat(names, 100)
    atlas = ManifoldAtlas(DiffusionManifold(7)).fit(X, y)
    atlas.save(tmp_path / "file")
    again = ManifoldAtlas.load(tmp_path / "file")
    np.testing.assert_array_equal(again.predict(1.1 * X[::7]), atlas.predict(1.1 * X[::7]))
    np.testing.assert_array_equal(again.project(X[::7] + 0.1, y[::7]), atlas.project(X[::7] + 0.1, y[::7]))
    assert again.estimator.get_params() == atlas.estimator.get_params()
    with pytest.raises(NotFittedError):
        again.estimator.transform(X)


class TestBadInput:
    @pytest.fixture
    def file(self, points, tmp_path):
        DiffusionManifold(7).fit(points).save(tmp_path / "file")
        return tmp_path / "file"

    def test_not_fitted(self, tmp_path):
        with pytest.raises(NotFittedError):
            DiffusionManifold().save(tmp_path / "file")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("eigen_solver", lambda matrix, k: np.linalg.eigh(matrix)),
            ("random_state", np.random.RandomState(0)),
            ("neighbors", NearestNeighbors()),
        ],
    )
    def test_what_needs_code_is_refused_and_the_old_file_stays(self, name, value, points, file):
        before = file.read_bytes()
        fitted = DiffusionManifold(7).fit(points).set_params(**{name: value})
        with pytest.raises(TypeError, match=rf"DiffusionManifold\.{name} is a .* use pickle"):
            fitted.save(file)
        assert file.read_bytes() == before
        assert list(file.parent.iterdir()) == [file]

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nothing"):
            manifoldkit.load(tmp_path / "nothing")

    def test_another_class(self, file):
        with pytest.raises(ValueError, match="holds a DiffusionManifold, not a ManifoldAtlas"):
            ManifoldAtlas.load(file)

    @pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.9, 1.0])
    def test_one_byte_changed(self, file, place):
        content = bytearray(file.read_bytes())
        content[round(place * (len(content) - 1))] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            manifoldkit.load(file)

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_cut_off(self, file, share):
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="damaged"):
            manifoldkit.load(file)

    def test_files_of_others(self, file, points):
        file.write_bytes(pickle.dumps(points))
        with pytest.raises(ValueError, match="no file of manifoldkit"):
            manifoldkit.load(file)
        save_file({"points": points}, file)
        with pytest.raises(ValueError, match="not written by manifoldkit"):
            manifoldkit.load(file)

    def test_a_class_that_is_not_registered_is_never_made(self, file):
        from manifoldkit._saving import _checksum

        tree = json.dumps({"object": "Popen", "state": {"args": "true"}})
        header = {"format": "1", "manifoldkit": "0", "tree": tree, "sha256": _checksum(tree, {})}
        save_file({}, file, metadata=header)
        with pytest.raises(ValueError, match="describes no object"):
            manifoldkit.load(file)

    def test_a_later_layout(self, file):
        save_file(load_file(file), file, metadata={"manifoldkit": "9.0", "format": "7"})
        with pytest.raises(ValueError, match=r"layout '7'.*manifoldkit 9\.0"):
            manifoldkit.load(file)
