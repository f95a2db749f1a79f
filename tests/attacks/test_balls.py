"""Laws of FGSM and PGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldkit.attacks import FGSM, PGD
from manifoldkit.attacks.l1 import L1Ball
from manifoldkit.geometry.exact import Plane


def size(change: torch.Tensor, norm: str | int) -> torch.Tensor:
    flat = change.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "inf" else flat.norm(dim=1)


def plain_pgd(model, x0, y, eps, alpha, steps, norm):
    """PGD in ten lines, without leaving early; also where it ever was wrong."""
    x, ever = x0.clone(), model(x0).argmax(1) != y
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y, reduction="sum"), x)
        if norm == "inf":
            x = x0 + (x + alpha * g.sign() - x0).clamp(-eps, eps)
        else:
            d = x + alpha * g / g.flatten(1).norm(dim=1)[:, None, None, None] - x0
            x = x0 + d * (eps / d.flatten(1).norm(dim=1).clamp_min(eps))[:, None, None, None]
        x = x.clamp(0, 1).detach()
        ever |= model(x).argmax(1) != y
    return x, ever


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    norm=st.sampled_from(["inf", 2, "2"]),
    eps=st.floats(1e-3, 2.0),
    alpha=st.floats(1e-3, 5.0),
    random_start=st.booleans(),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 1.5), None]),
    seed=st.integers(0, 2**31),
)
def test_perturbation_within_eps_and_bounds(shape, dtype, norm, eps, alpha, random_start, bounds, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(5, *shape, generator=generator, dtype=dtype)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(x[0].numel(), 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    y = model(x).argmax(1)
    if norm == "inf" and bounds is not None:
        eps = min(eps, bounds[1] - bounds[0])  # more is refused
    attack = PGD(model, eps, alpha, 6, norm, random_start, bounds=bounds, generator=generator)
    result = attack.run(x, y)
    assert result.adversarial.shape == x.shape
    assert result.adversarial.dtype == dtype
    assert (size(result.adversarial - x, norm) <= eps + 1e-6).all()
    if bounds is not None:
        assert result.adversarial.min() >= bounds[0]
        assert result.adversarial.max() <= bounds[1]
    assert torch.equal(model(result.adversarial).argmax(1) != y, result.success)


@pytest.mark.parametrize("norm", ["inf", 2])
def test_equals_plain_loop(convnet, images, norm):
    y = convnet(images).argmax(1)
    eps = 0.12 if norm == "inf" else 0.5
    expected, ever = plain_pgd(convnet, images, y, eps, eps / 10, 20, norm)
    assert 0 < ever.sum() < len(y)  # the case is neither trivial nor hopeless
    result = PGD(convnet, eps, eps / 10, 20, norm).run(images, y)
    assert torch.equal(result.success, ever)
    assert torch.allclose(result.adversarial[~ever], expected[~ever], rtol=0, atol=1e-10)


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_closed_form_on_linear_model(half_space, targeted):
    w = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    x = torch.tensor([[0.9, 0.05, 0.5], [0.3, 0.5, 0.9]], dtype=torch.float64)
    label = 1 if targeted else 0
    adversarial = FGSM(half_space(w), 0.2, targeted=targeted)(x, torch.full((2,), label))
    assert torch.allclose(adversarial, (x - 0.2 * w.sign()).clamp(0, 1), atol=1e-15)
    adversarial = FGSM(half_space(w), 0.2, norm=2, bounds=None, targeted=targeted)(x, torch.full((2,), label))
    assert torch.allclose(adversarial, x - 0.2 * w / w.norm(), atol=1e-12)


def test_fgsm_leaves_wrong_samples_alone(half_space):
    x = torch.tensor([[0.2, 0.5], [0.8, 0.1]], dtype=torch.float64)
    result = FGSM(half_space([1.0, -1.0]), 0.1).run(x, [0, 0])
    assert result.steps_taken.tolist() == [0, 1]
    assert torch.equal(result.adversarial[0], x[0])
    assert result.status.tolist() == ["success", "max_steps"]


def test_smallest_eps_that_breaks_a_linear_model(half_space):
    w = torch.tensor([3.0, -4.0], dtype=torch.float64)
    x = torch.tensor([[0.8, 0.3]], dtype=torch.float64)
    for norm, dual in (("inf", 7.0), (2, 5.0)):
        distance = float(x[0] @ w) / dual
        for factor, breaks in ((0.98, False), (1.02, True)):
            result = PGD(half_space(w), distance * factor, steps=20, norm=norm).run(x, [0])
            assert bool(result.success) is breaks


def test_per_sample_eps(half_space):
    x = torch.full((3, 2), 0.5, dtype=torch.float64) + torch.tensor([0.3, 0.0], dtype=torch.float64)
    eps = torch.tensor([0.01, 0.05, 0.4])
    for norm in ("inf", 2):
        result = PGD(half_space([1.0, -1.0]), eps, norm=norm).run(x, [0, 0, 0])
        assert result.success.tolist() == [False, False, True]
        assert torch.allclose(size(result.adversarial - x, norm)[:2], eps[:2].double(), atol=1e-6)
    one_step = FGSM(half_space([1.0, -1.0]), eps.numpy())(x, [0, 0, 0])
    assert torch.allclose(size(one_step - x, "inf"), eps.double(), atol=1e-7)


@pytest.mark.parametrize("norm", ["inf", 2])
def test_each_sample_keeps_its_own_eps_alpha_and_label(convnet, images, norm):
    """Also when others leave the batch: the same as attacking one by one."""
    y = convnet(images).argmax(1)
    eps = torch.linspace(0.3, 0.02, len(y))
    alpha = torch.linspace(0.001, 0.02, len(y))
    together = PGD(convnet, eps, alpha, 8, norm).run(images, y)
    assert 0 < together.success.sum() < len(y)
    for i in range(len(y)):
        alone = PGD(convnet, eps[i], alpha[i], 8, norm).run(images[i : i + 1], y[i : i + 1])
        assert torch.allclose(alone.adversarial[0], together.adversarial[i], atol=1e-10)
        assert alone.steps_taken[0] == together.steps_taken[i]


def test_samples_leave_early(half_space):
    """Every sample falls within few steps, so the network sees a fraction of steps x batch."""
    model = half_space([1.0, -1.0])
    x = torch.full((64, 2), 0.5, dtype=torch.float64)
    x[:, 0] += torch.linspace(0.001, 0.1, 64, dtype=torch.float64)
    result = PGD(model, 0.3, 0.01, 40).run(x, torch.zeros(64, dtype=torch.long))
    assert result.success.all()
    # One pass a step and sample, one for the last point, and a second look at four samples.
    assert sum(model.sizes) == (result.steps_taken + 1).sum() + 4
    assert sum(model.sizes) < 64 * 40 / 5


def test_forward_passes_of_samples_that_hold(half_space):
    model = half_space([1.0, -1.0])
    result = PGD(model, 0.01, 0.0001, 7).run(torch.tensor([[0.9, 0.1]], dtype=torch.float64), [0])
    assert result.status.tolist() == ["max_steps"]
    assert model.sizes == [1] * 9  # seven with gradient, one without, and a second look at the first


def test_corner_of_the_ball_is_a_stall(half_space):
    x = torch.tensor([[0.875, 0.125]], dtype=torch.float64)  # binary fractions: no rounding
    result = PGD(half_space([1.0, -1.0]), 2**-5, 2**-6, 40).run(x, [0])
    assert result.status.tolist() == ["stalled"]
    assert result.steps_taken.tolist() == [2]
    assert torch.equal(result.adversarial, x + 2**-5 * torch.tensor([[-1.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("norm", ["inf", 2])
def test_saturated_cross_entropy_stalls_and_margin_does_not(half_space, norm):
    model = half_space([1e4, -1e4], torch.float32)
    x = torch.tensor([[0.7, 0.3]])
    assert PGD(model, 0.3, norm=norm).run(x, [0]).status.tolist() == ["stalled"]
    assert PGD(model, 0.3, norm=norm, loss="margin").run(x, [0]).status.tolist() == ["success"]


def test_callable_loss_is_used(half_space):
    x = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    backwards = PGD(half_space([1.0, -1.0]), 0.1, 0.01, 3, loss=lambda z, y: z.gather(1, y[:, None])[:, 0])(x, [0])
    assert torch.allclose(backwards, x + 0.03 * torch.tensor([[1.0, -1.0]], dtype=torch.float64))


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("control", [{"alpha": 0.02}, {"step_control": "apgd"}, {"alpha": 0.02, "momentum": 0.9}])
def test_targeted_reaches_the_target(convnet, images, loss, control):
    target = convnet(images).topk(2).indices[:, 1]
    result = PGD(convnet, 0.4, steps=60, targeted=True, loss=loss, **control).run(images, target)
    assert result.success.double().mean() > 0.8
    assert torch.equal(convnet(result.adversarial).argmax(1) == target, result.success)
    assert result.summary()["robust_accuracy"] is None


def test_generator_decides_everything(convnet, images):
    y = convnet(images).argmax(1)

    def attack(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return PGD(convnet, 0.05, steps=3, random_start=True, generator=generator)(images, y)

    torch.manual_seed(0)
    first = attack(1)
    torch.manual_seed(99)
    assert torch.equal(first, attack(1))
    assert not torch.equal(first, attack(2))


def test_global_random_state_is_not_touched(convnet, images):
    y = convnet(images).argmax(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    PGD(convnet, 0.05, steps=3, random_start=True)(images, y)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("norm", ["inf", 2])
def test_random_start_fills_the_ball(half_space, norm):
    model = half_space([1.0, 0.0])
    x = torch.tensor([[5.0, 0.0]], dtype=torch.float64).expand(4000, 2)
    attack = PGD(model, 1.0, 1e-9, 1, norm, True, bounds=None, generator=torch.Generator().manual_seed(0))
    start = attack(x, torch.zeros(4000, dtype=torch.long)) - x
    radius = size(start, norm)
    for r in (0.25, 0.5, 0.75):  # uniform in the plane: the share within r is r^2
        assert abs((radius <= r).double().mean() - r**2) < 0.03


def test_random_start_of_the_l1_ball_is_finite_where_numbers_round_to_one():
    ball = L1Ball(torch.full((64, 784), 0.5, dtype=torch.bfloat16), torch.full((64,), 5.0), (0, 1))
    assert torch.isfinite(ball.random_start(torch.Generator().manual_seed(0))).all()  # one draw in 512 rounds to 1


def test_restarts_add_success_and_keep_the_largest_loss(convnet, images):
    y = convnet(images).argmax(1)

    def run(restarts: int):
        generator = torch.Generator().manual_seed(11)
        return PGD(convnet, 0.1, 0.01, 5, "inf", True, restarts, generator=generator, record_path=True).run(images, y)

    one, five = run(1), run(5)
    assert (five.success | ~one.success).all()  # the first restart is the same walk
    assert five.success.sum() > one.success.sum()
    held = ~five.success
    loss = torch.nn.functional.cross_entropy
    before = loss(convnet(one.adversarial[held]), y[held], reduction="none")
    after = loss(convnet(five.adversarial[held]), y[held], reduction="none")
    assert (after >= before - 1e-12).all()
    assert (after > before).any()
    assert torch.equal(five.path[-1], five.adversarial)
    rows = torch.arange(len(y))
    assert torch.equal(five.path[five.steps_taken, rows], five.adversarial)
    assert torch.equal(five.path_predictions[-1], five.prediction_after)


def test_wrong_samples_take_no_random_start(half_space):
    x = torch.tensor([[0.2, 0.5]], dtype=torch.float64)
    result = PGD(half_space([1.0, -1.0]), 0.1, random_start=True).run(x, [0])
    assert torch.equal(result.adversarial, x)
    assert result.steps_taken.tolist() == [0]


def test_manifold_is_only_measured(half_space):
    x = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    line = Plane([[1.0], [0.0]])
    model = half_space([1.0, -1.0])
    result = PGD(model, 0.1, 0.1, 1, manifold=line).run(x, [0])
    assert torch.equal(result.adversarial, PGD(model, 0.1, 0.1, 1)(x, [0]))
    assert torch.allclose(result.distance_to_manifold, torch.tensor([0.4], dtype=torch.float64))
