"""Changes from one real sample to another, of any length: what the tangent share of a change is compared with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .._distances import pairwise_distances
from ..attacks.constraints import unit

__all__ = ["RealChanges"]

#: Samples from which changes are taken at the most; p-values need no more.
MOST = 1000
#: Numbers held at a time.
NUMBERS = 20_000_000

Floats = NDArray[np.float64]


class RealChanges:
    r"""Ranks the tangent share of a change among those of real changes of the same length.

    Every sample is joined to the nearest other one that is at least as far away as the change in question is long, or
    else to the farthest. (The longer of two real changes, since where real data lie on a lattice without noise all
    shorter ones are more tangent.)

    Parameters
    ----------
    x : Tensor (n, D)
        At least two samples, all of them partners; changes are taken from 1,000 of them at the most, spread evenly.
    basis : Tensor (n, D, d)
        Tangent bases at the samples.

    Examples
    --------
    >>> t = torch.arange(0, 6.28, 0.01, dtype=torch.float64)
    >>> x = torch.stack([t.cos(), t.sin()], dim=1)
    >>> real = RealChanges(x, torch.stack([-t.sin(), t.cos()], dim=1)[:, :, None])
    >>> share = np.cos(np.arcsin(0.5 / 2)) ** 2  # of a chord of length 0.5
    >>> real.p_value(np.array([share, 0.95 * share]), np.array([0.5, 0.5])).round(2)
    array([1., 0.])
    """

    def __init__(self, x: torch.Tensor, basis: torch.Tensor) -> None:
        chosen = torch.arange(0, len(x), -(-len(x) // MOST), device=x.device)
        self.x, self.chosen, self.basis = x, chosen, basis[chosen]

    def p_value(self, share: Floats, length: Floats) -> Floats:
        """Part of the real changes as long that are at most as tangent, the change counted among them, (B,)."""
        wanted = torch.from_numpy(length).to(self.x)
        limit = torch.from_numpy(share).to(self.x)
        below, count = torch.zeros_like(limit), torch.zeros_like(limit)
        step = max(1, NUMBERS // max(1, len(self.x), len(wanted) * self.x.shape[1]))
        for rows, basis in zip(self.chosen.split(step), self.basis.split(step), strict=True):
            change = self.x[self._partners(rows, wanted)] - self.x[rows, None]  # (b, B, D)
            moved = change.any(dim=2)  # samples that coincide are no change
            real = (unit(change.flatten(0, 1)).view_as(change) @ basis).square().sum(dim=2)
            below += (moved & (real <= limit)).sum(dim=0)
            count += moved.sum(dim=0)
        result: Floats = ((1 + below) / (1 + count)).cpu().numpy()
        return result

    def _partners(self, rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """For each row, the nearest other samples that are at least as far as each length wanted, (b, B)."""
        distances = pairwise_distances(self.x[rows], self.x)
        distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf  # itself
        distances, others = distances.sort(dim=1)
        position = torch.searchsorted(distances, wanted.expand(len(rows), -1).contiguous())
        return others.gather(1, position.clamp(max=distances.shape[1] - 2))  # the last is the sample itself
