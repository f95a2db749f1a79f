"""Purification by any score, the classifier behind it, and the attacks that know of it."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import PGD, rectangle_mask
from manifoldkit.datasets import make_circle
from manifoldkit.defenses import (
    DiffusionScore,
    ELBOScore,
    ManifoldScore,
    PurifiedClassifier,
    UsualLooking,
    VAEClassifier,
    purify,
    train_vae_classifier,
)
from manifoldkit.geometry import Circle
from manifoldkit.priors import GridPrior, NoiseSchedule


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hill(x: torch.Tensor) -> torch.Tensor:
    """Highest at 0.5."""
    return -(x - 0.5).flatten(1).square().sum(1)


def small_vae(seed: int = 0, prior=None, dtype=torch.float64) -> VAEClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6))
        return VAEClassifier(encoder, decoder, nn.Linear(2, 3), prior=prior).to(dtype)


class TestELBO:
    def test_it_is_the_log_density_of_a_linear_gaussian_model_at_the_exact_posterior(self):
        """x = W z + noise: with the true posterior as encoder the bound is tight, whatever codes are drawn."""
        W, sigma = torch.randn(4, 2, generator=generator(0), dtype=torch.float64), 0.5
        W, _ = torch.linalg.qr(W)  # orthogonal columns make the posterior diagonal
        W = W * torch.tensor([2.0, 0.5], dtype=torch.float64)
        variance = 1 / (1 + W.square().sum(0) / sigma**2)
        encoder = nn.Linear(4, 4).double()
        encoder.weight.data = torch.cat([variance[:, None] * W.T / sigma**2, torch.zeros_like(W.T)])
        encoder.bias.data = torch.cat([torch.zeros(2, dtype=torch.float64), variance.log()])
        decoder = nn.Linear(2, 4, bias=False).double()
        decoder.weight.data = W
        x = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
        truth = torch.distributions.MultivariateNormal(
            torch.zeros(4, dtype=torch.float64), W @ W.T + sigma**2 * torch.eye(4, dtype=torch.float64)
        ).log_prob(x)
        grid = GridPrior(2, [0.0], 1.0)  # a grid of one cell is the standard normal
        for prior, slack in ((None, 0.05), (grid, 1e-9)):
            vae = VAEClassifier(encoder, decoder, nn.Linear(2, 2).double(), obs_sigma=sigma, prior=prior)
            n_samples = 100_000 if prior is None else 1
            with torch.no_grad():
                # with the exact divergence the likelihood alone is drawn; with a Monte Carlo one all of it is
                if prior is None:
                    found = vae.elbo(x, n_samples, generator(2))
                else:
                    mu, logvar = vae.encode(x)
                    z = vae._codes(mu, logvar, 1, generator(2))
                    noise = (z[0] - mu) / (logvar / 2).exp()
                    found = vae._elbo(x, mu, logvar, z) + 0.5 * (noise.square() - 1).sum(1)
            assert (found - truth).abs().max() < slack

    def test_codes_drawn_average_to_the_bound(self):
        vae, x = small_vae(), torch.rand(3, 6, generator=generator(0), dtype=torch.float64)
        with torch.no_grad():
            many = torch.stack([vae.elbo(x, 1, generator(seed)) for seed in range(400)])
            one = vae.elbo(x, 20_000, generator(9))
        assert ((many.mean(0) - one).abs() < 4.5 * many.std(0) / 20 + 0.02).all()

    def test_without_chance_the_mean_code_is_taken(self):
        vae, x = small_vae(), torch.rand(3, 6, generator=generator(0), dtype=torch.float64)
        with torch.no_grad():
            assert torch.equal(vae.elbo(x, 0), vae.elbo(x, 0))
            assert not torch.equal(vae.elbo(x, 1), vae.elbo(x, 1))
            mu, logvar = vae.encode(x)
            squares = (vae.reconstruct(x) - x).square().sum(1)
            kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
            expected = -8 * squares - 3 * math.log(2 * math.pi / 16) - kl
            torch.testing.assert_close(vae.elbo(x, 0), expected)

    def test_log_variances_are_clamped(self):
        vae, x = small_vae(), torch.rand(3, 6, generator=generator(0), dtype=torch.float64)
        vae.encoder[3].bias.data[2:] = torch.tensor([-1e6, 1e6], dtype=torch.float64)
        with torch.no_grad():
            assert vae.encode(x)[1].unique().tolist() == [-12.0, 4.0]
            assert torch.isfinite(vae.elbo(x)).all()

    def test_the_loss_is_that_of_the_formula_at_the_code_drawn(self):
        vae, x = small_vae(), torch.rand(3, 6, generator=generator(0), dtype=torch.float64)
        y = torch.tensor([0, 2, 1])
        with torch.no_grad():
            mu, logvar = vae.encode(x)
            z = vae._codes(mu, logvar, 1, generator(1))[0]
            assert (z - mu).abs().min() > 0
            nats = -torch.log_softmax(vae.head(z), 1)[torch.arange(3), y].mean()
            bound = vae.elbo(x, 1, generator(1)).mean()
            for lam in (0.0, 1.0, 25.0):
                torch.testing.assert_close(vae.loss(x, y, lam, generator(1)), lam * nats - bound)

    def test_training_lowers_the_loss_and_learns_the_classes(self):
        x = torch.cat([torch.zeros(40, 6), torch.ones(40, 6)]) * 0.8 + 0.1
        y = torch.arange(2).repeat_interleave(40)
        vae = small_vae(dtype=torch.float32).eval()
        losses = train_vae_classifier(vae, x, y, steps=150, lr=0.01, batch_size=16, generator=generator(0))
        assert losses[-20:].mean() < losses[:5].mean() - 1
        assert (vae(x).argmax(1) == y).all()
        assert not vae.training


class TestClimbing:
    @pytest.mark.parametrize("kind", ["torch", "numpy"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_answer_has_the_kind_of_the_samples(self, kind, dtype):
        x = torch.rand(4, 1, 3, 3, generator=generator(0), dtype=getattr(torch, dtype))
        found = purify(hill, x if kind == "torch" else x.numpy(), step=0.01, n_steps=60)
        assert type(found) is (torch.Tensor if kind == "torch" else np.ndarray)
        assert str(found.dtype).endswith(dtype)
        assert np.abs(np.asarray(found) - 0.5).max() <= 0.01 + 1e-6

    def test_no_steps_leave_the_sample(self):
        x = torch.rand(4, 9, generator=generator(0))
        assert torch.equal(purify(hill, x, n_steps=0), x)
        fine = torch.rand(4, 6, generator=generator(0), dtype=torch.float64)  # of more digits than the network has
        score = ELBOScore(small_vae(dtype=torch.float32))
        assert torch.equal(purify(score, fine, n_steps=0), fine)
        mask = torch.tensor([1, 0, 0, 0, 0, 0])
        found = purify(score, fine.numpy(), n_steps=3, mask=mask)
        assert (found[:, 1:] == fine.numpy()[:, 1:]).all()
        assert (found[:, 0] != fine.numpy()[:, 0]).all()
        assert torch.equal(purify(hill, x, n_steps=0, n_restarts=3), x)

    @pytest.mark.parametrize("norm", ["inf", 2])
    def test_a_ball_bounds_the_change(self, norm):
        x = torch.rand(5, 9, generator=generator(0), dtype=torch.float64)
        change = purify(hill, x, step=0.05, n_steps=40, eps=0.1, norm=norm, n_restarts=2, generator=generator(1)) - x
        size = torch.linalg.vector_norm(change, ord=float(norm), dim=1)
        assert (size <= 0.1 + 1e-12).all()
        assert size.max() > 0.09

    def test_a_mask_holds_pixels(self):
        x = torch.rand(5, 1, 4, 4, generator=generator(0))
        mask = rectangle_mask((1, 4, 4), 0, 0, 2, 4)
        found = purify(hill, x, step=0.01, n_steps=60, mask=mask, n_restarts=2)
        assert torch.equal(found[:, :, 2:], x[:, :, 2:])
        assert (found[:, :, :2] - 0.5).abs().max() <= 0.0101

    def test_bounds_hold(self):
        found = purify(lambda x: x.sum(1), torch.rand(3, 4, generator=generator(0)), step=0.3, n_steps=9)
        assert torch.equal(found, torch.ones(3, 4))

    def test_restarts_keep_the_best_end(self):
        """A hill with a small top near 0.2 and a large one at 0.8: from the left only restarts reach the latter."""

        def two(x):
            return (torch.exp(-(((x - 0.2) / 0.1) ** 2)) + 3 * torch.exp(-(((x - 0.8) / 0.2) ** 2))).sum(1)

        x = torch.full((30, 1), 0.15, dtype=torch.float64)
        alone = purify(two, x, step=0.01, n_steps=80)
        assert (alone < 0.4).all()
        best = purify(two, x, step=0.01, n_steps=80, n_restarts=8, start_noise=0.6, generator=generator(0))
        assert (two(best) >= two(alone)).all()
        assert (best > 0.7).double().mean() > 0.75
        worst = purify(
            two, x, step=0.01, n_steps=80, n_restarts=8, start_noise=0.6, final_score=lambda x: -two(x),
            generator=generator(0),
        )  # fmt: skip
        assert (worst < 0.4).all()

    def test_restarts_begin_within_the_ball_and_every_second_one_takes_double_steps(self):
        starts, ends = [], []

        def recorded(x):
            if x.requires_grad:
                starts.append(x.detach().clone())
            return x.sum(1)

        x = torch.full((20, 3), 0.5, dtype=torch.float64)
        purify(
            recorded, x, step=0.01, n_steps=1, eps=0.1, start_noise=0.4, n_restarts=3, generator=generator(0),
            final_score=lambda x: ends.append(x.clone()) or x.sum(1),
        )  # fmt: skip
        assert torch.equal(starts[0], x)
        for attempt in (1, 2):
            assert 0.08 < (starts[attempt] - x).abs().max() <= 0.1
        moves = [end - start for start, end in zip(starts, ends, strict=True)]
        for move, length in zip(moves, (0.01, 0.02, 0.01), strict=True):
            assert move.max() == pytest.approx(length)

    def test_batches_make_no_difference(self):
        x = torch.rand(7, 9, generator=generator(0))
        assert torch.equal(purify(hill, x, n_steps=30), purify(hill, x, n_steps=30, batch_size=2))

    def test_a_noisy_score_is_climbed_on(self):
        """A sample that a draw leaves where it is goes on with the next one."""
        draws = iter([0.0, 1.0] * 50)

        def flickering(x):
            return next(draws) * x.sum(1) + 1e-9 * hill(x)

        x = torch.zeros(2, 3, dtype=torch.float64)
        assert purify(flickering, x, step=0.1, n_steps=6).min() > 0.2

    def test_global_randomness_is_left_alone(self):
        state = torch.random.get_rng_state()
        purify(ELBOScore(small_vae()), torch.rand(2, 6, generator=generator(0)), n_steps=3, n_restarts=2)
        assert torch.equal(state, torch.random.get_rng_state())


class Restless(nn.Module):
    """Batch statistics, a frozen weight and a gradient that a purifier must leave as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.layer = nn.Linear(6, 1)
        self.layer.weight.requires_grad_(False)
        self.layer.bias.grad = torch.ones(1)
        self.train()
        self.fail = False

    def forward(self, x):
        if self.fail:
            raise RuntimeError("the score broke")
        assert not self.norm.training
        return self.layer(self.norm(x))[:, 0] + hill(x)

    def log_prob(self, shift, x):
        return self(x) + shift


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: (net, {}),
        lambda net: (functools.partial(net.log_prob, 1.0), {}),
        lambda net: (lambda x: net(x), {"modules": [net]}),
        lambda net: (hill, {"final_score": net, "n_restarts": 2}),
    ],
    ids=["module", "partial of a method", "function", "final score"],
)
@pytest.mark.parametrize("fail", [False, True])
def test_networks_are_left_as_they_were(wrap, fail):
    net = Restless()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    score, options = wrap(net)
    net.fail = fail
    x = torch.rand(4, 6, generator=generator(0))
    if fail:
        with pytest.raises(RuntimeError, match="broke"):
            purify(score, x, n_steps=5, **options)
    else:
        purify(score, x, n_steps=5, **options)
    assert all(module.training for module in net.modules())
    assert [p.requires_grad for p in net.layer.parameters()] == [False, True]
    assert torch.equal(net.layer.bias.grad, torch.ones(1))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


