"""Workers share out rows; the answers are those of one."""

from __future__ import annotations

import threading

import joblib
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from manifoldkit import DiffusionManifold
from manifoldkit._parallel import LEAST_ROWS, in_batches
from manifoldkit.datasets import make_torus
from manifoldkit.exceptions import DegenerateTangentWarning

POINTS = make_torus(2 * LEAST_ROWS, random_state=0).points
QUERIES = make_torus(1300, random_state=1).points * 1.02
OPTIONS = {"n_components": 20, "n_neighbors": 20, "dimension": 2}


def projector(basis):
    return basis @ basis.transpose(0, 2, 1)


METHODS = {
    "transform": lambda manifold: manifold.transform(QUERIES),
    "pca": lambda manifold: projector(manifold.tangent_basis(QUERIES, "pca")),
    "project": lambda manifold: manifold.project(QUERIES, n_iter=2),
    "extend": lambda manifold: manifold.extend(POINTS[:, 0], QUERIES),
    "local_average": lambda manifold: manifold.local_average(POINTS[:, 0], QUERIES),
    "distance": lambda manifold: manifold.distance(QUERIES),
    "sec": lambda manifold: projector(manifold.tangent_basis(QUERIES, "sec")),
    "smoothed": lambda manifold: projector(manifold.tangent_basis(QUERIES, "smoothed")),
}


@pytest.fixture(scope="module", params=["full kernel", "sparse kernel"])
def serial(request):
    extra = {"dense_limit": 300, "epsilon": 0.7} if request.param == "sparse kernel" else {}
    return DiffusionManifold(**OPTIONS, **extra).fit(POINTS)


@pytest.fixture(scope="module")
def sparse():
    return DiffusionManifold(**OPTIONS, dense_limit=300, epsilon=0.7).fit(POINTS)


def check(serial, methods=tuple(METHODS), **backend):
    with joblib.parallel_config(**backend):
        shared = DiffusionManifold(**serial.get_params() | {"n_jobs": 2}).fit(POINTS)
        found = {name: METHODS[name](shared) for name in methods}
    np.testing.assert_array_equal(shared.bandwidth_, serial.bandwidth_)
    np.testing.assert_allclose(shared.eigenvalues_, serial.eigenvalues_, rtol=1e-12, atol=1e-15)
    for name, value in found.items():
        np.testing.assert_allclose(value, METHODS[name](serial), rtol=0, atol=1e-12, err_msg=name)


def test_threads(serial):
    check(serial, backend="threading")


def test_processes(sparse):
    check(sparse, ("transform", "pca"), backend="loky")


def test_two_dask_workers(sparse):
    distributed = pytest.importorskip("dask.distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        check(sparse, ("transform", "pca"), backend="dask")


def _where(rows):
    blas = max((library["num_threads"] for library in threadpool_info()), default=1)
    return np.full(len(rows), threading.get_ident()), np.full(len(rows), max(blas, torch.get_num_threads()))


def _nested(rows):
    return in_batches(_where, rows, n_jobs=2)


@pytest.mark.parametrize("function", [_where, _nested])
def test_rows_are_shared_out_once_and_cores_are_not_asked_for_twice(function):
    before = torch.get_num_threads(), [library["num_threads"] for library in threadpool_info()]
    who, threads = in_batches(function, np.zeros(4 * LEAST_ROWS), n_jobs=2)
    assert len(set(who.tolist())) == 2
    assert (2 * threads <= max(2, joblib.cpu_count())).all()
    assert before == (torch.get_num_threads(), [library["num_threads"] for library in threadpool_info()])


@pytest.mark.parametrize(("n_rows", "n_jobs"), [(2 * LEAST_ROWS - 1, 2), (4 * LEAST_ROWS, None), (4 * LEAST_ROWS, 1)])
def test_few_rows_stay_where_they_are(n_rows, n_jobs):
    who, _ = in_batches(_where, np.zeros(n_rows), n_jobs)
    assert set(who.tolist()) == {threading.get_ident()}


def test_order_and_kinds_of_answers():
    rows = torch.arange(3.0 * LEAST_ROWS)
    doubled, squares = in_batches(lambda part: (2 * part, part.numpy() ** 2), rows, n_jobs=3)
    torch.testing.assert_close(doubled, 2 * rows)
    np.testing.assert_array_equal(squares, rows.numpy() ** 2)


def test_errors_and_warnings_come_through():
    line = np.linspace(0, 1, 2 * LEAST_ROWS)[:, None] * [1.0, 0.0, 0.0]
    manifold = DiffusionManifold(5, 12, dimension=2, n_jobs=2).fit(line)
    with pytest.warns(DegenerateTangentWarning, match="at 1000 of 1000 points"):
        manifold.tangent_basis(line, "pca")
    with pytest.raises(ZeroDivisionError):
        in_batches(lambda part: 1 // 0, np.zeros(2 * LEAST_ROWS), n_jobs=2)


@pytest.mark.parametrize("n_jobs", [0, 1.5, True, "all"])
def test_numbers_of_workers(n_jobs):
    with pytest.raises(ValueError, match="n_jobs must be None or an integer other than 0"):
        DiffusionManifold(**OPTIONS, n_jobs=n_jobs).fit(POINTS)
