"""The one loop behind every attack, and the class that runs it on a user's images.

An attack is a constraint (where to walk) and a few numbers (how far); see :mod:`manifoldkit.attacks.constraints`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from manifoldkit._arrays import Array
from manifoldkit.attacks._input import column, read_bounds, read_images, read_labels, read_steps
from manifoldkit.attacks._model import Network, as_found
from manifoldkit.attacks.constraints import Constraint, norms
from manifoldkit.attacks.losses import Loss, resolve
from manifoldkit.attacks.manifold_constraint import checked, choose
from manifoldkit.attacks.result import AttackResult
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["Attack"]

STATUSES = np.array(["max_steps", "stalled", "success"])
MAX_STEPS, STALLED, SUCCESS = range(3)


@dataclass
class Walk:
    """State of a batch: where each sample is, and how it left."""

    x: torch.Tensor  # (B, ...)
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
    network: Network,
    constraint: Constraint,
    start: torch.Tensor,
    labels: torch.Tensor,
    alpha: torch.Tensor,
    steps: int,
    record: bool,
) -> Walk:
    """Step along ``alpha * direction`` and back into the constraint until a sample breaks, stalls or has had its steps.

    One forward and backward pass a step; the last point costs a forward pass. Samples that are done leave the batch.
    """
    n = len(start)
    state = Walk(
        x=start.clone(),
        first=labels.new_zeros(n),
        predictions=labels.new_zeros(n),
        objective=start.new_zeros(n),
        steps=labels.new_zeros(n),
        code=torch.full_like(labels, MAX_STEPS),
    )
    rows = torch.arange(n, device=start.device)  # who is still in the batch, and their x, labels and alpha
    x, goal, alpha = start, labels, column(alpha, start)
    for step in range(steps + 1):
        gradient = None
        if step < steps and constraint.needs_gradient:
            predictions, objective, gradient = network.gradient(x, goal)
        else:
            predictions, objective = network.evaluate(x, goal)
        state.x[rows], state.steps[rows] = x, step
        state.predictions[rows], state.objective[rows] = predictions, objective
        if step == 0:
            state.first = predictions
        if record:
            state.path.append(state.x.clone())
            state.path_predictions.append(state.predictions.clone())
        done = network.broken(predictions, goal)
        state.code[rows[done]] = SUCCESS
        if step == steps or done.all():
            break
        if done.any():
            keep = ~done
            constraint.select(keep)
            rows, x, goal, alpha = rows[keep], x[keep], goal[keep], alpha[keep]
            gradient = None if gradient is None else gradient[keep]
        direction = constraint.direction(x, gradient)
        moving = direction.flatten(1).any(dim=1)
        moved = constraint.project(x + alpha * direction)
        if constraint.deterministic:
            moving &= (moved != x).flatten(1).any(dim=1)
        if not moving.all():
            state.code[rows[~moving]] = STALLED
            if not moving.any():
                break
            constraint.select(moving)
            rows, moved, goal, alpha = rows[moving], moved[moving], goal[moving], alpha[moving]
        x = moved
    return state


class Attack(ABC):
    """What all attacks share: reading the input, running the loop, leaving the model alone, and the result.

    ``attack(images, labels)`` gives adversarial images, ``attack.run(images, labels)`` an :class:`AttackResult`.

    Images are torch tensors or numpy arrays of floating numbers, (B, ...) of any sample shape, and the answer has
    their kind, dtype and device. The computation happens on the device and in the dtype of the model's parameters
    (those of the images when the model has none), so success refers to the images in that dtype. The model runs in
    evaluation mode, its rows are taken to be independent, and afterwards its training flags, `requires_grad`,
    gradients and buffers are as they were, also when the attack raises. Only the gradient by the images is computed,
    also inside `torch.no_grad`. Samples that the model gets wrong from the outset (or that have the target class)
    are successes of zero steps. Random numbers come from `generator` alone; None is a fresh one, seeded by the
    operating system, and the global seed is neither read nor changed.
    """

    steps: int
    restarts: int = 1
    random_start: bool = False
    eps: torch.Tensor | None = None

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        steps: int,
        loss: str | Loss,
        targeted: bool,
        bounds: tuple[float, float] | None,
        manifold: Manifold | LabelledManifold | None,
        record_path: bool,
        generator: torch.Generator | None,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}: wrap a function in one")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, got {type(generator).__name__}: "
                "use torch.Generator().manual_seed(seed)"
            )
        if manifold is not None and not isinstance(manifold, Manifold | LabelledManifold):
            raise TypeError(
                f"manifold must have project and tangent_basis, or at(labels), got {type(manifold).__name__}"
            )
        self.model = model
        self.steps = read_steps(steps, "steps", 0)
        self.loss = resolve(loss)
        self.targeted = bool(targeted)
        self.bounds = read_bounds(bounds)
        self.manifold = manifold
        self.record_path = bool(record_path)
        self.generator = generator

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__}, steps={self.steps}, targeted={self.targeted})"

    @abstractmethod
    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        """The constraint for these images; `eps` and `manifold_labels` have an entry for each."""

    @abstractmethod
    def _step_sizes(self, n: int, eps: torch.Tensor | None) -> torch.Tensor:
        """Length of a step for every sample, (n,)."""

    def __call__(self, images: Array, labels: Any, *, manifold_labels: Any = None) -> Any:
        """Adversarial images in the shape, kind, dtype and device of `images`; see :meth:`run`."""
        return self.run(images, labels, manifold_labels=manifold_labels).adversarial

    def run(self, images: Array, labels: Any, *, manifold_labels: Any = None) -> AttackResult:
        """Attack a batch and report sample by sample.

        Parameters
        ----------
        images : tensor or array of shape (B, ...)
            Floating numbers within the bounds.
        labels : ints of shape (B,)
            True classes, or the classes to reach if `targeted`.
        manifold_labels : ints of shape (B,), optional
            Member of a :class:`LabelledManifold` for each sample. Default: `labels`; required if `targeted`, where
            `labels` say nothing of the class that a sample has.

        Returns
        -------
        AttackResult
            Adversaries, success, predictions, statuses, sizes.

        Raises
        ------
        TypeError
            If images or labels have the wrong kind or dtype, or the model does not return a tensor.
        ValueError
            If shapes do not fit, images are empty, hold NaN or leave the bounds, labels are out of range, or the
            model returns NaN, the wrong shape, or nothing that can be differentiated.
        """
        with torch.inference_mode(False), torch.no_grad(), as_found(self.model):
            network = Network(self.model, self.loss, self.targeted)
            x = read_images(images, *network.home(), self.bounds)
            goal = read_labels(labels, len(x), x.device)
            members = self._members(manifold_labels, goal)
            eps = self.eps if self.eps is None or self.eps.ndim else self.eps.expand(len(x))
            if eps is not None and len(eps) != len(x):
                raise ValueError(f"eps holds {len(eps)} radii for {len(x)} images: give one each, or a single number")
            state, before = self._attack(network, x, goal, eps, members)
            distance = None
            if self.manifold is not None:
                here = choose(self.manifold, members)
                distance = norms(state.x - checked(here.project(state.x), state.x, "project", tuple(x.shape)))
            return self._report(images, x, goal, state, before, distance)

    def _members(self, manifold_labels: Any, labels: torch.Tensor) -> torch.Tensor | None:
        if not isinstance(self.manifold, LabelledManifold):
            return None
        if manifold_labels is not None:
            return read_labels(manifold_labels, len(labels), labels.device, "manifold_labels")
        if self.targeted:
            raise ValueError(
                "a targeted attack on a manifold chosen by label needs manifold_labels, the classes of the samples: "
                "labels are the targets"
            )
        return labels

    def _attack(
        self,
        network: Network,
        x: torch.Tensor,
        labels: torch.Tensor,
        eps: torch.Tensor | None,
        members: torch.Tensor | None,
    ) -> tuple[Walk, torch.Tensor]:
        generator = self.generator
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        alpha = self._step_sizes(len(x), eps)
        if len(alpha) != len(x):
            raise ValueError(f"alpha holds {len(alpha)} steps for {len(x)} images: give one each, or a single number")
        constraint = self._bind(x, eps, members, generator)
        start = constraint.start()
        if not self.random_start:
            state = walk(network, constraint, start, labels, alpha, self.steps, self.record_path)
            return state, state.first if start is x else network.evaluate(x, labels)[0]
        state = walk(network, constraint, start, labels, alpha, 0, self.record_path)
        state.objective.fill_(-torch.inf)
        for _ in range(self.restarts):
            rows = (state.code != SUCCESS).nonzero()[:, 0]
            if not len(rows):
                break
            pick = rows.cpu()
            constraint = self._bind(
                x[rows], None if eps is None else eps[pick], None if members is None else members[rows], generator
            )
            start = constraint.random_start(generator)
            new = walk(network, constraint, start, labels[rows], alpha[pick], self.steps, self.record_path)
            state.keep_better(rows, new)
        return state, state.first

    def _report(
        self,
        images: Array,
        x: torch.Tensor,
        labels: torch.Tensor,
        state: Walk,
        before: torch.Tensor,
        distance: torch.Tensor | None,
    ) -> AttackResult:
        def back(tensor: torch.Tensor) -> Array:
            """Kind and device of the images; numbers that are not integers in their dtype."""
            if isinstance(images, torch.Tensor):
                return tensor.to(device=images.device, dtype=images.dtype if tensor.is_floating_point() else None)
            tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            array: np.ndarray[Any, Any] = tensor.cpu().numpy()
            return array.astype(images.dtype, copy=False) if tensor.is_floating_point() else array

        change = state.x - x
        return AttackResult(
            adversarial=back(state.x),
            labels=back(labels),
            targeted=self.targeted,
            success=back(state.code == SUCCESS),
            steps_taken=back(state.steps),
            prediction_before=back(before),
            prediction_after=back(state.predictions),
            status=STATUSES[state.code.cpu().numpy()],
            l2=back(norms(change)),
            linf=back(change.flatten(1).abs().amax(dim=1)),
            distance_to_manifold=None if distance is None else back(distance),
            path=back(torch.stack(state.path)) if state.path else None,
            path_predictions=back(torch.stack(state.path_predictions)) if state.path else None,
        )
