"""All neighbour engines behind one call: what is exact equals brute force, what is not finds nearly all."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle, make_swiss_roll
from manifoldkit.geometry import neighbors as engines
from manifoldkit.geometry.neighbors import screening
from manifoldkit.geometry.neighbors.base import Engine
from manifoldkit.geometry.neighbors.exact import BruteNeighbors
from manifoldkit.geometry.neighbors.select import neighbor_search
from manifoldkit.geometry.sampling import sample_neighborhoods

RNG = np.random.default_rng(0)
#: On a surface in 20 dimensions, with noise; enough of them for the single-precision route of brute force.
POINTS = np.column_stack([make_swiss_roll(2200, random_state=0).points, np.zeros((2200, 17))])
POINTS = (POINTS + 0.1 * RNG.normal(size=POINTS.shape)) @ np.linalg.qr(RNG.normal(size=(20, 20)))[0]
QUERIES = POINTS[RNG.permutation(2200)[:150]] + 0.3 * RNG.normal(size=(150, 20))
SHIFT = 3.0  # of the samples, to engines built outside


def truth(queries, k, points=POINTS):
    """Distances and indices by the definition."""
    distances = np.sqrt(((queries[:, None] - points) ** 2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def own_faiss_index(kind="flat"):
    faiss = pytest.importorskip("faiss")
    samples = (POINTS + SHIFT).astype(np.float32)
    if kind == "flat":
        index = faiss.IndexFlatL2(20)
        index.add(samples)
        return index
    index = faiss.IndexShards(20, True, True)
    for half in np.array_split(samples, 2):
        part = faiss.IndexFlatL2(20)
        part.add(half)
        index.add_shard(part)
    return index


class Careless:
    """An engine that forgets the point itself, and ends its lists in repetitions and -1."""

    def kneighbors(self, X, n_neighbors):
        found = NearestNeighbors().fit(POINTS + SHIFT).kneighbors(X, n_neighbors + 1)[1][:, 1:]
        if n_neighbors > 3:
            found[::2, -1] = -1
            found[1::2, -1] = found[1::2, 0]
        return np.zeros(found.shape), found


EXACT = {
    "tree": "tree",
    "brute": "brute",
    "auto": "auto",
    "faiss": "faiss",
    "keops": "keops",
    "scikit-learn": NearestNeighbors(algorithm="brute"),
    "fitted scikit-learn": NearestNeighbors(algorithm="ball_tree").fit(POINTS + SHIFT),
    "faiss index": own_faiss_index,
    "faiss shards": lambda: own_faiss_index("shards"),
    "graph": lambda: kneighbors_graph(POINTS + SHIFT, 60, mode="distance"),
}
APPROXIMATE = {"faiss-hnsw": "faiss-hnsw", "faiss-ivf": "faiss-ivf", "pynndescent": "pynndescent"}
MARKS = {"keops": [pytest.mark.cuda]}
NEEDS = {"faiss": "faiss", "faiss-hnsw": "faiss", "faiss-ivf": "faiss", "pynndescent": "pynndescent"}
FIRST_CALL_COMPILES = {"pynndescent": [pytest.mark.slow]}


def build(name, points=POINTS, **options):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if name == "keops" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    engine = (EXACT | APPROXIMATE)[name]
    return neighbor_search(points, engine() if callable(engine) else engine, center=np.full(20, SHIFT), **options)


def parameters(names):
    marks = MARKS | FIRST_CALL_COMPILES
    return [pytest.param(name, marks=marks.get(name, []), id=name) for name in names]


every = pytest.mark.parametrize("name", parameters([*EXACT, *APPROXIMATE]))
exact = pytest.mark.parametrize("name", parameters(EXACT))


@every
@pytest.mark.parametrize("k", [1, 12, 50])
@pytest.mark.parametrize("asked", ["samples", "queries", "one query"])
def test_lists_are_those_of_the_definition(name, k, asked):
    queries = {"samples": POINTS, "queries": QUERIES, "one query": QUERIES[:1]}[asked]
    rows = slice(None) if asked != "samples" else slice(0, 200)
    distances, indices = build(name).kneighbors(queries, k)
    assert distances.shape == indices.shape == (len(queries), k)
    assert (distances.dtype, indices.dtype) == (np.float64, np.int64)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert all(len(set(row)) == k for row in indices.tolist())
    measured = np.linalg.norm(queries[:, None] - POINTS[indices], axis=2)
    np.testing.assert_allclose(distances, measured, rtol=1e-12, atol=1e-13)
    true_distances, true_indices = truth(queries[rows], k)
    if name in EXACT:
        np.testing.assert_array_equal(indices[rows], true_indices)
        np.testing.assert_allclose(distances[rows], true_distances, rtol=1e-12, atol=1e-13)
    else:
        found = [len(set(a) & set(b)) for a, b in zip(indices[rows].tolist(), true_indices.tolist(), strict=True)]
        assert np.mean(found) / k >= 0.95


@every
def test_as_many_neighbours_as_there_are_points(name):
    if name == "graph":
        pytest.skip("a graph has as many as it has")
    distances, indices = build(name).kneighbors(QUERIES[:3], len(POINTS))
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(len(POINTS)), (3, 1)))
    np.testing.assert_allclose(distances, truth(QUERIES[:3], len(POINTS))[0], rtol=1e-12)


@pytest.mark.parametrize("name", parameters(["tree", "brute", "faiss", "faiss-hnsw", "faiss-ivf", "pynndescent"]))
def test_copies_of_points(name):
    """Which of the copies are found does not matter, how far they are does."""
    points = np.concatenate([POINTS[:800], np.repeat(POINTS[:1], 60, axis=0), POINTS[:800], POINTS[800:]])
    engine = build(name, points)
    for queries in (points, QUERIES):
        distances, indices = engine.kneighbors(queries, 20)
        expected = truth(queries[:300], 20, points)[0]
        if name in EXACT:
            np.testing.assert_allclose(distances[:300], expected, rtol=1e-12, atol=1e-13)
        assert (distances[:300] >= expected - 1e-12).all()
        assert all(len(set(row)) == 20 for row in indices.tolist())


@every
def test_pickle_and_copy(name):
    engine = build(name)
    before = engine.kneighbors(QUERIES, 12)
    restored = pickle.loads(pickle.dumps(engine))
    for left, right in zip(restored.kneighbors(QUERIES, 12), before, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(restored.kneighbors(restored.points, 5)[1], engine.kneighbors(engine.points, 5)[1])
    assert copy.deepcopy(engine) is engine


@pytest.mark.parametrize("name", parameters(["tree", "brute", "faiss", "faiss-ivf"]))
def test_workers_change_nothing(name):
    alone, together = build(name).kneighbors(POINTS, 12), build(name, n_jobs=2).kneighbors(POINTS, 12)
    np.testing.assert_array_equal(together[1], alone[1])
    np.testing.assert_array_equal(together[0], alone[0])


def test_engines_keep_the_points_without_a_copy():
    for name in ("tree", "brute", "faiss", "graph"):
        assert np.shares_memory(build(name).points, POINTS)
    assert len(pickle.dumps(build("tree"))) < 1.1 * POINTS.nbytes


def test_shards_find_what_one_index_finds():
    for left, right in zip(
        build("faiss shards").kneighbors(POINTS, 12), build("faiss index").kneighbors(POINTS, 12), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_a_careless_engine_is_completed():
    engine = neighbor_search(POINTS, Careless(), center=SHIFT)
    for k in (1, 12):
        distances, indices = engine.kneighbors(QUERIES, k)
        assert all(len(set(row)) == k for row in indices.tolist())
        assert (indices >= 0).all()
        assert (np.diff(distances, axis=1) >= 0).all()
    # The last place of each list was spoilt, so that all of it was searched again.
    np.testing.assert_array_equal(engine.kneighbors(QUERIES, 12)[1], truth(QUERIES, 12)[1])


def test_a_sample_missing_from_its_own_list_is_put_in_front():
    """The others move up: none of them is lost but the last."""
    _, lists = sample_neighborhoods(POINTS + SHIFT, 2, "mean", Careless())
    np.testing.assert_array_equal(lists.indices[:, 0], np.arange(len(POINTS)))
    np.testing.assert_array_equal(lists.indices[:200], truth(POINTS[:200], 3)[1])
    assert (lists.distances[:, 1:] > 0).all()


# ------------------------------------------------------------ brute force in single precision


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6], ids=lambda value: f"spread {value}")
def test_brute_force_is_exact_whatever_the_scale(scale, spread):
    """Clumps far apart and narrow: single precision sees no difference within one, and says so."""
    clumps = np.sign(RNG.normal(size=(5, 20)))[RNG.integers(0, 5, 2100)]
    points = scale * (clumps + spread * RNG.normal(size=(2100, 20)))
    distances, indices = BruteNeighbors(points).kneighbors(points, 10)
    for part in (slice(0, 100), slice(2000, 2100)):
        squared = (((points[part, None] - points) / scale) ** 2).sum(axis=2)
        np.testing.assert_allclose(distances[part] / scale, np.sort(np.sqrt(squared), axis=1)[:, :10], rtol=1e-9)
        assert (indices[part, 0] == np.arange(2100)[part]).all()


def test_doubtful_rows_are_known(monkeypatch):
    """If candidates are withheld, the proof fails; nothing wrong passes."""
    candidates, worst, scale = screening.screen(POINTS, QUERIES, 20)
    kth = engines.base.measure(POINTS, QUERIES, candidates, 12)[0][:, -1]
    assert screening.proven(QUERIES, kth, worst, scale).all()
    nearest = truth(QUERIES, 1)[1]
    spoilt = np.where(candidates == nearest, candidates[:, :1], candidates)
    kth = engines.base.measure(POINTS, QUERIES, spoilt[:, :13], 13)[0][:, -1]
    assert not screening.proven(QUERIES, kth, -(kth**2) / 2 / scale**2, scale).any()


@pytest.mark.parametrize("order", ["as they are", "nearest last", "nearest first"])
def test_the_order_of_the_points_does_not_matter(order):
    """Sorted points are the hard case of lists that are gathered block by block."""
    rank = np.argsort(np.linalg.norm(POINTS - POINTS[0], axis=1))
    points = {"as they are": POINTS, "nearest last": POINTS[rank[::-1]], "nearest first": POINTS[rank]}[order]
    points = np.ascontiguousarray(points)
    queries = POINTS[:1] + 0.01 * RNG.normal(size=(100, 20))
    np.testing.assert_array_equal(BruteNeighbors(points).kneighbors(queries, 30)[1], truth(queries, 30, points)[1])
    found = BruteNeighbors(points).kneighbors(points, 30)[1]
    np.testing.assert_array_equal(found[-200:], truth(points[-200:], 30, points)[1])


# ------------------------------------------------------------ in the estimator

ROLL = make_swiss_roll(1200, random_state=1).points
OPTIONS = {"n_components": 12, "n_neighbors": 16, "epsilon": 0.8, "dimension": 2, "dense_limit": 500}


@pytest.fixture(scope="module")
def fitted():
    return DiffusionManifold(**OPTIONS).fit(ROLL)


@pytest.mark.parametrize(
    "neighbors",
    [
        "brute",
        "faiss",
        "graph",
        "faiss index",
        "faiss-hnsw",
    ],
)
def test_engines_in_a_fit(fitted, neighbors):
    if "faiss" in neighbors:
        pytest.importorskip("faiss")
    engine = neighbors
    if neighbors == "graph":
        engine = kneighbors_graph(ROLL, 300, mode="distance")
    elif neighbors == "faiss index":
        import faiss

        engine = faiss.IndexFlatL2(3)
        engine.add(ROLL.astype(np.float32))
    other = clone(DiffusionManifold(**OPTIONS, neighbors=engine)).fit(ROLL)
    tolerance = 2e-2 if neighbors == "faiss-hnsw" else 1e-9  # a few neighbours in a thousand are missed
    np.testing.assert_allclose(other.eigenvalues_, fitted.eigenvalues_, rtol=tolerance, atol=1e-9)
    np.testing.assert_allclose(other.transform(ROLL[:50]), other.eigenfunctions_[:50], atol=1e-8)
    restored = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(restored.project(1.01 * ROLL[:50]), other.project(1.01 * ROLL[:50]))


def test_the_kernel_ends_where_the_graph_does():
    graph = kneighbors_graph(ROLL, 40, mode="distance")
    short = DiffusionManifold(**OPTIONS, neighbors=graph).fit(ROLL)
    same = DiffusionManifold(**OPTIONS, n_kernel_neighbors=40).fit(ROLL)
    np.testing.assert_allclose(short.eigenvalues_, same.eigenvalues_, rtol=1e-8, atol=1e-9)


def test_a_graph_and_copies_among_the_samples(fitted):
    """The graph knows the copies; the distinct samples find their neighbours by 'auto'."""
    doubled = np.concatenate([ROLL, ROLL])
    graph = kneighbors_graph(doubled, 40, mode="distance")
    other = DiffusionManifold(**OPTIONS, neighbors=graph).fit(doubled)
    np.testing.assert_allclose(other.eigenvalues_, fitted.eigenvalues_, rtol=1e-8, atol=1e-9)


def test_a_fitted_manifold_holds_the_points_once(fitted):
    engine = fitted._sampling.search
    assert isinstance(engine, Engine)
    for manifold in (fitted, pickle.loads(pickle.dumps(fitted))):
        points = manifold._sampling.points
        for other in (
            manifold._row(torch.device("cpu")).points.numpy(),
            manifold._sampling.search.points,
        ):
            assert np.shares_memory(points, other)
        assert np.shares_memory(manifold._sampling.rho, manifold._row(torch.device("cpu")).rho.numpy())
    layer = fitted.to_module()
    assert not np.shares_memory(layer.row.points.numpy(), fitted._sampling.points)  # it may be overwritten
    assert layer.row.search is engine


# ------------------------------------------------------------ wrong input

GOOD = kneighbors_graph(ROLL, 16, mode="distance")


def changed(graph, value):
    graph = graph.astype(type(value))
    graph.data[7] = value
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (GOOD[:-1, :-1], r"must have shape \(1200, 1200\), one row a sample, got \(1199, 1199\)"),
        (GOOD[:-1], "must have shape"),
        (changed(GOOD, -1.0), "finite and not negative"),
        (changed(GOOD, np.nan), "finite and not negative"),
        (changed(GOOD, np.inf), "finite and not negative"),
        (changed(GOOD, 1j), "must hold distances"),
        (GOOD.toarray(), "must be sparse, got an array of shape"),
        (kneighbors_graph(ROLL, 12, mode="distance"), "has a row of 12, and 16 neighbours are needed"),
        (sp.csr_array((1200, 1200)), "has a row of 0, and 16 neighbours are needed"),
    ],
    ids=["small", "not square", "negative", "nan", "inf", "complex", "dense", "short", "empty"],
)
def test_graphs(graph, message):
    with pytest.raises(ValueError, match=message):
        DiffusionManifold(**OPTIONS, neighbors=graph).fit(ROLL)


def test_a_graph_shorter_than_the_kernel_is_refused():
    graph = kneighbors_graph(ROLL, 30, mode="distance")
    with pytest.raises(ValueError, match="has a row of 30, and 40 neighbours are needed"):
        DiffusionManifold(**OPTIONS, n_kernel_neighbors=40, neighbors=graph).fit(ROLL)


@pytest.mark.parametrize("rows", [1199, 1201])
def test_an_index_of_other_points_is_refused(rows):
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(3)
    index.add(np.resize(ROLL, (rows, 3)).astype(np.float32))
    with pytest.raises(ValueError, match=f"holds {rows} points of 3 coordinates, and there are 1200 samples of 3"):
        DiffusionManifold(**OPTIONS, neighbors=index).fit(ROLL)
    with pytest.raises(ValueError, match="holds 0 points of 4"):
        DiffusionManifold(**OPTIONS, neighbors=faiss.IndexFlatL2(4)).fit(ROLL)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'auto', 'tree', 'brute', 'faiss', 'faiss-hnsw', 'faiss-ivf', 'pynndescent'"):
        neighbor_search(ROLL, "hnsw")


@pytest.mark.parametrize(("name", "module"), NEEDS.items())
def test_a_missing_extra_is_named(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install manifoldkit\[{module}\]"):
        DiffusionManifold(**OPTIONS, neighbors=name).fit(ROLL)


def test_keops_is_refused_on_a_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"12 times a tree in 3 dimensions and 37 times .* 'tree' .* 'brute'"):
        DiffusionManifold(**OPTIONS, neighbors="keops").fit(ROLL)


def test_an_engine_built_outside_does_not_know_the_components():
    points = make_circle(200, noise=0.1, random_state=0).points
    with pytest.raises(ValueError, match="with distance_components"):
        DiffusionManifold(5, 10, distance_components=1, neighbors=Careless()).fit(points)
