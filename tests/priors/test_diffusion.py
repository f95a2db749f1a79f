"""Likelihoods and samplers of a diffusion model whose noise network is exact: that of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from manifoldkit.priors import NoiseMLP, NoiseSchedule, ddim_sample, ddpm_sample, diffusion_log_prob, rk4_sample


class GaussianNoise(torch.nn.Module):
    """The noise in data N(0, s^2 I), at any time; s is a number, or one for each entry."""

    continuous_time = True

    def __init__(self, schedule: NoiseSchedule, s: float | torch.Tensor) -> None:
        super().__init__()
        self.schedule, self.s = schedule, s

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = self.schedule.at(float(t[0]))
        return math.sqrt(1 - abar) * x / (abar * self.s**2 + 1 - abar)


def log_normal(x: torch.Tensor, s: float) -> torch.Tensor:
    return -0.5 * x.flatten(1).square().sum(1) / s**2 - 0.5 * x[0].numel() * math.log(2 * math.pi * s**2)


def smooth(n_steps: int, end: float = 0.002) -> NoiseSchedule:
    """The same diffusion cut into more or fewer steps."""
    return NoiseSchedule(torch.linspace(0, 1, n_steps + 1, dtype=torch.float64).square().mul(math.log(end)).exp())


def points(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 3, 20, 100])
@pytest.mark.parametrize("shape", [(2,), (1, 28, 28)])
def test_every_path_is_exact_for_standard_normal_data(stride, shape):
    """Then the reverse step has exactly the mean of the model and the variance "beta"."""
    schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = GaussianNoise(schedule, 1.0)
    draws = diffusion_log_prob(eps, x, schedule, stride=stride, n_rounds=4, reduce="none")
    assert draws.shape == (4, 3)
    torch.testing.assert_close(draws, log_normal(x, 1.0).expand(4, 3), rtol=1e-10, atol=1e-8)


def expected_bound(
    schedule: NoiseSchedule, x: torch.Tensor, s: float | torch.Tensor, stride: int, variance: str
) -> torch.Tensor:
    """Mean over paths of the estimate for data (N, D) from N(0, s^2 I), by the moments of Gaussians."""
    total = torch.zeros(len(x), dtype=torch.float64)
    times = schedule.grid(stride)
    for a, b in pairwise(times):
        abar_a, abar_b = schedule.at(a), schedule.at(b)
        beta = 1 - abar_b / abar_a
        share = (1 - abar_a) / (1 - abar_b) if variance == "posterior" and a > 0 else 1.0
        mean_a, var_a = math.sqrt(abar_a) * x, 1 - abar_a
        slope = 1 / (abar_b * s**2 + 1 - abar_b)  # eps_theta = sqrt(1 - abar_b) slope x_b
        # x_a - mu = x_a - (x_b - beta slope x_b) sqrt(abar_a / abar_b), x_b = sqrt(abar_b / abar_a) x_a + sqrt(beta) e
        keep = 1 - beta * slope
        on_x, on_e = 1 - keep, -keep * math.sqrt(beta * abar_a / abar_b)
        second = on_x**2 * (mean_a.square() + var_a) + on_e**2
        total += 0.5 * (1 - math.log(share) - second / (beta * share)).sum(1)
    last = schedule.at(times[-1])
    return total - 0.5 * (last * x.square() + 1 - last + math.log(2 * math.pi)).sum(1)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("stride", [1, 7])
def test_the_mean_over_paths_is_that_of_the_closed_form(variance, stride):
    schedule = NoiseSchedule.linear(40, 1e-3, 0.25)
    x = points(4, 3, 1)
    eps = GaussianNoise(schedule, 0.5)
    g = torch.Generator().manual_seed(0)
    draws = diffusion_log_prob(
        eps, x, schedule, stride=stride, n_rounds=4000, variance=variance, reduce="none", generator=g
    )
    error = (draws.mean(0) - expected_bound(schedule, x, 0.5, stride, variance)).abs()
    assert (error < 4.5 * draws.std(0) / math.sqrt(4000)).all()


def image_spread() -> torch.Tensor:
    """Standard deviations of 28 x 28 independent pixels, from 0.02 at one corner, as at rims of digits, to 1."""
    return torch.logspace(math.log10(0.02), 0, 784, dtype=torch.float64).reshape(1, 28, 28)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("stride", [1, 5, 20])
def test_images_have_the_bound_of_the_closed_form(variance, stride, seed):
    """Mean over paths for either variance of the steps, below the density as the logarithm of the mean is."""
    schedule, s = NoiseSchedule.linear(100, 1e-4, 0.1), image_spread()
    x = s * torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    options = {"stride": stride, "variance": variance, "n_rounds": 40, "generator": g}
    draws = diffusion_log_prob(GaussianNoise(schedule, s), x, schedule, reduce="none", **options)
    expected = expected_bound(schedule, x.flatten(1), s.flatten(), stride, variance)
    assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / math.sqrt(40)).all()
    exact = -0.5 * ((x / s).square() + 2 * s.log() + math.log(2 * math.pi)).flatten(1).sum(1)
    tighter = draws.logsumexp(0) - math.log(40)
    assert (tighter < exact).all()


def test_the_variance_with_the_tighter_bound_on_images_depends_on_the_stride():
    """Nats of 784 pixels below the density, on average: short steps want "beta", long ones "posterior"."""
    schedule, s = NoiseSchedule.linear(100, 1e-4, 0.1), image_spread().flatten()
    x = s * points(200, 784, 0)
    exact = -0.5 * ((x / s).square() + 2 * s.log() + math.log(2 * math.pi)).sum(1)
    gaps = {
        (stride, variance): float((exact - expected_bound(schedule, x, s, stride, variance)).mean())
        for stride in (1, 20)
        for variance in ("beta", "posterior")
    }
    said = {(1, "beta"): 130, (1, "posterior"): 3000, (20, "beta"): 850, (20, "posterior"): 750}  # by the docstring
    assert gaps == pytest.approx(said, rel=0.01)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_the_bound_grows_to_the_true_density_with_the_number_of_steps(s):
    """On average over the data it never exceeds it, and the gap shrinks as 1 / T."""
    x = s * points(4000, 2, 2)
    gaps = [
        float((log_normal(x, s) - expected_bound(smooth(T, 1e-6), x, s, 1, "beta")).mean()) for T in (50, 100, 200, 400)
    ]
    assert all(gap > 0 for gap in gaps)
    for coarse, fine in pairwise(gaps):
        assert 1.7 < coarse / fine < 2.3
    assert gaps[-1] < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_logmeanexp_is_never_below_the_mean_on_the_same_paths(seed):
    schedule = NoiseSchedule.linear(30, 1e-3, 0.3)
    x = points(20, 2, seed)
    net = NoiseMLP(2, 30, width=8, generator=torch.Generator().manual_seed(seed)).double()

    def score(reduce: str) -> torch.Tensor:
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return diffusion_log_prob(net, x, schedule, n_rounds=6, reduce=reduce, generator=g)

    draws = score("none")
    torch.testing.assert_close(score("mean"), draws.mean(0))
    torch.testing.assert_close(score("logmeanexp"), draws.exp().mean(0).log())
    assert (score("logmeanexp") >= score("mean")).all()


def test_float32_images_lose_no_nats_to_the_length_of_the_sum():
    schedule = NoiseSchedule.linear(1000)
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    eps = GaussianNoise(schedule, 1.0)
    found = diffusion_log_prob(eps, x, schedule, n_rounds=1)
    assert (found - log_normal(x.double(), 1.0)).abs().max() < 0.01


def test_batches_do_not_change_the_mean_and_the_network_keeps_its_mode():
    schedule = NoiseSchedule.linear(10, 0.05, 0.6)
    net = torch.nn.Module()
    net.dropout = torch.nn.Dropout(0.5)
    net.forward = lambda x, t: net.dropout(x)
    x = points(5, 2, 0)
    g = [torch.Generator().manual_seed(0) for _ in range(2)]
    first = diffusion_log_prob(net, x, schedule, n_rounds=1, generator=g[0])
    second = diffusion_log_prob(net, x, schedule, n_rounds=1, generator=g[1])
    torch.testing.assert_close(first, second, rtol=0, atol=0)  # dropout was off
    assert net.training
    assert net.dropout.training
    many = diffusion_log_prob(net, x, schedule, n_rounds=2000, batch_size=7000)
    few = diffusion_log_prob(net, x, schedule, n_rounds=2000, batch_size=999)
    assert (many - few).abs().max() < 0.5


class Largest(TorchDispatchMode):
    """The most entries of a tensor that any operation has returned."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, torch.Tensor):
            self.size = max(self.size, answer.numel())
        return answer


