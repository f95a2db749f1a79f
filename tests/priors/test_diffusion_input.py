"""Bad input of schedules, noise networks, likelihoods and samplers."""

from __future__ import annotations

import warnings

import pytest
import torch

from manifoldkit.exceptions import ScheduleWarning
from manifoldkit.priors import (
    NoiseMLP,
    NoiseSchedule,
    NoiseUNet,
    ddim_sample,
    ddpm_sample,
    diffusion_log_prob,
    rk4_sample,
    train_eps,
)

SCHEDULE = NoiseSchedule.linear(20, 0.01, 0.5)
X = torch.zeros(3, 2)


def eps(x, t):
    return x


@pytest.mark.parametrize(
    ("abar", "words"),
    [
        ([1.0], "T \\+ 1 >= 2"),
        ([[1.0, 0.5]], "shape"),
        ([0.9, 0.01], "begin with 1"),
        ([1.0, 0.5, 0.5, 0.01], "strictly decreasing"),
        ([1.0, 0.5, 0.6, 0.01], "strictly decreasing"),
        ([1.0, float("nan"), 0.01], "strictly decreasing"),
        ([1.0, 0.5, 0.0], "end above 0"),
        ([1.0, 0.5, -0.1], "end above 0"),
    ],
)
def test_schedules_that_are_none(abar, words):
    with pytest.raises(ValueError, match=words):
        NoiseSchedule(abar)


def test_a_schedule_that_ends_early_warns():
    with pytest.warns(ScheduleWarning, match="still holds signal"):
        schedule = NoiseSchedule.linear(100, 1e-4, 0.02)
    assert schedule.at(100) == pytest.approx(0.36, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert NoiseSchedule.linear(100, 1e-4, 0.1).at(100) == pytest.approx(0.006, abs=0.001)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: NoiseSchedule.linear(0), ValueError),
        (lambda: NoiseSchedule.linear(10.0), TypeError),
        (lambda: NoiseSchedule.linear(10, 0.0, 0.5), ValueError),
        (lambda: NoiseSchedule.linear(10, 0.5, 0.1), ValueError),
        (lambda: NoiseSchedule.linear(10, 0.5, 1.0), ValueError),
        (lambda: NoiseSchedule.cosine(10, offset=0.0), ValueError),
        (lambda: NoiseSchedule.cosine(10, beta_limit=1.0), ValueError),
        (lambda: SCHEDULE.at(21), ValueError),
        (lambda: SCHEDULE.at(-0.1), ValueError),
        (lambda: SCHEDULE.between(3, 3), ValueError),
        (lambda: SCHEDULE.time_at(1.5), ValueError),
        (lambda: SCHEDULE.time_at(1e-12), ValueError),
    ],
)
def test_numbers_out_of_range(make, error):
    with pytest.raises(error):
        make()


@pytest.mark.parametrize(
    "sampler", [diffusion_log_prob, ddpm_sample, ddim_sample, rk4_sample], ids=lambda f: f.__name__
)
class TestEverySampler:
    @pytest.mark.parametrize(
        ("stride", "error"), [(0, ValueError), (-1, ValueError), (21, ValueError), (2.0, TypeError)]
    )
    def test_strides(self, sampler, stride, error):
        with pytest.raises(error, match="stride"):
            sampler(eps, X, SCHEDULE, stride=stride)

    def test_networks_that_answer_in_another_shape(self, sampler):
        with pytest.raises(ValueError, match="shape of x"):
            sampler(lambda x, t: x[:, :1], X, SCHEDULE)

    def test_networks_that_answer_no_tensor(self, sampler):
        with pytest.raises(ValueError, match="got tuple"):
            sampler(lambda x, t: (x,), X, SCHEDULE)

    def test_networks_that_answer_nan(self, sampler):
        with pytest.raises(ValueError, match="NaN or infinity at t"):
            sampler(lambda x, t: x * float("nan"), X, SCHEDULE)

    @pytest.mark.parametrize(
        ("x", "error"),
        [
            (torch.zeros(3), ValueError),
            (torch.zeros(3, 2, dtype=torch.int64), TypeError),
            (torch.full((3, 2), float("nan")), ValueError),
            (torch.full((3, 2), float("inf")), ValueError),
        ],
    )
    def test_samples(self, sampler, x, error):
        with pytest.raises(error):
            sampler(eps, x, SCHEDULE)


@pytest.mark.parametrize(
    "options", [{"variance": "small"}, {"reduce": "sum"}, {"n_rounds": 0}, {"batch_size": 0}], ids=str
)
def test_likelihood_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        diffusion_log_prob(eps, X, SCHEDULE, **options)


