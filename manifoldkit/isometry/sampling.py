"""Batches with the same number of samples of each of their classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ..exceptions import SmallClassWarning
from ._input import cell_ids, check_size, fresh

__all__ = ["ClassBalancedBatchSampler"]


class ClassBalancedBatchSampler(Sampler[list[int]]):
    """Batches of m classes with k samples each, so that every batch has m k (k - 1) / 2 pairs within its classes.

    Classes are drawn without repetition within a batch; the samples of a class are gone through in random order, and
    only when less than k are left is the class shuffled again. A ``batch_sampler`` of a `torch.utils.data.DataLoader`,
    and the `sampler` of :meth:`IsometricTrainer.fit`.

    Parameters
    ----------
    labels : ints of shape (n,)
        Class of every sample of the data set.
    n_classes : int
        m, at most the number of classes that have k samples.
    n_samples : int
        k >= 2. Classes with fewer samples are in no batch.
    n_batches : int, optional
        Batches of an epoch; n // (m k), at least one, by default.
    generator : torch.Generator, optional
        Source of randomness; None is a fresh one, seeded by the operating system.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or fewer than m classes have k samples.

    Warns
    -----
    SmallClassWarning
        When classes have less than k samples, with their ids: they are never shown. Take a smaller k, or leave these
        samples out.

    Examples
    --------
    >>> labels = torch.arange(100) % 5
    >>> sampler = ClassBalancedBatchSampler(labels, 2, 10, generator=torch.Generator().manual_seed(0))
    >>> len(sampler), [len(batch) for batch in sampler]
    (5, [20, 20, 20, 20, 20])
    """

    def __init__(
        self,
        labels: Any,
        n_classes: int,
        n_samples: int,
        n_batches: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if np.ndim(labels) != 1:
            what = "None" if labels is None else f"shape {tuple(np.shape(labels))}"
            raise ValueError(f"labels must be integers of shape (n,), one for each sample, got {what}")
        labels = cell_ids(labels, len(labels), "labels", torch.device("cpu"))
        self.n_classes = check_size(n_classes, "n_classes")
        self.n_samples = check_size(n_samples, "n_samples", 2)
        members = {label: torch.nonzero(labels == label)[:, 0] for label in labels.unique().tolist()}
        self._members = [indices for indices in members.values() if len(indices) >= self.n_samples]
        if len(self._members) < self.n_classes:
            raise ValueError(
                f"{len(self._members)} of {len(members)} classes have {n_samples} samples, a batch needs {n_classes}: "
                "take fewer classes or samples"
            )
        small = [label for label, indices in members.items() if len(indices) < self.n_samples]
        if small:
            named = ", ".join(map(str, small[:10])) + (", ..." if len(small) > 10 else "")
            warnings.warn(
                f"{len(small)} of {len(members)} classes have less than {self.n_samples} samples and are in no batch "
                f"({named}): take a smaller n_samples, or leave their samples out",
                SmallClassWarning,
                stacklevel=2,
            )
        whole = max(1, len(labels) // (self.n_classes * self.n_samples))
        self.n_batches = whole if n_batches is None else check_size(n_batches, "n_batches")
        self.generator = generator

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        generator = fresh(self.generator)
        queues = [indices[:0] for indices in self._members]
        for _ in range(self.n_batches):
            batch: list[int] = []
            for c in torch.randperm(len(queues), generator=generator)[: self.n_classes].tolist():
                if len(queues[c]) < self.n_samples:
                    queues[c] = self._members[c][torch.randperm(len(self._members[c]), generator=generator)]
                batch += queues[c][: self.n_samples].tolist()
                queues[c] = queues[c][self.n_samples :]
            yield batch
