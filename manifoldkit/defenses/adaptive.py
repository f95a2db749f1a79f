"""Attacks that know of the purifier: a purified classifier with a gradient, and samples that look usual already."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..attacks.losses import Loss, resolve
from .purify import Score, modules_of, purify

__all__ = ["PurifiedClassifier", "UsualLooking"]


class PurifiedClassifier(nn.Module):
    r"""A classifier behind a purifier, as one network that attacks can differentiate.

    The answer is that of the classifier at the purified sample. Backwards the purifier counts as the identity
    ("straight through", [1]_). For a purifier of signed steps this is its derivative wherever no clip acts, as a sign
    has the derivative 0: differentiating through every step would add nothing but the zeros of clipped pixels.

    Parameters
    ----------
    classifier : Module
        (B, ...) to logits (B, K).
    score : Module or callable
        As for :func:`purify`; a Module (or a method of one) becomes a part of this one.
    **options
        As for :func:`purify`: step, n_steps, eps, mask, ... An attack may use fewer and longer steps than the defence,
        to be tested against the true one afterwards.

    References
    ----------
    .. [1] Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018 (BPDA).

    Examples
    --------
    >>> net = PurifiedClassifier(nn.Linear(2, 2), lambda x: -(x - 0.5).square().sum(1), step=0.25, n_steps=4)
    >>> net(torch.rand(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, classifier: nn.Module, score: Score, **options: Any) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Module):
            raise TypeError(f"classifier must be a torch.nn.Module, got {type(classifier).__name__}")
        self.classifier = classifier
        self.score = score
        self.parts = nn.ModuleList([*modules_of(score), *options.get("modules", ())])
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        purified = purify(self.score, x.detach(), **self.options)
        result: torch.Tensor = self.classifier(x + (purified - x).detach())
        return result


class UsualLooking(nn.Module):
    r"""A classifier and a loss that grows with a score, for attacks that leave a purifier nothing to do.

    .. math:: L(x) = L_0(h(x), y) + w\, s(x)

    A sample that breaks the classifier where the score is high already is one that climbing the score will not mend.
    The attack must not stop at the first wrong answer (``early_stop=False``): until then the score counts for little.

    Parameters
    ----------
    classifier : Module
        (B, ...) to logits (B, K), a :class:`PurifiedClassifier` or the bare one.
    score : Module or callable
        As for :func:`purify`.
    weight : float, default=0.1
        w >= 0, in units of L_0 for each nat of the score.
    base : {"ce", "margin", "dlr"} or callable, default="margin"
        L_0. Cross entropy grows without bound and would drown the score.

    Examples
    --------
    >>> from manifoldkit.attacks import PGD
    >>> net = UsualLooking(nn.Linear(2, 2), lambda x: -x.square().sum(1))
    >>> attack = PGD(net, 0.1, loss=net.loss, early_stop=False)
    >>> attack(torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)).shape
    torch.Size([5, 2])
    """

    def __init__(self, classifier: nn.Module, score: Score, weight: float = 0.1, base: str | Loss = "margin") -> None:
        super().__init__()
        if not isinstance(classifier, nn.Module):
            raise TypeError(f"classifier must be a torch.nn.Module, got {type(classifier).__name__}")
        if not weight >= 0:
            raise ValueError(f"weight must not be negative, got {weight!r}")
        self.classifier, self.score = classifier, score
        self.parts = nn.ModuleList(modules_of(score))
        self.weight = float(weight)
        self.base = resolve(base)
        self._last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._last = self.score(x)
        result: torch.Tensor = self.classifier(x)
        return result

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss (B,) of the logits that the last call returned."""
        if self._last is None or len(self._last) != len(logits):
            raise ValueError("loss must be called with the logits that the network has just returned")
        return self.base(logits, labels) + self.weight * self._last