def test_sampler_options():
    with pytest.raises(ValueError, match="transfer"):
        rk4_sample(eps, X, SCHEDULE, transfer="euler")
    with pytest.raises(ValueError, match="midpoint"):
        rk4_sample(eps, X, SCHEDULE, midpoint="half")
    with pytest.raises(ValueError, match="variance"):
        ddpm_sample(eps, X, SCHEDULE, variance="small")
    with pytest.raises(TypeError, match="generator"):
        ddpm_sample(eps, X, SCHEDULE, generator=0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"steps": 0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"lr": 0.0}, ValueError),
        ({"generator": 3}, TypeError),
    ],
    ids=str,
)
def test_training_options(options, error):
    with pytest.raises(error):
        train_eps(NoiseMLP(2, 20, width=4), X, SCHEDULE, **options)


def test_training_data():
    with pytest.raises(ValueError, match="NaN"):
        train_eps(NoiseMLP(2, 20, width=4), X / 0, SCHEDULE)
    with pytest.raises(ValueError, match="at least one"):
        train_eps(NoiseMLP(2, 20, width=4), X[:0], SCHEDULE)

    class Wrong(NoiseMLP):
        def forward(self, x, t):
            return super().forward(x, t)[:, :1]

    with pytest.raises(ValueError, match="shape of its input"):
        train_eps(Wrong(2, 20, width=4), X, SCHEDULE, steps=1)


def test_networks_that_are_none_or_of_another_width():
    net = NoiseMLP(2, 20, width=4)
    for call in (diffusion_log_prob, ddim_sample):
        with pytest.raises(TypeError, match="eps must be a Module or a function"):
            call(None, X, SCHEDULE)
        with pytest.raises(ValueError, match="n_features=5"):
            call(net, torch.zeros(3, 5), SCHEDULE)
    with pytest.raises(TypeError, match="net must be a torch"):
        train_eps("net", X, SCHEDULE)
    with pytest.raises(TypeError, match="lr must be a real number"):
        train_eps(net, X, SCHEDULE, lr="small")


def test_networks_that_cannot_be_trained():
    frozen = NoiseMLP(2, 20, width=4).requires_grad_(False)
    for net in (torch.nn.Identity(), frozen):
        with pytest.raises(ValueError, match="no parameter that requires a gradient"):
            train_eps(net, X, SCHEDULE, steps=1)
    with pytest.raises(ValueError, match=r"after \d updates: lower lr"):
        train_eps(NoiseMLP(2, 20, width=4), torch.rand(9, 2), SCHEDULE, steps=10, lr=1e30)


@pytest.mark.parametrize("call", [diffusion_log_prob, ddpm_sample, ddim_sample, rk4_sample])
def test_numbers_in_the_place_of_a_schedule_and_infinite_answers(call):
    with pytest.raises(TypeError, match="must be a NoiseSchedule, got Tensor"):
        call(eps, X, SCHEDULE.abar)
    with pytest.raises(ValueError, match="NaN or infinity at t"):
        call(lambda x, t: x / 0, X + 1, SCHEDULE)
    with pytest.raises(TypeError, match="must be a NoiseSchedule"):
        train_eps(NoiseMLP(2, 20, width=4), X, SCHEDULE.abar)


@pytest.mark.parametrize("sampler", [ddpm_sample, ddim_sample, rk4_sample])
def test_samples_of_another_dtype_than_the_network(sampler):
    """The network is asked in its dtype; the answer has that of the samples."""
    g = torch.Generator().manual_seed(0)
    net, start = NoiseMLP(2, 20, width=4, generator=g), torch.randn(5, 2, generator=g)
    single = sampler(net, start, SCHEDULE, **({} if sampler is ddim_sample else {"generator": g.manual_seed(1)}))
    double = sampler(
        net, start.double(), SCHEDULE, **({} if sampler is ddim_sample else {"generator": g.manual_seed(1)})
    )
    assert double.dtype == torch.float64
    if sampler is not ddpm_sample:  # whose noise has other digits
        torch.testing.assert_close(double.float(), single, atol=1e-4, rtol=1e-4)
    bound = diffusion_log_prob(net, start.double(), SCHEDULE, n_rounds=2)
    assert torch.isfinite(bound).all()


def test_images_that_cannot_be_halved_twice():
    with pytest.raises(ValueError, match="pad"):
        NoiseUNet(1, 10)(torch.zeros(1, 1, 30, 28), torch.ones(1))
