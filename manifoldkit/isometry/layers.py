"""Classifiers made of blocks whose representations keep the distances within classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ._input import check_size
from .networks import MLP, initialise

__all__ = ["LocallyIsometricNet"]

POLICIES = ("previous", "own", "full")


class LocallyIsometricNet(nn.Module):
    """Blocks one behind the other, each with a linear classifier on its representation: a stack of LIL blocks.

    Block l takes the representation of block l - 1 (block 0 the samples). Every level has labels of its own, from
    coarse to fine, say. ``net(x)`` gives the logits of the last level, so that the network is a plain classifier for
    attacks; :class:`IsometricTrainer` trains all levels.

    Parameters
    ----------
    blocks : Module or sequence of Modules
        Backbones of your choice, a CNN for instance: block 0 maps samples (B, ...) to (B, d_0), block l maps
        (B, d_{l-1}) to (B, d_l).
    n_features : int or sequence of int
        d_l of every block.
    n_classes : int or sequence of int
        Number of classes of every level.
    gradient : {"previous", "own", "full"}, default="previous"
        Which parameters the losses of level l reach: those of block l and the block before, as in the source; of
        block l alone; or of all blocks up to l. Each with the classifier of the level. See :meth:`reach`.
    shared_head : bool, default=False
        One classifier for all levels behind a linear projection for each block, instead of one classifier a block;
        level l reads the first n_classes[l] of its logits.
    generator : torch.Generator, optional
        Source of the weights of the classifiers; None is a fresh one. The blocks are taken as they are.

    Raises
    ------
    TypeError, ValueError
        If blocks are not modules, numbers do not fit the blocks, or an option is unknown; in the call, if a block
        does not return (B, d_l).

    References
    ----------
    .. [1] Beshkov, Verhellen and Lepperoed, "Isometric representations in neural networks improve robustness",
       Scientific Reports, 2025.

    Examples
    --------
    >>> net = LocallyIsometricNet.mlp(3, n_classes=[2, 4], width=20, generator=torch.Generator().manual_seed(0))
    >>> x = torch.zeros(5, 3)
    >>> [tuple(z.shape) for z in net.representations(x)], tuple(net(x).shape)
    ([(5, 20), (5, 20)], (5, 4))
    """

    def __init__(
        self,
        blocks: nn.Module | Sequence[nn.Module],
        n_features: int | Sequence[int],
        n_classes: int | Sequence[int],
        *,
        gradient: str = "previous",
        shared_head: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        blocks = [blocks] if isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList) else list(blocks)
        if not blocks or not all(isinstance(block, nn.Module) for block in blocks):
            raise TypeError("blocks must be a torch.nn.Module or a sequence of them")
        if gradient not in POLICIES:
            raise ValueError(f"gradient must be one of {POLICIES}, got {gradient!r}")
        self.blocks = nn.ModuleList(blocks)
        self.n_features = _each(n_features, "n_features", len(blocks))
        self.n_classes = _each(n_classes, "n_classes", len(blocks))
        self.gradient = gradient
        self.shared_head = bool(shared_head)
        if self.shared_head:
            width = self.n_features[-1]
            self.heads = nn.ModuleList(nn.utils.skip_init(nn.Linear, d, width) for d in self.n_features)
            self.classifier: nn.Linear | None = nn.utils.skip_init(nn.Linear, width, max(self.n_classes))
        else:
            sizes = zip(self.n_features, self.n_classes, strict=True)
            self.heads = nn.ModuleList(nn.utils.skip_init(nn.Linear, d, c) for d, c in sizes)
            self.classifier = None
        for head in [*self.heads, *([] if self.classifier is None else [self.classifier])]:
            initialise(head, generator)

    @classmethod
    def mlp(
        cls,
        n_inputs: int,
        n_classes: int | Sequence[int],
        *,
        width: int = 100,
        depth: int = 4,
        activation: Callable[[], nn.Module] = nn.Tanh,
        gradient: str = "previous",
        shared_head: bool = False,
        generator: torch.Generator | None = None,
    ) -> LocallyIsometricNet:
        """The perceptrons of the source: `depth` hidden layers of `width` units in each block, a block for each level.

        Parameters
        ----------
        n_inputs : int
            Entries of a sample; images are flattened.
        n_classes : int or sequence of int
            Number of classes; a sequence makes a block for each entry.
        width, depth : int, default=100, 4
            Size of the hidden layers and their number in each block.
        activation : callable, default=nn.Tanh
            Makes the activation after every hidden layer.
        gradient, shared_head, generator
            As for the class; the generator draws the blocks as well.
        """
        counts = [n_classes] if isinstance(n_classes, int | np.integer) else list(n_classes)
        width, depth = check_size(width, "width"), check_size(depth, "depth")
        first = [n_inputs, *[width] * (len(counts) - 1)]
        blocks = [MLP([size, *[width] * depth], activation, activate_last=True, generator=generator) for size in first]
        return cls(
            blocks, [width] * len(counts), counts, gradient=gradient, shared_head=shared_head, generator=generator
        )

    def representations(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The representation (B, d_l) after every block."""
        found: list[torch.Tensor] = []
        for block, d in zip(self.blocks, self.n_features, strict=True):
            x = block(x)
            if x.ndim != 2 or x.shape[1] != d:
                raise ValueError(
                    f"block {len(found)} must return (B, {d}), got {tuple(x.shape)}: end it in nn.Flatten and pass the "
                    "number of its outputs as n_features"
                )
            found.append(x)
        return found

    def logits(self, representations: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Class scores (B, C_l) of every level from the representations."""
        scores = [head(z) for head, z in zip(self.heads, representations, strict=True)]
        if self.classifier is None:
            return scores
        return [self.classifier(score)[:, :c] for score, c in zip(scores, self.n_classes, strict=True)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, C) of the last level."""
        return self.logits(self.representations(x))[-1]

    def reach(self, level: int) -> list[nn.Parameter]:
        """Parameters that the losses of a level may move, by the policy `gradient`."""
        first = {"own": level, "previous": max(0, level - 1), "full": 0}[self.gradient]
        modules: list[Any] = [*self.blocks[first : level + 1], self.heads[level]]
        if self.classifier is not None:
            modules.append(self.classifier)
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def _each(value: int | Sequence[int], name: str, n: int) -> tuple[int, ...]:
    values = [value] * n if isinstance(value, int | np.integer) else list(value)
    if len(values) != n:
        raise ValueError(f"{name} must have an entry for each of the {n} blocks, got {len(values)}")
    return tuple(check_size(entry, name) for entry in values)
