"""Row-independent work in batches through joblib, with as many BLAS threads as there are cores for each batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, effective_n_jobs
from threadpoolctl import threadpool_limits

__all__ = ["in_batches", "limited_threads"]

#: Batches have at least this many rows: handing over less costs more than it saves.
LEAST_ROWS = 500

_worker = threading.local()


def in_batches(function: Callable[[Any], Any], rows: Any, n_jobs: int | None = None) -> Any:
    """``function(rows)``, computed for batches of rows by `n_jobs` workers.

    Threads by default, since what is run here releases the interpreter lock; processes, Dask or Ray inside
    ``joblib.parallel_config(backend=...)``. Each worker has its share of the cores for BLAS and OpenMP, so that
    together they never ask for more threads than there are cores.

    Parameters
    ----------
    function : callable
        Takes an array or Tensor (B, ...) and returns one of length B, or a tuple of them. Each row of the answer
        depends on that row alone. For processes it must pickle.
    rows : array or Tensor (B, ...)
    n_jobs : int or None
        As in joblib: None is 1 unless a ``parallel_config`` says otherwise, -1 all cores.

    Returns
    -------
    array, Tensor or tuple of them, as `function` gives

    Examples
    --------
    >>> import numpy as np
    >>> in_batches(np.sqrt, np.arange(2000.0) ** 2, n_jobs=2)[-3:]
    array([1997., 1998., 1999.])
    """
    most = len(rows) // LEAST_ROWS
    elsewhere = isinstance(rows, torch.Tensor) and rows.device.type != "cpu"
    serial = most < 2 or elsewhere or getattr(_worker, "busy", False)  # workers share nothing out again
    workers = 1 if serial else min(effective_n_jobs(n_jobs), most)
    if workers < 2:
        return function(rows)
    threads = max(1, cpu_count() // workers)
    cuts = np.linspace(0, len(rows), workers + 1).astype(int)
    with limited_threads(threads):
        parts = Parallel(n_jobs=n_jobs, prefer="threads", mmap_mode="c")(
            delayed(_run)(function, rows[start:stop], threads, os.getpid()) for start, stop in pairwise(cuts)
        )
    return tuple(map(_join, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else _join(parts)


def _run(function: Callable[[Any], Any], rows: Any, threads: int, parent: int) -> Any:
    # BLAS counts its threads for the whole process, where the parent has done so; OpenMP counts for each thread.
    with limited_threads(threads, "openmp" if os.getpid() == parent else None):
        _worker.busy = True
        try:
            return function(rows)
        finally:
            _worker.busy = False


@contextmanager
def limited_threads(threads: int, user_api: str | None = None) -> Iterator[None]:
    """Let BLAS, OpenMP and torch use that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, user_api=user_api):
            yield
    finally:
        torch.set_num_threads(before)


def _join(parts: Any) -> Any:
    return torch.cat(list(parts)) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)
