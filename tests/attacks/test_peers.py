"""The same adversaries as other libraries: foolbox, pyautoattack (both in `.[dev]`), torchattacks (by `make .venv`)."""

from __future__ import annotations

import os

import pytest
import torch
from sklearn.datasets import load_digits

from manifoldkit.attacks import FGSM, PGD

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # foolbox loads GitPython, which else wants to find git


@pytest.fixture(scope="module")
def task():
    """A network that is right on most of 64 digits of 8 x 8 pixels."""
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(digits.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(6):
            for rows in torch.randperm(1500).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    x, y = x[1500:1564], y[1500:1564]
    assert (net(x).argmax(1) == y).float().mean() > 0.9
    return net.eval(), x, y


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, images: torch.Tensor) -> None:
    assert (theirs - images).abs().max() > 0.01
    assert (ours - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("targeted", [False, True])
def test_torchattacks(task, targeted):
    peer = pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks, as make .venv does")
    net, x, y = task
    goal = (y + 1) % 10 if targeted else y

    def theirs(attack):
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(x, goal)

    options = {"targeted": targeted, "early_stop": False}
    assert_same(FGSM(net, 0.1, **options)(x, goal), theirs(peer.FGSM(net, eps=0.1)), x)
    assert_same(
        PGD(net, 0.1, 0.01, 15, **options)(x, goal),
        theirs(peer.PGD(net, eps=0.1, alpha=0.01, steps=15, random_start=False)), x,
    )  # fmt: skip
    assert_same(
        PGD(net, 0.8, 0.1, 15, 2, **options)(x, goal),
        theirs(peer.PGDL2(net, eps=0.8, alpha=0.1, steps=15, random_start=False)), x,
    )  # fmt: skip
    assert_same(
        PGD(net, 0.1, 0.01, 15, momentum=0.9, **options)(x, goal),
        theirs(peer.MIFGSM(net, eps=0.1, alpha=0.01, steps=15, decay=0.9)), x,
    )  # fmt: skip


@pytest.mark.parametrize("targeted", [False, True])
def test_foolbox(task, targeted):
    import foolbox as peer

    net, x, y = task
    goal = (y + 1) % 10 if targeted else y
    wrapped = peer.PyTorchModel(net, bounds=(0, 1), device="cpu")
    criterion = peer.criteria.TargetedMisclassification(goal) if targeted else peer.criteria.Misclassification(goal)

    def theirs(attack, eps):
        return attack(wrapped, x, criterion, epsilons=eps)[1]

    def walk(kind):
        return kind(abs_stepsize=0.1 if "L2" in kind.__name__ else 0.01, steps=15, random_start=False)

    options = {"targeted": targeted, "early_stop": False}
    if not targeted:  # foolbox has no targeted FGSM
        assert_same(FGSM(net, 0.1, **options)(x, y), theirs(peer.attacks.LinfFastGradientAttack(), 0.1), x)
        assert_same(FGSM(net, 0.8, 2, **options)(x, y), theirs(peer.attacks.L2FastGradientAttack(), 0.8), x)
    inf, two = peer.attacks.LinfProjectedGradientDescentAttack, peer.attacks.L2ProjectedGradientDescentAttack
    assert_same(PGD(net, 0.1, 0.01, 15, **options)(x, goal), theirs(walk(inf), 0.1), x)
    assert_same(PGD(net, 0.8, 0.1, 15, 2, **options)(x, goal), theirs(walk(two), 0.8), x)


def test_sparse_steps_are_stronger_than_dense_ones(task):
    import foolbox as peer

    net, x, y = task
    wrapped = peer.PyTorchModel(net, bounds=(0, 1), device="cpu")
    dense = peer.attacks.L1ProjectedGradientDescentAttack(abs_stepsize=1.0, steps=20, random_start=False)
    broken = dense(wrapped, x, y, epsilons=4.0)[2].float().mean()
    result = PGD(net, 4.0, 1.0, 20, 1).run(x, y)
    assert result.success.float().mean() > broken
    assert (result.adversarial - x).abs().flatten(1).sum(1).max() <= 4.0 + 1e-5


@pytest.mark.parametrize(("norm", "name", "eps"), [("inf", "Linf", 0.1), (2, "L2", 0.8), (1, "L1", 4.0)])
def test_adaptive_steps_are_as_strong_as_the_original(task, norm, name, eps):
    """Robust accuracy of APGD within two of 64 samples of the authors', over three seeds each."""
    from pyautoattack import autopgd_base as peer

    net, x, y = task
    ours, theirs = [], []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        attack = PGD(net, eps, None, 50, norm, True, step_control="apgd", generator=generator)
        ours.append(float((~attack.run(x, y).success).float().mean()))
        adversary = peer.APGDAttack(
            net, n_iter=50, norm=name, eps=eps, seed=seed, device="cpu", use_largereps=False, verbose=False
        )
        theirs.append(float((net(adversary.perturb(x, y)).argmax(1) == y).float().mean()))
    assert sum(theirs) > 0
    assert sum(ours) / 3 <= sum(theirs) / 3 + 2 / 64