class TestScores:
    def test_distance_to_a_manifold(self):
        x = 1.5 * torch.randn(20, 2, generator=generator(0), dtype=torch.float64)
        score = ManifoldScore(Circle())
        torch.testing.assert_close(score(x), -0.5 * (x.norm(dim=1) - 1).square())
        leaf = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(leaf).sum(), leaf)
        torch.testing.assert_close(slope, Circle().project(x) - x)
        found = purify(score, x, step=0.01, n_steps=400, bounds=(-6, 6))
        assert (found.norm(dim=1) - 1).abs().max() < 0.02

    def test_distance_to_a_learned_manifold(self):
        manifold = DiffusionManifold(n_components=15).fit(make_circle(300, grid=True).points)
        x = torch.tensor([[0.0, 1.2], [0.6, -0.6]], dtype=torch.float64)
        found = purify(ManifoldScore(manifold), x, step=0.01, n_steps=40, bounds=(-2, 2))
        assert (found.norm(dim=1) - 1).abs().max() < 0.03

    def test_a_diffusion_climbs_to_its_mode(self):
        schedule = NoiseSchedule.linear(100, 1e-4, 0.1)

        def eps(x, t):  # data N(0, 0.1^2 I)
            abar = schedule.abar[t, None].to(x)
            return (1 - abar).sqrt() * x / (abar * 0.01 + 1 - abar)

        x = torch.rand(5, 2, generator=generator(0), dtype=torch.float64)
        score = DiffusionScore(eps, schedule, stride=2, generator=generator(1))
        found = purify(score, x, step=0.02, n_steps=60, bounds=(-2, 2))
        assert found.norm(dim=1).max() < 0.2

    def test_a_flow_of_another_library(self):
        zuko = pytest.importorskip("zuko")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)  # whose top none of the points is near: there steps of one length would swing
            flow = zuko.flows.RealNVP(2, transforms=2, hidden_features=(8,)).double()
        x = torch.rand(6, 2, generator=generator(0), dtype=torch.float64)

        def score(x):
            return flow().log_prob(x)

        found = purify(score, x, step=0.02, n_steps=20, bounds=(-2, 2), modules=[flow])
        with torch.no_grad():
            gain = score(found) - score(x)
        assert (gain > 0).all()
        assert gain.mean() > 0.1


