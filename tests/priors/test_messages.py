"""Measures of messages and of embeddings against attributes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from manifoldkit.exceptions import UndefinedStatisticWarning
from manifoldkit.priors import axis_accuracy, cell_accuracy, neighbor_attribute_kl, topographic_similarity


def rows(n=300, columns=3, values=4, seed=0):
    return np.random.default_rng(seed).integers(values, size=(n, columns))


@pytest.mark.parametrize("seed", range(3))
def test_renamed_and_permuted_attributes_are_read_perfectly(seed):
    attributes, rng = rows(seed=seed), np.random.default_rng(seed)
    order = rng.permutation(3)
    messages = np.column_stack([rng.permutation(4)[attributes[:, k]] for k in order])
    found = axis_accuracy(messages, attributes)
    assert found.mean == 1.0
    assert (order[found.axes] == np.arange(3)).all()
    assert cell_accuracy(messages, attributes) == 1.0
    assert topographic_similarity(messages, attributes) == pytest.approx(1.0)


def test_accuracy_is_the_best_over_all_renamings():
    import itertools

    messages, attributes = rows(60, 1, 4, seed=1), rows(60, 1, 4, seed=2)
    best = max((np.array(names)[messages] == attributes).mean() for names in itertools.permutations(range(4)))
    assert axis_accuracy(messages, attributes).mean == pytest.approx(best)
    assert cell_accuracy(messages, attributes) == pytest.approx(best)


def test_rotated_codes_have_perfect_cells_and_poor_axes():
    """Sum and difference name every pair, but no axis alone names a digit."""
    digits = np.array([(a, b) for a in range(6) for b in range(6)] * 3)
    messages = np.column_stack([digits.sum(axis=1), digits[:, 0] - digits[:, 1] + 5])
    assert cell_accuracy(messages, digits) == 1.0
    assert axis_accuracy(messages, digits).mean < 0.5


def test_fewer_axes_than_attributes_leave_the_most_frequent_value():
    attributes = np.column_stack([np.arange(10) % 5, [0] * 7 + [1] * 3])
    found = axis_accuracy(attributes[:, :1], attributes)
    assert found.axes.tolist() == [0, -1]
    assert found.scores.tolist() == [1.0, 0.7]
    assert found.matrix.shape == (1, 2)


def test_topographic_similarity_is_the_rank_correlation_of_all_pairs():
    messages, attributes = rows(40, 3, 3, seed=1), rows(40, 5, 2, seed=2)
    i, j = np.triu_indices(40, 1)
    expected = spearmanr((messages[i] != messages[j]).sum(1), (attributes[i] != attributes[j]).sum(1)).statistic
    assert topographic_similarity(messages, attributes) == pytest.approx(expected)
    assert abs(topographic_similarity(rows(2000, seed=3), rows(2000, seed=4), n_pairs=20_000, random_state=0)) < 0.05
    some = [topographic_similarity(rows(800), rows(800), n_pairs=5000, random_state=seed) for seed in (0, 0)]
    assert some[0] == some[1] == pytest.approx(1.0)


def test_one_message_for_all_has_no_similarity():
    with pytest.warns(UndefinedStatisticWarning, match="one message"):
        assert math.isnan(topographic_similarity(np.zeros((9, 2), int), rows(9)))


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_tell_of_what_organises_the_embedding_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    blob = rng.integers(2, size=600)
    points = 20.0 * blob[:, None] + rng.normal(size=(600, 3))
    chance = rng.integers(2, size=600)
    found = neighbor_attribute_kl(points, np.column_stack([chance, blob]))
    assert found.ranking.tolist() == [1, 0]
    # With s = 1 of about 300 neighbours at 0 the conditional rate is 1 / 302, and the divergence as it says.
    zero = (blob == 0).sum()
    p, q = (blob.sum() + 1) / 602, 1 / (zero + 2)
    assert found.kl[1] == pytest.approx(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert found.kl[0] < 0.02  # four standard errors of a rate from 300 pairs, squared and doubled: 0.027 at most
    assert found.base == pytest.approx([(chance.sum() + 1) / 602, p])


def test_neighbours_by_hand():
    """On a line at 0, 1, 2.5, 4.5 the neighbours are 1, 0, 1, 2 in that order."""
    x = np.array([0.0, 1.0, 2.5, 4.5])[:, None]
    found = neighbor_attribute_kl(x, np.array([[1], [0], [0], [1]]), smoothing=0.0)
    # Samples 0, 2 and 3 have a neighbour at 0 (1, 1, 2); two of them are 1.
    assert found.base[0] == 0.5
    assert found.conditional[0] == pytest.approx(2 / 3)
    assert found.kl[0] == pytest.approx(0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3)))


def test_copies_are_neighbours_and_samples_not_their_own():
    x = np.repeat(np.arange(50.0), 2)[:, None]
    attributes = np.tile([0, 1], 50)[:, None]  # copies always differ
    found = neighbor_attribute_kl(x, attributes)
    assert found.conditional[0] == pytest.approx(51 / 52)


def test_constant_attributes_have_divergence_zero_and_undefined_ones_warn():
    x = np.random.default_rng(0).normal(size=(20, 2))
    found = neighbor_attribute_kl(x, np.column_stack([np.ones(20), np.zeros(20), np.arange(20) % 2]))
    assert found.kl[:2].tolist() == [0.0, 0.0]
    lonely = np.concatenate([np.arange(5.0), [1000.0]])[:, None]  # the last one is nobody's neighbour
    with pytest.warns(UndefinedStatisticWarning, match=r"attributes \[0\]"):
        found = neighbor_attribute_kl(lonely, np.array([[1, 0], [1, 1], [1, 0], [1, 1], [1, 0], [0, 1]]))
    assert math.isnan(found.kl[0])
    assert found.ranking.tolist() == [1, 0]


class TestBadInput:
    @pytest.mark.parametrize("measure", [axis_accuracy, cell_accuracy, topographic_similarity])
    @pytest.mark.parametrize(
        ("messages", "attributes", "error", "match"),
        [
            (rows(5), rows(6), ValueError, "one length, got 5 and 6"),
            (rows(5)[:, 0], rows(5), ValueError, r"\(N, columns\)"),
            (rows(5), rows(5)[:, :0], ValueError, r"attributes must have shape"),
            (rows(5) + 0.5, rows(5), TypeError, "integers"),
            (np.full((5, 2), np.nan), rows(5), ValueError, "NaN"),
            ([["a"]], [[1]], TypeError, "real numbers"),
        ],
    )
    def test_of_messages(self, measure, messages, attributes, error, match):
        with pytest.raises(error, match=match):
            measure(messages, attributes)

    def test_of_pairs(self):
        with pytest.raises(ValueError, match="n_pairs"):
            topographic_similarity(rows(5), rows(5), n_pairs=0)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"embedding": np.zeros(5)}, ValueError, r"shapes \(N, d\) and \(N, a\)"),
            ({"embedding": np.zeros((4, 2))}, ValueError, "got"),
            ({"embedding": np.full((5, 2), np.inf)}, ValueError, "infinity"),
            ({"attributes": np.full((5, 2), -1)}, ValueError, "recode"),
            ({"attributes": np.zeros((5, 0))}, ValueError, "shapes"),
            ({"n_neighbors": 5}, ValueError, "below the number of samples, 5"),
            ({"n_neighbors": 0}, ValueError, "at least 1"),
            ({"smoothing": -1.0}, ValueError, "smoothing"),
        ],
    )
    def test_of_neighbours(self, change, error, match):
        given = {"embedding": np.arange(10.0).reshape(5, 2), "attributes": rows(5, 2, 2)}
        with pytest.raises(error, match=match):
            neighbor_attribute_kl(**{**given, **change})
