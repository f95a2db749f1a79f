"""Published figures of diffusion likelihoods and long steps, with the settings of the benchmark; `make reproduce`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(3))
def test_the_learned_set_is_the_likeliest_and_rk4_bears_long_steps(seed):
    pytest.importorskip("zuko")
    spec = importlib.util.spec_from_file_location("likelihoods", ROOT / "benchmarks" / "likelihoods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.plane(seed, 8000, 8)  # asserts itself that logmeanexp >= mean
    assert found["gap of the roll to the next"] >= 0.3
    assert found["AUROC roll against S"] >= 0.9
    assert found["stride 10, gap of the roll to the next"] < 0.5 * found["gap of the roll to the next"]
    for h in (5, 10, 20):
        drift = "distance to its h = 1"
        assert found[f"RK4 h = {h}: {drift}"] < found[f"DDIM h = {h}: {drift}"]
