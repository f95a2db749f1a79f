"""What all attacks share: the class that runs the one loop on a user's images.

An attack is a constraint (where to walk), a step rule (how) and a few numbers (how far); see
:mod:`manifoldkit.attacks.constraints`, :mod:`manifoldkit.attacks.steps` and :mod:`manifoldkit.attacks.loop`.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from manifoldkit._arrays import Array
from manifoldkit.attacks._input import (
    read_bounds,
    read_generator,
    read_images,
    read_labels,
    read_manifold,
    read_module,
    read_radius,
    read_steps,
)
from manifoldkit.attacks._model import Network, as_found
from manifoldkit.attacks.constraints import Constraint, norms
from manifoldkit.attacks.loop import STATUSES, SUCCESS, Walk, walk
from manifoldkit.attacks.losses import Loss, dlr, dlr_of_targets, resolve
from manifoldkit.attacks.result import AttackResult
from manifoldkit.attacks.steps import FixedSteps, StepRule
from manifoldkit.attacks.tangent import bases, checked, choose, tangent_share
from manifoldkit.exceptions import MedialAxisWarning
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["Attack"]


class Attack(ABC):
    """What all attacks share: reading the input, running the loop, leaving the model alone, and the result.

    ``attack(images, labels)`` gives adversarial images, ``attack.run(images, labels)`` an :class:`AttackResult`.

    Images are torch tensors or numpy arrays of floating numbers, (B, ...) of any sample shape, and the answer has
    their kind, dtype and device. The computation happens on the device and in the dtype of the model's parameters
    (those of the images when the model has none), so success refers to the images in that dtype, and limits are kept
    up to its rounding. The model runs in
    evaluation mode, its rows are taken to be independent, and afterwards its training flags, `requires_grad`,
    gradients and buffers are as they were, also when the attack raises. Only the gradient by the images is computed,
    also inside `torch.no_grad`. Samples that the model gets wrong from the outset (or that have the target class)
    are successes of zero steps. Of a model that draws random numbers a sample leaves the batch at the first lucky draw
    (a warning tells): evaluate the adversaries again, several times, before you call it broken. Random numbers come
    from `generator` alone, and are drawn for a batch as a whole: other companions, other numbers. None is a fresh one,
    seeded by the operating system; the global seed is neither read nor changed. Attributes may be set to other values,
    which are checked as those of the constructor are.
    """

    model: torch.nn.Module
    steps: int
    loss: Loss
    targeted: bool
    bounds: tuple[float, float] | None
    manifold: Manifold | LabelledManifold | None
    record_path: bool
    generator: torch.Generator | None
    restarts: int = 1
    random_start: bool = False
    eps: torch.Tensor | None = None
    alpha: torch.Tensor | None = None
    early_stop: bool = True
    least_steps = 0
    needs_manifold = False
    #: Whether `eps` is a budget, which an evaluation may vary.
    limited_by_eps: bool = True

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
        self._store(
            model=model, steps=steps, loss=loss, targeted=targeted, bounds=bounds, manifold=manifold,
            record_path=record_path, generator=generator,
        )  # fmt: skip

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

    def _rule(self, alpha: torch.Tensor, like: torch.Tensor) -> StepRule:
        """How to step from point to point of a walk that begins at points `like`."""
        return FixedSteps(alpha, like)

    def _modules(self) -> tuple[torch.nn.Module, ...]:
        """Every network that runs; they are left as they were."""
        return (self.model,)

    def replaced(self, **changes: Any) -> Any:
        """A copy with other values for some of its attributes, `model`, `eps` or `generator` for instance.

        Examples
        --------
        >>> from manifoldkit.attacks import PGD
        >>> attack = PGD(torch.nn.Linear(2, 2), eps=0.1)
        >>> attack.replaced(eps=0.2).eps, attack.eps
        (tensor(0.2000, dtype=torch.float64), tensor(0.1000, dtype=torch.float64))
        """
        result = copy.copy(self)
        for name in changes:
            if name.startswith("_") or name not in vars(self):
                raise ValueError(f"{type(self).__name__} has no {name}")
        result._store(**changes)
        result._check()
        return result

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute as the constructor would, ``attack.eps = 0.1`` for instance."""
        object.__setattr__(self, name, self._read(name, value))

    def _store(self, **values: Any) -> None:
        """Set attributes to values that a user gave."""
        for name, value in values.items():
            setattr(self, name, value)

    def _read(self, name: str, value: Any) -> Any:
        """A value that a user gave for an attribute, checked; the constructor and :meth:`replaced` read by it."""
        match name:
            case "model":
                return read_module(value, name)
            case "generator":
                return read_generator(value)
            case "manifold":
                return None if value is None and not self.needs_manifold else read_manifold(value)
            case "eps" | "alpha":
                return None if value is None else read_radius(value, name)
            case "steps":
                return read_steps(value, name, self.least_steps)
            case "restarts":
                return read_steps(value, name, 1)
            case "bounds":
                return read_bounds(value)
            case "loss":
                return resolve(value)
            case "targeted" | "record_path" | "random_start" | "early_stop":
                return bool(value)
        return value

    def _of_each(self) -> dict[str, torch.Tensor]:
        """The radii and step lengths that are given for each sample, by their names."""
        given = {"eps": self.eps, "alpha": self.alpha}
        return {name: values for name, values in given.items() if values is not None and values.ndim}

    def _check(self) -> None:
        """Refuse values that do not go together."""
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts repeat one and the same walk without a random start: pass random_start=True")

    def __call__(self, images: Array, labels: Any, *, manifold_labels: Any = None, start: Any = None) -> Any:
        """Adversarial images in the shape, kind, dtype and device of `images`; see :meth:`run`."""
        return self.run(images, labels, manifold_labels=manifold_labels, start=start).adversarial

    def run(self, images: Array, labels: Any, *, manifold_labels: Any = None, start: Any = None) -> AttackResult:
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
        start : tensor or array of shape (B, ...), optional
            Where the walks begin, moved into the set of allowed images if need be (for :class:`LatentPGD`, the codes
            of `start`); restarts begin at random again. Samples that are broken where they would begin without
            `start` do not walk, unless ``early_stop=False``.

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
        self._check()  # attributes may have been set since
        with torch.inference_mode(False), torch.no_grad(), as_found(*self._modules()):
            loss = dlr_of_targets if self.targeted and self.loss is dlr else self.loss
            network = Network(self.model, loss, self.targeted)
            x = read_images(images, *network.home(), self.bounds)
            goal = read_labels(labels, len(x), x.device)
            members = self._members(manifold_labels, goal)
            eps = self.eps if self.eps is None or self.eps.ndim else self.eps.expand(len(x))
            if eps is not None and len(eps) != len(x):
                raise ValueError(f"eps holds {len(eps)} radii for {len(x)} images: give one each, or a single number")
            begin = None if start is None else self._read_start(start, x)
            here = None if self.manifold is None else choose(self.manifold, members)
            basis = None if here is None else self._basis(here, x)  # a manifold that does not fit is refused at once
            state, before = self._attack(network, x, goal, eps, members, begin)
            measured = None if here is None or basis is None else self._measure(here, basis, x, state.x)
            return self._report(images, x, goal, state, before, measured)

    @staticmethod
    def _basis(here: Manifold, x: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MedialAxisWarning)
            return bases(here.tangent_basis(x), x)

    @staticmethod
    def _measure(
        here: Manifold, basis: torch.Tensor, x: torch.Tensor, adversarial: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances of the adversaries to the manifold, and the share of each change that is tangent at the image."""
        with warnings.catch_warnings():  # an adversary may end between two sheets; its distance tells
            warnings.simplefilter("ignore", MedialAxisWarning)
            landed = checked(here.project(adversarial), x, "project", tuple(x.shape))
        return norms(adversarial - landed), tangent_share(adversarial - x, basis)

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

    @staticmethod
    def _read_start(start: Any, x: torch.Tensor) -> torch.Tensor:
        begin = read_images(start, x.device, x.dtype, None)
        if begin.shape != x.shape:
            raise ValueError(f"start must have the shape of the images, {tuple(x.shape)}, got {tuple(begin.shape)}")
        return begin

    def _attack(
        self,
        network: Network,
        x: torch.Tensor,
        labels: torch.Tensor,
        eps: torch.Tensor | None,
        members: torch.Tensor | None,
        begin: torch.Tensor | None,
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
        options: dict[str, Any] = {"early_stop": self.early_stop, "record": self.record_path}
        if begin is None and not self.random_start:
            state = walk(network, constraint, self._rule(alpha, start), start, labels, self.steps, **options)
            return state, state.first if start is x else network.evaluate(x, labels, _as_is)[1]
        state = walk(network, constraint, FixedSteps(alpha, start), start, labels, 0, **options)
        before = state.first if start is x else network.evaluate(x, labels, _as_is)[1]
        state.objective.fill_(-torch.inf)
        for attempt in range(self.restarts):
            again = self.early_stop or attempt > 0
            rows = (state.code != SUCCESS).nonzero()[:, 0] if again else torch.arange(len(x), device=x.device)
            if not len(rows):
                break
            pick = rows.cpu()
            constraint = self._bind(
                x[rows], None if eps is None else eps[pick], None if members is None else members[rows], generator
            )
            if begin is not None and attempt == 0:
                start = constraint.enter(begin[rows])
            else:
                start = constraint.random_start(generator)
            rule = self._rule(alpha[pick], start)
            state.keep_better(rows, walk(network, constraint, rule, start, labels[rows], self.steps, **options))
        return state, before

    def _report(
        self,
        images: Array,
        x: torch.Tensor,
        labels: torch.Tensor,
        state: Walk,
        before: torch.Tensor,
        measured: tuple[torch.Tensor, torch.Tensor] | None,
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
            distance_to_manifold=None if measured is None else back(measured[0]),
            tangent_share=None if measured is None else back(measured[1]),
            path=back(torch.stack(state.path)) if state.path else None,
            path_predictions=back(torch.stack(state.path_predictions)) if state.path else None,
        )


def _as_is(x: torch.Tensor) -> torch.Tensor:
    return x