def test_rounds_go_by_in_batches_and_never_lie_in_memory_at_once():
    """Each batch holds the next rows of all rounds, in order, across the end of a round."""
    schedule = NoiseSchedule.linear(10, 0.05, 0.6)
    net = NoiseMLP(50, 10, width=4, frequencies=(), generator=torch.Generator().manual_seed(0)).double()
    x = points(6, 50, 0)
    with torch.no_grad():
        with Largest() as largest:
            found = diffusion_log_prob(
                net, x, schedule, n_rounds=30, batch_size=8, reduce="none", generator=torch.Generator().manual_seed(1)
            )
        assert largest.size == 8 * 50
        rows = diffusion_log_prob(
            net, x.repeat(30, 1), schedule, n_rounds=1, batch_size=8, generator=torch.Generator().manual_seed(1)
        )
    assert torch.equal(found.flatten(), rows)


def test_the_gradient_of_a_likelihood_is_that_of_differences():
    schedule = NoiseSchedule.linear(10, 0.05, 0.6)
    net = NoiseMLP(2, 10, width=8, generator=torch.Generator().manual_seed(0)).double()
    x = points(3, 2, 4).requires_grad_(True)

    def score(x: torch.Tensor) -> torch.Tensor:
        return diffusion_log_prob(net, x, schedule, n_rounds=2, generator=torch.Generator().manual_seed(0))

    (slope,) = torch.autograd.grad(score(x).sum(), x)
    step = 1e-5 * points(3, 2, 5)
    with torch.no_grad():
        change = (score(x + step) - score(x - step)).sum() / 2
    torch.testing.assert_close((slope * step).sum(), change, rtol=1e-6, atol=0)


