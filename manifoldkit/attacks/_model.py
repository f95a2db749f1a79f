"""The network under attack: checked logits and input gradients, and a promise to leave the module as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch

from manifoldkit.attacks.losses import Loss
from manifoldkit.exceptions import ManifoldWarning, UnsteadyModelWarning

__all__ = [
    "Network",
    "ProbabilitiesWarning",
    "as_found",
    "check_classes",
    "check_logits",
    "differentiate",
]


#: Samples that are shown to a network a second time, to see whether its answers are its own.
FEW = 4

View: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


class ProbabilitiesWarning(ManifoldWarning):
    """The network seems to return probabilities, where attacks expect logits."""


@contextmanager
def as_found(*models: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients inside; on the way out everything is put back, errors included.

    What is kept: the training flag of every submodule, and `requires_grad` and `.grad` of every parameter, and which
    tensors the buffers are and what they hold.
    """
    modules = list(dict.fromkeys(module for model in models for module in model.modules()))
    modes = [module.training for module in modules]
    parameters = [(p, p.requires_grad, p.grad) for p in dict.fromkeys(p for m in models for p in m.parameters())]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
    ]
    try:
        for module in modules:
            module.training = False
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, flag, grad in parameters:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        with torch.no_grad():
            for module in modules:
                module._buffers.clear()  # also of those that a forward has registered since
            for module, name, buffer, content in buffers:
                module._buffers[name] = buffer
                if buffer is not None and content is not None and not _same(buffer, content):
                    buffer.copy_(content)


def differentiate(objective: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Gradient of objectives (B,), one for each sample, by the images (B, ...); finite, or an error that says why."""
    if not objective.requires_grad:
        raise ValueError(
            "the loss does not depend on the images in a differentiable way: look for detach(), numpy calls "
            "or torch.no_grad in the model's forward or in the loss"
        )
    (gradient,) = torch.autograd.grad(objective.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise ValueError("the logits or scores do not depend on the images: look for detach() in the forward")
    if not torch.isfinite(gradient).all():
        bad = (~torch.isfinite(gradient)).flatten(1).any(dim=1)
        raise ValueError(
            f"the gradient of the loss by the image is NaN or infinite for {int(bad.sum())} of {len(bad)} samples: "
            "look for sqrt or log at 0 in the model, or for overflow"
        )
    return gradient


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


class Network:
    """A classifier and the objective of an attack on it: raise the loss of the label, or lower that of a target.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits of shape (B, K), row i of which depends on sample i alone.
    loss : callable
        (logits, labels) -> (B,).
    targeted : bool
        Whether labels are targets to reach instead of classes to leave.
    """

    def __init__(self, model: torch.nn.Module, loss: Loss, targeted: bool) -> None:
        self.model = model
        self.loss = loss
        self.targeted = targeted
        self._checked = False

    def home(self) -> tuple[torch.device | None, torch.dtype | None]:
        """Device and floating dtype of the first floating parameter (else buffer); None, None without any."""
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
        return None, None

    def broken(self, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Where the attack has what it wants: (B,) bool."""
        return predictions == labels if self.targeted else predictions != labels

    def evaluate(
        self, x: torch.Tensor, labels: torch.Tensor, view: View
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images ``view(x)`` (B, ...), predictions (B,) and objectives (B,)."""
        with torch.no_grad():
            shown = view(x)
            logits = self._logits(shown, labels)
            return shown, logits.argmax(dim=1), self._objective(logits, labels)

    def gradient(
        self, x: torch.Tensor, labels: torch.Tensor, view: View
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images ``view(x)``, predictions (B,), objectives (B,) and their gradient by `x`, (B, ...)."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            shown = view(leaf)
            logits = self._logits(shown, labels)
            objective = self._objective(logits, labels)
            gradient = differentiate(objective, leaf)
        return shown.detach(), logits.detach().argmax(dim=1), objective.detach(), gradient

    def _objective(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = self.loss(logits, labels)
        if not isinstance(value, torch.Tensor) or value.shape != labels.shape:
            what = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f"loss must return one number a sample, a tensor of shape {tuple(labels.shape)}, got {what}: "
                "use reduction='none'"
            )
        return -value if self.targeted else value

    def _logits(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._checked:
            return check_logits(self.model(x), len(x))
        with torch.no_grad():  # before the others: a loss may need what the last forward has left in the model
            few = check_logits(self.model(x.detach()[:FEW]), min(len(x), FEW))
        logits = check_logits(self.model(x), len(x))
        self._check_once(logits.detach(), labels)
        self._check_steady(few, logits.detach()[:FEW])
        return logits

    @staticmethod
    def _check_steady(logits: torch.Tensor, again: torch.Tensor) -> None:
        rounding = torch.finfo(logits.dtype).eps ** 0.5 * (1 + logits.abs().max())
        if not ((again - logits).abs() <= rounding).logical_or(again == logits).all():  # equal where infinite
            warnings.warn(
                "the model answers samples differently when asked again: it draws random numbers, or lets the samples "
                "of a batch depend on each other. A walk ends at the first answer that is wrong, be it by luck: "
                "evaluate the adversaries again, several times, before you call the network broken",
                UnsteadyModelWarning,
                stacklevel=2,
            )

    def _check_once(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self._checked = True
        check_classes(labels, logits.shape[1])
        sums = logits.sum(dim=1)
        to_one = bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-3)
        if to_one and len(logits) > 1:  # one such row may be chance
            warnings.warn(
                "the model returns rows that are not negative and sum to one, so probabilities; attacks expect logits "
                "and are weak on probabilities: remove the softmax, or return its logarithm",
                ProbabilitiesWarning,
                stacklevel=2,
            )


def check_logits(
    logits: object, n: int, advice: str = "check its weights and the scaling of the images"
) -> torch.Tensor:
    """What a model returned for n samples: logits (n, K), K > 1, without NaN."""
    if not isinstance(logits, torch.Tensor):
        raise TypeError(
            f"the model must return a tensor of logits (B, K), got {type(logits).__name__}: wrap it in a Module whose "
            "forward returns the logits alone"
        )
    if logits.ndim != 2 or len(logits) != n:
        raise ValueError(
            f"the model must return logits of shape ({n}, K), got {tuple(logits.shape)}: wrap it in a Module that "
            "reshapes them"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the model returns one logit a sample, two or more are needed: for a binary model with logit z return "
            "torch.cat([-z, z], dim=1) / 2"
        )
    if torch.isnan(logits).any():
        raise ValueError(f"the model returns NaN logits: {advice}")
    return logits


def check_classes(labels: torch.Tensor, n_classes: int) -> None:
    """Refuse labels that are no index of a logit."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1} for the {n_classes} logits of the model, got values from {low} to "
            f"{high}"
        )
