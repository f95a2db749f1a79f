import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.geometry import Circle
from manifoldkit.risk import DistanceCalibration


@pytest.fixture(scope="module")
def rings():
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    ring = np.column_stack([np.cos(t), np.sin(t)])
    return ManifoldAtlas(DiffusionManifold(9, dimension=1)).fit(
        np.concatenate([ring, 3 * ring]), np.repeat([4, 7], 120)
    )


def test_quantiles_of_fresh_samples_of_the_same_law_are_uniform():
    generator = np.random.default_rng(0)
    radii = 1 + 0.1 * generator.random((2, 4000))
    calibration = DistanceCalibration(Circle()).fit(np.column_stack([radii[0], 0 * radii[0]]))
    quantiles = np.sort(calibration.quantile(torch.from_numpy(np.column_stack([0 * radii[1], radii[1]]))))
    assert np.abs(quantiles - np.linspace(0, 1, 4000)).max() < 0.05


def test_each_label_is_compared_with_its_own_kind(rings):
    real = np.array([[1.01, 0.0], [1.02, 0.0], [3.2, 0.0], [3.3, 0.0]])
    calibration = DistanceCalibration(rings).fit(real, [4, 4, 7, 7])
    quantiles = calibration.quantile(np.array([[0.0, 1.1], [0.0, 3.1]]), torch.tensor([4, 7]))
    assert quantiles.tolist() == [1.0, 0.0]


def test_bad_input(rings):
    calibration = DistanceCalibration(rings)
    with pytest.raises(ValueError, match="labels are needed"):
        calibration.fit(np.ones((3, 2)))
    calibration.fit(np.array([[1.0, 0.0]]), [4])
    with pytest.raises(ValueError, match=r"labels \[7\] were not among"):
        calibration.quantile(np.array([[3.0, 0.0]]), [7])
    with pytest.raises(ValueError, match="X is empty"):
        DistanceCalibration(Circle()).fit(np.empty((0, 2)))
