"""A published trial on pairs of scikit-learn's digits, with its settings, as the benchmark runs it. All tests are slow.

Which unlabelled run names the digits is seed luck (`benchmarks/gridvae.md`), so these are laws over three seeds. In the
trial the least loss also told the best conditional run; over nine seeds it does not here, and is not asserted.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def trial():
    """The function that trains and scores one run: (arm, seed) -> figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module("gridvae")
    yield lambda arm, seed: module.on_small_digits(f"8 x 8, {arm}", seed)
    for name in ("gridvae", "gridvae_report"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def plain(trial):
    """Three runs of the usual variational autoencoder."""
    return [trial("VAE", seed) for seed in range(3)]


def test_guided_axes_name_the_digits(trial):
    found = trial("guided", 3)
    assert found["axis"] >= 0.85
    assert found["cell"] >= 0.75


def test_an_axis_guided_alone_names_its_digit_and_the_other_none(trial):
    found = trial("guided on one axis", 3)
    assert found["first"] >= 0.8
    assert found["first"] > found["second"] + 0.2


@pytest.mark.parametrize("mode", ["aggregate", "conditional"])
def test_without_labels_the_least_loss_of_three_beats_the_usual_autoencoder(mode, trial, plain):
    """Cut into the same cells; and, trained by the aggregate divergence, also into cells of equal probability."""
    best = min((trial(mode, seed) for seed in range(3)), key=lambda run: run["loss"])
    assert best["axis"] >= np.mean([run["axis, cells of the grid"] for run in plain]) + 0.2
    if mode == "aggregate":
        assert best["axis"] >= np.mean([run["axis"] for run in plain]) + 0.2
