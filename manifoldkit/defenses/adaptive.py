"""Attacks that know of the purifier: a purified classifier with a gradient, and samples that look usual already."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..attacks._input import column, one_of, read_bounds, read_radius, read_steps
from ..attacks._model import as_found
from ..attacks.losses import Loss, resolve
from ..attacks.patch import read_mask
from .purify import Score, modules_of, purify

__all__ = ["PurifiedClassifier", "UsualLooking"]


class PurifiedClassifier(nn.Module):
    r"""A classifier behind a purifier, as one network that attacks can differentiate.

    The answer is that of the classifier at the purified sample. The derivative of a purifier of signed steps is the
    identity where no clip acts, as a sign has the derivative 0: differentiating through every step as it is would add
    nothing but the zeros of clipped pixels. Two ways back are offered:

    "identity"
        The purifier counts as the identity ("straight through", [1]_); cheap.
    "unrolled"
        Every step counts as :math:`\tanh(g / \tau)` in the place of :math:`\operatorname{sign}(g)`, with
        :math:`\tau` a share of the mean :math:`|g|` of a sample, and is differentiated, second derivatives of the
        score included. The score must be twice differentiable, and the graph of all steps is kept where the sample
        requires a gradient; elsewhere the answer is that of "identity".

    Parameters
    ----------
    classifier : Module
        (B, ...) to logits (B, K).
    score : Module or callable
        As for :func:`purify`; a Module (or a method of one) becomes a part of this one.
    backward : {"identity", "unrolled"}, default="identity"
    n_draws : int, default=1
        Purifications of each sample whose logits are averaged, for scores that draw random numbers: an attack should
        not bet on one draw (expectation over transformations, [1]_).
    softness : float, default=1.0
        Share of the mean gradient that :math:`\tau` is, for "unrolled".
    **options
        As for :func:`purify`: step, n_steps, eps, mask, ... An attack may use fewer and longer steps than the defence,
        to be tested against the true one afterwards. "unrolled" knows step, n_steps, mask and bounds alone.

    References
    ----------
    .. [1] Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018 (BPDA).

    Examples
    --------
    >>> net = PurifiedClassifier(nn.Linear(2, 2), lambda x: -(x - 0.5).square().sum(1), step=0.25, n_steps=4)
    >>> net(torch.rand(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        classifier: nn.Module,
        score: Score,
        *,
        backward: str = "identity",
        n_draws: int = 1,
        softness: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Module):
            raise TypeError(f"classifier must be a torch.nn.Module, got {type(classifier).__name__}")
        self.backward = one_of(backward, "backward", ("identity", "unrolled"))
        self.n_draws = read_steps(n_draws, "n_draws", 1)
        if not softness > 0:
            raise ValueError(f"softness must be positive, got {softness!r}")
        others = set(options) - {"step", "n_steps", "mask", "bounds"}
        if backward == "unrolled" and others:
            raise ValueError(f"backward='unrolled' does not know {', '.join(sorted(others))}: take 'identity'")
        self.classifier = classifier
        self.score = score
        self.parts = nn.ModuleList([*modules_of(score), *options.get("modules", ())])
        self.softness = float(softness)
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copies = (self.n_draws, *[1] * (x.ndim - 1))  # all draws in one batch, which costs less than one by one
        options = dict(self.options)
        if options.get("mask") is not None:
            options["mask"] = read_mask(options["mask"], x).repeat(copies)
        logits = self._once(x.repeat(copies), options)
        return logits.reshape(self.n_draws, len(x), *logits.shape[1:]).mean(0)

    def _once(self, x: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        if self.backward == "unrolled" and torch.is_grad_enabled() and x.requires_grad:
            with as_found(*self.parts):
                usual = self._unrolled(x, **options)
            result: torch.Tensor = self.classifier(usual)
            return result
        purified = purify(self.score, x.detach(), **options)
        result = self.classifier(x + (purified - x).detach())
        return result

    def _unrolled(
        self,
        x: torch.Tensor,
        *,
        step: float = 1 / 255,
        n_steps: int = 256,
        mask: Any = None,
        bounds: tuple[float, float] | None = (0, 1),
    ) -> torch.Tensor:
        """The purified samples with a graph; their values are those of signed steps."""
        step, n_steps = float(read_radius(step, "step")), read_steps(n_steps, "n_steps", 0)
        bounds = read_bounds(bounds)
        free = torch.ones_like(x) if mask is None else read_mask(mask, x).to(x)
        here = x
        for _ in range(n_steps):
            (gradient,) = torch.autograd.grad(self.score(here).sum(), here, create_graph=True)
            size = gradient.detach().flatten(1).abs().mean(1).clamp_min(torch.finfo(x.dtype).tiny)
            soft = torch.tanh(gradient / (self.softness * column(size, x)))
            moved = here + step * free * (soft + (gradient.sign() - soft).detach())
            if bounds is not None:  # values are clipped, derivatives are not: pixels at a bound keep theirs
                moved = moved + (moved.clamp(*bounds) - moved).detach()
            here = moved
        return here


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
