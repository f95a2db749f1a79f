"""`GridPrior`: a mixture of Gaussians on a Cartesian grid, in as many dimensions as one likes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .._arrays import as_array
from ..datasets._validation import check_count
from ..isometry._input import all_finite, fresh

__all__ = ["GridPrior"]

_BLOCK = 2**18  # numbers, a megabyte in single precision


class GridPrior(nn.Module):
    r"""Mixture of Gaussians with a component at every node of a Cartesian grid: each axis is a discrete symbol.

    .. math:: p(z) = \sum_{k} w_k\, N(z \mid \mu_k, \sigma^2 I), \qquad \mu_k \in C_1 \times \dots \times C_n

    With weights that are products of one weight for each axis, the sum over all :math:`K = \prod_d L_d` components is
    a product of n sums over the levels of an axis,

    .. math:: \log p(z) = \sum_d \log \sum_l w_{dl}\, N(z_d \mid c_{dl}, \sigma_d^2),

    so that the exact density takes O(n L) operations where enumeration takes :math:`O(n L^n)`. Correlations between
    axes cannot be said in this way.

    Parameters
    ----------
    n_dims : int
        n, number of axes.
    levels : sequence of float, or sequence of n such sequences
        Centres along an axis, ascending; of all axes, or of each. An axis with the one level 0 and sigma 1 is standard
        normal, and ``GridPrior(n, [0.0], 1.0)`` the prior of the usual variational autoencoder.
    sigma : float or sequence of n floats
        Standard deviation of the components, along all axes or each.
    weights : sequence of float, or sequence of n such sequences, optional
        Of the levels, of all axes or of each; positive, divided by their sum. All equal by default.

    Attributes
    ----------
    n_levels : tuple of int
        Levels of each axis.
    n_cells : int
        K, an exact integer, however large.

    Raises
    ------
    TypeError, ValueError
        If levels are empty, not finite or not ascending, sigma or weights are not positive, or lengths do not fit.

    Notes
    -----
    A module without parameters. Numbers are computed in the dtype and on the device of the codes. Copies and pickles
    hold its buffers as they are, changed by ``load_state_dict``, ``to`` or ``eval`` or not; a pickle made on a GPU
    comes back on the CPU where there is none.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers in
       Computer Science 5, 2023, equation (25).

    Examples
    --------
    >>> prior = GridPrior(40, levels=[0.0, 1.0], sigma=0.25)
    >>> prior.n_cells, prior.log_prob(torch.zeros(5, 40)).shape
    (1099511627776, torch.Size([5]))
    >>> prior.nearest(torch.full((1, 40), 0.8))[0, :3]
    tensor([1., 1., 1.])
    """

    _levels: torch.Tensor
    _log_weights: torch.Tensor
    _boundaries: torch.Tensor
    _sigma: torch.Tensor

    def __init__(self, n_dims: int, levels: Any, sigma: Any, weights: Any = None) -> None:
        super().__init__()
        self.n_dims = check_count(n_dims, "n_dims")
        axes = [_ascending(axis) for axis in _per_axis(levels, self.n_dims, "levels")]
        self.n_levels = tuple(len(axis) for axis in axes)
        shares = [np.ones(len(axis)) for axis in axes]
        if weights is not None:
            shares = _per_axis(weights, self.n_dims, "weights")
        for axis, share in zip(axes, shares, strict=True):
            if len(share) != len(axis) or not (share > 0).all():
                raise ValueError(
                    f"weights must hold a positive number for each of the {len(axis)} levels, got {share.tolist()}"
                )
        width = as_array(sigma, "sigma")
        if width.shape not in ((), (1,), (self.n_dims,)) or not (width > 0).all():
            raise ValueError(
                f"sigma must be positive, a number or one for each of the {self.n_dims} axes, got {sigma!r}"
            )
        most = max(self.n_levels)
        # Axes with fewer levels are filled up by levels without weight, and by boundaries that are never crossed.
        self.register_buffer("_levels", _table(axes, most, 0.0))
        self.register_buffer("_log_weights", _table([np.log(w / w.sum()) for w in shares], most, -math.inf))
        self.register_buffer("_boundaries", _table([(a[1:] + a[:-1]) / 2 for a in axes], most - 1, math.inf))
        self.register_buffer("_sigma", torch.from_numpy(np.broadcast_to(width, (self.n_dims,)).copy()))

    def __getstate__(self) -> dict[str, Any]:
        # Equal priors have equal pickles, by which scikit-learn compares parameters; those of tensors differ.
        buffers = {
            name: (buffer.detach().double().cpu().numpy(), buffer.dtype, buffer.device)
            for name, buffer in self.named_buffers(recurse=False)
        }
        return {**self.__dict__, "_buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        missing = None if torch.cuda.is_available() else "cuda"
        buffers = {
            name: torch.tensor(values, dtype=dtype, device="cpu" if device.type == missing else device)
            for name, (values, dtype, device) in state["_buffers"].items()
        }
        super().__setstate__({**state, "_buffers": buffers})

    def extra_repr(self) -> str:
        """Numbers that ``print`` shows."""
        return f"n_dims={self.n_dims}, n_cells={self.n_cells}"

    @property
    def n_cells(self) -> int:
        """Number K of components."""
        return math.prod(self.n_levels)

    @property
    def levels(self) -> list[torch.Tensor]:
        """Levels of each axis, float64."""
        return [axis[:n].clone() for axis, n in zip(self._levels, self.n_levels, strict=True)]

    @property
    def sigma(self) -> torch.Tensor:
        """Standard deviation along each axis, (n,) float64."""
        return self._sigma.clone()

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log-density in nats: (..., n) -> (...), exact and differentiable.

        Codes so far from all levels that the exponent overflows in their dtype (in single precision beyond about
        1e19 sigma) are refused with a ValueError: their density has no finite logarithm there, and no gradient.
        """
        return self.axis_log_prob(z).sum(dim=-1)

    def axis_log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log-densities of the axes, whose sum is :meth:`log_prob`: (..., n) -> (..., n)."""
        self._check(z)
        return self._in_blocks(z)

    @torch.no_grad()
    def _axis_log_prob_and_score(self, z: torch.Tensor) -> torch.Tensor:
        """Log-densities of the axes and their derivatives by z, (2, ..., n), without a graph; z is not checked."""
        return self._in_blocks(z, score=True)

    def _in_blocks(self, z: torch.Tensor, score: bool = False) -> torch.Tensor:
        # Blocks of axes whose intermediate results stay in the cache, without which large n costs more an axis.
        width = max(1, _BLOCK * self.n_dims // max(1, z.numel() * max(self.n_levels)))
        if width >= self.n_dims:
            found = self._axes(z, 0, score)
        else:
            starts = range(0, self.n_dims, width)
            found = torch.cat([self._axes(z[..., at : at + width], at, score) for at in starts], dim=-1)
        if not all_finite(found):
            raise ValueError(
                f"codes up to {float(z.detach().abs().max()):.3g} are too far from all levels, the exponent overflows "
                f"in {z.dtype}: lower the encoder's learning rate, or compute in double precision"
            )
        return found

    def _axes(self, z: torch.Tensor, start: int, score: bool) -> torch.Tensor:
        """Log-densities of the axes from `start` on, as many as z has, and their derivatives where `score` asks."""
        axes = slice(start, start + z.shape[-1])
        sigma = self._sigma[axes].to(z)[:, None]
        scaled = (z[..., None] - self._levels[axes].to(z)) / (math.sqrt(2.0) * sigma)
        terms = self._log_weights[axes].to(z) - (sigma.log() + 0.5 * math.log(2 * math.pi)) - scaled.square()
        # Not torch.logsumexp, whose shares of far codes add up to more than one: there rounding swallows the logarithm.
        most = terms.detach().amax(dim=-1, keepdim=True)
        shares = (terms - most).exp()
        total = shares.sum(dim=-1)
        found = most[..., 0] + total.log()
        if not score:
            return found
        return torch.stack([found, (shares * scaled).sum(dim=-1) / (-math.sqrt(0.5) * sigma[:, 0] * total)])

    def nearest(self, z: torch.Tensor, return_index: bool = False) -> Any:
        """Levels nearest to codes, along each axis: (..., n) -> (..., n); no gradient.

        Codes beyond the outermost levels belong to these. Half-way between two levels it is the lower one.

        Parameters
        ----------
        z : Tensor (..., n)
        return_index : bool, default=False
            Return the numbers of the levels, int64, as well.
        """
        self._check(z)
        flat = z.detach().reshape(-1, self.n_dims).T.contiguous()
        index = torch.searchsorted(self._boundaries.to(z), flat)  # boundaries below z, so that a tie goes down
        found = torch.gather(self._levels.to(z), 1, index).T.reshape(z.shape)
        return (found, index.T.reshape(z.shape)) if return_index else found

    def at(self, index: Any) -> torch.Tensor:
        """Codes (..., n), float64, of the nodes with level numbers `index` (..., n)."""
        number = torch.as_tensor(index, device=self._levels.device)
        if number.is_floating_point() or number.is_complex() or number.dtype == torch.bool:
            raise TypeError(f"index must hold integers, got dtype {number.dtype}")
        most = torch.tensor(self.n_levels, device=number.device)
        if number.ndim < 1 or number.shape[-1] != self.n_dims or ((number < 0) | (number >= most)).any():
            raise ValueError(
                f"index must have shape (..., {self.n_dims}) and hold numbers below those of the levels, "
                f"{self.n_levels}, got shape {tuple(number.shape)}"
            )
        flat = number.reshape(-1, self.n_dims).T.long()
        return torch.gather(self._levels, 1, flat).T.reshape(number.shape)

    def cell_bounds(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and largest codes (..., n) that share the cell of codes z (..., n); both are in it, or infinite."""
        index = self.nearest(z, return_index=True)[1].reshape(-1, self.n_dims).T
        edge = self._boundaries.to(z)
        infinite = torch.full((self.n_dims, 1), math.inf, dtype=z.dtype, device=z.device)
        lower = torch.gather(torch.cat([-infinite, edge], dim=1), 1, index)
        upper = torch.gather(torch.cat([edge, infinite], dim=1), 1, index)
        lower = torch.nextafter(lower, infinite)  # an edge belongs to the lower cell
        lower = torch.where(torch.isfinite(lower) & (index > 0), lower, -infinite)
        return lower.T.reshape(z.shape), upper.T.reshape(z.shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw codes (n, n_dims), float64; `generator` None is a fresh one."""
        n, generator = check_count(n, "n"), fresh(generator)
        options: dict[str, Any] = {"generator": generator, "device": generator.device, "dtype": torch.float64}
        share = self._log_weights.exp().cumsum(dim=1)[:, :-1].contiguous().to(generator.device)
        last = torch.tensor(self.n_levels, device=generator.device)[:, None] - 1
        index = torch.searchsorted(share, torch.rand((self.n_dims, n), **options)).minimum(last)
        centre = torch.gather(self._levels.to(generator.device), 1, index).T
        return centre + self._sigma.to(generator.device) * torch.randn((n, self.n_dims), **options)

    def centers(self, max_cells: int = 1_000_000) -> torch.Tensor:
        """All nodes of the grid, (K, n) float64, the last axis fastest; refused above `max_cells`."""
        if self.n_cells > max_cells:
            raise ValueError(
                f"the grid has {self.n_cells} cells, more than max_cells={max_cells}: use `at` or `nearest` for those "
                "that you need, or raise max_cells"
            )
        return torch.cartesian_prod(*self.levels).reshape(self.n_cells, self.n_dims)

    def _check(self, z: Any) -> None:
        if not isinstance(z, torch.Tensor) or not z.is_floating_point():
            what = f"dtype {z.dtype}" if isinstance(z, torch.Tensor) else type(z).__name__
            raise TypeError(f"codes must be a tensor of floating numbers, got {what}: use torch.as_tensor(z).double()")
        if z.ndim < 1 or z.shape[-1] != self.n_dims:
            raise ValueError(f"codes must have shape (..., {self.n_dims}), got {tuple(z.shape)}")
        if not all_finite(z):
            raise ValueError("codes contain NaN or infinity: was the encoder's learning rate too large?")


def _per_axis(values: Any, n: int, name: str) -> list[np.ndarray[Any, Any]]:
    """Vectors for each of n axes, from one vector or n."""
    nested = isinstance(values, Sequence | np.ndarray | torch.Tensor) and len(values) > 0 and np.ndim(values[0]) > 0
    rows = [as_array(row, name) for row in values] if nested else [as_array(values, name)] * n
    if len(rows) != n:
        raise ValueError(f"{name} must be one sequence or one for each of the {n} axes, got {len(rows)}")
    for row in rows:
        if row.ndim != 1 or len(row) == 0:
            raise ValueError(f"{name} of an axis must be a sequence of one number at least, got shape {row.shape}")
    return rows


def _ascending(axis: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not (np.diff(axis) > 0).all():
        raise ValueError(f"levels must ascend without repetition, got {axis.tolist()}: use sorted(set(levels))")
    return axis


def _table(rows: Sequence[np.ndarray[Any, Any]], width: int, fill: float) -> torch.Tensor:
    table = np.full((len(rows), width), fill)
    for k, row in enumerate(rows):
        table[k, : len(row)] = row
    return torch.from_numpy(table)
