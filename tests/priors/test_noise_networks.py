"""Noise networks: what training teaches them, measured against the exact noise of Gaussian data."""

from __future__ import annotations

import math

import pytest
import torch

from manifoldkit.priors import NoiseMLP, NoiseSchedule, NoiseUNet, train_eps

S = 0.5  # standard deviation of the data
SCHEDULE = NoiseSchedule.linear(20, 0.01, 0.5)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(2))
def test_training_finds_the_exact_noise_at_every_time(seed):
    """And ends at the least loss there is, the mean over the times of the variance that x_t leaves to the noise."""
    data = S * torch.randn(5000, 2, generator=generator(seed))
    net = NoiseMLP(2, 20, width=32, frequencies=(), generator=generator(seed))
    losses = train_eps(net, data, SCHEDULE, steps=800, batch_size=512, lr=5e-3, generator=generator(seed))
    left = [SCHEDULE.at(t) * S**2 / (SCHEDULE.at(t) * S**2 + 1 - SCHEDULE.at(t)) for t in range(1, 21)]
    assert losses.shape == (800,)
    assert float(losses[-100:].mean()) == pytest.approx(sum(left) / 20, abs=0.01)
    for t in range(1, 21):
        abar = SCHEDULE.at(t)
        x = math.sqrt(abar * S**2 + 1 - abar) * torch.randn(1000, 2, generator=generator(100 + t))
        with torch.no_grad():
            found = net(x, torch.full((1000,), t))
        exact = math.sqrt(1 - abar) / (abar * S**2 + 1 - abar) * x
        assert (found - exact).square().mean() < 0.02


def test_training_follows_the_generator_alone_and_keeps_the_mode():
    data = torch.randn(100, 2, generator=generator(0))
    nets = [NoiseMLP(2, 20, width=8, generator=generator(1)).eval() for _ in range(2)]
    before = torch.random.get_rng_state()
    losses = [train_eps(net, data, SCHEDULE, steps=5, batch_size=16, generator=generator(2)) for net in nets]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(*losses)
    assert not nets[0].training
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda g: NoiseMLP(3, 20, width=16, generator=g), (3,)),
        (lambda g: NoiseUNet(2, 20, width=4, generator=g), (2, 8, 12)),
    ],
    ids=["MLP", "UNet"],
)
def test_rows_are_independent_times_matter_and_every_weight_learns(build, shape):
    net, x = build(generator(0)), torch.randn(5, *shape, generator=generator(1))
    times = torch.tensor([1, 5, 9, 13, 20])
    whole = net(x, times)
    assert whole.shape == x.shape
    for row in range(5):
        torch.testing.assert_close(net(x[row : row + 1], times[row : row + 1])[0], whole[row], atol=1e-5, rtol=1e-4)
    assert (net(x, times.flip(0))[0] - whole[0]).abs().max() > 1e-4
    whole.square().sum().backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in net.parameters())
    twin = build(generator(0))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_images_teach_a_convolutional_network():
    """One image only: the noise is then what is left, and the loss falls far below that of the prediction 0."""
    image = torch.rand(1, 1, 8, 8, generator=generator(0))
    net = NoiseUNet(1, 20, width=8, generator=generator(0))
    losses = train_eps(net, image, SCHEDULE, steps=150, batch_size=32, lr=5e-3, generator=generator(0))
    assert losses[:5].mean() > 0.7
    assert losses[-20:].mean() < 0.25
