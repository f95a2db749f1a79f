"""The attacker of the source: the gradient of the whole training loss, the isometric term included."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..attacks.losses import cross_entropy
from ..exceptions import NoPairsWarning
from ._input import cell_ids, level_ids
from .layers import LocallyIsometricNet
from .levels import isometric_terms, level_losses, level_weights
from .losses import IsometricLoss

__all__ = ["FullLossView"]


class FullLossView(nn.Module):
    r"""A network seen by an attacker who climbs the training loss of the batch, not the cross entropy alone.

    .. math:: \nabla_x \sum_l \left[ \alpha_l\, \mathrm{CE}(\text{logits}_l, y_l)
              + \beta_l L_{iso}(z_{l-1}, z_l, y_l) \right]

    the loss of :class:`IsometricTrainer` with the same weights.

    The isometric term is no part of what makes a prediction wrong, so that its gradient leads such an attack astray:
    accuracy under it says nothing about robustness, and belongs into a table only beside that under the plain
    cross entropy, a transfer attack and one without gradients. Samples are coupled by the term, so the attack depends
    on the batch (100 images in the source), from which samples leave once they are misclassified.

    Parameters
    ----------
    net : LocallyIsometricNet
        The network, shared and not copied.
    alpha, beta : float or one for each level, default=1.0
        Weights of the cross entropy and of the isometric loss, within the classes of the attacked labels.
    isometry : IsometricLoss or one for each level, optional
        ``IsometricLoss()`` by default.
    classes : sequence of ints (C,), one for each level, optional
        For a hierarchy under attack, where there are labels of the last level alone: the class on every level of each
        of its C classes, such as ``[[0, 0, 1, 1], [0, 1, 2, 3]]``. Without it, :meth:`objective` of a hierarchy asks
        for the labels of every level.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.

    References
    ----------
    .. [1] Beshkov, Verhellen and Lepperoed, "Isometric representations in neural networks improve robustness",
       Scientific Reports, 2025, equation 4.

    Examples
    --------
    >>> from manifoldkit.attacks import FGSM
    >>> net = LocallyIsometricNet.mlp(4, 2, width=8, generator=torch.Generator().manual_seed(0))
    >>> x, y = torch.rand(10, 4), torch.arange(10) % 2
    >>> view = FullLossView(net, beta=10.0)
    >>> FGSM(view, eps=0.1, loss=view.objective)(x, y).shape
    torch.Size([10, 4])
    """

    def __init__(
        self,
        net: LocallyIsometricNet,
        *,
        alpha: float | Sequence[float] = 1.0,
        beta: float | Sequence[float] = 1.0,
        isometry: IsometricLoss | Sequence[IsometricLoss] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, LocallyIsometricNet):
            raise TypeError(f"net must be a LocallyIsometricNet, got {type(net).__name__}: wrap your backbone in one")
        self.net = net
        levels = len(net.blocks)
        self.alpha = level_weights(alpha, "alpha", levels)
        self.beta = level_weights(beta, "beta", levels)
        self.isometry = level_losses(isometry, levels)
        self.classes = None if classes is None else _classes(classes, net.n_classes)
        self._seen: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, C) of the last level."""
        found = self.net.representations(x)
        self._seen, self._scores = [x, *found], self.net.logits(found)
        return self._scores[-1]

    def objective(self, logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """Loss of every sample (B,) of the batch that `forward` has just seen; their sum is B times the loss.

        `labels` are ints (B,), of the last level if there are several and `classes` tells the others, or a sequence of
        such vectors, one for each level.
        """
        seen = len(self._seen[0]) if self._seen else 0
        if seen != len(logits):
            raise ValueError(
                f"objective weighs the batch that the view was last called with, of {seen} samples, got {len(logits)} "
                "logits: call the view on their samples first"
            )
        levels = self._levels(labels, logits)
        value = torch.zeros_like(logits[:, 0])
        for alpha, scores, y in zip(self.alpha, [*self._scores[:-1], logits], levels, strict=True):
            if alpha:
                value = value + alpha * cross_entropy(scores, y)
        with warnings.catch_warnings():  # a batch that the attack has emptied down to single samples of its classes
            warnings.simplefilter("ignore", NoPairsWarning)
            terms = isometric_terms(self.isometry, self.beta, self._seen[0], self._seen[1:], levels)
        for level, term in terms.items():
            value = value + self.beta[level] * term
        return value

    def _levels(self, labels: Any, logits: torch.Tensor) -> list[torch.Tensor]:
        """Labels of every level."""
        n, levels = len(logits), len(self.net.blocks)
        if levels > 1 and isinstance(labels, torch.Tensor) and labels.ndim == 1:
            if self.classes is None:
                raise ValueError(
                    f"the network has {levels} levels and the labels are those of one: pass a sequence of {levels} "
                    "label vectors, or tell the view the classes of every level, as FullLossView(net, classes=...)"
                )
            return [of[labels.cpu()].to(logits.device) for of in self.classes]
        return level_ids(labels, levels, n, logits.device)

    def __getstate__(self) -> dict[str, Any]:
        # What was seen is part of a graph, which can be neither copied nor pickled.
        return {**self.__dict__, "_seen": [], "_scores": []}


def _classes(classes: Sequence[Any], counts: Sequence[int]) -> list[torch.Tensor]:
    """For every level, the class of each class of the last level."""
    if len(classes) != len(counts):
        raise ValueError(f"classes must hold a vector for each of the {len(counts)} levels, got {len(classes)}")
    found = [cell_ids(of, counts[-1], f"classes[{level}]") for level, of in enumerate(classes)]
    for level, (of, count) in enumerate(zip(found, counts, strict=True)):
        if int(of.min()) < 0 or int(of.max()) >= count:
            raise ValueError(f"classes[{level}] must lie in 0..{count - 1}, got {of.tolist()}")
    return found
