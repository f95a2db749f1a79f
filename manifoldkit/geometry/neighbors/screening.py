r"""Candidates for the nearest neighbours from single-precision matrix products, with a proof that none is missing.

With the rows :math:`x' = (x, -|x|^2/2, 1)` and :math:`y' = (y, 1, -|y|^2/2)` one product gives
:math:`x' \cdot y' = -|x - y|^2 / 2`, in single precision up to

.. math:: E = \frac{m u}{1 - m u} (|x|^2 + |y|^2), \qquad m = D + 8, \quad u = 2^{-24}

whatever the order of summation. A few candidates more than asked for are kept and measured in double precision.
If one were missing, it would be nearer than the k-th found, at :math:`d_k`; its norm would be at most
:math:`|x| + d_k`, and its score at least :math:`-d_k^2/2 - E`. Where the last score kept is below that, nothing is
missing; the few other rows are searched again in double precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .base import Floats, Ints

__all__ = ["proven", "screen", "screen_points"]

Singles = np.ndarray[Any, np.dtype[np.float32]]

#: Rows and columns of a block of scores, which should stay in the cache.
BLOCK = 1024


def screen(points: Floats, queries: Floats, n_candidates: int) -> tuple[Ints, Floats, float]:
    """Candidates for the nearest of `points` (n, D) to `queries` (B, D).

    Returns
    -------
    indices : array (B, n_candidates)
        Not sorted.
    worst : array (B,)
        Least score among them; what is missing has none above it.
    scale : float
        What the coordinates were divided by, so that single precision neither overflows nor underflows.
    """
    scale = max(_reach(points), _reach(queries)) or 1.0
    lists = _TopLists(len(queries), n_candidates)
    asked = _augmented(queries, scale)
    product = _Product()
    for columns in _blocks(len(points)):
        near = _swapped(_augmented(points[columns], scale))
        for rows in _blocks(len(queries)):
            lists.offer(rows, product(asked[rows], near), columns.start)
    return *lists.result(), scale


def screen_points(points: Floats, n_candidates: int) -> tuple[Ints, Floats, float]:
    """`screen` for the points themselves as queries: scores are symmetric, and each is computed once for two rows."""
    scale = _reach(points) or 1.0
    lists = _TopLists(len(points), n_candidates)
    table, blocks, product = _augmented(points, scale), _blocks(len(points)), _Product()
    for block in blocks:  # first, since they tell what is worth keeping later
        lists.offer(block, product(_swapped(table[block]), table[block]), block.start)
    for number, rows in enumerate(blocks):
        near = _swapped(table[rows])
        for columns in blocks[number + 1 :]:
            scores = product(near, table[columns])
            lists.offer(rows, scores, columns.start)
            lists.offer_transposed(columns, scores, rows.start)
    return *lists.result(), scale


def proven(queries: Floats, kth: Floats, worst: Floats, scale: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether the k-th distances `kth` (B,) are surely right, given the least scores kept (see the module)."""
    norm, kth = np.linalg.norm(queries, axis=1) / scale, kth / scale
    share = (queries.shape[1] + 8) * 2.0**-24
    error = share / (1 - share) * (norm**2 + (norm + kth) ** 2) + 1e-30  # the last: what underflows
    sure: np.ndarray[Any, np.dtype[np.bool_]] = (worst < -(kth**2) / 2 - error) | (kth == 0)
    return sure


def _reach(points: Floats) -> float:
    return float(np.sqrt(max(np.einsum("ij,ij->i", points[b], points[b]).max() for b in _blocks(len(points)))))


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(n, start + BLOCK)) for start in range(0, n, BLOCK)]


def _augmented(points: Floats, scale: float) -> Singles:
    """Rows (x, -|x|^2 / 2, 1)."""
    n, d = points.shape
    rows = np.empty((n, d + 2), dtype=np.float32)
    for part in _blocks(n):
        scaled = points[part] / scale
        rows[part, :d] = scaled
        rows[part, d] = np.einsum("ij,ij->i", scaled, scaled) / -2
    rows[:, d + 1] = 1
    return rows


def _swapped(rows: Singles) -> Singles:
    """Rows (y, 1, -|y|^2 / 2)."""
    result = rows.copy()
    result[:, -2:] = rows[:, :-3:-1]
    return result


