"""How an attack gets from one point to the next: plain steps, momentum, steps that adapt, line search.

A step rule turns the gradient at the points of a batch into the next points; the constraint says which directions and
points there are. Rules keep a state for each sample and forget the samples that leave.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from manifoldkit.attacks._input import column
from manifoldkit.attacks.constraints import Constraint

__all__ = ["AdaptiveSteps", "FixedSteps", "LineSearch", "MomentumSteps", "NesterovSteps", "StepRule"]


class StepRule(ABC):
    """The next points of a batch.

    Attributes
    ----------
    memoryless : bool
        Whether the step depends on the point alone, so that a walk which stands still will do so for ever.
    keeps_best : bool
        Whether the answer of a walk is its point of the largest objective instead of its last one.
    looks_ahead : bool
        Whether the gradient is taken at :meth:`ahead` instead of at the point itself.

    Parameters
    ----------
    alpha : Tensor (B,)
        Length of a step for each sample.
    like : Tensor (B, ...)
        Points of the walk, for shape, dtype and device.
    """

    memoryless = True
    keeps_best = False
    looks_ahead = False

    def __init__(self, alpha: torch.Tensor, like: torch.Tensor) -> None:
        self.alpha = column(alpha, like)

    def ahead(self, constraint: Constraint, x: torch.Tensor) -> torch.Tensor:
        """Points (B, ...) at which the gradient of the next step is taken."""
        return x

    @abstractmethod
    def advance(
        self,
        constraint: Constraint,
        x: torch.Tensor,
        gradient: torch.Tensor | None,
        objective: torch.Tensor,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Next points (B, ...), and which samples have a direction to go, (B,) bool.

        `value` gives the objective (B,) at trial points.
        """

    def select(self, keep: torch.Tensor) -> None:
        """Forget the samples where `keep`, a (B,) bool tensor, is False."""
        self.alpha = self.alpha[keep]


