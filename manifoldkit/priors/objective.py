"""What a GridVAE minimises: squared error in units of the noise plus the divergence from the prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..isometry.networks import ShapedDecoder
from .grid import GridPrior
from .kl import draw_codes, grid_kl

__all__ = ["EvidenceLoss", "GaussianEncoder"]

LOGVAR_RANGE = (-12.0, 4.0)


class GaussianEncoder(nn.Module):
    """A network (B, *shape) -> (B, 2n), of means and logarithms of variances, as the encoder of the means.

    Logarithms of variances are clamped to [-12, 4]: towards minus infinity every divergence is infinite.
    """

    def __init__(self, network: nn.Module, n_dims: int) -> None:
        super().__init__()
        self.network, self.n_dims = network, n_dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gaussian(x)[0]

    def gaussian(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and logarithms of variances, (B, n) each."""
        out = self.network(x)
        if out.shape != (len(x), 2 * self.n_dims):
            raise ValueError(
                f"the encoder must return {self.n_dims} means and {self.n_dims} logarithms of variances a sample, "
                f"shape {(len(x), 2 * self.n_dims)}, got {tuple(out.shape)}: the prior has n_dims={self.n_dims}"
            )
        return out[:, : self.n_dims], out[:, self.n_dims :].clamp(*LOGVAR_RANGE)


class EvidenceLoss:
    r"""Minus the evidence bound of batches of samples, up to a constant: :math:`|x - f(z)|^2 / 2\sigma_x^2 + \beta KL`.

    Batches are numbers of rows, so that attributes go with their samples.
    """

    def __init__(
        self,
        encoder: GaussianEncoder,
        decoder: ShapedDecoder,
        prior: GridPrior,
        mode: str,
        beta: Callable[[float], float],
        obs_sigma: float,
        x: torch.Tensor,
        targets: torch.Tensor | None,
        generator: torch.Generator,
    ) -> None:
        self.encoder, self.decoder, self.prior, self.mode = encoder, decoder, prior, mode
        self.beta, self.obs_sigma, self.x, self.targets, self.generator = beta, obs_sigma, x, targets, generator
        self.steps, self.last = 0, 1  # steps taken, and those there will be

    def parameters(self) -> list[nn.Parameter]:
        """Weights of both networks."""
        return [p for net in (self.encoder, self.decoder) for p in net.parameters()]

    def __call__(self, rows: torch.Tensor, /) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a step, and its parts."""
        weight = self.beta(min(1.0, self.steps / self.last))
        self.steps += 1
        error, divergence = self.parts(rows)
        loss = error + weight * divergence
        return loss, {"loss": loss.item(), "reconstruction": error.item(), "kl": divergence.item()}

    def parts(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means over the batch of the squared error over twice the variance, and of the divergence."""
        x = self.x[rows]
        mu, logvar = self.encoder.gaussian(x)
        z = draw_codes(mu, logvar, self.generator)
        targets = None if self.targets is None else self.targets[rows]
        divergence = grid_kl(mu, logvar, self.prior, self.mode, targets, z).mean()
        error = (self.decoder(z) - x).flatten(1).square().sum(dim=1).mean() / (2 * self.obs_sigma**2)
        return error, divergence

    @torch.no_grad()
    def evaluate(self, batches: list[torch.Tensor]) -> float:
        """Loss over all samples with the last weight of the divergence."""
        weight, total, count = self.beta(1.0), 0.0, 0
        for rows in batches:
            error, divergence = self.parts(rows)
            total += len(rows) * (error + weight * divergence).item()
            count += len(rows)
        return total / count
