"""How fast a diffusion turns data into noise."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from ..exceptions import ScheduleWarning
from ..isometry._input import check_size

__all__ = ["NoiseSchedule", "check_schedule"]


class NoiseSchedule:
    r"""The share of the signal that is left after t steps, :math:`\bar\alpha_t` for t = 0, ..., T.

    .. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon, \qquad
              \bar\alpha_{st} = \bar\alpha_t / \bar\alpha_s

    For times between the integers the logarithm of :math:`\bar\alpha` is interpolated linearly.

    Parameters
    ----------
    abar : sequence of T + 1 floats
        Strictly decreasing from 1, the last one positive. Kept in float64.

    Attributes
    ----------
    abar : Tensor (T + 1,), float64
    n_steps : int
        T.

    Raises
    ------
    ValueError
        If the numbers are not strictly decreasing from 1 to a positive one.

    Warns
    -----
    ScheduleWarning
        If more than 2 % of the variance of the signal is left at T, so that a standard normal is a poor model of x_T.

    References
    ----------
    .. [1] Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020.
    .. [2] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers
       in Computer Science 5:1253682, 2023, equations (9)-(13).

    Examples
    --------
    >>> schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    >>> schedule, round(float(schedule.abar[-1]), 4)
    (NoiseSchedule(n_steps=100), 0.0056)
    """

    def __init__(self, abar: Any) -> None:
        values = torch.as_tensor(abar, dtype=torch.float64, device="cpu").detach().clone()
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(f"abar must hold T + 1 >= 2 numbers, got shape {tuple(values.shape)}")
        if values[0] != 1:
            raise ValueError(f"abar must begin with 1 (no noise at t = 0), got {float(values[0])}: prepend 1")
        if not (values[1:] < values[:-1]).all():
            raise ValueError("abar must be strictly decreasing, every step has to add noise: look for repeated numbers")
        if not values[-1] > 0:
            raise ValueError(
                f"abar must end above 0, got {float(values[-1])}: reverse steps divide by it; stop a little earlier"
            )
        if values[-1] > 0.02:
            warnings.warn(
                f"abar ends at {float(values[-1]):.3g}: x_T still holds signal, a standard normal is a poor model of "
                "it; use more steps or larger betas until abar_T < 0.02",
                ScheduleWarning,
                stacklevel=2,
            )
        self.abar = values
        self.n_steps = len(values) - 1

    def __repr__(self) -> str:
        return f"NoiseSchedule(n_steps={self.n_steps})"

    @classmethod
    def linear(cls, n_steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> NoiseSchedule:
        r""":math:`\bar\alpha_t = \prod_{i \le t} (1 - \beta_i)` with betas that grow linearly.

        Parameters
        ----------
        n_steps : int, default=1000
            T.
        beta_min, beta_max : float, default=1e-4, 0.02
            First and last beta, ``0 < beta_min <= beta_max < 1``. The defaults suit T = 1000; for T = 100 take 0.1.

        Examples
        --------
        >>> NoiseSchedule.linear().abar[:2].tolist()
        [1.0, 0.9999]
        """
        n_steps = check_size(n_steps, "n_steps")
        if not 0 < beta_min <= beta_max < 1:
            raise ValueError(f"betas must satisfy 0 < beta_min <= beta_max < 1, got {beta_min!r} and {beta_max!r}")
        betas = torch.linspace(beta_min, beta_max, n_steps, dtype=torch.float64)
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)]))

    @classmethod
    def cosine(cls, n_steps: int = 1000, offset: float = 0.008, beta_limit: float = 0.999) -> NoiseSchedule:
        r""":math:`\bar\alpha_t \propto \cos^2(\frac{\pi}{2} \frac{t/T + s}{1 + s})`, with betas of at most a limit.

        Parameters
        ----------
        n_steps : int, default=1000
            T.
        offset : float, default=0.008
            s > 0; keeps the first betas from vanishing.
        beta_limit : float, default=0.999
            Largest beta, below 1, without which the last :math:`\bar\alpha` would be 0.

        References
        ----------
        .. [1] Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021.

        Examples
        --------
        >>> bool(0 < NoiseSchedule.cosine(50).abar[-1] < 1e-5)
        True
        """
        n_steps = check_size(n_steps, "n_steps")
        if not (offset > 0 and 0 < beta_limit < 1):
            raise ValueError(f"cosine needs offset > 0 and 0 < beta_limit < 1, got {offset!r} and {beta_limit!r}")
        angle = (torch.arange(n_steps + 1, dtype=torch.float64) / n_steps + offset) / (1 + offset) * math.pi / 2
        signal = torch.cos(angle) ** 2
        betas = (1 - signal[1:] / signal[:-1]).clamp_max(beta_limit)
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)]))

    def at(self, t: float) -> float:
        r""":math:`\bar\alpha_t` at a time in [0, T], not necessarily an integer."""
        if not 0 <= t <= self.n_steps:
            raise ValueError(f"t must lie in [0, {self.n_steps}], got {t!r}")
        low = min(int(t), self.n_steps - 1)
        share = t - low
        if share in (0, 1):
            return float(self.abar[int(t)])
        log = torch.log(self.abar[low : low + 2])
        return math.exp((1 - share) * float(log[0]) + share * float(log[1]))

    def between(self, s: float, t: float) -> float:
        r""":math:`\bar\alpha_{st} = \bar\alpha_t / \bar\alpha_s` of the step from s to t > s."""
        if not s < t:
            raise ValueError(f"a step must lead from s to a later t, got s={s!r}, t={t!r}")
        return self.at(t) / self.at(s)

    def time_at(self, abar: float) -> float:
        r"""The time at which :math:`\bar\alpha` has a value in :math:`[\bar\alpha_T, 1]`, the inverse of :meth:`at`.

        Examples
        --------
        >>> schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
        >>> round(schedule.time_at(schedule.at(12.25)), 9)
        12.25
        """
        if not float(self.abar[-1]) <= abar <= 1:
            raise ValueError(f"abar must lie in [{float(self.abar[-1]):.3g}, 1], got {abar!r}")
        log = torch.log(self.abar)
        goal = math.log(abar)
        low = min(int((log >= goal).sum()) - 1, self.n_steps - 1)
        return low + (goal - float(log[low])) / float(log[low + 1] - log[low])

    def grid(self, stride: int) -> list[int]:
        """The times 0, h, 2h, ..., T of a stride h; the last step is shorter if h does not divide T.

        Examples
        --------
        >>> NoiseSchedule.linear(10, 0.1, 0.9).grid(4)
        [0, 4, 8, 10]
        """
        stride = check_size(stride, "stride")
        if stride > self.n_steps:
            raise ValueError(f"stride must be at most the number of steps, {self.n_steps}, got {stride}")
        return [*range(0, self.n_steps, stride), self.n_steps]


def check_schedule(schedule: Any) -> NoiseSchedule:
    """A schedule, or an error that says how to make one."""
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(
            f"schedule must be a NoiseSchedule, got {type(schedule).__name__}: NoiseSchedule(abar) makes one of numbers"
        )
    return schedule
