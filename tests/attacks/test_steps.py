"""Laws of the L1 ball, of the step rules, of the losses and of walks without early stopping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from manifoldkit.attacks import FGSM, PGD, OnManifoldPGD
from manifoldkit.attacks.constraints import LinfBall
from manifoldkit.attacks.l1 import project_l1_box
from manifoldkit.attacks.losses import dlr
from manifoldkit.attacks.steps import AdaptiveSteps, _checkpoints
from manifoldkit.geometry.exact import Circle


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 12), bounded=st.booleans(), radius=st.floats(1e-3, 5.0))
def test_l1_projection_is_the_nearest_allowed_point(seed, size, bounded, radius):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(4, size, generator=generator, dtype=torch.float64)
    x = centre + 2 * torch.randn(4, size, generator=generator, dtype=torch.float64)
    bounds = (0.0, 1.0) if bounded else None
    limit = torch.full((4, 1), radius, dtype=torch.float64)
    nearest = project_l1_box(x, centre, limit, bounds)
    assert ((nearest - centre).abs().sum(1) <= radius + 1e-12).all()
    if bounded:
        assert nearest.min() >= 0
        assert nearest.max() <= 1
    # A point is nearest to x in a convex set iff (x - p).(q - p) <= 0 for each q of the set; linear, so corners do.
    corners = centre[:, None] + radius * torch.cat([torch.eye(size), -torch.eye(size)]).double()
    mixed = torch.rand(4, 30, size, generator=generator, dtype=torch.float64)

    def allowed(candidates):
        k = candidates.shape[1]
        flat = candidates.reshape(-1, size), centre.repeat_interleave(k, 0), limit.repeat_interleave(k, 0)
        return project_l1_box(*flat, bounds).reshape(4, k, size)

    for q in (allowed(corners), allowed(mixed)):
        assert torch.einsum("bi,bqi->bq", x - nearest, q - nearest[:, None]).max() <= 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l1_attack_stays_within_eps_and_bounds(convnet, images, dtype):
    model, x = convnet.to(dtype), images.to(dtype)
    y = model(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    result = PGD(model, 1.5, 0.5, 10, 1, True, 2, generator=generator).run(x, y)
    assert (result.adversarial - x).double().abs().flatten(1).sum(1).max() <= 1.5 + 1e-5
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert 0 < result.success.double().mean() < 1


def test_l1_closed_form_on_a_linear_model(half_space):
    """The largest entry of the gradient that has room takes the whole step."""
    x = torch.tensor([[0.9, 0.5, 0.9], [0.0, 0.5, 0.5]], dtype=torch.float64)
    adversarial = FGSM(half_space([3.0, 2.0, 0.5]), 0.25, norm=1)(x, [0, 0])
    change = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]], dtype=torch.float64)
    assert torch.allclose(adversarial, x - change, atol=1e-12)


def test_uniform_start_of_the_l1_ball(half_space):
    x = torch.full((4000, 2), 5.0, dtype=torch.float64)
    attack = PGD(half_space([1.0, 0.0]), 1.0, 1e-9, 1, 1, True, bounds=None, generator=torch.Generator().manual_seed(0))
    size = (attack(x, torch.zeros(4000, dtype=torch.long)) - x).abs().sum(1)
    for r in (0.25, 0.5, 0.75):
        assert abs((size <= r).double().mean() - r**2) < 0.03


def test_momentum_against_its_formula(convnet, images):
    y = convnet(images).argmax(1)
    x, m = images.clone(), torch.zeros_like(images)
    for _ in range(6):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(convnet(x), y, reduction="sum"), x)
        m = 0.8 * m + g / g.abs().flatten(1).sum(1)[:, None, None, None]
        x = (images + (x + 0.02 * m.sign() - images).clamp(-0.07, 0.07)).clamp(0, 1)
    ours = PGD(convnet, 0.07, 0.02, 6, momentum=0.8, early_stop=False)(images, y)
    assert torch.allclose(ours, x.detach(), atol=1e-12)
    assert not torch.allclose(ours, PGD(convnet, 0.07, 0.02, 6, early_stop=False)(images, y), atol=1e-3)


def test_checkpoints_of_the_source():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("norm", "eps"), [("inf", 0.1), (2, 0.4), (1, 1.5)])
def test_adaptive_steps_need_no_step_length(convnet, images, norm, eps):
    """As strong as the best fixed step of five, and the answer is the point of the largest loss."""
    y = convnet(images).argmax(1)
    fixed = max(int(PGD(convnet, eps, eps * s, 30, norm).run(images, y).success.sum()) for s in (2, 1, 0.5, 0.25, 0.1))
    result = PGD(convnet, eps, None, 30, norm, step_control="apgd", record_path=True).run(images, y)
    assert result.success.sum() >= fixed - 1
    held = ~result.success
    losses = torch.stack([cross_entropy(convnet(p[held]), y[held], reduction="none") for p in result.path])
    assert torch.allclose(losses[-1], losses.amax(0))
    assert (losses.diff(dim=0) >= 0).all()


def test_line_search_takes_the_best_of_its_lengths():
    factors = (0.3, 3.0, 30.0)
    sphere = Circle(radius=1.0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=torch.float64)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=torch.float64)
    x = sphere.project(torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    y = model(x).argmax(1)
    options = {"bounds": None, "early_stop": False, "loss": "margin"}

    def value(points):
        z = model(points)
        rival = z.masked_fill(torch.nn.functional.one_hot(y, 3).bool(), -torch.inf).amax(1)
        return rival - z.gather(1, y[:, None])[:, 0]

    searched = value(OnManifoldPGD(model, sphere, 0.1, 1, line_search=factors, **options)(x, y))
    single = torch.stack([value(OnManifoldPGD(model, sphere, 0.1 * f, 1, **options)(x, y)) for f in factors])
    assert torch.allclose(searched, single.amax(0), atol=1e-12)
    assert (single.argmax(0).unique().numel()) > 1


@pytest.mark.parametrize("budget", ["ambient", "geodesic"])
def test_budget_of_a_walk_on_the_circle(half_space, budget):
    """Half a turn away in a straight line, or along the arc: the arc is the longer way."""
    model = half_space([0.0, 1.0])
    start = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    for eps, breaks in ((2**0.5 - 0.05, False), (2**0.5 + 0.05, budget == "ambient"), (torch.pi / 2 + 0.05, True)):
        attack = OnManifoldPGD(
            model, Circle(), 0.02, 300, eps=eps, budget=budget, bounds=None, record_path=True,
            random_start=True, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        result = attack.run(start, [0])
        assert bool(result.success) is breaks
        assert result.distance_to_manifold.max() < 1e-4  # what eight rounds of shortening and landing leave
        chords = (result.path[1:] - result.path[:-1]).norm(dim=2).sum()
        assert chords <= eps + 1e-6 or budget == "ambient"
        assert result.l2.max() <= eps + 1e-6


def test_without_early_stop_every_sample_has_all_its_steps(convnet, images):
    y = convnet(images).argmax(1)
    y[:3] = (y[:3] + 1) % 4
    stopped, full = (PGD(convnet, 0.1, 0.02, 12, early_stop=e).run(images, y) for e in (True, False))
    assert torch.equal(full.success | stopped.success, stopped.success)
    assert (full.steps_taken >= stopped.steps_taken).all()
    assert (full.steps_taken[stopped.success] == 12).sum() > stopped.success.sum() / 2  # others sit in a corner
    both = full.success & stopped.success
    loss = [cross_entropy(convnet(r.adversarial[both]), y[both]) for r in (stopped, full)]
    assert loss[1] > loss[0]
    assert ((full.status == "success") == full.success.numpy()).all()


def test_a_start_of_ones_own(convnet, images):
    y = convnet(images).argmax(1)
    start = images + 0.05
    attack = PGD(convnet, 0.1, 0.02, 5, early_stop=False, record_path=True)
    path = attack.run(images, y, start=start).path
    assert torch.allclose(path[0], start.clamp(0, 1))
    x = path[0].requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(convnet(x), y, reduction="sum"), x)
    expected = torch.minimum(torch.maximum(x + 0.02 * g.sign(), images - 0.1), images + 0.1).clamp(0, 1)
    assert torch.allclose(path[1], expected.detach())
    with pytest.raises(ValueError, match="start must have the shape"):
        attack(images, y, start=start[:3])


def test_dlr_is_blind_to_shift_and_scale():
    z = torch.randn(10, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(10) % 5
    assert torch.allclose(dlr(z, y), dlr(7 * z - 3, y))
    order = z.sort(dim=1, descending=True).values
    right = z.argmax(1) == y
    expected = -(order[:, 0] - order[:, 1]) / (order[:, 0] - order[:, 2])
    assert torch.allclose(dlr(z, y)[right], expected[right])
    assert (dlr(z, y)[~right] > 0).all()
    with pytest.raises(ValueError, match="three classes"):
        dlr(z[:, :2], y % 2)


def test_loss_that_survives_saturation(convnet, images):
    """Cross entropy has no gradient where the network is sure beyond floating point; DLR and margin do."""

    class Sure(torch.nn.Module):
        def forward(self, x):
            return 1e5 * convnet(x)

    y = convnet(images).argmax(1)
    rates = {
        loss: float(PGD(Sure(), 0.2, 0.02, 20, loss=loss).run(images, y).success.double().mean())
        for loss in ("ce", "margin", "dlr")
    }
    assert rates["ce"] < 0.2
    assert min(rates["margin"], rates["dlr"]) > 0.6


def test_replaced_is_a_copy(convnet, images):
    y = convnet(images).argmax(1)
    attack = PGD(convnet, 0.05, steps=5)
    assert torch.equal(attack.replaced(eps=0.1)(images, y), PGD(convnet, 0.1, steps=5)(images, y))
    assert torch.equal(FGSM(convnet, 0.1).replaced(eps=0.2)(images, y), FGSM(convnet, 0.2)(images, y))
    assert attack.eps == 0.05
    with pytest.raises(ValueError, match="eps must be positive"):
        attack.replaced(eps=-1)
    with pytest.raises(ValueError, match="has no radius"):
        attack.replaced(radius=1)


def test_adaptive_steps_are_halved_where_gains_reach_no_new_best():
    """Of 100 steps each up to the first checkpoint, 22, is a new best; then a fall, and a slow rise that reaches none.

    So the step is halved at the second checkpoint, 41; not at the third, 57, just after; and at the fourth, 70.
    """
    ball = LinfBall(torch.zeros(1, 2), torch.ones(1), None)
    rule = AdaptiveSteps(torch.tensor([2.0]), torch.zeros(1, 2), 100)
    x, sizes = torch.zeros(1, 2), []
    for step in range(72):
        height = float(step) if step <= 22 else 0.1 * (step - 22)
        x, _ = rule.advance(ball, x, torch.ones(1, 2), torch.tensor([height]), lambda trial: trial[:, 0])
        sizes.append(rule.alpha.item())
    assert sizes == [2.0] * 41 + [1.0] * 29 + [0.5] * 2
