"""The isometric loss: distances within the cells of a partition are to survive a map."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._distances import condensed_distances, pairwise_distances
from ..exceptions import NoPairsWarning
from ._input import cell_ids, flat

__all__ = ["DiffusionDistance", "IsometricLoss", "Metric"]

#: From samples (N, ...) to their distances (N, N).
Metric = Callable[[torch.Tensor], torch.Tensor]


class IsometricLoss(torch.nn.Module):
    r"""Mean squared change of the distances between samples of one cell, to train maps that keep them.

    .. math:: L = \frac{1}{N^2} \sum_{i,j} G_{ij} \left(s\, d(x_i, x_j) - |z_i - z_j|\right)^2

    with G = 1 where i and j lie in one cell of the partition and 0 elsewhere, N the size of the batch, d the metric of
    the inputs and s a scale. The diagonal and coincident samples contribute neither loss nor a gradient that is NaN,
    and a cell with a single sample contributes 0. Random batches of many classes hold few pairs of a class; see
    :class:`ClassBalancedBatchSampler`. Under data-parallel training the pairs are those of the local batch. The loss is
    twice differentiable (coincident samples have gradient 0 and second derivative 0). Distances of float16 and bfloat16
    are computed in float32, the dtype of their loss.

    Parameters
    ----------
    partition : "class", "global" or ints of shape (N,), default="class"
        Pairs within a class, all pairs (a global isometry), or the cell of each sample of a batch that is always the
        same one.
    reduction : {"batch", "pairs"}, default="batch"
        "batch" divides by N^2 as in the source, so that the weight of the term falls with the number of classes;
        "pairs" takes the mean over the pairs i < j with G = 1.
    metric : "euclidean", "precomputed" or callable, default="euclidean"
        d. "precomputed" takes the matrix (N, N) of distances in the place of x; a callable, such as a
        :class:`DiffusionDistance`, gives that matrix for x. In a hierarchy, x is the representation of the level
        before, unless the callable has a true attribute ``of_samples``: it then gets the inputs of the network on
        every level.
    scale : float, default=1.0
        s > 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; in the call, if labels are missing, of the wrong length or not integers, shapes do
        not fit, the batch is empty, or x or z hold NaN.

    Warns
    -----
    NoPairsWarning
        Once for each loss object, when a batch has no pair in one cell; the loss is 0 then.

    References
    ----------
    .. [1] Beshkov, Verhellen and Lepperoed, "Isometric representations in neural networks improve robustness",
       Scientific Reports, 2025, section "Locally isometric layers".

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [5.0]])
    >>> z = torch.tensor([[0.0], [3.0], [0.0]])
    >>> IsometricLoss(reduction="pairs")(x, z, torch.tensor([0, 0, 1]))  # one pair, of length 1, is stretched to 3
    tensor(4.)
    >>> IsometricLoss()(x, z, torch.tensor([0, 0, 1])).round(decimals=3)  # counted twice, divided by 9
    tensor(0.8890)
    """

    cells: torch.Tensor | None

    def __init__(
        self,
        partition: Any = "class",
        reduction: str = "batch",
        *,
        metric: str | Metric = "euclidean",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        named = isinstance(partition, str)
        if named and partition not in ("class", "global"):
            raise ValueError(f"partition must be 'class', 'global' or the cell of each sample, got {partition!r}")
        if reduction not in ("batch", "pairs"):
            raise ValueError(f"reduction must be 'batch' or 'pairs', got {reduction!r}")
        if not callable(metric) and metric not in ("euclidean", "precomputed"):
            raise ValueError(f"metric must be 'euclidean', 'precomputed' or a function x -> (N, N), got {metric!r}")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be positive and finite, got {scale!r}")
        if not named and np.ndim(partition) != 1:
            raise ValueError(
                "partition must be 'class', 'global' or the cell of each sample, integers of shape (N,), got "
                f"{partition!r}"
            )
        self.partition = partition if named else "cells"
        self.register_buffer("cells", None if named else cell_ids(partition, len(partition), "partition"))
        self.reduction = reduction
        self.metric = metric
        self.scale = float(scale)
        self._warned = False

    def extra_repr(self) -> str:
        return f"partition={self.partition!r}, reduction={self.reduction!r}, metric={self.metric!r}"

    def forward(self, x: torch.Tensor, z: torch.Tensor, y: Any = None) -> torch.Tensor:
        """Loss of inputs `x` (N, ...), representations `z` (N, ...) and labels `y` (N,), a scalar with gradient."""
        z = _single(flat(z, "z"))
        x = x if callable(self.metric) else _single(flat(x, "x"))
        if len(x) != len(z):
            raise ValueError(f"x and z must hold the same samples, got {len(x)} and {len(z)}")
        n = len(z)
        if n == 0:
            raise ValueError("the batch holds no sample: x and z must have at least one row")
        order, sizes = self._cells(y, n, z.device)
        before, after = self._distances(x, order, sizes), condensed_distances(z.index_select(0, order), sizes)
        change = torch.nn.functional.mse_loss(after, self.scale * before.to(after.dtype), reduction="sum")
        loss = change * (2.0 / n**2 if self.reduction == "batch" else 1.0 / max(1, len(after)))
        if not math.isfinite(loss.detach()):
            broken = "the inputs x" if not torch.isfinite(before).all() else "the representations z"
            raise ValueError(f"the isometric loss is {loss.item()}: {broken} hold NaN, infinity or overflow")
        if len(after) == 0:
            self._warn(n)
        return loss

    def _cells(self, y: Any, n: int, device: torch.device) -> tuple[torch.Tensor, list[int]]:
        """Indices of the samples cell by cell, and the sizes of the cells."""
        if self.partition == "global":
            return torch.arange(n, device=device), [n]
        if self.partition == "cells":
            if self.cells is None or len(self.cells) != n:
                raise ValueError(
                    f"the partition has {0 if self.cells is None else len(self.cells)} samples and the batch {n}: for "
                    "changing batches use partition='class' and pass the cells of the batch as y, or to "
                    "IsometricTrainer.fit as cells"
                )
            y = self.cells
        ids = cell_ids(y, n, "y", device)
        ids, order = torch.sort(ids, stable=True)
        return order, torch.unique_consecutive(ids, return_counts=True)[1].tolist()

    def _distances(self, x: torch.Tensor, order: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """Distances of the pairs of each cell, by the metric of the inputs."""
        if self.metric == "euclidean":
            return condensed_distances(x.index_select(0, order), sizes)
        matrix = self.metric(x) if callable(self.metric) else x
        if not isinstance(matrix, torch.Tensor) or matrix.shape != (len(x), len(x)):
            what = tuple(matrix.shape) if isinstance(matrix, torch.Tensor) else type(matrix).__name__
            raise ValueError(f"distances must be a tensor of shape ({len(x)}, {len(x)}), got {what}")
        parts = []
        for cell in order.split(sizes):
            i, j = torch.triu_indices(len(cell), len(cell), 1, device=cell.device)
            parts.append(matrix[cell[i], cell[j]])
        return torch.cat(parts)

    def _warn(self, n: int) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"no two of the {n} samples share a cell, so the isometric loss is 0: use larger batches or "
            "ClassBalancedBatchSampler (said once)",
            NoPairsWarning,
            stacklevel=3,
        )


def _single(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: it has not the digits for differences, nor torch the kernels."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class DiffusionDistance:
    r"""Diffusion distance on a learned manifold, as the input metric of an :class:`IsometricLoss`.

    .. math:: d_t(x, y)^2 = \sum_k e^{-2 \lambda_k t} \left(\phi_k(x) - \phi_k(y)\right)^2

    Small t looks at detail, large t at the shape as a whole. No gradient flows to the samples. It is a metric of
    samples: in a hierarchy, every level compares its representation with the inputs of the network.

    Parameters
    ----------
    manifold : DiffusionManifold
        A fitted one: its `transform` and `eigenvalues_` are used.
    time : float, default=1.0
        t in units of the reciprocal of the first eigenvalue that is not zero.

    Examples
    --------
    >>> from manifoldkit import DiffusionManifold
    >>> from manifoldkit.datasets import make_circle
    >>> x = torch.from_numpy(make_circle(200, grid=True).points)
    >>> distance = DiffusionDistance(DiffusionManifold(n_components=9).fit(x))
    >>> distance(x)[0, [1, 50, 100]].argsort()  # grows along the circle
    tensor([0, 1, 2])
    """

    #: Read by :class:`IsometricTrainer`: to be asked for samples, not for representations.
    of_samples = True

    def __init__(self, manifold: Any, time: float = 1.0) -> None:
        if not hasattr(manifold, "eigenvalues_"):
            raise TypeError(
                f"manifold must be a fitted DiffusionManifold, got {type(manifold).__name__}: call fit first"
            )
        if not (math.isfinite(time) and time >= 0):
            raise ValueError(f"time must be a finite number >= 0, got {time!r}")
        self.manifold, self.time = manifold, float(time)

    def coordinates(self, x: Any) -> torch.Tensor:
        """Samples (N, ...) as points (N, K) whose Euclidean distances are the diffusion distances."""
        values = torch.as_tensor(self.manifold.eigenvalues_, dtype=torch.float64)
        positive = values[values > 1e-9 * values.max()]
        if len(positive) == 0:
            raise ValueError("the manifold has no eigenvalue above zero: fit it with more components")
        weights = torch.exp(-self.time * values / positive[0])
        phi = _single(torch.as_tensor(self.manifold.transform(x)))
        return phi * weights.to(phi)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return pairwise_distances(self.coordinates(x))
