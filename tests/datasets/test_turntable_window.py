"""What the demo and the benchmark of the turntable stop their walks by."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demos"))

from turntable_window import Window, first_step, lead


def test_first_step_of_each_walk():
    wanted = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]], dtype=bool)
    assert first_step(wanted).tolist() == [2, 1, 0, -1]


def test_lead_is_positive_where_the_label_lost():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 4.0, 1.5]])
    assert lead(torch.nn.Identity(), logits, 0).tolist() == [-1.0, 4.0]
    assert lead(torch.nn.Identity(), logits, 1).tolist() == [2.0, -2.5]


class Blurred:
    """A surface whose reading of a view's lead, its logit 1, errs by the view's third number."""

    def extend(self, values, points):
        return points[:, 1:2] + points[:, 2:3]


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_the_allowance_covers_the_share_that_it_promises(level):
    """Of new views like those held out, mean over 400 draws, a share of at least the level and at most one more."""
    rng, held, covered = np.random.default_rng(0), 59, []
    net = torch.nn.Linear(3, 2, bias=False)
    net.weight.data = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    window = Window(0, torch.zeros(4, 3), np.zeros((4, 2)), "flat", Blurred(), np.zeros(4))
    for _ in range(400):
        errors = torch.from_numpy(rng.standard_t(3, held + 200)).float()
        views = torch.stack([torch.zeros(len(errors)), torch.linspace(-3, 3, len(errors)), errors], dim=1)
        allowance = window.allowance(net, views[:held], level)
        covered.append(float((errors[held:] <= allowance).float().mean()))
    spread = 3 * np.std(covered) / 20
    assert level - spread <= np.mean(covered) <= level + 1 / (held + 1) + spread


def test_a_window_across_the_seam_is_drawn_at_its_poses():
    pytest.importorskip("pyvista")
    window = Window.render(4, (349, 24), 20, 16, step=10)
    assert window.angles[:, 0].min() == 329
    assert window.angles[:, 0].max() == 369
    assert float((window.views(window.angles) - window.images).abs().max()) <= 1 / 255
