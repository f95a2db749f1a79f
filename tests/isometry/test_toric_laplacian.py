"""From images and their shifts alone, the Laplacian of the torus: its eigenspaces, and shifts as isometries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from manifoldkit.isometry import eigenspace_energy, off_block_energy, polar, toric_harmonics

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "neural_isometries.py"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 6), (5, 5), (8, 8)])
def test_harmonics_diagonalise_the_five_point_stencil(height, width):
    values, waves = toric_harmonics(height, width)
    stencil = 4 * torch.eye(height * width, dtype=torch.float64)
    for step, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        place = torch.arange(height * width).reshape(height, width)
        stencil[place.flatten(), torch.roll(place, step, axis).flatten()] -= 1
    torch.testing.assert_close(stencil @ waves, waves * values, atol=1e-12, rtol=0)
    torch.testing.assert_close(waves.mT @ waves, torch.eye(height * width, dtype=torch.float64))
    assert (values.diff() >= 0).all()


def test_energy_is_one_inside_eigenspaces_whatever_the_basis_order_and_length():
    values, waves = toric_harmonics(6, 6)
    turned = waves.clone()
    for value in values.round(decimals=9).unique():
        inside = (values - value).abs() < 1e-6
        generator = torch.Generator().manual_seed(int(inside.sum()))
        turn = polar(torch.randn(int(inside.sum()), int(inside.sum()), generator=generator, dtype=torch.float64))
        turned[:, inside] = waves[:, inside] @ turn
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    energy, space = eigenspace_energy(3.0 * turned[:, order], values, waves)
    torch.testing.assert_close(energy, torch.ones(36, dtype=torch.float64))
    torch.testing.assert_close(values.round(decimals=9).unique()[space], values[order].round(decimals=9))
    half = (waves[:, :1] + waves[:, 1:2]) / 2**0.5
    assert float(eigenspace_energy(half, values, waves)[0]) == pytest.approx(0.5)


@pytest.mark.parametrize("shift", [(1, 0), (2, 5)])
def test_shifts_join_no_two_eigenspaces(shift):
    values, waves = toric_harmonics(6, 6)
    moved = torch.roll(waves.T.reshape(-1, 6, 6), shift, (1, 2)).reshape(-1, 36).T
    tau = (waves.mT @ moved)[None]
    space = eigenspace_energy(waves, values, waves)[1]
    assert float(off_block_energy(tau, space)) < 1e-20
    assert float(off_block_energy(tau, torch.arange(36))) > 0.3  # but single functions are mixed


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("neural_isometries_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("size", "seed"),
    [
        (8, 0),
        *(pytest.param(8, seed, marks=pytest.mark.slow) for seed in (1, 2)),
        *(pytest.param(16, seed, marks=pytest.mark.slow) for seed in (0, 1, 2)),
    ],
)
def test_shifts_alone_teach_the_toric_laplacian(benchmark, size, seed):
    """On images and under shifts that training has not seen; bounds of the issue."""
    _, measured = benchmark.train_toric(size, seed)
    assert measured["energy"] >= 0.9
    assert measured["transport"] <= 0.05
    assert measured["off-block"] <= 0.1
    assert measured["isometry 16"] <= 0.05
    assert measured["linear 16"] >= 5 * measured["isometry 16"]
