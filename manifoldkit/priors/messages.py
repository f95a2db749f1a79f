"""Do symbols stand for something? Measures of messages against known attributes, without knowing which is which."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from .._arrays import as_array
from ..datasets._validation import check_count, check_rng
from ..exceptions import UndefinedStatisticWarning

__all__ = ["AxisAccuracy", "axis_accuracy", "cell_accuracy", "topographic_similarity"]


@dataclass(frozen=True, eq=False)
class AxisAccuracy:
    """How well single axes of a message name single attributes.

    Attributes
    ----------
    matrix : (n, a) array
        Accuracy of axis d as a name of attribute k, each symbol standing for the one value that suits best.
    axes : (a,) int array
        The axis that names each attribute, -1 for attributes left over where there are fewer axes.
    scores : (a,) array
        Accuracies of these; for attributes left over that of the most frequent value.
    """

    matrix: NDArray[np.float64]
    axes: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean())


def axis_accuracy(messages: Any, attributes: Any) -> AxisAccuracy:
    """Accuracy of attributes read off one axis each, under the best naming (Hungarian method).

    For every pair of an axis and an attribute, symbols are matched one to one with values so that most samples agree;
    then axes are matched one to one with attributes. The matching is made on these samples, so that few flatter.

    Parameters
    ----------
    messages : int array (N, n)
        As from :meth:`GridVAE.message`.
    attributes : int array (N, a)
        Values of any number, not only two.

    Returns
    -------
    AxisAccuracy

    Raises
    ------
    TypeError, ValueError
        If arrays are empty, hold no integers or have different lengths.

    Examples
    --------
    >>> attributes = np.array([[0, 5], [0, 7], [1, 5], [1, 7]])
    >>> found = axis_accuracy(attributes[:, ::-1], attributes)  # the axes in the other order
    >>> found.mean, found.axes
    (1.0, array([1, 0]))
    """
    symbols, values = _integers(messages, attributes)
    n, a = symbols.shape[1], values.shape[1]
    matrix = np.array([[_matched(symbols[:, d], values[:, k]) for k in range(a)] for d in range(n)])
    axes = np.full(a, -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(-matrix)
    axes[columns] = rows
    frequent = [np.unique(values[:, k], return_counts=True)[1].max() / len(values) for k in range(a)]
    scores = np.array([matrix[axes[k], k] if axes[k] >= 0 else frequent[k] for k in range(a)])
    return AxisAccuracy(matrix, axes, scores)


def cell_accuracy(messages: Any, attributes: Any) -> float:
    """Accuracy of whole combinations of attributes read off whole messages, under the best naming.

    Parameters
    ----------
    messages : int array (N, n)
    attributes : int array (N, a)

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As :func:`axis_accuracy`.

    Examples
    --------
    >>> cell_accuracy([[0, 0], [0, 1], [1, 1]], [[3], [4], [5]])
    1.0
    """
    symbols, values = _integers(messages, attributes)
    cells, classes = (np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1) for rows in (symbols, values))
    return _matched(cells, classes)


def topographic_similarity(
    messages: Any, attributes: Any, *, n_pairs: int = 100_000, random_state: Any = None
) -> float:
    """Spearman's correlation of Hamming distances: whether things that differ in more attributes get other messages.

    Parameters
    ----------
    messages : int array (N, n)
    attributes : int array (N, a)
    n_pairs : int, default 100000
        Pairs drawn at random where there are more.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    float
        Between -1 and 1, 1 for a language with one symbol for each attribute.

    Raises
    ------
    TypeError, ValueError
        As :func:`axis_accuracy`.

    Warns
    -----
    UndefinedStatisticWarning
        If all messages or all attributes are equally far apart; the answer is NaN.

    References
    ----------
    .. [1] H. Brighton and S. Kirby. "Understanding linguistic evolution by visualizing the emergence of topographic
       mappings", Artificial Life 12, 2006.

    Examples
    --------
    >>> rows = np.random.default_rng(0).integers(4, size=(50, 3))
    >>> round(topographic_similarity(rows + 7, rows), 6)
    1.0
    """
    symbols, values = _integers(messages, attributes)
    count, n = check_count(n_pairs, "n_pairs"), len(symbols)
    if n * (n - 1) // 2 <= count:
        first, second = np.triu_indices(n, 1)
    else:
        rng = check_rng(random_state)
        first = rng.integers(n, size=count)
        second = (first + rng.integers(1, n, size=count)) % n
    apart = [(rows[first] != rows[second]).sum(axis=1) for rows in (symbols, values)]
    if any(len(np.unique(distances)) < 2 for distances in apart):
        warnings.warn(
            "the topographic similarity is undefined: all pairs of messages, or of attributes, differ in the same "
            "number of entries (do all samples have one message?)",
            UndefinedStatisticWarning,
            stacklevel=2,
        )
        return float("nan")
    return float(spearmanr(*apart).statistic)


def _matched(symbols: NDArray[np.int64], values: NDArray[np.int64]) -> float:
    """Share of samples that agree under the best one-to-one matching of symbols with values."""
    kinds, rows = np.unique(symbols, return_inverse=True)
    classes, columns = np.unique(values, return_inverse=True)
    table = np.zeros((len(kinds), len(classes)))
    np.add.at(table, (rows.reshape(-1), columns.reshape(-1)), 1)
    best = linear_sum_assignment(-table)
    return float(table[best].sum() / len(symbols))


def _integers(messages: Any, attributes: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tables = []
    for name, given in (("messages", messages), ("attributes", attributes)):
        numbers = as_array(given, name)
        if numbers.ndim != 2 or numbers.size == 0:
            raise ValueError(f"{name} must have shape (N, columns), got {numbers.shape}: use [:, None] for one column")
        if (numbers != np.round(numbers)).any():
            raise TypeError(f"{name} must hold integers: use GridVAE.message, or number the values")
        tables.append(numbers.astype(np.int64))
    if len(tables[0]) != len(tables[1]):
        raise ValueError(f"messages and attributes must have one length, got {len(tables[0])} and {len(tables[1])}")
    return tables[0], tables[1]
