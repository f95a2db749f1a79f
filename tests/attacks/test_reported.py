"""What is reported: records of the right network, budgets of the right attacks, witnesses of the right set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from manifoldkit.attacks import FGSM, PGD, OnManifoldPGD, PatchPGD, evaluate
from manifoldkit.attacks.losses import dlr_of_targets
from manifoldkit.exceptions import CalibrationWarning
from manifoldkit.geometry import Circle, Plane
from manifoldkit.risk import OnManifoldTest, decompose_risk


class Shifted(nn.Module):
    """A network whose setting is neither a weight nor told by its repr."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(2))
            self.linear.bias.zero_()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + torch.tensor([0.0, self.shift])


@pytest.fixture
def batch():
    return torch.tensor([[0.9, 0.1], [0.8, 0.3], [1.0, 0.0]]), torch.tensor([0, 0, 0])


def test_a_record_belongs_to_the_settings_of_the_network(batch, tmp_path):
    first = evaluate(Shifted(0.0), [batch], {"F": FGSM(Shifted(0.0), 0.1)}, path=tmp_path / "r")
    again = evaluate(Shifted(0.0), [batch], {"F": FGSM(Shifted(0.0), 0.1)}, path=tmp_path / "r")
    assert first.table() == again.table()
    with pytest.raises(ValueError, match="another network"):
        evaluate(Shifted(5.0), [batch], {"F": FGSM(Shifted(5.0), 0.1)}, path=tmp_path / "r")


def test_a_record_belongs_to_the_forward_that_was_put_in_place(batch, tmp_path):
    evaluate(Shifted(0.0), [batch], {"F": FGSM(Shifted(0.0), 0.1)}, path=tmp_path / "r")
    other = Shifted(0.0)
    other.forward = lambda x: -other.linear(x)
    with pytest.raises(ValueError, match=r"another network|cannot be hashed"):
        evaluate(other, [batch], {"F": FGSM(other, 0.1)}, path=tmp_path / "r")


def test_budgets_are_not_given_to_a_patch_that_had_none(batch):
    model = Shifted(0.0)
    mask = torch.ones(1, 2)
    alone = evaluate(model, [batch], {"P": PatchPGD(model, mask, steps=20)}, random_state=0)
    varied = evaluate(model, [batch], {"P": PatchPGD(model, mask, steps=20)}, eps=[0.01, 0.05], random_state=0)
    assert [row["robust_accuracy"] for row in varied.table()] == [row["robust_accuracy"] for row in alone.table()]
    limited = evaluate(model, [batch], {"P": PatchPGD(model, mask, steps=20, eps=0.5)}, eps=[0.01, 0.05])
    assert len(limited.table()) == 2


def test_targeted_dlr_reaches_targets():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 6))
    images = torch.rand(60, 20)
    labels = model(images).argmax(dim=1)
    targets = (labels + 1) % 6
    share = {
        loss: PGD(model, 0.15, steps=60, targeted=True, loss=loss).run(images, targets).success.float().mean().item()
        for loss in ("dlr", "margin")
    }
    assert share["margin"] > 0.3
    assert share["dlr"] > 0.9 * share["margin"]
    with pytest.raises(ValueError, match="four classes"):
        dlr_of_targets(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_of_equal_lengths_a_line_search_takes_the_longest(batch):
    class Sure(nn.Module):
        """Cross entropy is 0 in float32 until the boundary is near."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1e4 * torch.stack([x[:, 0], -x[:, 0]], dim=1)

    start = torch.tensor([[1.0, 0.1], [1.0, -0.2]])
    factors = np.geomspace(0.01, 10, 7)
    broken = [
        OnManifoldPGD(Sure(), Circle(), alpha=0.05, steps=60, bounds=None, loss=loss, line_search=order)
        .run(start, torch.tensor([0, 0]))
        .success.tolist()
        for loss in ("ce", "margin")
        for order in (factors, factors[::-1])
    ]
    assert broken[0] == broken[1]
    assert broken[2] == broken[3] == [True, True]


def test_a_witness_that_bounds_pushed_off_the_manifold_is_none():
    """On the line y = x + 0.4 the box ends at x = 0.6, and all errors are at x > 0.7."""

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([0.7 - x[:, 0], x[:, 0] - 0.7], dim=1)

    direction = torch.tensor([[1.0], [1.0]]) / 2**0.5
    line = Plane(direction, torch.tensor([0.0, 0.4]))
    x = torch.tensor([[0.58, 0.98]])
    found = decompose_risk(Model(), x, torch.tensor([0]), line, eps=0.15, bounds=(0, 1))
    assert found.rates()["in_manifold"] == 0


class TestOnManifoldWithoutNoise:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rounding_is_no_distance(self, dtype):
        angle = torch.linspace(0, 2 * np.pi, 401, dtype=torch.float64)[:-1]
        held = torch.stack([angle.cos(), angle.sin()], dim=1)
        turned = torch.stack([(angle + 0.003).cos(), (angle + 0.003).sin()], dim=1).to(dtype)
        report = OnManifoldTest(Circle()).fit(held).test(turned, held.to(dtype))
        assert (report.distance_p > 0.05).all()
        off = OnManifoldTest(Circle()).fit(held).test(1.001 * turned, held.to(dtype))
        assert (off.distance_p < 0.05).all()

    def test_too_few_to_reject_anything(self):
        angle = np.linspace(0, 6, 20)
        with pytest.warns(CalibrationWarning, match=r"no p_value can be below 0\.10"):
            OnManifoldTest(Circle()).fit(np.column_stack([np.cos(angle), np.sin(angle)]))
