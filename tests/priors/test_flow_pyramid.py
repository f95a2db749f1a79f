"""Volumes of maps, flows of other libraries behind one call, and the pyramid of flows."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from manifoldkit.defenses import purify
from manifoldkit.exceptions import RankDeficientWarning
from manifoldkit.priors import FlowPyramid, volume_log_det
from manifoldkit.priors.flows import from_normal, to_normal


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """y -> A y + B c as a flow, in the manner of normflows; the context may be missing."""

    def __init__(self, d: int, context: int, seed: int) -> None:
        super().__init__()
        g = generator(seed)
        self.A = nn.Parameter(torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, generator=g).double())
        self.B = nn.Parameter(torch.randn(d, max(context, 1), generator=g).double())

    def shift(self, context):
        return 0 if context is None else context @ self.B.T

    def inverse_and_log_det(self, y, context=None):
        return y @ self.A.T + self.shift(context), torch.linalg.slogdet(self.A)[1].expand(len(y))

    def forward(self, z, context=None):
        return torch.linalg.solve(self.A, (z - self.shift(context)).T).T


class Decoder(nn.Module):
    def __init__(self, d: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.layer = nn.Linear(d + math.prod(shape) // 4, math.prod(shape))

    def forward(self, y, coarser):
        return self.layer(torch.cat([y, coarser.flatten(1)], 1)).reshape(-1, *self.shape)


def linear_pyramid(seed: int = 0) -> FlowPyramid:
    torch.manual_seed(seed)
    encoders = [nn.Sequential(nn.Flatten(), nn.Linear(32, 5)), nn.Sequential(nn.Flatten(), nn.Linear(8, 3))]
    decoders = [Decoder(5, (2, 4, 4)), nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)))]
    return FlowPyramid(encoders, decoders, [Linear(5, 8, seed), Linear(3, 0, seed + 1)], (2, 4, 4)).double()


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (1, 4)])
def test_the_volume_of_a_linear_map(shape):
    W = torch.randn(shape, generator=generator(0), dtype=torch.float64)
    x = torch.randn(4, shape[1], generator=generator(1), dtype=torch.float64)
    found = volume_log_det(lambda x: x @ W.T, x)
    torch.testing.assert_close(found, (0.5 * torch.logdet(W @ W.T)).expand(4))


def test_the_volume_of_a_curved_map_is_that_of_its_jacobian():
    x = torch.rand(3, 2, generator=generator(0), dtype=torch.float64)
    found = volume_log_det(lambda x: torch.stack([x[:, 0] * x[:, 1], x[:, 0].exp()], 1), x)
    torch.testing.assert_close(found, (x[:, 0] * x[:, 0].exp()).abs().log())


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 6, 8)])
def test_the_volume_of_averaging_is_a_constant(shape):
    """2 x 2 averaging to n pixels has the volume 2^-n: it cannot change a ranking."""
    x = torch.rand(2, *shape, generator=generator(0), dtype=torch.float64)
    found = volume_log_det(lambda x: nn.functional.avg_pool2d(x, 2), x)
    n_out = math.prod(shape) // 4
    torch.testing.assert_close(found, torch.full((2,), -n_out * math.log(2), dtype=torch.float64))


def test_a_map_that_folds_has_no_volume_and_says_so():
    x = torch.randn(3, 4, generator=generator(0))
    with pytest.warns(RankDeficientWarning, match="3 of 3"):
        found = volume_log_det(lambda x: torch.stack([x[:, 0], 2 * x[:, 0]], 1), x)
    assert (found == -torch.inf).all()


@pytest.mark.parametrize("seed", range(3))
def test_levels_and_their_sum_have_the_closed_form_of_linear_maps(seed):
    pyramid = linear_pyramid(seed)
    x = torch.rand(6, 2, 4, 4, generator=generator(seed), dtype=torch.float64)
    with torch.no_grad():
        fine, coarse = pyramid.pyramid(x)
        torch.testing.assert_close(coarse, fine.reshape(6, 2, 2, 2, 2, 2).mean((3, 5)))
        y = pyramid.encode(x)
        context = pyramid.decode(y)[1].flatten(1)
        expected = []
        for level, (flow, extra) in enumerate(zip(pyramid.flows, (context @ pyramid.flows[0].B.T, 0), strict=True)):
            z = y[level] @ flow.A.T + extra
            W = pyramid.encoders[level][1].weight
            normal = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
            latent = normal + torch.linalg.slogdet(flow.A)[1]
            expected.append(latent + 0.5 * torch.logdet(W @ W.T))
            torch.testing.assert_close(pyramid.latent_log_prob(x, level), latent)
            torch.testing.assert_close(pyramid.level_log_prob(x, level), expected[level])
            bits = pyramid.latent_log_prob(x, level, per_dimension="bits")
            torch.testing.assert_close(bits, latent / z.shape[1] / math.log(2))
    torch.testing.assert_close(pyramid.log_prob(x, 0), expected[0])
    torch.testing.assert_close(pyramid.log_prob(x), expected[0] + expected[1] - 8 * math.log(2))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d], ids=lambda norm: norm.__name__)
@pytest.mark.parametrize(
    "ask",
    [
        lambda pyramid, x: torch.cat(pyramid.encode(x), 1),
        lambda pyramid, x: torch.cat([image.flatten(1) for image in pyramid.decode(pyramid.encode(x))], 1),
        lambda pyramid, x: pyramid.latent_log_prob(x),
        lambda pyramid, x: pyramid.level_log_prob(x, 0),
        lambda pyramid, x: pyramid.level_log_prob(x, 0, per_dimension="bits"),
        lambda pyramid, x: pyramid.log_prob(x),
        lambda pyramid, x: pyramid.sample(len(x), generator=generator(0)),
    ],
    ids=["encode", "decode", "latent", "level", "bits", "all levels", "sample"],
)
@pytest.mark.parametrize("n", [1, 5])
def test_batch_statistics_in_training_mode_are_neither_used_nor_changed(norm, ask, n):
    pyramid = linear_pyramid()
    if norm is nn.BatchNorm1d:
        for i, size in enumerate((5, 3)):
            pyramid.encoders[i].append(norm(size).double())
        pyramid.decoders[1].insert(0, norm(3).double())
    else:
        for encoder in pyramid.encoders:
            encoder.insert(0, norm(2).double())
        pyramid.decoders[1].append(norm(2).double())
    pyramid.train()
    before = {name: value.clone() for name, value in pyramid.state_dict().items()}
    x = torch.rand(n, 2, 4, 4, generator=generator(0), dtype=torch.float64)
    first, second = ask(pyramid, x), ask(pyramid, x)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in pyramid.state_dict().items())
    assert all(module.training for module in pyramid.modules())
    torch.testing.assert_close(ask(pyramid.eval(), x), first, rtol=0, atol=0)


def test_training_uses_and_learns_batch_statistics():
    pyramid = linear_pyramid()
    for encoder in pyramid.encoders:
        encoder.insert(0, nn.BatchNorm2d(2).double())
    before = pyramid.encoders[1][0].running_mean.clone()
    x = torch.rand(50, 2, 4, 4, generator=generator(0), dtype=torch.float64)
    pyramid.train_autoencoders(x, steps=3)
    learned = pyramid.encoders[1][0].running_mean.clone()
    assert not torch.equal(learned, before)
    pyramid.train_flows(x, steps=3)
    assert torch.equal(pyramid.encoders[1][0].running_mean, learned)


def curved_pyramid(seed: int) -> FlowPyramid:
    """Encoders whose volume element depends on the image."""
    pyramid = linear_pyramid(seed)
    for encoder in pyramid.encoders:
        encoder.append(nn.Tanh())
    return pyramid


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_the_score_is_that_of_differences(seed):
    pyramid = curved_pyramid(seed)
    x = torch.rand(3, 2, 4, 4, generator=generator(seed), dtype=torch.float64)
    leaf = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(pyramid.log_prob(leaf).sum(), leaf)
    move = 1e-5 * torch.randn(x.shape, generator=generator(seed + 1), dtype=torch.float64)
    change = (pyramid.log_prob(x + move) - pyramid.log_prob(x - move)) / 2
    torch.testing.assert_close((slope * move).flatten(1).sum(1), change, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(pyramid.log_prob(leaf).detach(), pyramid.log_prob(x), rtol=1e-12, atol=0)
    assert not pyramid.log_prob(x).requires_grad
    with torch.no_grad():
        assert not pyramid.log_prob(leaf).requires_grad
    assert all(parameter.grad is None for parameter in pyramid.parameters())


def test_the_score_can_be_climbed():
    pyramid = curved_pyramid(0)
    x = torch.rand(4, 2, 4, 4, generator=generator(0))  # of another dtype than the networks
    found = purify(pyramid.log_prob, x, step=0.01, n_steps=10)
    assert (found - x).abs().max() <= 0.1 + 1e-6
    assert (pyramid.log_prob(found) > pyramid.log_prob(x) + 0.1).all()


def test_samples_come_from_normal_codes_through_flows_and_decoders():
    pyramid = linear_pyramid()
    x = pyramid.sample(4, temperature=0.0)
    with torch.no_grad():
        coarse = pyramid.decoders[1](pyramid.flows[1](torch.zeros(4, 3, dtype=torch.float64)))
        y = pyramid.flows[0](torch.zeros(4, 5, dtype=torch.float64), coarse.flatten(1))
        torch.testing.assert_close(x, pyramid.decoders[0](y, coarse))
        seen = torch.rand(1, 2, 2, 2, generator=generator(0), dtype=torch.float64)
        finer = pyramid.sample(4, seen, generator=generator(1))
        y = [pyramid.flows[0](torch.randn(4, 5, generator=generator(1), dtype=torch.float64), seen.flatten(1))]
        torch.testing.assert_close(finer, pyramid.decoders[0](y[0], seen.expand(4, 2, 2, 2)))


def test_training_is_in_two_phases_and_keeps_modes():
    pyramid = linear_pyramid()
    x = torch.rand(200, 2, 4, 4, generator=generator(0), dtype=torch.float64)
    pyramid.eval()
    flows = [p.clone() for p in pyramid.flows.parameters()]
    first = pyramid.train_autoencoders(x, steps=150, lr=0.01, generator=generator(1))
    assert first[-20:].mean() < 0.7 * first[:5].mean()
    assert all(torch.equal(a, b) for a, b in zip(flows, pyramid.flows.parameters(), strict=True))
    rest = [p.clone() for part in (pyramid.encoders, pyramid.decoders) for p in part.parameters()]
    second = pyramid.train_flows(x, steps=300, lr=0.03, generator=generator(1))
    assert second[-20:].mean() < second[:5].mean() - 1
    after = [p for part in (pyramid.encoders, pyramid.decoders) for p in part.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(rest, after, strict=True))
    assert not any(module.training for module in pyramid.modules())


def flows_of_libraries(name: str, context: int, d: int = 4) -> nn.Module:
    if name == "zuko":
        zuko = pytest.importorskip("zuko")
        return zuko.flows.RealNVP(d, context=context, transforms=2, hidden_features=(16,))
    normflows = pytest.importorskip("normflows")
    base = normflows.distributions.DiagGaussian(d, trainable=False)
    if context:
        steps = [
            normflows.flows.AutoregressiveRationalQuadraticSpline(d, 1, 16, num_context_channels=context)
            for _ in range(2)
        ]
        return normflows.ConditionalNormalizingFlow(base, steps)
    layers = []
    for _ in range(2):
        network = normflows.nets.MLP([d // 2, 16, d], init_zeros=False)
        layers += [normflows.flows.AffineCouplingBlock(network), normflows.flows.Permute(d, mode="swap")]
    return normflows.NormalizingFlow(base, layers)


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("library", ["zuko", "normflows"])
def test_flows_of_other_libraries(library, context):
    """They are inverted, their determinants are those of the Jacobian, and the density is the one they report."""
    torch.manual_seed(0)
    flow = flows_of_libraries(library, context).double()
    for parameter in flow.parameters():  # some begin as the identity
        parameter.data += 0.2 * torch.randn_like(parameter)
    y = torch.randn(5, 4, dtype=torch.float64)
    c = torch.randn(5, context, dtype=torch.float64) if context else None
    with torch.no_grad():
        z, log_det = to_normal(flow, y, c)
        assert (z - y).abs().max() > 0.01
        torch.testing.assert_close(from_normal(flow, z, c), y, atol=1e-5, rtol=1e-5)
        ours = torch.distributions.Normal(0, 1).log_prob(z).sum(1) + log_det
        if library == "zuko":
            theirs = (flow(c) if context else flow()).log_prob(y)
        else:
            theirs = flow.log_prob(y, c) if context else flow.log_prob(y)
        torch.testing.assert_close(ours, theirs)
    for i in range(5):
        own = None if c is None else c[i : i + 1]
        J = torch.autograd.functional.jacobian(lambda y, own=own: to_normal(flow, y[None], own)[0][0], y[i])
        torch.testing.assert_close(torch.linalg.slogdet(J)[1], log_det[i], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("fine", "coarse"),
    [("zuko", "zuko"), ("normflows", "normflows"), ("zuko", "normflows"), ("normflows", "zuko")],
)
def test_a_pyramid_of_flows_of_either_library_ranks_digits_above_scrambled_ones(fine, coarse):
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    torch.manual_seed(0)
    flows = [flows_of_libraries(fine, 16, 10), flows_of_libraries(coarse, 0, 6)]
    data = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    train, test = data[:1400], data[1400:1500]
    encoders = [
        nn.Sequential(nn.Flatten(), nn.Linear(n, 64), nn.Tanh(), nn.Linear(64, d)) for n, d in ((64, 10), (16, 6))
    ]

    class Plain(nn.Module):
        def __init__(self, n_in: int, side: int) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(n_in, 64), nn.Tanh(), nn.Linear(64, side**2))
            self.side = side

        def forward(self, y, coarser=None):
            y = y if coarser is None else torch.cat([y, coarser.flatten(1)], 1)
            return self.net(y).reshape(-1, 1, self.side, self.side)

    pyramid = FlowPyramid(encoders, [Plain(26, 8), Plain(6, 4)], flows, (1, 8, 8))
    pyramid.train_autoencoders(train, steps=200, lr=5e-3, generator=generator(0))
    losses = pyramid.train_flows(train, steps=200, lr=5e-3, generator=generator(1))
    assert losses[-20:].mean() < losses[:5].mean() - 1
    scrambled = test.flatten(1)[:, torch.randperm(64, generator=generator(2))].reshape(test.shape)
    scores = torch.cat([pyramid.log_prob(test), pyramid.log_prob(scrambled)])
    assert roc_auc_score([1] * len(test) + [0] * len(test), scores) > 0.9
    levels = pyramid.pyramid(test[:3])
    codes = pyramid.encode(test[:3])
    given = pyramid.decode(codes)[1].flatten(1).double()
    with torch.no_grad():  # each level there and back, given the level below
        for flow, y, context in zip(flows, codes, (given, None), strict=True):
            exact, y = copy.deepcopy(flow).double(), y.double()
            torch.testing.assert_close(
                from_normal(exact, to_normal(exact, y, context)[0], context), y, atol=1e-6, rtol=1e-6
            )
    leaf = test[:3].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(pyramid.log_prob(leaf).sum(), leaf)
    assert torch.isfinite(slope).all()
    assert (slope != 0).any()
    for sampled in (pyramid.sample(3, generator=generator(3)), pyramid.sample(3, levels[1], generator=generator(3))):
        assert sampled.shape == (3, 1, 8, 8)
        assert torch.isfinite(sampled).all()


class TestBadInput:
    def parts(self):
        pyramid = linear_pyramid()
        return list(pyramid.encoders), list(pyramid.decoders), list(pyramid.flows)

    @pytest.mark.parametrize("shape", [(2, 5, 4), (2, 4, 7)])
    def test_sizes_that_cannot_be_halved(self, shape):
        with pytest.raises(ValueError, match="cannot be halved"):
            FlowPyramid(*self.parts(), shape)

    def test_lists_of_different_lengths(self):
        encoders, decoders, flows = self.parts()
        with pytest.raises(ValueError, match="every level needs"):
            FlowPyramid(encoders[:1], decoders, flows, (2, 4, 4))
        with pytest.raises(ValueError, match="every level needs"):
            FlowPyramid([], [], [], (2, 4, 4))

    def test_shapes(self):
        with pytest.raises(ValueError, match="C, H, W"):
            FlowPyramid(*self.parts(), (4, 4))
        pyramid = linear_pyramid()
        with pytest.raises(ValueError, match="x must have shape"):
            pyramid.log_prob(torch.zeros(3, 1, 4, 4))
        with pytest.raises(ValueError, match="NaN"):
            pyramid.log_prob(torch.full((3, 2, 4, 4), float("nan")))
        with pytest.raises(ValueError, match="condition must hold"):
            pyramid.sample(3, torch.zeros(3, 2, 3, 3))
        with pytest.raises(ValueError, match="condition must hold"):
            pyramid.sample(3, torch.zeros(2, 2, 2, 2))

    @pytest.mark.parametrize("level", [-1, 2])
    def test_levels(self, level):
        with pytest.raises(ValueError, match="level"):
            linear_pyramid().latent_log_prob(torch.zeros(1, 2, 4, 4), level)

    def test_numbers(self):
        pyramid, x = linear_pyramid(), torch.zeros(1, 2, 4, 4)
        with pytest.raises(ValueError, match="per_dimension"):
            pyramid.latent_log_prob(x, per_dimension="hartleys")
        with pytest.raises(ValueError, match="temperature"):
            pyramid.sample(1, temperature=-1.0)
        with pytest.raises(ValueError, match="n must be at least"):
            pyramid.sample(0)
        for options in ({"steps": 0}, {"batch_size": 0}, {"lr": 0.0}):
            with pytest.raises(ValueError, match=next(iter(options))):
                pyramid.train_flows(x, **options)

    def test_flows_of_an_unknown_kind_or_size(self):
        class Nothing(nn.Module):
            def forward(self):
                return None

        with pytest.raises(TypeError, match="zuko"):
            to_normal(Nothing(), torch.zeros(2, 4), None)

        class Narrow(nn.Module):
            def inverse_and_log_det(self, y):
                return y[:, :2], y[:, 0]

        with pytest.raises(ValueError, match="number of features"):
            to_normal(Narrow(), torch.zeros(2, 4), None)

    def test_maps_with_more_answers_than_entries(self):
        with pytest.raises(ValueError, match="dependent"):
            volume_log_det(lambda x: torch.cat([x, x], 1), torch.zeros(2, 3))
