r"""The Nystrom extension: functions sampled on the training points, carried smoothly to all of space.

.. math::
    p_j(x) = \frac{K(x, x_j) w_j}{\sum_i K(x, x_i) w_i}, \qquad
    \tilde f(x) = \sum_j p_j(x) C_j, \qquad
    C = \Phi \,\mathrm{diag}(1/\lambda) \,\Phi^T \mathrm{diag}(\mu) f

At a training point this is the truncated series of f itself. With the coordinates as f it is a projection onto
the manifold. In many dimensions C is not formed: its factors :math:`\Phi` and
:math:`\mathrm{diag}(1/\lambda) \Phi^T \mathrm{diag}(\mu) f` are smaller and cheaper. Everything here is plain torch
(sums over a few points apart, see :mod:`._gathered`), so that autograd gives the exact derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import flatten
from ..reductions import nearest as nearest_points
from ..reductions import softmax_average
from ._constant import constant
from ._gathered import gathered_distances, gathered_products, gathered_sums
from ._softmax import kernel_softmax
from .compact import excess, fading, reaches
from .kernels import KernelShape, bandwidth
from .matrix_free import BACKENDS
from .neighbors import NeighborSearch
from .sampling import Sampling
from .support import SparseSupport

__all__ = ["FAR_MODES", "NystromLayer", "NystromRow", "Weights"]

FAR_MODES = ("shift", "plain", "knn")


@dataclass(frozen=True)
class Weights:
    """Weights of the training points at queries: non-negative, with row sums 1.

    Attributes
    ----------
    values : Tensor (B, n) or (B, K)
    index : None or Tensor (B, K)
        The training points that the weights belong to; None stands for all of them.
    nearest : Tensor (B,)
        The nearest training point.
    """

    values: Tensor
    index: Tensor | None
    nearest: Tensor

    def average(self, table: Tensor) -> Tensor:
        """Means (B, q) of the rows of `table` (n, q)."""
        return self.values @ table if self.index is None else gathered_sums(self.values, table, self.index)

    def rows(self, part: slice) -> Weights:
        """The weights of some of the queries."""
        return Weights(self.values[part], None if self.index is None else self.index[part], self.nearest[part])


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
        Training points, their bandwidths and multiplicities. The points are shared, not copied.
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
        Find candidates by the neighbour engine of the sampling, and compute the distances to them only: for many
        training points.
    """

    center: Tensor
    basis: Tensor | None
    points: Tensor
    squares: Tensor
    rho: Tensor
    ends: Tensor
    far: Tensor
    crowd: Tensor
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
        points, basis = torch.from_numpy(sampling.points), sampling.frame.basis
        self.register_buffer("center", torch.from_numpy(sampling.frame.center))
        self.register_buffer("basis", None if basis is None else torch.from_numpy(basis))
        self.register_buffer("points", points)
        self.register_buffer("squares", torch.linalg.vector_norm(points, dim=1).square())
        self.register_buffer("rho", torch.from_numpy(sampling.rho))
        self.register_buffer("log_weights", torch.from_numpy(np.log(sampling.weights)))
        self.register_buffer("eps2", torch.tensor(eps2, dtype=torch.float64))
        self.register_buffer("floor", torch.tensor(sampling.floor, dtype=torch.float64))
        self.n_neighbors, self.convention = n_neighbors, convention
        self.shape, self.n_far = shape, min(n_far, len(points))
        self.search: NeighborSearch | None = sampling.search  # needed if `gather`, and by KeOps
        self.support, self.gather = support, gather and support is not None
        self.register_buffer("ends", None if support is None else torch.from_numpy(support.ends))
        self.register_buffer("far", None if support is None else torch.from_numpy(support.far))
        self.register_buffer("crowd", None if support is None else torch.from_numpy(support.crowd))

    @property
    def bytes_per_query(self) -> int:
        """Scratch memory of one row of weights, for cutting queries into chunks."""
        every = 0 if self.gather else (4 if self.support is None else 12) * len(self.points)
        some = 0 if self.support is None else 8 * self.support.width
        return 8 * (every + some + (self.n_neighbors + 1) * self.points.shape[1])

    def coordinates(self, x: Tensor) -> Tensor:
        """Coordinates (B, r) of `x` (B, D) in which distances are measured, see `Frame`."""
        x = x - self.center
        return x if self.basis is None else x @ self.basis

    def forward(self, x: Tensor, far: str = "shift") -> Weights:
        """Weights at `x` (B, D)."""
        x = self.coordinates(x)
        if self.gather and self.shape.reach is not None and far == "shift" and not torch.is_grad_enabled():
            return self._measured(x)
        score, index, mask, near, listed = self._scores(x)
        first = near[:, 0]
        rho, offset = (self.rho, self.log_weights) if index is None else (self.rho[index], self.log_weights[index])
        if far == "plain":
            shift = x.square().sum(dim=1)
        else:
            shift = 2 * (x * self.points[first]).sum(dim=1) - self.squares[first]
        inverse, scale = 1 / self.bandwidth(x, near[:, : self.n_neighbors + 1]), 1 / (rho * self.eps2)
        if far == "knn":
            ranked = score.detach() if mask is None else score.detach().masked_fill(~mask, torch.inf)
            closest = ranked.topk(min(self.n_far, ranked.shape[1]), dim=1, largest=False, sorted=False).indices
            chosen = torch.zeros_like(ranked, dtype=torch.bool).scatter(1, closest, True)
            mask = chosen if mask is None else mask & chosen
        if mask is not None:
            offset = offset.expand(mask.shape).masked_fill(~mask, -torch.inf)
        if self.shape.width is not None and self.shape.reach is None:
            return Weights(kernel_softmax(score, shift, inverse, scale / self.shape.width, offset), index, first)
        squared = score + shift[:, None]
        z = squared * inverse[:, None] * scale
        if self.shape.width is None:
            least = (z if mask is None else z.masked_fill(~mask, torch.inf)).amin(dim=1, keepdim=True)
            logits = offset.expand(z.shape).masked_fill((z - least).detach() > 1, -torch.inf)
        else:
            assert self.support is not None
            own = near[:, : self.support.length]
            # Differences of scores only: far away, squared distances themselves would drown them.
            beyond = torch.maximum(excess(score, self.crowd[index]), -x.square().sum(dim=1, keepdim=True))
            reach = self._reach(listed - beyond, own)
            logits = _faded(offset - z / self.shape.width, (score - beyond) / (reach[:, None] * self.far[index]))
        return Weights(torch.softmax(logits, dim=1), index, first)

    def _scores(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
        r"""What ranks the training points: the squared distance less that of `x` from the centre.

        Returns
        -------
        score : Tensor (B, n) or (B, K)
        index, mask : None or Tensor (B, K)
            The candidates, and which of them count.
        near : Tensor (B, k + 1) or more
            The nearest training points, the very nearest first.
        listed : Tensor (B, length)
            Scores of the first of them, as many as the support counts in.
        """
        k = self.n_neighbors + 1
        if self.support is None:
            score = torch.addmm(self.squares, x, self.points.T, alpha=-2)
            return score, None, None, score.detach().topk(k, largest=False).indices, score[:, :0]
        length = self.support.length
        near, index, mask, *every = constant(self._candidates, x)
        products = every[0] if every else None
        score = self.squares[index] - 2 * gathered_products(x, self.points, index, products)
        if self.gather:
            return score, index, mask, near, score[:, :length]
        own = near[:, :length]
        listed = self.squares[own] - 2 * gathered_products(x, self.points, own, products)
        return score, index, mask, near, listed

    def _candidates(self, x: Tensor) -> tuple[Tensor, ...]:
        """Neighbours, candidates and their mask (see `_scores`), and the products with all points if computed."""
        assert self.support is not None
        count, length = max(self.n_neighbors + 1, self.support.length), self.support.length
        if self.gather:
            near = self._found(x, count)
            return near, *self.support.candidates(near[:, :length])
        products = x @ self.points.T
        score = torch.sub(self.squares, products, alpha=2)
        near = score.topk(count, largest=False).indices
        if self.shape.reach is None:
            return near, *self.support.candidates(near[:, :length]), products
        return near, *self._within_reach(x, score, near[:, :length]), products

    def _reach(self, squared: Tensor, near: Tensor) -> Tensor:
        assert self.support is not None
        return reaches(squared.clamp_min(0), self.ends[near], self.support.stretch)

    def _within_reach(self, x: Tensor, score: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B, K) of all training points of positive weight, and a mask (B, K) of what is no padding."""
        beyond = torch.maximum(excess(score, self.crowd), -x.square().sum(dim=1, keepdim=True))
        reach = self._reach(score.gather(1, near) - beyond, near)
        limit = torch.addcmul(beyond, reach[:, None], self.far)  # t < 1
        row, column = torch.nonzero(score < limit, as_tuple=True)
        count = torch.bincount(row, minlength=len(x))
        place = torch.arange(len(row), device=x.device) - (count.cumsum(0) - count)[row]
        index = near[:, :1].repeat(1, max(1, int(count.max())) if len(x) else 1)
        index[row, place] = column
        return index, torch.arange(index.shape[1], device=x.device) < count[:, None]

    def _measured(self, x: Tensor) -> Weights:
        """The same weights from the distances that the neighbour engine measured, without derivatives."""
        assert self.search is not None
        assert self.support is not None
        assert self.shape.width is not None
        length = max(self.n_neighbors + 1, self.support.length)
        found, near = self.search.kneighbors(x.cpu().numpy(), length)
        distances, nearest = torch.from_numpy(found).to(x), torch.from_numpy(near).to(x.device)
        rho = bandwidth(distances[:, : self.n_neighbors + 1], self.convention).clamp_min(self.floor)
        index, mask = self.support.candidates(nearest[:, : self.support.length])
        if index.shape[1] > self.support.length:
            extra = gathered_distances(x, self.points, index[:, self.support.length :])
            distances = torch.cat([distances[:, : self.support.length], extra], dim=1)
        squared = distances[:, : index.shape[1]].square()
        beyond = excess(squared, self.crowd[index]).clamp_min(0)
        reach = self._reach(squared[:, : self.support.length] - beyond, nearest[:, : self.support.length])
        values = (squared - squared[:, :1]).div_(self.rho[index])
        values.mul_(-1 / (self.eps2 * self.shape.width * rho[:, None])).exp_()
        squared.sub_(beyond).div_(self.far[index]).div_(reach[:, None])
        values.mul_(fading(squared))
        if self.log_weights.any():
            values *= self.log_weights.exp()[index]
        if index.shape[1] > self.support.length:
            values.masked_fill_(~mask, 0)
        total = values.sum(dim=1, keepdim=True)
        lost = total[:, 0] == 0  # counted from a nearest point out of reach, all others are nothing
        if lost.any():
            some = index[lost]
            squared = distances[lost, : index.shape[1]].square()
            z = squared / (self.rho[some] * self.eps2 * self.shape.width * rho[lost, None])
            t = (squared - beyond[lost]) / (self.far[some] * reach[lost, None])
            values[lost] = torch.softmax(_faded(self.log_weights[some].masked_fill(~mask[lost], -torch.inf) - z, t), 1)
            total[lost] = 1
        return Weights(values.div_(total), index, nearest[:, 0])

    def neighbors(self, x: Tensor, count: int) -> Tensor:
        """Indices (B, count) of the nearest training points of `x` (B, r), by the neighbour engine."""
        return constant(lambda plain: (self._found(plain, count),), x)[0]

    def _found(self, x: Tensor, count: int) -> Tensor:
        assert self.search is not None
        return torch.as_tensor(self.search.kneighbors(x.cpu().numpy(), count)[1], device=x.device)

    def squared_distances(self, x: Tensor) -> Tensor:
        """Squared distances (B, n) of `x` (B, r) to all training points, to some 1e-15 of those to their mean."""
        return torch.addmm(self.squares, x, self.points.T, alpha=-2) + x.square().sum(dim=1, keepdim=True)

    def bandwidth(self, x: Tensor, nearest: Tensor) -> Tensor:
        """Bandwidth (B,) at `x` (B, r) from its k + 1 nearest training points, in any order."""
        distances = gathered_distances(x, self.points, nearest)
        result: Tensor = bandwidth(distances.sort(dim=1).values, self.convention)
        return result.clamp_min(self.floor)

    def average(self, x: Tensor, values: Tensor, far: str = "shift", reduction: str = "torch") -> Tensor:
        """Means (B, q) of `values` (n, q) under the weights at `x` (B, D)."""
        if reduction in BACKENDS:
            return self._matrix_free_average(x, values, far, BACKENDS[reduction])
        return self(x, far).average(values)

    def _matrix_free_average(self, x: Tensor, values: Tensor, far: str, backend: str) -> Tensor:
        """The same average of all training points, without a matrix of weights."""
        if self.support is not None or self.shape.width is None or far == "knn":
            raise ValueError(
                f"reduction={'keops' if backend == 'keops' else 'chunked'!r} needs the full kernel of an exponential "
                "shape, and far other than 'knn'"
            )
        x, count = self.coordinates(x), self.n_neighbors + 1
        if x.is_cuda:
            near = nearest_points(x.detach(), self.points, count, backend=backend)[1]
        else:
            near = self.neighbors(x, count)
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


def _faded(logits: Tensor, t: Tensor) -> Tensor:
    """Logarithm of weights that end at t = 1."""
    inside = t < 1
    faded = torch.log1p(-torch.where(inside, t, 0.0).square().square())  # no gradient of an infinite logarithm
    return logits + torch.where(inside, 2 * faded, -torch.inf)


class NystromLayer(nn.Module):
    r"""The Nystrom projection as a differentiable layer without trainable parameters.

    Forward computes :math:`y = \sum_j p_j(x) C_j` in the precision of its buffers (float64) and returns the dtype
    of `x`; backward is exact (autograd through the same formula), at the cost of one forward pass.
    ``nn.Sequential(layer, classifier)`` is a classifier behind the projection onto the manifold.

    Parameters
    ----------
    row : NystromRow
    coefficients : Tensor (n, D) or (n, L)
    sample_shape : tuple of int
        Shape of a sample.
    far : {"shift", "plain", "knn"}
    reduction : {"torch", "chunked", "keops"}
        See :class:`~manifoldkit.geometry.DiffusionManifold`.
    modes : Tensor (L, D), optional
        Second factor of the coefficients: :math:`y = \sum_j p_j(x) C_j M`, for more coordinates than components.
    """

    coefficients: Tensor
    modes: Tensor | None

    def __init__(
        self,
        row: NystromRow,
        coefficients: Tensor,
        sample_shape: tuple[int, ...],
        far: str = "shift",
        reduction: str = "torch",
        modes: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.row = row
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("modes", modes)
        self.sample_shape, self.far, self.reduction = sample_shape, far, reduction

    def forward(self, x: Tensor) -> Tensor:
        """Projection of `x` (B, *shape), in the shape and dtype of `x`; NaN stays NaN, as in any layer."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = f"tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"the layer takes floating tensors of torch, got a {kind}; `project` takes arrays as well")
        flat = flatten(x, self.sample_shape, "x").to(self.coefficients.dtype)
        result = self.row.average(flat, self.coefficients, self.far, self.reduction)
        if self.modes is not None:
            result = result @ self.modes
        return result.reshape(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes shown by ``print(layer)``."""
        return f"n_points={len(self.coefficients)}, sample_shape={self.sample_shape}, far={self.far!r}"
