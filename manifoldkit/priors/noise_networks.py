"""Networks that predict the noise in a sample, and how they are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from ..geometry.decoder import _home
from ..isometry._input import check_size, finite_samples, fresh
from ..isometry.networks import initialise
from ._random import normal_like
from ._training import minimise
from .schedule import NoiseSchedule, check_schedule

__all__ = ["NoiseMLP", "NoiseNetwork", "NoiseUNet", "train_eps"]

#: ``eps(x, t)``: noisy samples (B, ...) and times (B,) to the noise in them, (B, ...).
NoiseNetwork: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"

#: Sine and cosine pairs that tell a network the time.
N_WAVES = 16


class NoiseMLP(nn.Module):
    r"""A perceptron that predicts noise from sines and cosines of the sample, for points in few dimensions.

    The waves let a small network tell near points apart, those of two windings of a spiral for instance.

    Parameters
    ----------
    n_features : int
        Entries of a sample.
    n_steps : int
        T of the schedule; times may lie anywhere in [0, T].
    width, depth : int, default=128, 3
        Units of a hidden layer, number of them.
    frequencies : sequence of float, default=(1, 2, 4, 6, 9, 13)
        Angular frequencies of the waves, in radians per unit of the data; the sample itself is always an input.
    generator : torch.Generator, optional
        Source of the weights; None is a fresh one.

    Examples
    --------
    >>> NoiseMLP(2, 100)(torch.zeros(5, 2), torch.full((5,), 7)).shape
    torch.Size([5, 2])
    """

    frequencies: torch.Tensor

    def __init__(
        self,
        n_features: int,
        n_steps: int,
        *,
        width: int = 128,
        depth: int = 3,
        frequencies: Sequence[float] = (1, 2, 4, 6, 9, 13),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        width, depth = check_size(width, "width"), check_size(depth, "depth")
        n_features = check_size(n_features, "n_features")
        self.n_steps = check_size(n_steps, "n_steps")
        self.register_buffer("frequencies", torch.tensor(list(frequencies), dtype=torch.float32))
        sizes = [n_features * (1 + 2 * len(frequencies)), *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.times = nn.ModuleList(nn.Linear(2 * N_WAVES, width) for _ in self.layers)
        self.last = nn.Linear(width, n_features)
        initialise(self, generator)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if x[0].numel() != self.last.out_features:
            raise ValueError(
                f"samples have {x[0].numel()} entries, but the network was made for {self.last.out_features}: pass "
                f"n_features={x[0].numel()} to NoiseMLP"
            )
        phases = (x.flatten(1)[:, :, None] * self.frequencies.to(x)).flatten(1)
        h = torch.cat([x.flatten(1), torch.sin(phases), torch.cos(phases)], dim=1)
        clock = time_waves(t, self.n_steps).to(x)
        for layer, time in zip(self.layers, self.times, strict=True):
            h = functional.softplus(layer(h) + time(clock))
        result: torch.Tensor = self.last(h)
        return result.reshape(x.shape)


class NoiseUNet(nn.Module):
    r"""A small convolutional network with two halvings and skip connections that predicts noise in images.

    Parameters
    ----------
    n_channels : int
        Channels of an image; its height and width must be multiples of 4.
    n_steps : int
        T of the schedule; times may lie anywhere in [0, T].
    width : int, default=16
        Channels at full resolution; twice and four times as many below.
    generator : torch.Generator, optional
        Source of the weights; None is a fresh one.

    Raises
    ------
    ValueError
        In the call, if height or width is no multiple of 4.

    Examples
    --------
    >>> NoiseUNet(1, 1000)(torch.zeros(2, 1, 28, 28), torch.full((2,), 500)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self, n_channels: int, n_steps: int, *, width: int = 16, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        c, w = check_size(n_channels, "n_channels"), check_size(width, "width")
        self.n_steps = check_size(n_steps, "n_steps")
        self.enter = _Block(c, w)
        self.down = nn.ModuleList([_Block(w, 2 * w, stride=2), _Block(2 * w, 4 * w, stride=2)])
        self.middle = _Block(4 * w, 4 * w)
        self.up = nn.ModuleList([_Block(6 * w, 2 * w), _Block(3 * w, w)])
        self.last = nn.Conv2d(w, c, 3, padding=1)
        initialise(self, generator)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(f"images must have shape (B, C, 4 h, 4 w), got {tuple(x.shape)}: pad them")
        clock = time_waves(t, self.n_steps).to(x)
        fine = self.enter(x, clock)
        half = self.down[0](fine, clock)
        h = self.middle(self.down[1](half, clock), clock)
        for block, skip in zip(self.up, (half, fine), strict=True):
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = block(torch.cat([h, skip], dim=1), clock)
        result: torch.Tensor = self.last(h)
        return result


class _Block(nn.Module):
    """Two convolutions, the second around a skip connection, with the time added between them."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1)
        self.time = nn.Linear(2 * N_WAVES, n_out)
        self.norm = nn.GroupNorm(4 if n_out % 4 == 0 else 1, n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1)

    def forward(self, x: torch.Tensor, clock: torch.Tensor) -> torch.Tensor:
        h = self.first(x) + self.time(clock)[:, :, None, None]
        result: torch.Tensor = functional.silu(h + self.second(functional.silu(self.norm(h))))
        return result


def time_waves(t: torch.Tensor, n_steps: int) -> torch.Tensor:
    """Sines and cosines (B, 2 N_WAVES) of times (B,), with periods from 4 T down to T / 64, spaced geometrically."""
    scale = torch.logspace(0, 8, N_WAVES, base=2.0, device=t.device) * (math.pi / 2)
    phases = (t.float() / n_steps)[:, None] * scale
    return torch.cat([torch.sin(phases), torch.cos(phases)], dim=1)


def train_eps(
    net: nn.Module,
    X: Any,
    schedule: NoiseSchedule,
    *,
    steps: int = 8000,
    batch_size: int = 512,
    lr: float = 2e-3,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> torch.Tensor:
    r"""Teach a network the noise, :math:`\min E |\varepsilon - \varepsilon_\theta(x_t, t)|^2`, t uniform in 1, ..., T.

    Adam with a learning rate that falls to 0 as a cosine. The network keeps its mode, device and dtype.

    Parameters
    ----------
    net : Module
        ``net(x, t)``, see :data:`NoiseNetwork`; its parameters are changed.
    X : tensor or array (N, ...)
        Samples.
    schedule : NoiseSchedule
    steps, batch_size : int, default=8000, 512
        Number of updates, samples in each, drawn with repetition.
    lr : float, default=2e-3
        Learning rate at the start.
    generator : torch.Generator, optional
        Source of batches, times and noise; None is a fresh one.
    progress : bool, default=False
        Show a bar.

    Returns
    -------
    Tensor (steps,)
        Mean squared error an entry of each batch; 1 is that of the prediction 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, X holds NaN, the network has nothing to train or answers in another shape than that
        of its input, or the loss becomes NaN.

    References
    ----------
    .. [1] Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, equation (14).

    Examples
    --------
    >>> schedule = NoiseSchedule.linear(20, 0.01, 0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> losses = train_eps(NoiseMLP(1, 20, generator=g), torch.zeros(10, 1), schedule, steps=200, generator=g)
    >>> bool(losses[-20:].mean() < 0.5 * losses[:20].mean())
    True
    """
    generator = fresh(generator)
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}")
    check_schedule(schedule)
    data = finite_samples(X, "X")
    parameter = _home(net, net, data.float())
    data = data.to(parameter)
    root, noise_root = schedule.abar.sqrt().to(parameter), (1 - schedule.abar).sqrt().to(parameter)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        t = torch.randint(1, schedule.n_steps + 1, rows.shape, generator=generator, device=rows.device).to(data.device)
        x = data[rows.to(data.device)]
        noise = normal_like(x, generator)
        shape = (-1, *[1] * (x.ndim - 1))
        answer = net(root[t].reshape(shape) * x + noise_root[t].reshape(shape) * noise, t)
        if answer.shape != noise.shape:
            raise ValueError(
                f"the network must answer in the shape of its input, {tuple(noise.shape)}, got {tuple(answer.shape)}"
            )
        return (answer - noise).square().mean()

    return minimise(
        loss, net.parameters(), len(data), steps=steps, batch_size=batch_size, lr=lr, generator=generator,
        progress=progress, name="noise network", anneal=True,
    )  # fmt: skip