class TestAdaptiveAttacks:
    def test_the_way_back_straight_through_is_the_identity(self):
        net = PurifiedClassifier(classifier := nn.Linear(4, 3), hill, step=0.05, n_steps=5)
        x = torch.rand(6, 4, generator=generator(0)).requires_grad_(True)
        answer = net(x)
        purified = purify(hill, x.detach(), step=0.05, n_steps=5)
        torch.testing.assert_close(answer, classifier(purified))
        (slope,) = torch.autograd.grad(answer[:, 0].sum(), x)
        torch.testing.assert_close(slope, classifier.weight[0].expand(6, 4))

    def test_draws_are_averaged(self):
        vae = small_vae()
        options = {"step": 0.05, "n_steps": 4}
        x = torch.rand(3, 6, generator=generator(0), dtype=torch.float64)
        with torch.no_grad():
            mean = PurifiedClassifier(vae, ELBOScore(vae, 1, generator(1)), n_draws=3, **options)(x)
            one = PurifiedClassifier(vae, ELBOScore(vae, 1, generator(1)), **options)
            torch.testing.assert_close(mean, one(x.repeat(3, 1)).reshape(3, 3, 3).mean(0))
            assert (one(x) - one(x)).abs().max() > 0
            mask = torch.ones(3, 6)
            mask[0, 0] = mask[1, 2] = 0  # of each sample, also of its copies
            masked = PurifiedClassifier(nn.Flatten(), hill, n_draws=4, mask=mask, **options)(x)
            assert torch.equal(masked == x, mask == 0)

    def test_unrolled_values_are_those_of_the_purifier(self):
        vae = small_vae()
        score = ELBOScore(vae, 0)
        mask = [1, 1, 1, 0, 0, 1]
        net = PurifiedClassifier(vae, score, backward="unrolled", step=0.03, n_steps=9, mask=mask)
        x = torch.rand(5, 6, generator=generator(0), dtype=torch.float64)
        expected = vae(purify(score, x, step=0.03, n_steps=9, mask=mask))
        torch.testing.assert_close(net(x.clone().requires_grad_(True)), expected)
        with torch.no_grad():
            torch.testing.assert_close(net(x), expected)

    def test_unrolled_asks_for_no_gradient_and_leaves_the_networks_as_they_are(self):
        """A plain call, as a user makes it, of networks in training mode."""
        vae, x = small_vae(dtype=torch.float32).train(), torch.rand(3, 6, generator=generator(0))
        net = PurifiedClassifier(vae, ELBOScore(vae, 0), backward="unrolled", step=0.03, n_steps=3)
        plain = net(x)
        with_graph = net(x.clone().requires_grad_(True))
        torch.testing.assert_close(plain, with_graph)
        assert with_graph.requires_grad
        assert vae.training
        assert all(parameter.requires_grad for parameter in vae.parameters())

    def test_the_unrolled_way_back_is_the_derivative_of_soft_steps(self):
        """Of a quadratic hill, one step: x + a tanh(g / tau), tau fixed."""
        net = PurifiedClassifier(nn.Flatten(), hill, backward="unrolled", softness=2.0, step=0.05, n_steps=1)
        x = torch.rand(3, 4, generator=generator(0), dtype=torch.float64).requires_grad_(True)
        (slope,) = torch.autograd.grad(net(x).sum(), x)
        g = -2 * (x.detach() - 0.5)
        tau = 2 * g.abs().mean(1, keepdim=True)
        torch.testing.assert_close(slope, 1 - 2 * 0.05 / tau * (1 - torch.tanh(g / tau) ** 2))

    def test_an_attack_through_the_purifier_beats_one_that_does_not_know_it(self):
        """The hill pulls the first pixel to 0.5, where the second has to go the other way than it has to here."""

        def first(x):
            return -(x[:, 0] - 0.5).square()

        bare = Saddle()
        x, y = torch.tensor([[0.6, 0.52]], dtype=torch.float64), torch.tensor([0])
        defended = PurifiedClassifier(bare, first, step=0.001, n_steps=200)
        oblivious, adaptive = (PGD(net, 0.03, 0.01, 20, early_stop=False)(x, y) for net in (bare, defended))
        answers = [net(z).argmax(1).item() for z in (x, oblivious, adaptive) for net in (bare, defended)]
        assert answers == [0, 0, 1, 0, 0, 1]

    def test_weight_makes_adversaries_look_usual(self):
        vae = small_vae()
        x, y = torch.rand(20, 6, generator=generator(0), dtype=torch.float64), torch.zeros(20, dtype=torch.int64)
        scores = []
        for weight in (0.0, 0.1, 10.0):
            net = UsualLooking(vae, ELBOScore(vae, 0), weight)
            adversary = PGD(net, 0.2, 0.02, 30, loss=net.loss, early_stop=False)(x, y)
            with torch.no_grad():
                scores.append(float(vae.elbo(adversary, 0).mean()))
        assert scores[0] < scores[1] < scores[2]