@pytest.mark.parametrize("s", [0.3, 1.0, 3.0])
def test_the_noise_midpoint_makes_the_sampler_one_of_fourth_order(s):
    schedule = smooth(480)
    x = points(50, 2, 0)
    last = schedule.at(480)
    exact = x * math.sqrt(s**2 / (last * s**2 + 1 - last))  # the flow of the differential equation
    eps = GaussianNoise(schedule, s)

    def error(sampler, stride, **options):
        return float((sampler(eps, x, schedule, stride=stride, **options) - exact).norm() / exact.norm())

    assert error(rk4_sample, 12, midpoint="noise") > 10 * error(rk4_sample, 6, midpoint="noise")
    assert 1.7 < error(ddim_sample, 12) / error(ddim_sample, 6) < 2.3
    for stride in (12, 60):
        assert error(rk4_sample, stride, midpoint="noise") < 0.2 * error(ddim_sample, stride)
        assert error(rk4_sample, stride) < 0.5 * error(ddim_sample, stride)


@pytest.mark.parametrize(("transfer", "stride"), [("plain", 1), ("plain", 7), ("rk4", 1)])
def test_samples_have_the_moments_of_the_data(transfer, stride):
    """Ancestral steps of any length are exact for standard normal data; those with averaged noise if they are short."""
    schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    g = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, 1, generator=g, dtype=torch.float64)
    eps = GaussianNoise(schedule, 1.0)
    if transfer == "plain":
        x = ddpm_sample(eps, start, schedule, stride=stride, generator=g)
    else:
        x = rk4_sample(eps, start, schedule, stride=stride, transfer="ddpm", generator=g)
    assert abs(float(x.mean())) < 0.03
    assert abs(float(x.std()) - 1) < 0.03


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("stride", [1, 4])
def test_the_spread_at_every_time_is_that_of_the_variance_of_the_steps(variance, stride):
    """All data are 0: x_t has the variance 1 - abar_t with "posterior" in steps of any length, and more with "beta"."""
    schedule = NoiseSchedule.linear(50, 1e-3, 0.3)
    spread = {}

    def eps(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        spread[int(t[0])] = float(x.square().mean())
        return x / math.sqrt(1 - schedule.at(int(t[0])))

    g = torch.Generator().manual_seed(0)
    start = math.sqrt(1 - schedule.at(50)) * torch.randn(20_000, 1, generator=g, dtype=torch.float64)
    end = ddpm_sample(eps, start, schedule, variance=variance, stride=stride, generator=g)
    assert end.abs().max() < 1e-6
    times = schedule.grid(stride)
    assert sorted(spread) == times[1:]
    true, widest = 1 - schedule.at(50), 1.0
    for s, t in zip(times[-2:0:-1], times[:1:-1], strict=True):
        abar_s, abar_t = schedule.at(s), schedule.at(t)
        ratio, beta = abar_t / abar_s, 1 - abar_t / abar_s
        given_0_and_t = (1 - abar_s) * beta / (1 - abar_t)  # the variance of x_s for known x_0 and x_t
        true = ratio * ((1 - abar_s) / (1 - abar_t)) ** 2 * true + (given_0_and_t if variance == "posterior" else beta)
        assert spread[s] == pytest.approx(true, rel=0.06)  # six standard deviations of 20,000 squares
        widest = max(widest, spread[s] / (1 - abar_s))
    if variance == "posterior":
        assert true == pytest.approx(1 - schedule.at(times[1]))
    assert (widest > 1.3) is (variance == "beta")


@pytest.mark.parametrize("midpoint", ["time", "noise"])
def test_noise_between_integers_is_interpolated(midpoint):
    """A network linear in t gives the answer of one that knows all times; those of "noise" lie anywhere."""
    schedule = NoiseSchedule.linear(20, 0.01, 0.4)
    seen = []

    def integers(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t.dtype)
        return (0.1 + t.double() / 40)[:, None] * x

    class All(torch.nn.Module):
        continuous_time = True

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return (0.1 + t.double().clamp_min(1) / 40)[:, None] * x

    x = points(4, 2, 0)
    options = {"stride": 5, "midpoint": midpoint}
    torch.testing.assert_close(
        rk4_sample(integers, x, schedule, **options), rk4_sample(All(), x, schedule, **options), rtol=1e-12, atol=0
    )
    assert set(seen) == {torch.int64}


@pytest.mark.parametrize("make", [NoiseSchedule.linear, NoiseSchedule.cosine, lambda n: smooth(n)])
def test_schedules(make):
    schedule = make(1000)
    assert schedule.abar[0] == 1
    assert (schedule.abar.diff() < 0).all()
    assert schedule.between(3, 10) == pytest.approx(float(schedule.abar[10] / schedule.abar[3]))
    assert schedule.between(0, 7.5) == pytest.approx(math.sqrt(float(schedule.abar[7] * schedule.abar[8])))
    for t in (0.0, 0.25, 31.0, 999.5, 1000.0):
        assert schedule.time_at(schedule.at(t)) == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize("stride", [1, 3, 7, 10])
def test_a_grid_covers_every_step_once(stride):
    times = NoiseSchedule.linear(10, 0.1, 0.9).grid(stride)
    assert times[0] == 0
    assert times[-1] == 10
    steps = [b - a for a, b in pairwise(times)]
    assert all(0 < step <= stride for step in steps)
    assert all(step == stride for step in steps[:-1])
