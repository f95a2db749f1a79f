"""The main job on real data, small: class manifolds of MNIST, an attack along them, and its controls."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import FGSM, OnManifoldPGD, RandomTangentWalk
from manifoldkit.datasets import load_mnist
from manifoldkit.risk import DistanceCalibration

ROOT = Path(__file__).parents[1]


def trained(images, labels):
    """A small convolutional network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 28)),
            torch.nn.Conv2d(1, 8, 5, stride=2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 5, stride=2),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(256, 10),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for batch in torch.arange(len(images)).reshape(-1, 50).T.repeat(8, 1).split(2):
        loss = torch.nn.functional.cross_entropy(model(images[batch.flatten()]), labels[batch.flatten()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def job():
    images, labels = (torch.from_numpy(a) for a in load_mnist("train", classes=[3, 5], n_per_class=500, random_state=0))
    test, truth = (torch.from_numpy(a) for a in load_mnist("test", classes=[3, 5], n_per_class=150, random_state=0))
    model = trained(images, labels)
    right = model(test).argmax(dim=1) == truth
    prototype = DiffusionManifold(
        120, 10, dimension=12, n_projection_components=120, n_kernel_neighbors=40, tangent_method="smoothed"
    )
    atlas = ManifoldAtlas(prototype).fit(images, labels)
    return model, atlas, test[right], truth[right]


def test_the_gradient_breaks_what_a_random_walk_does_not(job):
    model, atlas, images, labels = job
    attack = OnManifoldPGD(model, atlas, alpha=1, steps=30, residual="carry").run(images[:60], labels[:60])
    generator = torch.Generator().manual_seed(0)
    walk = RandomTangentWalk(model, atlas, alpha=1, steps=30, residual="carry", generator=generator)
    assert attack.success.float().mean() > 0.5
    assert walk.run(images[:60], labels[:60]).success.float().mean() < 0.1
    torch.testing.assert_close(attack.adversarial.clamp(0, 1), attack.adversarial)


def test_adversaries_stay_as_near_to_the_manifold_as_real_images(job):
    model, atlas, images, labels = job
    calibration = DistanceCalibration(atlas).fit(images[60:], labels[60:])
    attack = OnManifoldPGD(model, atlas, alpha=1, steps=30, residual="carry")
    near = calibration.quantile(attack(images[:60], labels[:60]), labels[:60])
    far = calibration.quantile(FGSM(model, 0.3)(images[:60], labels[:60]), labels[:60])
    assert np.median(near) < 0.8
    assert np.median(far) > 0.99


@pytest.mark.slow
def test_the_demo_finds_what_the_readme_says(tmp_path):
    """Six minutes: the table of `make demo`."""
    command = [sys.executable, str(ROOT / "demos" / "plot_mnist_attack.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    table = (tmp_path / "mnist_attack.md").read_text()
    broken = {row[0].strip(): float(row[2]) for row in (line.split("|")[1:] for line in table.splitlines()[2:])}
    assert broken["on-manifold PGD, carry"] > 0.52  # the first trial of the method
    assert broken["control: random tangent walk"] < 0.1
    assert broken["control: projection alone"] < 0.01
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.slow
def test_explanations_in_degrees_are_confirmed_by_rendering(tmp_path):
    command = [sys.executable, str(ROOT / "demos" / "plot_rotated_digit.py"), "--out", str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    broken, confirmed = map(int, re.search(r"(\d+) of 10 broken, (\d+) explanations confirmed", output).groups())
    assert broken >= 5
    assert confirmed >= 0.8 * broken


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plot_circle", "plot_swiss_roll"])
def test_the_other_demos_run(name, tmp_path):
    subprocess.run([sys.executable, str(ROOT / "demos" / f"{name}.py"), "--out", str(tmp_path)], check=True)
    assert list(tmp_path.glob("*.png"))
