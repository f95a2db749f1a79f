"""The attacker of the source: the gradient of the whole training loss, the isometric term included."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..attacks.losses import cross_entropy
from ..exceptions import NoPairsWarning
from .layers import LocallyIsometricNet
from .losses import IsometricLoss
from .training import level_weights

__all__ = ["FullLossView"]


class FullLossView(nn.Module):
    r"""A network seen by an attacker who climbs the training loss of the batch, not the cross entropy alone.

    .. math:: \nabla_x \left[ \alpha\, \mathrm{CE} + \sum_l \beta_l L_{iso}(z_{l-1}, z_l, y) \right]

    The isometric term is no part of what makes a prediction wrong, so that its gradient leads such an attack astray:
    accuracy under it says nothing about robustness, and belongs into a table only beside that under the plain
    cross entropy, a transfer attack and one without gradients. Samples are coupled by the term, so the attack depends
    on the batch (100 images in the source), from which samples leave once they are misclassified.

    Parameters
    ----------
    net : LocallyIsometricNet
        The network, shared and not copied.
    alpha : float, default=1.0
        Weight of the cross entropy of the last level.
    beta : float or one for each level, default=1.0
        Weight of the isometric loss, within the classes of the attacked labels.
    isometry : IsometricLoss, optional
        ``IsometricLoss()`` by default.

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
        alpha: float = 1.0,
        beta: float | Sequence[float] = 1.0,
        isometry: IsometricLoss | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, LocallyIsometricNet):
            raise TypeError(f"net must be a LocallyIsometricNet, got {type(net).__name__}: wrap your backbone in one")
        self.net = net
        self.alpha = float(alpha)
        self.beta = level_weights(beta, "beta", len(net.blocks))
        self.isometry = IsometricLoss() if isometry is None else isometry
        self._seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, C) of the last level."""
        found = self.net.representations(x)
        self._seen = [x, *found]
        return self.net.logits(found)[-1]

    def objective(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of every sample (B,) of the batch that `forward` has just seen; their sum is B times the loss."""
        seen = len(self._seen[0]) if self._seen else 0
        if seen != len(logits):
            raise ValueError(
                f"objective weighs the batch that the view was last called with, of {seen} samples, got {len(logits)} "
                "logits: call the view on their samples first"
            )
        value = self.alpha * cross_entropy(logits, labels)
        with warnings.catch_warnings():  # a batch that the attack has emptied down to single samples of its classes
            warnings.simplefilter("ignore", NoPairsWarning)
            for beta, before, after in zip(self.beta, self._seen[:-1], self._seen[1:], strict=True):
                if beta:
                    value = value + beta * self.isometry(before, after, labels)
        return value

    def __getstate__(self) -> dict[str, Any]:
        # What was seen is part of a graph, which can be neither copied nor pickled.
        return {**self.__dict__, "_seen": []}
