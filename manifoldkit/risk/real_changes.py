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

    Every sample is joined to another one. Changes up to the length of the longest twentieth of the distances between
    nearest neighbours are compared with those to nearest neighbours. For longer ones half of the samples are joined to
    the next nearer than the change is long, half to the next farther: on a lattice without noise all nearer ones are
    more tangent, all farther ones less.

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
    array([0.5, 0. ])
    """

    def __init__(self, x: torch.Tensor, basis: torch.Tensor) -> None:
        chosen = torch.arange(0, len(x), -(-len(x) // MOST), device=x.device)
        self.x, self.chosen, self.basis = x, chosen, basis[chosen]
        nearest = torch.cat([self._sorted(rows)[0][:, 0] for rows in chosen.split(self._step(1))])
        self.near = torch.quantile(nearest, 0.95)

    def p_value(self, share: Floats, length: Floats, slack: Floats | float = 1e-12) -> Floats:
        """Part of the real changes as long that are at most as tangent, the change counted among them, (B,).

        Shares that differ by less than `slack`, which rounding may, count as equal.
        """
        wanted = torch.from_numpy(length).to(self.x)
        limit = torch.from_numpy(share + slack).to(self.x)
        below, count = torch.zeros_like(limit), torch.zeros_like(limit)
        step = self._step(len(wanted))
        nearer = torch.arange(len(self.chosen), device=self.x.device) % 2
        for rows, basis, odd in zip(self.chosen.split(step), self.basis.split(step), nearer.split(step), strict=True):
            change = self.x[self._partners(rows, wanted, odd)] - self.x[rows, None]  # (b, B, D)
            moved = change.any(dim=2)  # samples that coincide are no change
            real = (unit(change.flatten(0, 1)).view_as(change) @ basis).square().sum(dim=2)
            below += (moved & (real <= limit)).sum(dim=0)
            count += moved.sum(dim=0)
        result: Floats = ((1 + below) / (1 + count)).cpu().numpy()
        return result

    def _step(self, width: int) -> int:
        """Rows whose distances, and changes of `width` lengths, are held at a time."""
        return max(1, NUMBERS // max(1, len(self.x), width * self.x.shape[1]))

    def _partners(self, rows: torch.Tensor, wanted: torch.Tensor, nearer: torch.Tensor) -> torch.Tensor:
        """For each row the other sample to which it is joined for each length wanted, (b, B); `nearer` is 0 or 1."""
        distances, others = self._sorted(rows)
        position = torch.searchsorted(distances, wanted.expand(len(rows), -1).contiguous())
        position -= nearer[:, None]
        position[:, wanted <= self.near] = 0
        return others.gather(1, position.clamp(0, distances.shape[1] - 2))  # the last is the sample itself

    def _sorted(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances from the samples of `rows` in rising order, and to whom; themselves come last."""
        distances = pairwise_distances(self.x[rows], self.x)
        distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        ordered, others = distances.sort(dim=1)
        return ordered, others
