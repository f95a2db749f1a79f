r"""The Nystrom extension: functions sampled on the training points, carried smoothly to all of space.

.. math::
    p_j(x) = \frac{K(x, x_j) w_j}{\sum_i K(x, x_i) w_i}, \qquad
    \tilde f(x) = \sum_j p_j(x) C_j, \qquad
    C = \Phi \,\mathrm{diag}(1/\lambda) \,\Phi^T \mathrm{diag}(\mu) f

At a training point this is the truncated series of f itself. With the coordinates as f it is a projection onto
the manifold. Everything here is plain torch, so that autograd gives the exact derivative.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import flatten
from ..reductions import nearest, softmax_average
from .kernels import KernelShape, bandwidth
from .matrix_free import BACKENDS
from .sampling import Sampling
from .support import SparseSupport

__all__ = ["FAR_MODES", "NystromLayer", "NystromRow"]

FAR_MODES = ("shift", "plain", "knn")


class NystromRow(nn.Module):
    r"""Weights :math:`p_j(x)` of the training points at new points, exact and differentiable.

    Far from the data the three modes differ. ``"plain"`` is the formula above: as :math:`|x| \to \infty` it
    returns the training point of largest bandwidth, an outlier, not the nearest one. ``"shift"`` subtracts the
    squared distance of the nearest training point from all squared distances; nothing changes at training
    points, and far away the nearest point wins. ``"knn"`` gives weight to the `n_far` nearest points only; it is
    discontinuous where they change and inexact at training points.

    Parameters
    ----------
    sampling : Sampling
        Training points, their bandwidths and multiplicities.
    eps2 : float
        Squared global bandwidth.
    n_neighbors : int
        k of the bandwidth function.
    convention : {"mean", "kth"}
        Whether the bandwidth is the mean distance to k neighbours or the distance of the k-th.
    shape : KernelShape
    n_far : int
        Number of neighbours in mode ``"knn"``.
    support : SparseSupport, optional
        Candidates of each query; all training points if missing.
    gather : bool, default=False
        Compute distances to the candidates only, instead of masking the others: for many training points.
    """

    center: Tensor
    points: Tensor
    squares: Tensor
    rho: Tensor
    log_weights: Tensor
    eps2: Tensor
    floor: Tensor

    def __init__(
        self,
        sampling: Sampling,
        *,
        eps2: float,
        n_neighbors: int,
        convention: str,
        shape: KernelShape,
        n_far: int = 50,
        support: SparseSupport | None = None,
        gather: bool = False,
    ) -> None:
        super().__init__()
        center = sampling.points.mean(axis=0)
        centred = torch.from_numpy(sampling.points - center)
        self.register_buffer("center", torch.from_numpy(center))
        self.register_buffer("points", centred)
        self.register_buffer("squares", centred.square().sum(dim=1))
        self.register_buffer("rho", torch.from_numpy(sampling.rho))
        self.register_buffer("log_weights", torch.from_numpy(np.log(sampling.weights)))
        self.register_buffer("eps2", torch.tensor(eps2, dtype=torch.float64))
        self.register_buffer("floor", torch.tensor(sampling.floor, dtype=torch.float64))
        self.n_neighbors, self.convention = n_neighbors, convention
        self.shape, self.n_far = shape, min(n_far, len(centred))
        self.search = sampling.search
        self.support, self.gather = support, gather

    @property
    def bytes_per_query(self) -> int:
        """Scratch memory of one row of weights, for cutting queries into chunks."""
        gathered = 3 * self.support.width * self.points.shape[1] if self.support and self.gather else 0
        return 8 * (4 * len(self.points) + gathered + (self.n_neighbors + 1) * self.points.shape[1])

    def forward(self, x: Tensor, far: str = "shift") -> tuple[Tensor, Tensor | None]:
        """Weights at `x` (B, D).

        Returns
        -------
        weights : Tensor (B, n) or (B, K)
            Non-negative, with row sums 1.
        index : None or Tensor (B, K)
            The training points that the weights belong to; None stands for all of them.
        """
        x = x - self.center
        k, index, mask = self.n_neighbors + 1, None, None
        if self.gather and self.support is not None:
            queries = (x.detach() + self.center).cpu().numpy()
            candidates, distinct = self.support.candidates(queries, float(self.floor))
            index, mask = candidates.to(x.device), distinct.to(x.device)
            rho, log_weights = self.rho[index], self.log_weights[index]
            score = self.squares[index] - 2 * torch.einsum("bd,bkd->bk", x, self.points[index])
            nearest = index[:, :k]
        else:
            rho, log_weights = self.rho, self.log_weights
            score = torch.addmm(self.squares, x, self.points.T, alpha=-2)  # |x - x_j|^2 less |x|^2
            length = k if self.support is None else max(k, self.support.length)
            near = score.detach().topk(length, largest=False).indices
            nearest = near[:, :k]
            if self.support is not None:
                gap = torch.linalg.vector_norm(x.detach() - self.points[near[:, 0]], dim=1)
                mask = self.support.mask(near[:, : self.support.length], gap <= self.floor, len(self.points))
        bandwidth_x = self.bandwidth(x, nearest)[:, None]
        if far == "plain":
            squared = (score + x.square().sum(dim=1, keepdim=True)).clamp_min(0)
        else:
            squared = score - score.amin(dim=1, keepdim=True)
        z = squared / (bandwidth_x * rho * self.eps2)
        logits = self.shape.log(z) + log_weights
        if mask is not None:
            assert self.support is not None
            reach = z - z.detach().amin(dim=1, keepdim=True) < self.support.reach
            logits = logits.masked_fill(~(mask & reach), -torch.inf)
        if far == "knn":
            ranked = score.detach() if mask is None else score.detach().masked_fill(~mask, torch.inf)
            closest = ranked.topk(min(self.n_far, ranked.shape[1]), dim=1, largest=False, sorted=False).indices
            logits = logits + torch.full_like(logits, -torch.inf).scatter(1, closest, 0.0)
        return torch.softmax(logits, dim=1), index

    def bandwidth(self, x: Tensor, nearest: Tensor) -> Tensor:
        """Bandwidth (B,) at centred points `x` from their k + 1 nearest training points, in any order."""
        distances = torch.linalg.vector_norm(x[:, None] - self.points[nearest], dim=2)
        result: Tensor = bandwidth(distances.sort(dim=1).values, self.convention)
        return result.clamp_min(self.floor)

    def average(self, x: Tensor, values: Tensor, far: str = "shift", reduction: str = "torch") -> Tensor:
        """Means (B, q) of `values` (n, q) under the weights at `x` (B, D)."""
        if reduction in BACKENDS:
            return self._matrix_free_average(x, values, far, BACKENDS[reduction])
        weights, index = self(x, far)
        if index is None:
            return weights @ values
        return torch.einsum("bk,bkq->bq", weights, values[index])

    def _matrix_free_average(self, x: Tensor, values: Tensor, far: str, backend: str) -> Tensor:
        """The same average of all training points, without a matrix of weights."""
        if self.support is not None or self.shape.width is None or far == "knn":
            raise ValueError(
                f"reduction={'keops' if backend == 'keops' else 'chunked'!r} needs the full kernel of an exponential "
                "shape, and far other than 'knn'"
            )
        if x.is_cuda:
            near = nearest(x.detach() - self.center, self.points, self.n_neighbors + 1, backend=backend)[1]
        else:
            near = torch.from_numpy(self.search.kneighbors(x.detach().numpy(), self.n_neighbors + 1)[1])
        x = x - self.center
        return softmax_average(
            x,
            self.bandwidth(x, near),
            self.points,
            self.rho,
            self.log_weights,
            values,
            float(self.eps2) * self.shape.width,
            anchor=self.points[near[:, 0]] if far == "shift" else None,
            backend=backend,
        )


class NystromLayer(nn.Module):
    r"""The Nystrom projection as a differentiable layer without trainable parameters.

    Forward computes :math:`y = \sum_j p_j(x) C_j` in the precision of its buffers (float64) and returns the dtype
    of `x`; backward is exact (autograd through the same formula), at the cost of one forward pass.
    ``nn.Sequential(layer, classifier)`` is a classifier behind the projection onto the manifold.

    Parameters
    ----------
    row : NystromRow
    coefficients : Tensor (n, D)
    sample_shape : tuple of int
        Shape of a sample.
    far : {"shift", "plain", "knn"}
    reduction : {"torch", "chunked", "keops"}
        See :class:`~manifoldkit.geometry.DiffusionManifold`.
    """

    coefficients: Tensor

    def __init__(
        self,
        row: NystromRow,
        coefficients: Tensor,
        sample_shape: tuple[int, ...],
        far: str = "shift",
        reduction: str = "torch",
    ) -> None:
        super().__init__()
        self.row = row
        self.register_buffer("coefficients", coefficients)
        self.sample_shape, self.far, self.reduction = sample_shape, far, reduction

    def forward(self, x: Tensor) -> Tensor:
        """Projection of `x` (B, *shape), in the shape and dtype of `x`."""
        flat = flatten(x, self.sample_shape, "x").to(self.coefficients.dtype)
        result = self.row.average(flat, self.coefficients, self.far, self.reduction)
        return result.reshape(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes shown by ``print(layer)``."""
        return f"n_points={len(self.coefficients)}, sample_shape={self.sample_shape}, far={self.far!r}"