class Saddle(nn.Module):
    """Class 0 where v (1 - 20 u) + u / 4 > 0, u and v the pixels less 0.5."""

    def forward(self, x):
        u, v = (x - 0.5).unbind(1)
        margin = v * (1 - 20 * u) + u / 4
        return torch.stack([margin, -margin], 1)


class TestBadInput:
    X = torch.full((3, 6), 0.5)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"step": 0.0}, ValueError),
            ({"step": "big"}, TypeError),
            ({"n_steps": -1}, ValueError),
            ({"n_steps": 1.5}, TypeError),
            ({"eps": -0.1}, ValueError),
            ({"eps": 0.0}, ValueError),
            ({"norm": 1}, ValueError),
            ({"n_restarts": 0}, ValueError),
            ({"start_noise": -1.0}, ValueError),
            ({"bounds": (1, 0)}, ValueError),
            ({"bounds": None}, ValueError),
            ({"batch_size": 0}, ValueError),
            ({"generator": 0}, TypeError),
            ({"mask": [0] * 6}, ValueError),
            ({"mask": [0.5] * 6}, ValueError),
            ({"mask": [1] * 5}, ValueError),
            pytest.param({"final_score": hill}, ValueError, id="final_score alone"),
        ],
        ids=str,
    )
    def test_options(self, options, error):
        with pytest.raises(error):
            purify(hill, self.X, **options)

    @pytest.mark.parametrize(
        ("x", "error", "words"),
        [
            (X + 1, ValueError, "within bounds"),
            (X - 1, ValueError, "within bounds"),
            (X / 0, ValueError, "NaN"),
            (X[0], ValueError, "shape"),
            (X[:0], ValueError, "at least one"),
            (X.long(), TypeError, "floating"),
            ([[0.5]], TypeError, "tensor"),
        ],
    )
    def test_samples(self, x, error, words):
        with pytest.raises(error, match=words):
            purify(hill, x)

    @pytest.mark.parametrize(
        ("score", "error", "words"),
        [
            (3, TypeError, "score must be"),
            (lambda x: x, ValueError, "one number a sample"),
            (lambda x: 1.0, ValueError, "got float"),
            (lambda x: x.sum(1) * float("nan"), ValueError, "NaN"),
            (lambda x: x.detach().sum(1), ValueError, "differentiable"),
            (lambda x: torch.zeros(len(x), requires_grad=True), ValueError, "do not depend"),
            (lambda x: (x - 0.5).abs().sqrt().sum(1), ValueError, "gradient"),
        ],
    )
    def test_scores(self, score, error, words):
        with pytest.raises(error, match=words):
            purify(score, self.X)

    def test_vaes(self):
        with pytest.raises(ValueError, match="obs_sigma"):
            VAEClassifier(nn.Identity(), nn.Identity(), nn.Identity(), obs_sigma=0.0)
        with pytest.raises(TypeError, match="head must be a torch"):
            VAEClassifier(nn.Identity(), nn.Identity(), "head")
        for wrong in (nn.Linear(2, 2), "vae"):
            with pytest.raises(TypeError, match="elbo"):
                ELBOScore(wrong)
            with pytest.raises(TypeError, match="VAEClassifier, got"):
                train_vae_classifier(wrong, self.X, [0, 1, 2])
        with pytest.raises(ValueError, match="networks do not take samples"):
            train_vae_classifier(small_vae(dtype=torch.float32), torch.rand(3, 5), [0, 1, 2])
        with pytest.raises(ValueError, match="2 m"):
            VAEClassifier(nn.Linear(6, 3), nn.Identity(), nn.Identity())(self.X)
        with pytest.raises(ValueError, match="n_samples"):
            small_vae(dtype=torch.float32).elbo(self.X, -1)
        per_axis = torch.distributions.Normal(0.0, 1.0)
        for size in (1, 2, 3):
            with pytest.raises(ValueError, match=r"prior.log_prob must map codes \(..., 2\)"):
                small_vae(prior=per_axis, dtype=torch.float32).elbo(torch.rand(size, 6))
        joint = small_vae(prior=torch.distributions.Independent(per_axis.expand([2]), 1), dtype=torch.float32)
        assert joint.elbo(torch.rand(3, 6)).shape == (3,)
        for width in (1, 7):
            wrong = VAEClassifier(nn.Linear(6, 4), nn.Linear(2, width), nn.Linear(2, 3))
            with pytest.raises(ValueError, match=r"6 numbers a code, the entries of a sample, got \(\d,\)"):
                wrong.elbo(torch.rand(3, 6))

    @pytest.mark.parametrize(
        ("y", "options", "error"),
        [
            ([0, 1, 3], {}, ValueError),
            ([0, 1, -1], {}, ValueError),
            ([0, 1], {}, ValueError),
            ([0.0, 1.0, 2.0], {}, TypeError),
            ([0, 1, 2], {"steps": 0}, ValueError),
            ([0, 1, 2], {"lr": -1.0}, ValueError),
            ([0, 1, 2], {"lam": -1.0}, ValueError),
            ([0, 1, 2], {"lr": 1e20, "steps": 30}, ValueError),
        ],
    )
    def test_training(self, y, options, error):
        with pytest.raises(error):
            train_vae_classifier(small_vae(dtype=torch.float32), self.X, y, **options)

    @pytest.mark.parametrize(
        ("y", "error", "words"),
        [
            ([0, 1, 3], ValueError, r"0\.\.2, the classes of the head, got 0\.\.3"),
            ([0, 1, -100], ValueError, r"got -100\.\.1"),  # which cross entropy leaves out without a word
            ([0, 1], ValueError, "shape"),
            ([0.0, 1.0, 2.0], TypeError, "integers"),
        ],
    )
    def test_labels_of_the_loss(self, y, error, words):
        with pytest.raises(error, match=words):
            small_vae(dtype=torch.float32).loss(self.X, torch.tensor(y))

    def test_a_comparison_of_one_walk(self):
        with pytest.raises(ValueError, match="final_score compares the ends of several walks"):
            purify(hill, self.X, final_score=hill)
        with pytest.raises(ValueError, match="final_score compares"):
            PurifiedClassifier(nn.Linear(6, 2), hill, final_score=hill)(self.X)
        assert torch.equal(purify(hill, self.X, final_score=hill, n_restarts=2, n_steps=0), self.X)

    def test_scores_and_adaptive_networks(self):
        with pytest.raises(TypeError, match="project"):
            ManifoldScore(nn.Identity())
        with pytest.raises(ValueError, match="stride"):
            DiffusionScore(hill, NoiseSchedule.linear(20, 0.01, 0.5), stride=21)
        with pytest.raises(TypeError, match="classifier"):
            PurifiedClassifier(hill, hill)
        with pytest.raises(ValueError, match="backward"):
            PurifiedClassifier(nn.Identity(), hill, backward="around")
        with pytest.raises(ValueError, match="n_draws"):
            PurifiedClassifier(nn.Identity(), hill, n_draws=0)
        with pytest.raises(ValueError, match="softness"):
            PurifiedClassifier(nn.Identity(), hill, softness=0.0)
        with pytest.raises(ValueError, match="n_restarts"):
            PurifiedClassifier(nn.Identity(), hill, backward="unrolled", n_restarts=2)
        for options, error in (({"n_steps": -1}, ValueError), ({"step": 0.0}, ValueError), ({"bounds": 1}, TypeError)):
            with pytest.raises((error, ValueError), match=next(iter(options))):
                PurifiedClassifier(nn.Identity(), hill, backward="unrolled", **options)(self.X.requires_grad_(True))
        with pytest.raises(TypeError, match="classifier"):
            UsualLooking(hill, hill)
        with pytest.raises(ValueError, match="weight"):
            UsualLooking(nn.Identity(), hill, -1.0)
        with pytest.raises(ValueError, match="just returned"):
            UsualLooking(nn.Identity(), hill).loss(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
