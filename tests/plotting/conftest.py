from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_circle


@pytest.fixture(autouse=True)
def leaves_no_trace():
    """Every test of a plot also checks that the global settings are as before; figures are closed."""
    before = matplotlib.rcParams.copy()
    yield
    assert matplotlib.rcParams == before
    plt.close("all")


@pytest.fixture(scope="session")
def sample():
    return make_circle(120, grid=True)


@pytest.fixture(scope="session")
def manifold(sample):
    return DiffusionManifold(n_components=9).fit(sample.points)
