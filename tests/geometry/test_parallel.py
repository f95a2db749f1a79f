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

POINTS = make_torus(700, random_state=0).points
QUERIES = make_torus(1300, random_state=1).points * 1.02
OPTIONS = {"n_components": 20, "n_neighbors": 20, "dimension": 2}


@pytest.fixture(scope="module", params=["full kernel", "sparse kernel"])
def serial(request):
    extra = {"dense_limit": 300, "epsilon": 0.7} if request.param == "sparse kernel" else {}
    return DiffusionManifold(**OPTIONS, **extra).fit(POINTS)


def answers(manifold):
    values = np.column_stack([POINTS[:, 0], np.ones(len(POINTS))])
    return {
        "transform": manifold.transform(QUERIES),
        "project": manifold.project(QUERIES, n_iter=2),
        "extend": manifold.extend(values, QUERIES),
        "distance": manifold.distance(QUERIES),
        **{method: _projector(manifold.tangent_basis(QUERIES, method)) for method in ("sec", "pca", "smoothed")},
    }


def _projector(basis):
    return basis @ basis.transpose(0, 2, 1)


def check(serial, **backend):
    parameters = serial.get_params() | {"n_jobs": 2}
    expected = answers(serial)
    with joblib.parallel_config(**backend):
        shared = DiffusionManifold(**parameters).fit(POINTS)
        found = answers(shared)
    np.testing.assert_array_equal(shared.bandwidth_, serial.bandwidth_)
    np.testing.assert_allclose(shared.eigenvalues_, serial.eigenvalues_, rtol=1e-12, atol=1e-15)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-12, err_msg=name)


def test_threads(serial):
    check(serial, backend="threading")


def test_processes(serial):
    check(serial, backend="loky")


def test_two_dask_workers(serial):
    distributed = pytest.importorskip("dask.distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        check(serial, backend="dask")


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


def test_errors_and_warnings_come_through(serial):
    shared = DiffusionManifold(**OPTIONS, n_jobs=2, n_tangent_neighbors=3).fit(POINTS)
    flat = np.zeros((1200, 3))  # the centre sees neighbours all around, the far point a single direction
    with pytest.warns(DegenerateTangentWarning, match="at 1200 of 1200 points"):
        shared._sampling.points[:] = 0  # so that neighbours do not span anything
        shared.tangent_basis(flat, "pca")
    with pytest.raises(ZeroDivisionError):
        in_batches(lambda part: 1 // 0, np.zeros(2 * LEAST_ROWS), n_jobs=2)


@pytest.mark.parametrize("n_jobs", [0, 1.5, True, "all"])
def test_numbers_of_workers(n_jobs):
    with pytest.raises(ValueError, match="n_jobs must be None or an integer other than 0"):
        DiffusionManifold(**OPTIONS, n_jobs=n_jobs).fit(POINTS)
