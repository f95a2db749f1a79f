"""Divergence of an encoder's Gaussians from a grid prior: three estimates, and guidance by known attributes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from ..isometry._input import all_finite, fresh
from .grid import GridPrior

__all__ = ["KL_MODES", "grid_kl", "matched_levels"]

KL_MODES = ("conditional", "aggregate", "nearest")


def grid_kl(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior: GridPrior,
    mode: str = "conditional",
    targets: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Divergence of :math:`q(z \mid x_b) = N(\mu_b, \mathrm{diag}\, \sigma_b^2)` from a grid prior, for every sample.

    "conditional" is :math:`\log q(z_b \mid x_b) - \log p(z_b)` with one draw :math:`z_b`: without bias, that of the
    evidence bound. "aggregate" has in the place of the first term the density of the whole batch,
    :math:`\log \frac1B \sum_j q(z_b \mid x_j)`, in O(B^2 n): it asks only that the samples together fill the prior,
    and its bias is small where B is large against the number of cells. "nearest" keeps the one component R(mu)
    nearest to the mean,

    .. math:: \tfrac12 \sum_d \Big[\log\frac{\sigma_0^2}{\sigma_d^2} - 1
              + \frac{\sigma_d^2 + (\mu_d - R(\mu_d))^2}{\sigma_0^2}\Big] \geq KL(q \,\|\, p) + \log w_R,

    in closed form; R has no gradient, and w_R, the weight of that component, is 1/K unless weights were given.

    Parameters
    ----------
    mu, logvar : Tensor (B, n)
        Means and logarithms of variances.
    prior : GridPrior
    mode : {"conditional", "aggregate", "nearest"}, default="conditional"
    targets : Tensor (B, n), optional
        Known attributes, levels of their axes, NaN where unknown: on axes with a target the closed form with the
        target in the place of R(mu), on the others `mode`. All known is guided training, columns of NaN partially
        guided, rows of NaN semi-supervised.
    z : Tensor (B, n), optional
        Draws from q, so that the decoder can see the same; drawn here by default, where `mode` needs them.
    generator : torch.Generator, optional
        Source of the draws; None is a fresh one.

    Returns
    -------
    Tensor (B,)
        In nats.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, numbers are not finite, the mode is unknown, targets are no levels, or the batch has
        one sample in "aggregate" mode.

    Notes
    -----
    The source prints the divergence (26) with the opposite sign, and leaves open which of the first two modes it has.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers in
       Computer Science 5, 2023, equations (24) to (28).

    Examples
    --------
    >>> prior = GridPrior(2, levels=[0.0, 1.0], sigma=0.25)
    >>> mu, logvar = torch.tensor([[0.0, 1.0]]), torch.full((1, 2), 2 * math.log(0.25))
    >>> grid_kl(mu, logvar, prior, mode="nearest")  # q is a component of the mixture
    tensor([0.])
    >>> grid_kl(mu, logvar, prior, mode="nearest", targets=torch.tensor([[1.0, float("nan")]]))
    tensor([8.])
    """
    if not isinstance(prior, GridPrior):
        raise TypeError(f"prior must be a GridPrior, got {type(prior).__name__}")
    if mode not in KL_MODES:
        raise ValueError(f"mode must be one of {KL_MODES}, got {mode!r}")
    for name, given in (("mu", mu), ("logvar", logvar), ("z", z)):
        if name == "z" and given is None:
            continue
        if not isinstance(given, torch.Tensor) or not given.is_floating_point():
            raise TypeError(f"{name} must be a tensor of floating numbers, got {given!r:.60}")
        if given.ndim != 2 or given.shape != mu.shape or given.shape[1] != prior.n_dims:
            raise ValueError(
                f"{name} must have shape (B, {prior.n_dims}), that of mu {tuple(mu.shape)}, got {tuple(given.shape)}"
            )
        if not all_finite(given):
            raise ValueError(f"{name} holds NaN or infinity: clamp logvar, to [-12, 4] say, or lower the learning rate")
    if mode == "aggregate" and len(mu) < 2:
        raise ValueError("the aggregate divergence compares the samples of a batch and needs 2 at least, got 1")
    wanted = None if targets is None else matched_levels(targets, prior, len(mu)).to(mu)
    if mode == "nearest":
        centre = prior.nearest(mu)
        if wanted is not None:
            centre = torch.where(wanted.isnan(), centre, wanted)
        return _gaussian(mu, logvar, centre, prior).sum(dim=1)
    known = None if wanted is None else ~wanted.isnan()
    guided = torch.zeros_like(mu[:, 0])
    if wanted is not None and known is not None:
        terms = _gaussian(mu, logvar, torch.where(known, wanted, mu.detach()), prior)
        guided = torch.where(known, terms, torch.zeros_like(terms)).sum(dim=1)
        if known.all():
            return guided
    if z is None:
        z = draw_codes(mu, logvar, generator)
    free = None if known is None else (~known).to(mu)
    if mode == "conditional":
        return guided + _sum_over(free, _log_normal(z, mu, logvar)) - _sum_over(free, prior.axis_log_prob(z))
    ratio = _AggregateRatio.apply if _first_derivatives_do(z, mu, logvar, prior) else _aggregate_ratio
    return guided + ratio(z, mu, logvar, free, prior)


