"""Adversarial training: what it promises, with any attack."""

from __future__ import annotations

import pytest
import torch

from manifoldkit.attacks import PGD, OnManifoldPGD, SubspacePGD, adversarial_step, adversarial_training
from manifoldkit.geometry.exact import Plane


def task(n: int = 400):
    """One wide feature that is right on 90 %, and one narrow one that is always right, off a plane."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    sign = 2.0 * y - 1
    flip = torch.where(torch.rand(n, generator=generator) < 0.1, -1.0, 1.0)
    x = torch.stack([sign * flip, torch.randn(n, generator=generator), 0.15 * sign], dim=1)
    return x, y


def network(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))


def train(attack, seed: int = 0, **options):
    net, (x, y) = network(seed), task()
    history = adversarial_training(
        net, x, y, attack, epochs=25, optimizer=lambda p: torch.optim.Adam(p, 3e-2),
        generator=torch.Generator().manual_seed(seed), **options,
    )  # fmt: skip
    return net, history


@pytest.mark.parametrize("seed", range(3))
def test_trained_against_an_attack_is_robust_to_it(seed):
    x, y = task()
    attack = PGD(network(), 0.3, 0.15, 3, bounds=None, early_stop=False)
    plain, robust = (train(a, seed, clean_share=0.0)[0] for a in (None, attack))
    measure = PGD(plain, 0.3, 0.1, 10, bounds=None)
    accuracy = [measure.replaced(model=m).run(x, y).summary()["robust_accuracy"] for m in (plain, robust)]
    assert (plain(x).argmax(1) == y).double().mean() > 0.97
    assert accuracy[0] < 0.6
    assert accuracy[1] > 0.8


def test_normal_training_needs_the_narrow_feature_less_and_tangent_training_does_not():
    """The narrow feature is normal to the plane of the first two: only an attack along it teaches to ignore it."""
    x, y = task()
    plane = Plane(torch.eye(3)[:, :2])
    walk = {"steps": 3, "alpha": 0.15, "bounds": None, "early_stop": False}
    normal = train(SubspacePGD(network(), plane, 0.3, "normal", **walk), clean_share=0.0)[0]
    tangent = train(OnManifoldPGD(network(), plane, residual="carry", eps=0.3, **walk), clean_share=0.0)[0]
    attack = SubspacePGD(normal, plane, 0.3, "normal", bounds=None)
    robust = [attack.replaced(model=m).run(x, y).summary()["robust_accuracy"] for m in (normal, tangent)]
    assert robust[0] > 0.85
    assert robust[1] < 0.6


def test_history_and_modes():
    net, history = train(PGD(network(), 0.3, steps=2, bounds=None), warm_up=5)
    assert len(history.loss) == len(history.clean_accuracy) == len(history.attacked_accuracy) == 25
    assert history.loss[-1] < history.loss[0]
    assert history.attacked_accuracy[:5] == history.clean_accuracy[:5]
    assert history.attacked_accuracy[10] < history.clean_accuracy[10]
    assert not net.training
    assert all(p.requires_grad for p in net.parameters())


def test_same_generator_same_network():
    first, second = (train(PGD(network(), 0.1, steps=2, bounds=None))[0] for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_plain_step_is_the_step_of_torch():
    x, y = task()
    ours, theirs = network(), network()
    adversarial_step(ours, torch.optim.SGD(ours.parameters(), 0.1), x, y, None)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    torch.nn.functional.cross_entropy(theirs(x), y).backward()
    optimizer.step()
    assert all(torch.allclose(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_labels_of_any_integer_kind_and_no_targets():
    x, y = task()
    found = []
    for labels in (y, y.int(), y.numpy()):
        net = network()
        found.append(adversarial_step(net, torch.optim.SGD(net.parameters(), 0.1), x, labels, None))
    assert found[0] == found[1] == found[2]
    with pytest.raises(ValueError, match="attack is targeted"):
        adversarial_step(net, torch.optim.SGD(net.parameters(), 0.1), x, y, PGD(net, 0.1, targeted=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer"),
        ({"clean_share": 2.0}, ValueError, "clean_share must be finite and between 0 and 1"),
        ({"clean_share": "half"}, TypeError, "clean_share must be a number"),
        ({"attack": 3}, TypeError, "attack must be an Attack or None, got int"),
        ({"labels": torch.full((400,), 2)}, ValueError, r"labels must lie in 0\.\.1"),
        ({"labels": torch.zeros(400)}, TypeError, "labels must hold integers"),
        ({"optimizer": lambda p: torch.optim.SGD(p, 1e30)}, ValueError, "lower the learning rate"),
    ],
)
def test_bad_input(options, error, message):
    x, y = task()
    given = {"labels": y} | options
    with pytest.raises(error, match=message):
        adversarial_training(network(), x, given.pop("labels"), **given)


def test_bad_networks_and_batches():
    x, y = task()
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(TypeError, match="got tuple: wrap it"):
        adversarial_training(torch.nn.LSTM(x.shape[1], 2).to(x.dtype), x, y, epochs=1)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        adversarial_training(len, x, y)
    with pytest.raises(ValueError, match="the batch is empty"):
        adversarial_step(net, optimizer, x[:0], y[:0], None)
    with pytest.raises(TypeError, match="images must be a torch tensor, got ndarray"):
        adversarial_step(net, optimizer, x.numpy(), y, None)


def test_numbers_for_each_sample_follow_the_order_of_the_images():
    """Only the second half has a budget worth the name; whether it is shuffled rightly shows in the changes."""
    x, y = task(60)
    eps = torch.where(torch.arange(60) < 30, 1e-6, 0.5)
    seen = []

    class Recording(PGD):
        def run(self, images, labels, **options):
            result = super().run(images, labels, **options)
            seen.append((images, (result.adversarial - images).abs().amax(1)))
            return result

    net = network()
    attack = Recording(net, eps, steps=2, bounds=None, early_stop=False)
    adversarial_training(net, x, y, attack, epochs=1, batch_size=7, generator=torch.Generator().manual_seed(0))
    assert [len(images) for images, _ in seen] == [7] * 8 + [4]
    for images, change in seen:
        which = torch.cdist(images, x).argmin(dim=1)
        assert torch.equal(change > 1e-3, which >= 30)
    with pytest.raises(ValueError, match="eps of the attack holds 60 numbers for 50 images"):
        adversarial_training(net, x[:50], y[:50], attack)


def test_a_single_sample_left_over_is_not_alone():
    x, y = task(41)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    adversarial_training(net, x, y, epochs=1, batch_size=20)
    assert net[1].num_batches_tracked == 2


def test_what_cannot_be_trained():
    x, y = task(20)
    net = network()
    with pytest.raises(TypeError, match="got a SGD: pass its class, or lambda parameters"):
        adversarial_training(net, x, y, optimizer=torch.optim.SGD(net.parameters(), 0.1))
    with pytest.raises(TypeError, match="got the class PGD: make one"):
        adversarial_training(net, x, y, PGD)
    with pytest.raises(ValueError, match="nothing to train"):
        adversarial_training(net.requires_grad_(False), x, y)
