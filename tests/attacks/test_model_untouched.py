"""An attack leaves the network as it found it."""

from __future__ import annotations

import pytest
import torch

from manifoldkit.attacks import (
    FGSM,
    PGD,
    LatentPGD,
    OnManifoldPGD,
    PatchPGD,
    PatchSearch,
    ProjectionAttack,
    RandomTangentWalk,
    SubspacePGD,
)
from manifoldkit.geometry.exact import Plane


class Restless(torch.nn.Module):
    """BatchNorm and Dropout in mixed modes, a frozen weight, gradients, and buffers that forward changes."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("empty", None)
        self.fail_at, self.count = fail_at, 0
        self.modes: list[bool] = []
        self.train()
        self.drop.eval()
        self.first.weight.requires_grad_(False)
        self.last.weight.grad = torch.full((3, 8), 7.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.modes.append(self.norm.training)
        if self.count == self.fail_at:
            raise RuntimeError("the network broke")
        self.calls += 1
        self.replaced = self.replaced + 1
        return self.last(self.drop(self.norm(self.first(x))))


def picture(model: torch.nn.Module) -> dict:
    return {
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [(id(p.grad), None if p.grad is None else p.grad.clone().tolist()) for p in model.parameters()],
        "buffers": [(name, id(b), b.tolist()) for name, b in model.named_buffers()],
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
    }


def attacks(model: torch.nn.Module) -> list:
    plane = Plane(torch.eye(4)[:, :2])
    return [
        FGSM(model, 0.01),
        PGD(model, 0.01, steps=4),
        PGD(model, 0.01, steps=4, norm=2, random_start=True, restarts=2),
        OnManifoldPGD(model, plane, 0.01, 4, residual="carry"),
        RandomTangentWalk(model, plane, 0.01, 4),
        PGD(model, 0.01, steps=4, norm=1, step_control="apgd"),
        SubspacePGD(model, plane, 0.01, steps=4),
        SubspacePGD(model, plane, 0.01, "tangent", steps=4, momentum=1.0),
        ProjectionAttack(model, plane, 0.01, steps=4),
        LatentPGD(model, torch.nn.Identity(), torch.nn.Identity(), 0.01, steps=4),
        PatchPGD(model, torch.ones(1), 0.01, 4, nesterov=1.0),
        PatchSearch(model, torch.ones(1), 4),
    ]


@pytest.mark.parametrize("which", range(12))
@pytest.mark.parametrize("fail_at", [None, 1, 2])
def test_everything_is_put_back(which, fail_at):
    model = Restless(fail_at)
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    before = picture(model)
    attack = attacks(model)[which]
    if fail_at is None:
        attack(x, y)
    else:
        with pytest.raises(RuntimeError, match="the network broke"):
            attack(x, y)
    assert model.count > 0
    assert not any(model.modes)  # evaluation mode inside
    assert picture(model) == before


def test_decoder_and_encoder_are_put_back():
    decoder, encoder = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()), Restless()
    encoder.last = torch.nn.Linear(8, 4)
    before = picture(encoder), [m.training for m in decoder.modules()]
    attack = LatentPGD(Restless(fail_at=2), decoder, encoder, 0.1, bounds=None)
    with pytest.raises(RuntimeError, match="the network broke"):
        attack(torch.rand(6, 4), [0, 1, 2, 0, 1, 2])
    assert (picture(encoder), [m.training for m in decoder.modules()]) == before
    assert all(p.requires_grad for p in decoder.parameters())


def test_a_user_can_train_on_right_after(convnet, images):
    y = convnet(images).argmax(1)
    adversarial = PGD(convnet, 0.1, steps=3)(images, y)
    assert not adversarial.requires_grad
    torch.nn.functional.cross_entropy(convnet(adversarial), y).backward()
    assert all(p.grad is not None for p in convnet.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_result_does_not_depend_on_the_callers_grad_mode(convnet, images, context):
    y = convnet(images).argmax(1)
    expected = PGD(convnet, 0.1, steps=5)(images, y)
    with context():
        inside = images.clone().requires_grad_(context is torch.enable_grad)
        assert torch.equal(PGD(convnet, 0.1, steps=5)(inside, y), expected)


def test_images_and_labels_are_not_changed(convnet, images):
    y = convnet(images).argmax(1)
    x, labels = images.clone(), y.clone()
    PGD(convnet, 0.3, steps=5)(images, y)
    assert torch.equal(x, images)
    assert torch.equal(y, labels)
    array = images.numpy()
    array.flags.writeable = False
    adversarial = PGD(convnet, 0.3, steps=5)(array, y.numpy())
    assert adversarial.flags.writeable
    assert (array == x.numpy()).all()


def test_buffers_that_a_forward_registers_are_gone_again():
    class Caching(torch.nn.Linear):
        def forward(self, x):
            self.register_buffer("shift", torch.ones(1))
            return super().forward(x) + self.shift

    model = Caching(4, 3)
    FGSM(model, 0.1)(torch.rand(2, 4), [0, 1])
    assert list(model._buffers) == []
