"""A patch attack that asks for no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from manifoldkit.attacks._input import column
from manifoldkit.attacks.constraints import Constraint, draw
from manifoldkit.attacks.losses import Loss
from manifoldkit.attacks.patch import Masked, PatchPGD
from manifoldkit.attacks.steps import StepRule

__all__ = ["PatchSearch"]


class PatchSearch(PatchPGD):
    r"""Random search over the pixels of a patch, for models whose gradients mislead.

    Each step repaints some pixels of the best patch so far with random values, and keeps them if the loss is larger;
    the share of pixels falls from a half as :math:`\frac12 (1 - t/T)^2`, to one pixel at the end. One forward pass a
    step. A defence on which this does better than gradient attacks hides its gradient rather than withstands.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    mask : tensor or array of zeros and ones
        As for :class:`PatchPGD`.
    steps : int, default=1000
        Most steps.
    loss : {"margin", "ce", "dlr"} or callable, default="margin"
    eps, bounds, targeted, generator, early_stop
        As for :class:`PatchPGD`; `generator` is also the source of the patches.

    Raises
    ------
    TypeError, ValueError
        As from :class:`PatchPGD`.

    References
    ----------
    .. [1] Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial attack
       via random search", ECCV 2020 (for random search under shrinking changes).

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]]))
    >>> g = torch.Generator().manual_seed(0)
    >>> x = PatchSearch(model, [[1, 1], [0, 0]], 200, early_stop=False, generator=g)(torch.full((1, 2, 2), 0.5), [0])
    >>> x.round(decimals=1)
    tensor([[[0.0000, 0.0000],
             [0.5000, 0.5000]]])
    """

    def __init__(
        self,
        model: torch.nn.Module,
        mask: Any,
        steps: int = 1000,
        *,
        loss: str | Loss = "margin",
        eps: Any = None,
        bounds: tuple[float, float] = (0, 1),
        targeted: bool = False,
        generator: torch.Generator | None = None,
        early_stop: bool = True,
    ) -> None:
        super().__init__(
            model,
            mask,
            steps=steps,
            loss=loss,
            eps=eps,
            bounds=bounds,
            targeted=targeted,
            generator=generator,
            early_stop=early_stop,
        )

    def _read(self, name: str, value: Any) -> Any:
        if name == "generator" and value is None:  # the steps draw from it as well as the start
            value = torch.Generator()
            value.seed()
        return super()._read(name, value)

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        constraint = super()._bind(images, eps, manifold_labels, generator)
        constraint.needs_gradient = False
        return constraint

    def _rule(self, alpha: torch.Tensor, like: torch.Tensor) -> StepRule:
        assert self.generator is not None
        return _SearchSteps(alpha, like, self.steps, self.bounds or (0.0, 1.0), self.generator)


class _SearchSteps(StepRule):
    memoryless = False
    keeps_best = True

    def __init__(
        self,
        alpha: torch.Tensor,
        like: torch.Tensor,
        steps: int,
        bounds: tuple[float, float],
        generator: torch.Generator,
    ) -> None:
        super().__init__(alpha, like)
        self.steps, self.bounds, self.generator = steps, bounds, generator
        self.step = 0
        self.best, self.best_objective = like, like.new_full((len(like),), -torch.inf)

    def advance(
        self,
        constraint: Constraint,
        x: torch.Tensor,
        gradient: torch.Tensor | None,
        objective: torch.Tensor,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(constraint, Masked)
        better = objective > self.best_objective
        self.best = torch.where(column(better, x).bool(), x, self.best)
        self.best_objective = torch.where(better, objective, self.best_objective)
        share = 0.5 * (1 - self.step / self.steps) ** 2
        self.step += 1
        chance = draw(x, self.generator, normal=False).masked_fill(~constraint.mask, 2.0)
        first = chance.flatten(1).amin(dim=1)  # one pixel at least
        chosen = (chance < share) | (chance <= column(first, x))
        low, high = self.bounds
        paint = low + (high - low) * draw(x, self.generator, normal=False)
        moved = constraint.project(torch.where(chosen, paint, self.best))
        return moved, torch.ones_like(better)

    def select(self, keep: torch.Tensor) -> None:
        super().select(keep)
        self.best, self.best_objective = self.best[keep], self.best_objective[keep]
