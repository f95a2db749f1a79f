r"""Tangent spaces whose scale and degree are chosen place by place, without the truth.

A small neighbourhood suffers from noise, a large one from curvature, from edges, and from other sheets that pass by.
At anchors among the samples every scale and degree is tried, and :func:`~.local_fit.assess_fit` says what error to
expect, averaged over nearby anchors. An error need not be seen at its own scale: a rolled sheet looks like a solid
disc from afar. So, after Lepski [1]_, a frame must also agree with those of smaller scales as far as their noise lets
one tell; what it deviates more is bias.

References
----------
.. [1] O. Lepski, "On a problem of adaptive estimation in Gaussian white noise", Theory Probab. Appl. 35, 1991.
.. [2] Y. Aizenbud, B. Sober, "Non-parametric estimation of manifolds from noisy data", 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .._arrays import chunks
from .local_fit import assess_fit, local_frame, n_monomials
from .neighbors import Floats, NeighborSearch, neighbor_search

__all__ = ["AdaptiveTangents"]

#: Numbers of neighbours that are tried, in steps of the square root of 2. Larger neighbourhoods hold as many of the
#: samples thinned by a half, a quarter, and so on. Above 4 dimensions all numbers are doubled.
COUNTS = (10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320)
FEW_DIMENSIONS = 4
#: Samples that a thinned set must hold, and by how many the thinning goes.
LEAST_SAMPLES, THINNING = 600, 2
#: How much less thinned the samples of the frames are than those that told the scale.
FULLER = 2
#: No neighbourhood is more than this share of the samples.
LARGEST_SHARE = 1 / 3
#: Neighbours for each coefficient of the fit one degree higher, which shows the bias.
OVERSAMPLING = 1.5
#: Most coefficients of a fit.
MOST_COEFFICIENTS = 100
#: Places where scales are compared, at most and, in many dimensions, at most this number of coefficients and
#: coordinates in all; and over how many of the nearest the expected errors are averaged.
N_ANCHORS, WORK, N_AVERAGED = 1024, 200_000, 16
#: Deviation from a smaller scale, in units of the error expected there, that is no sign of bias.
TOLERANCE = 4.0
#: Share of a neighbourhood over which its deviations from smaller ones are averaged.
SHARE_HEARD = 0.25
#: Larger scales are tried while this share of the anchors wants the largest so far.
WANTED = 0.02


@dataclass(frozen=True)
class _Level:
    """Samples among which neighbours are sought."""

    points: Floats
    search: NeighborSearch
    counts: list[int]

    def offsets(self, flat: Tensor, count: int) -> Tensor:
        """Vectors (B, count, D) from points to their nearest samples, nearest first."""
        _, index = self.search.kneighbors(flat.cpu().numpy(), count)
        return torch.from_numpy(self.points[index]).to(flat) - flat[:, None]


@dataclass(frozen=True)
class _Witness:
    """Frames of degree 1 at the anchors, that larger scales are held against."""

    reach: float
    frame: Tensor
    variance: Tensor


class AdaptiveTangents:
    """Local polynomial fits with chosen neighbourhoods.

    Parameters
    ----------
    points : array (n, D)
        Distinct samples.
    dimension : int
        Dimension of the tangent spaces.
    search : NeighborSearch
        Neighbour engine over the points.

    Attributes
    ----------
    candidates : list of (int, int, int)
        What can be chosen: thinning level, number of neighbours, degree. Empty if no fit is possible: a fit and the
        one that checks it need few enough coefficients, which is up to 12 dimensions, and enough samples.
    anchors : array (A, D)
    choice : array (A,)
        Index of the candidate at each anchor, which every point near it takes.
    compared : (int, int)
        Numbers of candidates and anchors.
    expected_error : array (A,)
        Root of the expected sum of squared sines of the principal angles there.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> t = 2 * np.pi * rng.random(600)
    >>> circle = np.column_stack([np.cos(t), np.sin(t)])
    >>> for noise in (0.0, 0.1):
    ...     points = circle + noise * rng.normal(size=circle.shape)
    ...     tangents = AdaptiveTangents(points, 1, neighbor_search(points))
    ...     frame, _ = tangents.frames(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    ...     sizes = [tangents.candidates[c][1] for c in tangents.choice]
    ...     print(int(np.median(sizes)), frame.abs().round(decimals=1).ravel().tolist())
    10 [0.0, 1.0]
    160 [0.0, 1.0]
    """

    def __init__(self, points: Floats, dimension: int, search: NeighborSearch) -> None:
        self.dimension = dimension
        order = np.random.default_rng(0).permutation(len(points))  # fixed: answers repeat
        n_anchors = max(N_AVERAGED, min(N_ANCHORS, WORK // (points.shape[1] + MOST_COEFFICIENTS)))
        self.anchors = points[order[:n_anchors]]
        n_averaged = min(N_AVERAGED, -(-len(self.anchors) // N_AVERAGED))
        self._tree = cKDTree(self.anchors)
        most = max(n_averaged, len(self.anchors) // N_AVERAGED)
        self._near = self._tree.query(self.anchors, k=np.arange(1, most + 1))[1]
        self._n_averaged, self._density = n_averaged, len(self.anchors) / len(points)
        self._levels: list[_Level] = []
        self.candidates: list[tuple[int, int, int]] = []
        risks: list[Tensor] = []
        witnesses: list[_Witness] = []
        size = len(points)
        while not self._levels or size >= LEAST_SAMPLES:
            first = not self._levels
            subset = points if first else points[order[:size]]
            tried = [k * (2 if dimension > FEW_DIMENSIONS else 1) for k in COUNTS]
            least = 0 if first else tried[-1] / THINNING
            counts = [k for k in tried if least < k <= LARGEST_SHARE * size and self._degrees(k)]
            self._levels.append(_Level(subset, search if first else neighbor_search(subset), counts))
            if not counts:
                break
            risks += self._risks(witnesses, len(points) / size)
            self.choice = torch.stack(risks).argmin(dim=0).numpy()
            largest = (len(self._levels) - 1, counts[-1])
            if np.mean([self.candidates[c][:2] == largest for c in self.choice]) < WANTED:
                break
            size //= THINNING
        self.compared = len(self.candidates), len(self.anchors)
        if risks:
            self.expected_error = torch.stack(risks).amin(dim=0).sqrt().numpy()

    def _degrees(self, count: int) -> dict[int, int]:
        """Degrees that `count` neighbours can be fitted with, each with the finest one that it can be held against."""
        sizes = {degree: n_monomials(self.dimension, degree) for degree in (2, 3)}
        possible = [degree for degree, p in sizes.items() if OVERSAMPLING * p <= count and p <= MOST_COEFFICIENTS]
        return {finer - 1: max(possible) for finer in possible}

    def _risks(self, witnesses: list[_Witness], stride: float) -> list[Tensor]:
        """Expected squared errors (A,) of the last level's candidates, which are added to `candidates`."""
        level, result = self._levels[-1], []
        found: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor]]] = {
            (count, degree): [] for count in level.counts for degree in self._degrees(count)
        }
        for part in chunks(len(self.anchors), 32 * level.counts[-1] * (self.anchors.shape[1] + MOST_COEFFICIENTS)):
            offsets = level.offsets(torch.from_numpy(self.anchors[part]), level.counts[-1])
            for (count, degree), fits in found.items():
                near = offsets[:, :count]
                frame = local_frame(near, self.dimension, degree)[0]
                fits.append((frame, *assess_fit(near, frame, degree, self._degrees(count)[degree])))
        most = self.dimension * (1 - self.dimension / self.anchors.shape[1])  # of directions at random
        for (count, degree), fits in found.items():
            frame, variance, bias = (torch.cat(parts) for parts in zip(*fits, strict=True))
            variance, excess = self._average(variance.clamp_max(most)), self._average(bias).amax(dim=1).clamp_min(0)
            # Small neighbourhoods in the same place err alike: their word counts as the mean of all that the large has.
            size = round(SHARE_HEARD * stride * count * self._density)
            for witness in witnesses:
                if 2 * witness.reach <= 1.01 * stride * count:  # steps are rounded
                    overlap = (frame.mT @ witness.frame).square().sum((1, 2))
                    deviation = self._average(self.dimension - overlap - TOLERANCE * witness.variance, size)
                    excess = torch.maximum(excess, deviation)
            if degree == 1:
                witnesses.append(_Witness(stride * count, frame, variance))
            self.candidates.append((len(self._levels) - 1, count, degree))
            result.append(variance + excess)
        return result

    def _average(self, values: Tensor, size: int = 0) -> Tensor:
        """Means over the 16 nearest anchors, or as many as `size`."""
        return values[self._near[:, : max(self._n_averaged, size)]].mean(dim=1)

    def frames(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Tangent frames (B, D, d) at points (B, D), and the spread (B, d) of the neighbours along their columns."""
        frame, spread = flat.new_empty(*flat.shape, self.dimension), flat.new_empty(len(flat), self.dimension)
        chosen = self.choice[self._tree.query(flat.cpu().numpy())[1]]
        for candidate in np.unique(chosen):
            level, count, degree = self.candidates[candidate]
            members = torch.from_numpy(np.flatnonzero(chosen == candidate)).to(flat.device)
            # Thinned samples told the scale; within it the frame is fitted to up to four times as many.
            fuller = max(0, level - FULLER)
            level, count = fuller, count * THINNING ** (level - fuller)
            row = 32 * count * (flat.shape[1] + n_monomials(self.dimension, degree))
            for part in chunks(len(members), row):
                rows = members[part]
                offsets = self._levels[level].offsets(flat[rows], count)
                frame[rows], spread[rows] = local_frame(offsets, self.dimension, degree)
        return frame, spread
