"""`DecoderManifold`: the image of a decoder, with an encoder to find the way to it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from .._arrays import as_tensor, like
from .._modules import evaluating, jacobian
from ..exceptions import DegenerateTangentWarning, UnconvergedProjectionWarning
from ._validation import positive

__all__ = ["DecoderManifold"]

_DAMPING = 1e-3  # of the largest diagonal entry of J^T J, at the start
_SETTLED = 0.01  # of |x - f(z)|: a step that moves a point by less is no reason to warn
_RANK = 1e-6  # singular values of a Jacobian below this share of the largest count as zero


class DecoderManifold:
    r"""The manifold :math:`f(\mathbb{R}^d)` that a decoder f parametrises, for attacks, metrics and pictures.

    A point is projected through its code: :math:`z_0 = g(x)` by the encoder, then Gauss-Newton steps with
    Levenberg's damping towards the nearest point,

    .. math:: z \leftarrow z + (J^\top J + \mu I)^{-1} J^\top (x - f(z)), \qquad J = df(z),

    of which only those that come nearer are taken. Tangent spaces are spanned by the columns of J at the refined code.
    The encoder of an autoencoder is only approximately the projection; with up to `n_refinements` steps,
    :math:`x - f(z)` becomes normal to the manifold, and projecting twice changes nothing. Where the steps do not
    suffice, a warning says at how many points.

    Parameters
    ----------
    encoder : torch.nn.Module
        g, maps (B, *shape) to codes (B, d).
    decoder : torch.nn.Module
        f, maps (B, d) to (B, *shape).
    n_refinements : int, default=20
        Most Gauss-Newton steps, taken or refused; 0 is ``f(g(x))``.
    tol : float, default=1e-6
        A point is done when its step is shorter than this share of the length of its code, or of 1 if that is more.

    Raises
    ------
    TypeError
        If encoder or decoder are not modules.
    ValueError
        If a number is out of range; in calls, if the networks do not fit each other or the points.

    Warns
    -----
    DegenerateTangentWarning
        When the Jacobian has not full rank at some of the points, whose tangent bases are then partly arbitrary.
    UnconvergedProjectionWarning
        When at some points the next step after `n_refinements` > 0 would move the point by more than a hundredth of its
        distance to x; until it is damped, that length is the tangential part of :math:`x - f(z)`. Projections on edges
        of a decoder with ReLU, where no residual is normal, count as found once the steps tried there are shorter.

    Notes
    -----
    The networks run in evaluation mode, in their own dtype and on their device, and are left as found. No gradient
    flows. :class:`~manifoldkit.isometry.IsometricAutoencoder` is such a manifold itself.

    Examples
    --------
    >>> import torch
    >>> class Circle(torch.nn.Module):
    ...     def forward(self, z):
    ...         return torch.cat([z.cos(), z.sin()], dim=1)
    >>> class Coarse(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.atan2(x[:, 1:], x[:, :1]) + 0.1
    >>> manifold = DecoderManifold(Coarse(), Circle())
    >>> manifold.project(torch.tensor([[0.0, 1.5]])).round(decimals=3) + 0.0
    tensor([[0., 1.]])
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, n_refinements: int = 20, tol: float = 1e-6) -> None:
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}")
        if n_refinements != 0:
            positive(n_refinements, "n_refinements", " or 0")
        if not tol > 0:
            raise ValueError(f"tol must be positive, got {tol!r}")
        self.encoder, self.decoder = encoder, decoder
        self.n_refinements, self.tol = n_refinements, float(tol)

    def __repr__(self) -> str:
        return f"DecoderManifold({type(self.encoder).__name__}, {type(self.decoder).__name__})"

    def encode(self, x: Any) -> Any:
        """Refined codes (B, d) of points (B, *shape), of their kind, dtype and device."""
        return like(self._land(x)[0], x)

    def project(self, x: Any) -> Any:
        """Points of the manifold near `x`: (B, *shape) -> (B, *shape), of its kind, dtype and device."""
        return like(self._land(x)[1].reshape(x.shape), x)

    def tangent_basis(self, x: Any) -> Any:
        """Orthonormal tangent vectors at the projections of `x`: (B, D, d), D = prod(shape)."""
        return like(_orthonormal(self._land(x)[2]), x)

    def project_with_tangents(self, x: Any) -> tuple[Any, Any]:
        """`project(x)` and `tangent_basis(x)` from one search of the codes."""
        _, points, jacobians = self._land(x)
        return like(points.reshape(x.shape), x), like(_orthonormal(jacobians), x)

    def distance(self, x: Any) -> Any:
        """Distance (B,) of points to the manifold: from `x` to its projection."""
        target = as_tensor(x, "x").flatten(1)
        return like(torch.linalg.vector_norm(target - self._land(x)[1].to(target), dim=1), x)

    @torch.no_grad()
    def _land(self, x: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes (B, d), points (B, D) and Jacobians (B, D, d)."""
        checked = as_tensor(x, "x")
        if checked.ndim < 2 or len(checked) == 0:
            raise ValueError(
                f"x must have shape (B, *shape) with B >= 1, got {tuple(checked.shape)}: wrap a single point as x[None]"
            )
        with evaluating(self.encoder, self.decoder):
            target = checked.to(_home(self.encoder, self.decoder, x))
            # Copies: networks may write into their input or return a part of it, and the loop writes into all three.
            z = self.encoder(target.clone()).clone()
            if z.ndim != 2 or len(z) != len(target):
                raise ValueError(f"the encoder must return codes ({len(target)}, d), got {tuple(z.shape)}")
            flat = target.flatten(1)
            if not 1 <= z.shape[1] <= flat.shape[1]:
                raise ValueError(
                    f"codes must have 1 to {flat.shape[1]} entries, as many as x has at most, got {z.shape[1]}: a "
                    "manifold has no more dimensions than the space around it"
                )
            points, jacobians = (found.clone() for found in self._decode(z, flat))
            if not _finite(points, jacobians).all():
                raise ValueError(
                    "the decoder or its Jacobian is NaN or infinite at some of the codes: check its weights"
                )
            damping = _DAMPING * jacobians.square().sum(dim=1).amax(dim=1)
            moving = torch.arange(len(z), device=z.device)
            for _ in range(self.n_refinements):
                step = self._step(flat[moving] - points[moving], jacobians[moving], damping[moving])
                trial = z[moving] + step
                ahead, slopes = self._decode(trial, flat[moving])
                better = _nearer(flat[moving], points[moving], jacobians[moving], ahead, slopes)
                better &= _finite(ahead, slopes)  # a long step may overflow; with more damping it is tried again
                taken = moving[better]
                z[taken], points[taken], jacobians[taken] = trial[better], ahead[better], slopes[better]
                damping[moving] *= torch.where(better, 0.3, 4.0).to(damping)
                size = torch.linalg.vector_norm(z[moving], dim=1).clamp(min=1.0)
                moving = moving[torch.linalg.vector_norm(step, dim=1) > self.tol * size]
                if len(moving) == 0:
                    break
        if self.n_refinements and len(moving):
            residual = flat[moving] - points[moving]
            self._warn_unconverged(residual, jacobians[moving], damping[moving], flat)
        return z, points, jacobians

    def _warn_unconverged(
        self, residual: torch.Tensor, jacobians: torch.Tensor, damping: torch.Tensor, x: torch.Tensor
    ) -> None:
        """Say at how many points the search would go on for more than the rounding of the samples."""
        step = self._step(residual, jacobians, damping)
        ahead = torch.linalg.vector_norm((jacobians @ step[:, :, None])[:, :, 0], dim=1)
        length = torch.linalg.vector_norm(residual, dim=1)
        rounding = torch.finfo(x.dtype).eps ** 0.5 * torch.linalg.vector_norm(x, dim=1).max()
        early = int(((length > rounding) & (ahead > _SETTLED * length)).sum())
        if early:
            warnings.warn(
                f"the search of codes ended after {self.n_refinements} steps at {early} of {len(x)} points before "
                "x - f(z) was normal to the manifold, so that the points found are not the nearest: raise "
                "n_refinements, or bring x nearer to the manifold",
                UnconvergedProjectionWarning,
                stacklevel=4,
            )

    @staticmethod
    def _step(residual: torch.Tensor, jacobians: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
        normal = jacobians.mT @ jacobians
        normal.diagonal(dim1=1, dim2=2).add_(damping.clamp(min=torch.finfo(damping.dtype).tiny)[:, None])
        solution, info = torch.linalg.solve_ex(normal, (jacobians.mT @ residual[:, :, None]))
        return torch.where((info == 0)[:, None], solution[:, :, 0].nan_to_num(0.0, 0.0, 0.0), 0.0)

    def _decode(self, z: torch.Tensor, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points, jacobians = jacobian(self.decoder, z)
        if points.shape != flat.shape:
            raise ValueError(
                f"the decoder must return {flat.shape[1]} numbers a sample, as many as x has, got {points.shape[1]}"
            )
        return points, jacobians


def _finite(points: torch.Tensor, jacobians: torch.Tensor) -> torch.Tensor:
    """Whether (B,) points (B, D) and Jacobians (B, D, d) are finite."""
    return torch.isfinite(points).all(dim=1) & torch.isfinite(jacobians).flatten(1).all(dim=1)


def _nearer(
    x: torch.Tensor, points: torch.Tensor, jacobians: torch.Tensor, ahead: torch.Tensor, slopes: torch.Tensor
) -> torch.Tensor:
    """Whether a step leads nearer to x; where rounding hides that, whether it makes x - f(z) more normal."""
    r, s = x - points, x - ahead
    before, after = r.square().sum(dim=1), s.square().sum(dim=1)
    level = (after - before).abs() <= 8 * torch.finfo(x.dtype).eps * before
    flatter = (slopes.mT @ s[:, :, None]).square().sum(dim=1) < (jacobians.mT @ r[:, :, None]).square().sum(dim=1)
    return torch.where(level, flatter[:, 0], after < before)


def _orthonormal(jacobians: torch.Tensor) -> torch.Tensor:
    """Orthonormal bases of the column spaces, with a warning where they are not of full rank."""
    vectors, triangle = torch.linalg.qr(jacobians.double())
    values = torch.linalg.svdvals(triangle)
    flat = values[:, -1] <= _RANK * values[:, 0]
    if flat.any():
        warnings.warn(
            f"the Jacobian of the decoder has not full rank at {int(flat.sum())} of {len(flat)} points, where the "
            "tangent space is partly arbitrary: the decoder folds or collapses there, use fewer code dimensions",
            DegenerateTangentWarning,
            stacklevel=4,
        )
    return vectors


def _home(encoder: nn.Module, decoder: nn.Module, x: Any) -> torch.Tensor:
    """A tensor of the dtype and device in which the networks compute: that of their weights, or else of `x`."""
    for module in (encoder, decoder):
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                return tensor
    return x if isinstance(x, torch.Tensor) and x.is_floating_point() else torch.zeros(0, dtype=torch.float64)