class FixedSteps(StepRule):
    r""":math:`x \leftarrow \Pi(x + \alpha d(g))`."""

    def advance(
        self,
        constraint: Constraint,
        x: torch.Tensor,
        gradient: torch.Tensor | None,
        objective: torch.Tensor,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        direction = constraint.direction(x, gradient)
        return constraint.project(x + self.alpha * direction), direction.flatten(1).any(dim=1)


class MomentumSteps(FixedSteps):
    r"""Fixed steps along a sum of gradients, :math:`m \leftarrow \mu m + g / |g|_1`.

    References
    ----------
    .. [1] Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
    """

    memoryless = False

    def __init__(self, alpha: torch.Tensor, like: torch.Tensor, decay: float) -> None:
        super().__init__(alpha, like)
        self.decay = decay
        self.sum = torch.zeros_like(like)

    def advance(
        self,
        constraint: Constraint,
        x: torch.Tensor,
        gradient: torch.Tensor | None,
        objective: torch.Tensor,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert gradient is not None
        size = gradient.flatten(1).abs().mean(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
        self.sum = self.decay * self.sum + gradient / column(size, gradient)
        return super().advance(constraint, x, self.sum, objective, value)

    def select(self, keep: torch.Tensor) -> None:
        super().select(keep)
        self.sum = self.sum[keep]


class NesterovSteps(MomentumSteps):
    r"""Steps along a sum of gradients, each taken where the sum so far would lead.

    .. math:: g \leftarrow \mu g + \frac{\nabla L(\tilde x)}{|\nabla L(\tilde x)|_1}, \qquad
              \tilde x = \Pi(x + \alpha \mu g), \qquad x \leftarrow \Pi(x + \alpha d(g))

    The source looks ahead without the projection, so that its gradients may be those of images that do not exist.

    References
    ----------
    .. [1] Lin, Song, He, Wang and Hopcroft, "Nesterov accelerated gradient and scale invariance for adversarial
       attacks", ICLR 2020.
    """

    looks_ahead = True

    def ahead(self, constraint: Constraint, x: torch.Tensor) -> torch.Tensor:
        # the sum is one of gradients divided by their mean entry, which is their length over the number of entries
        return constraint.project(x + self.alpha * self.decay * self.sum / x[0].numel())


class AdaptiveSteps(StepRule):
    r"""Steps that begin at alpha = 2 eps and are halved at checkpoints where a walk no longer gains (Auto-PGD).

    .. math:: z = \Pi(x_k + \alpha d(g_k)), \qquad
              x_{k+1} = \Pi(x_k + \tfrac34 (z - x_k) + \tfrac14 (x_k - x_{k-1}))

    At a checkpoint the step is halved, and the walk put back to its best point, if less than 75 % of the steps since
    the last one raised the objective, or if neither the step nor the best objective has changed since then. The
    checkpoints are :math:`\lceil p_j N \rceil` with :math:`p_0 = 0`, :math:`p_1 = 0.22` and
    :math:`p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03, 0.06)`.

    References
    ----------
    .. [1] Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
       attacks", ICML 2020.
    """

    memoryless = False
    keeps_best = True

    def __init__(self, alpha: torch.Tensor, like: torch.Tensor, steps: int) -> None:
        super().__init__(alpha, like)
        self.checkpoints = _checkpoints(steps)
        self.step = 0
        n = len(like)
        self.previous = like
        self.best, self.best_gradient = like, torch.zeros_like(like)
        self.best_objective = like.new_full((n,), -torch.inf)
        self.last_objective = like.new_full((n,), -torch.inf)
        self.gains = torch.zeros(n, dtype=torch.long, device=like.device)
        self.best_then = self.best_objective
        self.halved_then = torch.ones(n, dtype=torch.bool, device=like.device)

    def advance(
        self,
        constraint: Constraint,
        x: torch.Tensor,
        gradient: torch.Tensor | None,
        objective: torch.Tensor,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert gradient is not None
        if self.step > 0:
            self.gains += objective > self.last_objective
        self.last_objective = objective
        better = objective > self.best_objective
        where = column(better, x).bool()
        self.best = torch.where(where, x, self.best)
        self.best_gradient = torch.where(where, gradient, self.best_gradient)
        self.best_objective = torch.where(better, objective, self.best_objective)
        if self.step in self.checkpoints:
            x, gradient = self._checkpoint(x, gradient)
        direction = constraint.direction(x, gradient)
        trial = constraint.project(x + self.alpha * direction)
        moved = trial
        if self.step > 0:
            moved = constraint.project(x + 0.75 * (trial - x) + 0.25 * (x - self.previous))
        self.previous = x
        self.step += 1
        return moved, direction.flatten(1).any(dim=1)

    def _checkpoint(self, x: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        span = self.step - max((c for c in self.checkpoints if c < self.step), default=0)
        few = self.gains < 0.75 * span
        idle = ~self.halved_then & (self.best_then >= self.best_objective)
        halve = few | idle
        self.halved_then, self.best_then = halve, self.best_objective
        self.gains = torch.zeros_like(self.gains)
        where = column(halve, x).bool()
        self.alpha = torch.where(where, self.alpha / 2, self.alpha)
        self.last_objective = torch.where(halve, self.best_objective, self.last_objective)
        return torch.where(where, self.best, x), torch.where(where, self.best_gradient, gradient)

    def select(self, keep: torch.Tensor) -> None:
        super().select(keep)
        for name in ("previous", "best", "best_gradient", "best_objective", "last_objective", "gains"):
            setattr(self, name, getattr(self, name)[keep])
        self.best_then, self.halved_then = self.best_then[keep], self.halved_then[keep]


def _checkpoints(steps: int) -> frozenset[int]:
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return frozenset(math.ceil(round(share * steps, 9)) for share in shares[1:] if share <= 1)


class LineSearch(StepRule):
    r"""At each step the best of several lengths, :math:`\alpha \in \{\alpha_1, \dots, \alpha_J\}` times the rule's.

    Every length costs a projection and a forward pass. The length of the largest objective is taken, of equal ones
    the longest: where a loss is flat in finite precision, a short step would go nowhere. A step may lower the objective
    if each of them does.

    Parameters
    ----------
    factors : tuple of float
        Multiples of `alpha` that are tried.
    """

    def __init__(self, alpha: torch.Tensor, like: torch.Tensor, factors: tuple[float, ...]) -> None:
        super().__init__(alpha, like)
        self.factors = sorted(factors)

    def advance(
        self,
        constraint: Constraint,
        x: torch.Tensor,
        gradient: torch.Tensor | None,
        objective: torch.Tensor,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        direction = constraint.direction(x, gradient)
        moved, highest = x, torch.full_like(objective, -torch.inf)
        for factor in self.factors:
            trial = constraint.project(x + factor * self.alpha * direction)
            reached = value(trial)
            better = reached >= highest
            moved = torch.where(column(better, x).bool(), trial, moved)
            highest = torch.where(better, reached, highest)
        return moved, direction.flatten(1).any(dim=1)
