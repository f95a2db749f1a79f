"""The image experiment of Zhang et al. (2024) on 8 x 8 digits, by the functions of `benchmarks/risk_tables.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
SEEDS = range(3)


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import risk_tables

    return risk_tables


def test_training_on_normal_changes_alone_makes_robust_without_a_loss_of_clean_accuracy(tables):
    """Clean accuracy, and accuracy under L2 PGD at 0.3, 0.6 and 1.0; training at 0.6."""
    plain, normal = (np.array([tables.training_row(name, seed) for seed in SEEDS]) for name in ("plain", "normal"))
    assert (normal[:, 2] > plain[:, 2] + 0.1).all()
    assert plain[:, 0].mean() - normal[:, 0].mean() < 0.02
    assert (plain[:, 0] - normal[:, 0] < 0.02).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sample_of_the_manifold_is_unexplained(tables, seed):
    """On projected samples with refined projections the four causes explain every adversary."""
    rows = np.array(tables.digit_rates(60, seed, "project", 20))
    risk, three, four, unexplained, left = rows[:, [1, 5, 7, 8, 9]].T
    assert (unexplained == 0).all()
    assert (four >= risk).all()
    assert (three > risk).all()
    assert (left < 0.01).all()
    assert 0.1 < risk[0] < risk[1] < risk[2]


def test_the_anomaly_comes_from_samples_off_the_manifold(tables):
    """As they are, more is at risk than the three terms add up to, as in Table 3: what is left is unexplained."""
    rows = np.array([tables.digit_rates(3, seed, "raw", 0)[1] for seed in SEEDS])  # eps 0.6
    assert (rows[:, 0] > 3).all()  # distance to the manifold by eps
    assert (rows[:, 1] > rows[:, 5]).all()
    assert (rows[:, 8] > 0.05).all()
