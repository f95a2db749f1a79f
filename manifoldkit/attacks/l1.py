"""The L1 ball: sparse steps, and the exact projection onto the ball cut by the bounds."""

from __future__ import annotations

import math

import torch

from manifoldkit.attacks._input import column
from manifoldkit.attacks.constraints import Constraint, draw

__all__ = ["L1Ball", "project_l1_box"]

#: Share of the entries that a step moves; the source finds 0.05 to 0.1 good on several networks.
SPARSITY = 0.05


class L1Ball(Constraint):
    r"""Images with ``sum |x - x0| <= eps`` and within the bounds; steps move the entries of the largest gradient.

    A dense step of L1 length alpha moves each entry by next to nothing, and steepest ascent moves a single one; in
    between, the 5 % of the entries with the largest gradient that can still move that way share the step equally.
    The way back is the nearest point of the ball cut by the bounds (not of the one and then of the other).

    Parameters
    ----------
    images, eps, bounds
        As for :class:`~manifoldkit.attacks.constraints.LinfBall`.

    References
    ----------
    .. [1] Tramer and Boneh, "Adversarial training and robustness for multiple perturbations", NeurIPS 2019 (SLIDE).
    .. [2] Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021.
    """

    def __init__(self, images: torch.Tensor, eps: torch.Tensor, bounds: tuple[float, float] | None) -> None:
        self.images = images
        self.radius = column(eps, images)
        self.bounds = bounds

    def start(self) -> torch.Tensor:
        return self.images

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        """Uniform in the ball around the image, then projected onto the bounds."""
        size = self.images[0].numel()
        shape = self.images.flatten(1).double()  # a number that rounds to 1 has an infinite logarithm
        exponential = -torch.log1p(-draw(shape, generator, normal=False))
        extra = -torch.log1p(-draw(shape[:, :1], generator, normal=False))
        share = exponential / (exponential.sum(dim=1, keepdim=True) + extra)  # uniform in the simplex and its inside
        signs = torch.where(draw(shape, generator, normal=False) < 0.5, -1.0, 1.0)
        assert share.shape[1] == size
        return self.project(self.images + self.radius * (share * signs).to(self.images).reshape(self.images.shape))

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is not None
        flat = gradient.flatten(1)
        if self.bounds is not None:
            low, high = self.bounds
            here = x.flatten(1)
            stuck = ((flat > 0) & (here >= high)) | ((flat < 0) & (here <= low))
            flat = flat.masked_fill(stuck, 0.0)
        count = max(1, math.ceil(SPARSITY * flat.shape[1]))
        threshold = flat.abs().topk(count, dim=1).values[:, -1:]
        sign = torch.where(flat.abs() >= threshold, flat.sign(), torch.zeros_like(flat))
        return (sign / sign.abs().sum(dim=1, keepdim=True).clamp_min(1)).reshape(x.shape)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return project_l1_box(x, self.images, self.radius, self.bounds)

    def select(self, keep: torch.Tensor) -> None:
        self.images, self.radius = self.images[keep], self.radius[keep]


def project_l1_box(
    x: torch.Tensor, centre: torch.Tensor, radius: torch.Tensor, bounds: tuple[float, float] | None
) -> torch.Tensor:
    r"""Nearest points with ``sum |u - centre| <= radius`` and within the bounds, in which the centres must lie.

    With :math:`d = x - c` and :math:`r_i` the room that the bounds leave to entry i in the direction of
    :math:`d_i`, the solution has :math:`|u_i - c_i| = \min(\max(|d_i| - \lambda, 0), r_i)`; their sum falls
    piecewise linearly in :math:`\lambda`, and sorting its 2 D kinks gives the root exactly.

    Parameters
    ----------
    x, centre : Tensor (B, ...)
    radius : Tensor (B, 1, ...)
    bounds : (low, high) or None

    Returns
    -------
    Tensor (B, ...)

    Examples
    --------
    >>> x, centre = torch.tensor([[0.9, 0.5]]), torch.tensor([[0.5, 0.5]])
    >>> project_l1_box(x + 1, centre, torch.tensor([[0.75]]), (0, 1))
    tensor([[1.0000, 0.7500]])
    """
    change = (x - centre).flatten(1)
    size = change.abs()
    room = torch.full_like(size, torch.inf)
    if bounds is not None:
        flat = centre.flatten(1)
        room = torch.where(change > 0, bounds[1] - flat, flat - bounds[0]).clamp_min(0)
    limit = radius.flatten(1)
    kept = torch.minimum(size, room)
    outside = kept.sum(dim=1) > limit[:, 0]
    if outside.any():
        kept[outside] = _waterline(size[outside], room[outside], limit[outside])
    return centre + (change.sign() * kept).reshape(x.shape)


def _waterline(size: torch.Tensor, room: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """``min(max(size - t, 0), room)`` with t such that each row sums to its limit, all (B, D) but the limit (B, 1)."""
    top = (size - room).clamp_min(0)  # below this level the entry is full, above `size` it is empty
    levels, order = torch.cat([top, size], dim=1).sort(dim=1)
    slopes = torch.cat([torch.ones_like(top), -torch.ones_like(size)], dim=1).gather(1, order).cumsum(dim=1)
    drops = (slopes[:, :-1] * levels.diff(dim=1)).cumsum(dim=1)
    full = torch.minimum(size, room).sum(dim=1, keepdim=True)
    sums = torch.cat([full, full - drops], dim=1)  # at each level
    segment = ((sums >= limit).sum(dim=1, keepdim=True) - 1).clamp(0, levels.shape[1] - 2)
    slope = slopes.gather(1, segment).clamp_min(1)
    level = levels.gather(1, segment) + (sums.gather(1, segment) - limit).clamp_min(0) / slope
    kept = torch.minimum((size - level).clamp_min(0), room)
    # Sums of many numbers round: what is left of the excess is scaled away.
    return kept * (limit * (1 - 4 * torch.finfo(size.dtype).eps) / kept.sum(dim=1, keepdim=True)).clamp_max(1)
