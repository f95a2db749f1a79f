"""Samples from a diffusion model with steps of any length: ancestral, deterministic, and Runge-Kutta."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .._modules import evaluating
from ..isometry._input import finite_samples, fresh
from ._random import normal_like
from .diffusion import call, reverse_scale
from .noise_networks import NoiseNetwork
from .schedule import NoiseSchedule, check_schedule

__all__ = ["ddim_sample", "ddpm_sample", "rk4_sample"]


def ddpm_sample(
    eps: NoiseNetwork,
    start: Any,
    schedule: NoiseSchedule,
    *,
    stride: int = 1,
    variance: str = "beta",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Ancestral sampling, :math:`x_s = \mu_{st} + \sigma_{st}\, \varepsilon`, without noise in the last step.

    Parameters
    ----------
    eps : Module or callable
        ``eps(x, t)``, see :func:`~manifoldkit.priors.diffusion_log_prob`, also for the mean and variance of a step.
    start : Tensor (B, ...), floating
        x_T, standard normal numbers.
    schedule : NoiseSchedule
    stride : int, default=1
        t - s; at most T. The step from T is shorter if the stride does not divide T.
    variance : {"beta", "posterior"}, default="beta"
    generator : torch.Generator, optional
        Source of the noise; None is a fresh one.

    Returns
    -------
    Tensor (B, ...)

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the network answers with another shape, or NaN.

    References
    ----------
    .. [1] Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020.

    Examples
    --------
    >>> schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    >>> eps = lambda x, t: x / (1 - schedule.abar[t, None]).sqrt()  # all data are 0
    >>> ddpm_sample(eps, torch.randn(3, 2), schedule, stride=10).abs().max() < 1e-3
    tensor(True)
    """
    return _sample(eps, start, schedule, stride, "ddpm", variance, generator, rk4=False, midpoint="time")


def ddim_sample(eps: NoiseNetwork, start: Any, schedule: NoiseSchedule, *, stride: int = 1) -> torch.Tensor:
    r"""Deterministic sampling, :math:`x_s = \phi(x_t, \varepsilon_\theta(x_t, t), t, s)`.

    .. math:: \phi(x, e, t, s) = \sqrt{\bar\alpha_s}\, \frac{x - \sqrt{\bar\beta_t}\, e}{\sqrt{\bar\alpha_t}}
              + \sqrt{\bar\beta_s}\, e

    It is Euler's method for :math:`dy / d\sigma = \varepsilon` with :math:`y = x / \sqrt{\bar\alpha}` and
    :math:`\sigma = \sqrt{\bar\beta / \bar\alpha}`.

    Parameters
    ----------
    eps, start, schedule, stride
        As for :func:`ddpm_sample`.

    Returns
    -------
    Tensor (B, ...)

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the network answers with another shape, or NaN.

    References
    ----------
    .. [1] Song, Meng and Ermon, "Denoising diffusion implicit models", ICLR 2021.

    Examples
    --------
    >>> schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    >>> eps = lambda x, t: x / (1 - schedule.abar[t, None]).sqrt()  # all data are 0
    >>> ddim_sample(eps, torch.randn(3, 2), schedule, stride=10).abs().max() < 1e-3
    tensor(True)
    """
    return _sample(eps, start, schedule, stride, "ddim", "beta", None, rk4=False, midpoint="time")