class _Product:
    """``a @ b.T`` into one buffer, since a fresh one would cost its page faults each time."""

    def __init__(self) -> None:
        self._buffer = np.empty(BLOCK**2, dtype=np.float32)

    def __call__(self, a: Singles, b: Singles) -> Singles:
        return np.matmul(a, b.T, out=self._buffer[: len(a) * len(b)].reshape(len(a), len(b)))


class _TopLists:
    """The highest scores of each row, gathered block by block.

    A score enters the row's buffer if it beats the limit, the last of the row's best when the buffer was tidied up
    last. Almost none does after the first few blocks, so that most of the work is one comparison an entry.
    """

    def __init__(self, n: int, size: int) -> None:
        self.size, self.room = size, 3 * size
        self.scores: Singles = np.full((n, self.room), -np.inf, dtype=np.float32)
        self.indices = np.zeros((n, self.room), dtype=np.int64)
        self.filled = np.zeros(n, dtype=np.int64)
        self.limit: Singles = np.full(n, -np.inf, dtype=np.float32)

    def offer(self, rows: slice, scores: Singles, first: int) -> None:
        """Scores (rows, columns) of the points from `first` on."""
        where = _true_places(scores > self.limit[rows, None])
        self._add(rows, where // scores.shape[1], where % scores.shape[1], scores.ravel()[where], scores, first)

    def offer_transposed(self, rows: slice, scores: Singles, first: int) -> None:
        """Scores (columns, rows) of the points from `first` on."""
        where = _true_places(scores > self.limit[rows])
        where = where[np.argsort(where % scores.shape[1], kind="stable")]
        self._add(rows, where % scores.shape[1], where // scores.shape[1], scores.ravel()[where], scores.T, first)

    def _add(self, rows: slice, row: Ints, column: Ints, values: Singles, scores: Singles, first: int) -> None:
        """Append `values` at (row, column), sorted by row, to the buffers of `rows`."""
        filled, counts = self.filled[rows], np.bincount(row, minlength=rows.stop - rows.start)
        if (full := filled + counts > self.room).any():
            self._tidy(rows.start + np.flatnonzero(full))
            many = np.flatnonzero(counts > self.room - self.size)
            if len(many):
                self._add_best(rows.start + many, scores[many], first)
            kept = (values > self.limit[rows][row]) & ~np.isin(row, many)
            row, column, values = row[kept], column[kept], values[kept]
            counts = np.bincount(row, minlength=len(counts))
        place = filled[row] + np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        self.scores[rows][row, place] = values
        self.indices[rows][row, place] = column + first
        filled += counts

    def _add_best(self, rows: Ints, scores: Singles, first: int) -> None:
        """Append the best of full rows of scores, of which too many beat the limit."""
        best = torch.from_numpy(np.ascontiguousarray(scores)).topk(min(self.size, scores.shape[1]), sorted=False)
        place = (self.filled[rows, None] + np.arange(best.values.shape[1])).astype(np.int64)
        self.scores[rows[:, None], place] = best.values.numpy()
        self.indices[rows[:, None], place] = best.indices.numpy() + first
        self.filled[rows] += best.values.shape[1]
        self._tidy(rows)

    def _tidy(self, rows: Ints) -> None:
        """Keep the best of each row and raise its limit."""
        best = torch.from_numpy(self.scores[rows]).topk(self.size)  # sorted: what is empty comes last
        indices = torch.from_numpy(self.indices[rows]).gather(1, best.indices)
        self.scores[rows, self.size :] = -np.inf
        self.scores[rows, : self.size] = best.values.numpy()
        self.indices[rows, : self.size] = indices.numpy()
        self.filled[rows] = np.minimum(self.filled[rows], self.size)
        self.limit[rows] = best.values.amin(dim=1).numpy()

    def result(self) -> tuple[Ints, Floats]:
        """The best of each row (n, size), and the least score among them (n,)."""
        for rows in _blocks(len(self.limit)):
            self._tidy(np.arange(rows.start, rows.stop))
        return self.indices[:, : self.size].copy(), self.limit.astype(np.float64)


def _true_places(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Ints:
    """``np.flatnonzero(mask)``, fast where almost all is False: eight entries are looked at in one."""
    flat = mask.ravel()
    if len(flat) % 8:
        return np.flatnonzero(flat)
    words = np.flatnonzero(flat.view(np.uint64))
    near, inside = np.nonzero(flat.reshape(-1, 8)[words])
    result: Ints = words[near] * 8 + inside
    return result
