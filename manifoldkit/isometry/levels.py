"""What a stack of locally isometric blocks minimises, level by level; its trainer and its attackers share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ._input import cell_ids, finite_samples
from .losses import IsometricLoss

__all__ = ["isometric_terms", "level_cells", "level_losses", "level_sources", "level_weights"]


def isometric_terms(
    isometry: Sequence[IsometricLoss],
    beta: Sequence[float],
    x: torch.Tensor,
    found: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    sources: Sequence[torch.Tensor | None] | None = None,
) -> dict[int, torch.Tensor]:
    """Isometric loss, without its weight, of each level whose weight is not zero.

    A level compares its representation with that of the level before, the first one with the samples; with what
    `sources` holds for it; or with the samples if the metric of its loss is one of samples (``metric.of_samples``).

    Parameters
    ----------
    isometry, beta : one for each level
    x : Tensor (B, ...)
        Samples.
    found : sequence of Tensors (B, d_l)
        Representations after every block.
    labels : sequence of ints (B,)
        Cells of every level.
    sources : sequence of Tensors (B, k) or None, optional
    """
    terms = {}
    for level, z in enumerate(found):
        if not beta[level]:
            continue
        before = None if sources is None else sources[level]
        if before is None:
            before = x if level == 0 or _of_samples(isometry[level]) else found[level - 1]
        terms[level] = isometry[level](before, z, labels[level])
    return terms


def _of_samples(loss: IsometricLoss) -> bool:
    """Whether the metric of a loss is one of samples, which a representation cannot be asked for."""
    return bool(getattr(loss.metric, "of_samples", False))


def level_weights(value: float | Sequence[float], name: str, n: int) -> tuple[float, ...]:
    """A weight for each of n levels, from one number or n."""
    values = [float(value)] * n if isinstance(value, int | float | np.number) else [float(entry) for entry in value]
    if len(values) != n or any(not 0 <= entry < float("inf") for entry in values):
        raise ValueError(f"{name} must be a finite number >= 0 or one for each of the {n} levels, got {value!r}")
    return tuple(values)


def level_losses(isometry: Any, n: int) -> tuple[IsometricLoss, ...]:
    """A loss for each of n levels, from one, n or None."""
    if isometry is None:
        isometry = IsometricLoss()
    losses = [isometry] * n if isinstance(isometry, IsometricLoss) else isometry
    if not isinstance(losses, Sequence | torch.nn.ModuleList) or isinstance(losses, str):
        raise TypeError(f"isometry must be an IsometricLoss or one for each level, got {type(isometry).__name__}")
    wrong = [type(loss).__name__ for loss in losses if not isinstance(loss, IsometricLoss)]
    if wrong:
        raise TypeError(f"isometry must hold an IsometricLoss for each level, got {wrong[0]}")
    if len(losses) != n:
        raise ValueError(f"isometry must be one IsometricLoss or one for each of the {n} levels, got {len(losses)}")
    if any(loss.metric == "precomputed" for loss in losses):
        raise ValueError(
            "isometry with metric='precomputed' has no matrix to take in batches of samples: use a metric x -> (N, N), "
            "or pass coordinates to fit"
        )
    return tuple(losses)


def level_cells(cells: Any, labels: list[torch.Tensor], isometry: Sequence[IsometricLoss]) -> list[torch.Tensor]:
    """Cells of every level: those given (one vector, or an entry for each level), or else its labels."""
    if cells is None:
        return labels
    own = _entries(cells, 1)
    given = [cells] * len(labels) if own is None else own
    if len(given) != len(labels):
        raise ValueError(f"cells must be one vector or one for each of the {len(labels)} levels, got {len(given)}")
    for level, (part, loss) in enumerate(zip(given, isometry, strict=True)):
        if part is not None and loss.partition != "class":
            raise ValueError(
                f"cells are given for level {level}, whose loss has partition={loss.partition!r} and does not read "
                "them: use partition='class'"
            )
    return [
        label if part is None else cell_ids(part, len(label), "cells", label.device)
        for part, label in zip(given, labels, strict=True)
    ]


def level_sources(coordinates: Any, n: int, isometry: Sequence[IsometricLoss]) -> list[torch.Tensor | None]:
    """Points (n, k) that stand for what each level compares with, or None; one array is that of the first level."""
    own = _entries(coordinates, 2)
    given = [coordinates, *[None] * (len(isometry) - 1)] if own is None else own
    if len(given) != len(isometry):
        raise ValueError(f"coordinates must have an entry for each of the {len(isometry)} levels, got {len(given)}")
    sources = [None if part is None else finite_samples(part, "coordinates") for part in given]
    for level, (source, loss) in enumerate(zip(sources, isometry, strict=True)):
        if source is not None and len(source) != n:
            raise ValueError(f"coordinates must have a row for each of the {n} samples, got {len(source)}")
        if source is not None and _of_samples(loss):
            raise ValueError(
                f"coordinates are given for level {level}, whose metric is one of samples: give one of the two"
            )
    return sources


def _entries(value: Any, ndim: int) -> list[Any] | None:
    """Entries, arrays of `ndim` axes or None, if it is these that a value holds."""
    if isinstance(value, list | tuple) and any(part is None or np.ndim(part) >= ndim for part in value):
        return list(value)
    rows = ndim == 1 and isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 2
    return list(value) if rows else None