def rk4_sample(
    eps: NoiseNetwork,
    start: Any,
    schedule: NoiseSchedule,
    *,
    stride: int = 1,
    transfer: str = "ddim",
    midpoint: str = "time",
    variance: str = "beta",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Sampling with the noise averaged over a step as by the classical Runge-Kutta method, four calls a step.

    With m between s and t: :math:`e_1 = \varepsilon(x_t, t)`, :math:`e_2 = \varepsilon(\phi(x_t, e_1, t, m), m)`,
    :math:`e_3 = \varepsilon(\phi(x_t, e_2, t, m), m)`, :math:`e_4 = \varepsilon(\phi(x_t, e_3, t, s), \max(s, 1))` and
    :math:`e = (e_1 + 2 e_2 + 2 e_3 + e_4) / 6` in the place of the noise of :func:`ddim_sample` or
    :func:`ddpm_sample`.

    The midpoint of the source is that in time, :math:`m = (s + t) / 2`. The differential equation, however, runs in
    :math:`\sigma = \sqrt{\bar\beta / \bar\alpha}`, and the midpoint in :math:`\sigma` makes the method one of fourth
    order; with that in time it is of second order at best, and of first near t = 0, where :math:`\sigma` grows as a
    root of t.

    A network is asked for integer times from 1 on, between which the noise is interpolated linearly (one more call),
    and that at t = 1 is taken for t = 0. One with an attribute ``continuous_time = True`` is asked for every time in
    [0, T] as it is.

    Parameters
    ----------
    eps, start, schedule, stride
        As for :func:`ddpm_sample`.
    transfer : {"ddim", "ddpm"}, default="ddim"
        Which step uses the averaged noise.
    midpoint : {"time", "noise"}, default="time"
        Middle of a step in t or in sigma.
    variance, generator
        As for :func:`ddpm_sample`, for ``transfer="ddpm"``.

    Returns
    -------
    Tensor (B, ...)

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the network answers with another shape, or NaN.

    References
    ----------
    .. [1] Liu, Ren, Lin and Zhao, "Pseudo numerical methods for diffusion models on manifolds", ICLR 2022.
    .. [2] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers
       in Computer Science 5:1253682, 2023, section on large steps (its formula is in a supplement).

    Examples
    --------
    >>> schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    >>> eps = lambda x, t: (1 - schedule.abar[t, None]).sqrt() * x  # standard normal data: nothing has to move
    >>> x = torch.randn(3, 2, dtype=torch.float64)
    >>> [round(float((f(eps, x, schedule, stride=20) - x).norm() / x.norm()), 3) for f in (ddim_sample, rk4_sample)]
    [0.232, 0.025]
    """
    if transfer not in ("ddim", "ddpm"):
        raise ValueError(f"transfer must be 'ddim' or 'ddpm', got {transfer!r}")
    if midpoint not in ("time", "noise"):
        raise ValueError(f"midpoint must be 'time' or 'noise', got {midpoint!r}")
    return _sample(eps, start, schedule, stride, transfer, variance, generator, rk4=True, midpoint=midpoint)


@torch.no_grad()
def _sample(
    eps: NoiseNetwork,
    start: Any,
    schedule: NoiseSchedule,
    stride: int,
    transfer: str,
    variance: str,
    generator: torch.Generator | None,
    *,
    rk4: bool,
    midpoint: str,
) -> torch.Tensor:
    if variance not in ("beta", "posterior"):
        raise ValueError(f"variance must be 'beta' or 'posterior', got {variance!r}")
    x = finite_samples(start, "start")
    generator = fresh(generator)
    times = check_schedule(schedule).grid(stride)
    modules = [eps] if isinstance(eps, nn.Module) else []
    with evaluating(*modules):
        for s, t in zip(times[-2::-1], times[:0:-1], strict=True):
            e = _averaged(eps, x, schedule, s, t, midpoint) if rk4 else call(eps, x, t)
            if transfer == "ddim":
                x = _transfer(x, e, schedule, t, s)
                continue
            a_st, beta_st, share = reverse_scale(schedule, s, t, variance)
            x = (x - beta_st / math.sqrt(1 - schedule.at(t)) * e) / math.sqrt(a_st)
            if s > 0:
                x = x + math.sqrt(share * beta_st) * normal_like(x, generator)
    return x


def _averaged(
    eps: NoiseNetwork, x: torch.Tensor, schedule: NoiseSchedule, s: int, t: int, midpoint: str
) -> torch.Tensor:
    m = (s + t) / 2
    if midpoint == "noise":
        sigma = (_sigma(schedule, s) + _sigma(schedule, t)) / 2
        m = schedule.time_at(1 / (1 + sigma**2))
    e1 = call(eps, x, t)
    e2 = _noise_at(eps, _transfer(x, e1, schedule, t, m), m)
    e3 = _noise_at(eps, _transfer(x, e2, schedule, t, m), m)
    e4 = _noise_at(eps, _transfer(x, e3, schedule, t, s), s)
    return (e1 + 2 * e2 + 2 * e3 + e4) / 6


def _sigma(schedule: NoiseSchedule, t: float) -> float:
    abar = schedule.at(t)
    return math.sqrt((1 - abar) / abar)


def _transfer(x: torch.Tensor, e: torch.Tensor, schedule: NoiseSchedule, t: float, s: float) -> torch.Tensor:
    a_t, a_s = schedule.at(t), schedule.at(s)
    return math.sqrt(a_s / a_t) * (x - math.sqrt(1 - a_t) * e) + math.sqrt(1 - a_s) * e


def _noise_at(eps: NoiseNetwork, x: torch.Tensor, t: float) -> torch.Tensor:
    """The noise at any time; of a network that knows integers from 1 on, interpolated, and that at 1 below 1."""
    if getattr(eps, "continuous_time", False):
        return call(eps, x, t)
    t = max(t, 1.0)
    low, share = int(t), t - int(t)
    if share == 0:
        return call(eps, x, low)
    return (1 - share) * call(eps, x, low) + share * call(eps, x, low + 1)
