"""The one loop behind every attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from manifoldkit.attacks._model import View
from manifoldkit.attacks.constraints import Constraint
from manifoldkit.attacks.steps import StepRule

__all__ = ["MAX_STEPS", "STALLED", "STATUSES", "SUCCESS", "Hill", "Walk", "walk"]

STATUSES = np.array(["max_steps", "stalled", "success"])
MAX_STEPS, STALLED, SUCCESS = range(3)


class Hill(Protocol):
    """What a walk climbs: :class:`~manifoldkit.attacks._model.Network` (a loss), or any score of samples."""

    def broken(self, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Where the walk has what it wants: (B,) bool."""

    def evaluate(
        self, x: torch.Tensor, labels: torch.Tensor, view: View
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images ``view(x)`` (B, ...), predictions (B,) and heights (B,)."""

    def gradient(
        self, x: torch.Tensor, labels: torch.Tensor, view: View
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images ``view(x)``, predictions (B,), heights (B,) and their gradient by `x`, (B, ...)."""


@dataclass
class Walk:
    """State of a batch: where each sample is, and how it left."""

    x: torch.Tensor  # (B, ...) images
    first: torch.Tensor  # (B,) predictions at the start
    predictions: torch.Tensor  # (B,)
    objective: torch.Tensor  # (B,)
    steps: torch.Tensor  # (B,)
    code: torch.Tensor  # (B,) index into STATUSES
    path: list[torch.Tensor] = field(default_factory=list)
    path_predictions: list[torch.Tensor] = field(default_factory=list)

    def keep_better(self, rows: torch.Tensor, other: Walk) -> None:
        """Take over the samples of `other`, a walk of `rows` of the batch, that broke or ended at a larger loss."""
        better = (other.code == SUCCESS) | (other.objective > self.objective[rows])
        into = rows[better]
        for name in ("x", "predictions", "objective", "steps", "code"):
            getattr(self, name)[into] = getattr(other, name)[better]
        for mine, theirs in ((self.path, other.path), (self.path_predictions, other.path_predictions)):
            if mine and theirs:
                mine.extend(mine[-1].clone() for _ in range(len(theirs) - len(mine)))
                for t, entry in enumerate(mine):
                    entry[into] = theirs[min(t, len(theirs) - 1)][better]


def walk(
    network: Hill,
    constraint: Constraint,
    rule: StepRule,
    start: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    *,
    early_stop: bool = True,
    record: bool = False,
) -> Walk:
    """Step by the rule within the constraint until a sample breaks, stalls or has had its steps.

    One forward and backward pass a step; the last point costs a forward pass. Samples that are done leave the batch;
    without `early_stop`, those that are broken walk on.
    """
    rows = torch.arange(len(start), device=start.device)  # who is still in the batch, and their x and labels
    x, goal = start, labels
    for step in range(steps + 1):
        gradient = None
        if step < steps and constraint.needs_gradient and not rule.looks_ahead:
            shown, predictions, objective, gradient = network.gradient(x, goal, constraint.view)
        else:
            shown, predictions, objective = network.evaluate(x, goal, constraint.view)
        done = network.broken(predictions, goal)
        if step == 0:
            state = Walk(
                x=shown.clone(),
                first=predictions,
                predictions=predictions.clone(),
                objective=objective.clone(),
                steps=torch.zeros_like(labels),
                code=torch.full_like(labels, MAX_STEPS),
            )
        else:
            state.steps[rows] = step
            news = torch.ones_like(done)
            if rule.keeps_best:
                news = objective > state.objective[rows]
                news = news | done if early_stop else news
            into = rows[news]
            state.x[into] = shown[news]
            state.predictions[into], state.objective[into] = predictions[news], objective[news]
        if record:
            state.path.append(state.x.clone())
            state.path_predictions.append(state.predictions.clone())
        if step == steps or (early_stop and done.all()):
            break
        if early_stop and done.any():
            keep = ~done
            constraint.select(keep)
            rule.select(keep)
            rows, x, goal, objective = rows[keep], x[keep], goal[keep], objective[keep]
            gradient = None if gradient is None else gradient[keep]
        if rule.looks_ahead:
            gradient = network.gradient(rule.ahead(constraint, x), goal, constraint.view)[3]
        moved, moving = rule.advance(
            constraint,
            x,
            gradient,
            objective,
            _objective_at(network, constraint, goal),
        )
        if rule.memoryless:
            moving &= (moved != x).flatten(1).any(dim=1) | ~torch.as_tensor(constraint.deterministic)
        if not moving.all():
            state.code[rows[~moving]] = STALLED
            if not moving.any():
                break
            constraint.select(moving)
            rule.select(moving)
            rows, moved, goal = rows[moving], moved[moving], goal[moving]
        x = moved
    state.code[network.broken(state.predictions, labels)] = SUCCESS
    return state


def _objective_at(
    network: Hill, constraint: Constraint, labels: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda trial: network.evaluate(trial, labels, constraint.view)[2]