def draw_codes(mu: torch.Tensor, logvar: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Reparameterised draws from the encoder's Gaussians, (B, n)."""
    generator = fresh(generator)
    noise = torch.randn(mu.shape, generator=generator, device=generator.device, dtype=mu.dtype).to(mu.device)
    return mu + (0.5 * logvar).exp() * noise


def matched_levels(targets: Any, prior: GridPrior, n: int, name: str = "targets") -> torch.Tensor:
    """Attributes (n, n_dims) as exact levels in float64, NaN where unknown.

    Attributes are matched to a millionth (of the level, or of 1), so that they may come in single precision.
    """
    try:
        given = targets.detach() if isinstance(targets, torch.Tensor) else torch.tensor(np.array(targets, dtype=float))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold levels of the grid, or NaN for what is unknown: {error}") from error
    if given.is_complex() or given.shape != (n, prior.n_dims):
        raise ValueError(
            f"{name} must have shape {(n, prior.n_dims)}, a level for each sample and axis or NaN, got "
            f"{tuple(given.shape)}"
        )
    given = given.double()
    known = ~given.isnan()
    if torch.isinf(given).any():
        raise ValueError(f"{name} holds infinity: give levels of the grid, or NaN for what is unknown")
    level = prior.nearest(torch.where(known, given, 0.0).to(prior.sigma.device)).to(given.device)
    wrong = known & ((given - level).abs() > 1e-6 * level.abs().clamp(min=1.0))
    if wrong.any():
        row, axis = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"{name} must be levels of their axes or NaN: {name}[{row}, {axis}] is {given[row, axis].item():g}, axis "
            f"{axis} has the levels {prior.levels[axis].tolist()}"
        )
    return torch.where(known, level, given)


def _gaussian(mu: torch.Tensor, logvar: torch.Tensor, centre: torch.Tensor, prior: GridPrior) -> torch.Tensor:
    """Divergence from one component along each axis, (B, n)."""
    log_variance = 2 * prior.sigma.to(mu).log()
    return 0.5 * (log_variance - logvar - 1 + (logvar.exp() + (mu - centre).square()) / log_variance.exp())


def _log_normal(z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * (-logvar).exp())


def _sum_over(free: torch.Tensor | None, terms: torch.Tensor) -> torch.Tensor:
    """Sum over the axes, or over those that are free."""
    return (terms if free is None else free * terms).sum(dim=1)


