"""The same adversaries as other libraries: foolbox, pyautoattack (both in `.[dev]`), torchattacks (by `make .venv`)."""

from __future__ import annotations

import copy
import math
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


def begin(x: torch.Tensor, size: float) -> torch.Tensor:
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    return (x + size * (2 * noise - 1)).clamp(0, 1)


@pytest.mark.parametrize(("norm", "name", "eps"), [("inf", "Linf", 0.1), (2, "L2", 0.8)])
def test_adaptive_steps_end_where_the_original_does(task, norm, name, eps):
    """From one start, for most samples; the original counts ties, and gains after a return to the best, otherwise."""
    from pyautoattack import autopgd_base as peer

    net, x, y = task
    net, x = copy.deepcopy(net).double(), x.double()
    start = begin(x, eps / 10)
    original = peer.APGDAttack(net, n_iter=100, norm=name, eps=eps, device="cpu", use_largereps=False, verbose=False)
    original.init_hyperparam(x)
    theirs = original.attack_single_run(x, y, x_init=start.clone())[0]
    ours = PGD(net, eps, None, 100, norm, step_control="apgd", early_stop=False)(x, y, start=start)
    same = (ours - theirs).abs().flatten(1).amax(dim=1) <= 1e-6
    assert same.double().mean() > 0.8


@pytest.mark.parametrize(("steps", "halvings"), [(25, {True, False}), (60, {True})])
def test_adaptive_steps_follow_the_algorithm(task, steps, halvings):
    """Algorithm 1 of Croce and Hein (2020), written out for one sample in the L_inf ball."""
    net, x, y = task
    net, x, y = copy.deepcopy(net).double(), x.double()[:12], y[:12]
    eps, start = 0.1, begin(x, 0.05)

    def value(z, i):
        z = z.clone().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(net(z[None]), y[i : i + 1])
        return loss.item(), torch.autograd.grad(loss, z)[0]

    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checkpoints = [math.ceil(round(p * steps, 9)) for p in shares]
    seen = set()
    ours = PGD(net, eps, None, steps, step_control="apgd", early_stop=False)(x, y, start=start)
    for i, image in enumerate(x):

        def project(z, image=image):
            return torch.minimum(torch.maximum(z, image - eps), image + eps).clamp(0, 1)

        now, before, size = start[i], start[i], 2 * eps
        f, gradient = value(now, i)
        best, f_best, best_gradient = now, f, gradient
        gains, last, f_best_then, size_then, f_now = 0, 0, f, size, f
        for k in range(steps):
            if k in checkpoints[1:]:
                few = gains < 0.75 * (k - last)
                idle = size == size_then and f_best == f_best_then
                size_then, f_best_then = size, f_best
                seen.add(few or idle)
                if few or idle:
                    size /= 2
                    now, gradient, f_now = best, best_gradient, f_best
                gains, last = 0, k
            ahead = project(now + size * gradient.sign())
            if k > 0:
                ahead = project(now + 0.75 * (ahead - now) + 0.25 * (now - before))
            before, now, previous = now, ahead, f_now
            f_now, gradient = value(now, i)
            gains += f_now > previous
            if f_now > f_best:
                best, f_best, best_gradient = now, f_now, gradient
        assert (ours[i] - best).abs().max() <= 1e-9
    assert seen == halvings


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