def _factors(
    z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor, free: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (B, 3n), float64: products of their rows are log-densities of z_b under the Gaussians of the samples j.

    The square in the exponent is written out, so that one matrix product takes the place of tables (B, B, n). Its terms
    cancel, which double precision bears: deviations of exp(-6), the least of clamped ones, leave ten digits.
    """
    at, means, spread = torch.cat([z, mu, logvar], dim=1).double().chunk(3, dim=1)
    precision = (-spread).exp()
    slant = means * precision
    rows = torch.cat([-0.5 * at.square(), at, torch.full_like(at, -0.5)], dim=1)
    columns = torch.cat([precision, slant, torch.addcmul(spread + math.log(2 * math.pi), means, slant)], dim=1)
    return rows if free is None else rows * free.repeat(1, 3), columns


def _aggregate_ratio(
    z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor, free: torch.Tensor | None, prior: GridPrior
) -> torch.Tensor:
    """Logarithm (B,) of the ratio of two densities at z_b, over the axes on which row b is free.

    They are the mean of the Gaussians of the samples, and the prior.
    """
    rows, columns = _factors(z, mu, logvar, free)
    inside = torch.logsumexp(rows @ columns.T, dim=1) - math.log(len(mu))
    return inside.to(mu.dtype) - _sum_over(free, prior.axis_log_prob(z))


def _first_derivatives_do(z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor, prior: GridPrior) -> bool:
    """Whether nothing is asked that :class:`_AggregateRatio` has not: torch.func, forward mode, priors of one's own."""
    own = type(prior).axis_log_prob is not GridPrior.axis_log_prob
    learnt = any(tensor.requires_grad for tensor in prior.buffers())
    forward = any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in (z, mu, logvar))
    return not (own or learnt or forward or torch._C._are_functorch_transforms_active())


class _AggregateRatio(torch.autograd.Function):
    """:func:`_aggregate_ratio` with its first derivatives at half the cost.

    One table of the shares of the Gaussians serves the way there and the way back; but for float64 it is in single
    precision, and shares below exp(-80) of the largest are taken for that, far below a rounding error: smaller ones
    would be denormal numbers, with which processors are slow.
    """

    @staticmethod
    def forward(
        ctx: Any, z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor, free: torch.Tensor | None, prior: GridPrior
    ) -> torch.Tensor:
        rows, columns = _factors(z, mu, logvar, free)
        table = rows @ columns.T
        most = table.amax(dim=1, keepdim=True)
        table -= most
        shares = table.exp_() if mu.dtype == torch.float64 else table.float().clamp_(min=-80.0).exp_()
        total = shares.sum(dim=1, keepdim=True)
        outside = prior._axis_log_prob_and_score(z)
        if free is not None:
            outside *= free
        ctx.prior = prior
        ctx.save_for_backward(z, mu, logvar, free, rows, columns, shares, total, outside[1])
        return (most + (total / len(mu)).log())[:, 0].to(mu.dtype) - outside[0].sum(dim=1)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, mu, logvar, free, rows, columns, shares, total, score = ctx.saved_tensors
        if torch.is_grad_enabled():  # for derivatives of the derivatives
            at, means, spread = given = [tensor.view_as(tensor) for tensor in (z, mu, logvar)]
            wanted = [tensor for tensor in given if tensor.requires_grad]
            ratio = _aggregate_ratio(at, means, spread, free, ctx.prior)
            found = iter(torch.autograd.grad(ratio, wanted, slope.to(ratio), create_graph=True))
            return *(next(found) if tensor.requires_grad else None for tensor in given), None, None
        shares, weighted = shares.double(), slope[:, None] / total * rows
        _, at, half = weighted.chunk(3, dim=1)
        precision, means = columns[:, : mu.shape[1]], mu.double()
        # Thin matrices are laid out and put where the products are twice as fast.
        stiffness, pull = (shares @ columns[:, : 2 * mu.shape[1]].T.contiguous().T).chunk(2, dim=1)
        squares, sums, counts = (weighted.T @ shares).T.chunk(3, dim=1)
        by_z = torch.addcmul(at * stiffness, half, pull, value=2.0).neg_()
        by_mean = torch.addcmul(sums, means, counts, value=2.0).mul_(precision)
        deviations = torch.addcmul(squares, means, torch.addcmul(sums, means, counts))
        by_variance = torch.addcmul(counts, precision, deviations, value=-1.0)
        slopes = torch.cat([by_z, by_mean, by_variance], dim=1).to(slope.dtype)
        slopes[:, : mu.shape[1]] -= slope[:, None] * score
        return *slopes.chunk(3, dim=1), None, None
