"""How usual a sample is, as modules that `purify` can climb: each maps (B, ...) to (B,), larger is more usual."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..geometry.protocol import Manifold
from ..isometry._input import check_size, fresh
from ..priors.diffusion import diffusion_log_prob
from ..priors.noise_networks import NoiseNetwork
from ..priors.schedule import NoiseSchedule, check_schedule
from .vae_classifier import VAEClassifier

__all__ = ["DiffusionScore", "ELBOScore", "ManifoldScore"]


class ELBOScore(nn.Module):
    """Evidence lower bound of a variational autoencoder, in nats.

    Parameters
    ----------
    vae : VAEClassifier
        Or any module with ``elbo(x, n_samples, generator)``.
    n_samples : int, default=1
        Codes drawn for each sample; 0 takes the mean code, without chance.
    generator : torch.Generator, optional
        Source of the codes; None is a fresh one. It advances with every call.

    Examples
    --------
    >>> vae = VAEClassifier(nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(2, 3))
    >>> ELBOScore(vae)(torch.zeros(5, 4)).shape
    torch.Size([5])
    """

    def __init__(self, vae: VAEClassifier, n_samples: int = 1, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not callable(getattr(vae, "elbo", None)):
            raise TypeError(
                f"vae must be a VAEClassifier or have elbo(x, n_samples, generator), got {type(vae).__name__}"
            )
        self.vae = vae
        self.n_samples = check_size(n_samples, "n_samples", 0)
        self.generator = fresh(generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.vae.elbo(x, self.n_samples, self.generator)


class DiffusionScore(nn.Module):
    """Log-likelihood bound of a diffusion model, see :func:`~manifoldkit.priors.diffusion_log_prob`, in nats.

    Parameters
    ----------
    eps, schedule
        As for :func:`~manifoldkit.priors.diffusion_log_prob`.
    stride : int, default=10
        Long steps make a gradient cheap: it keeps the graph of T / stride calls of the network.
    n_rounds : int, default=1
        Paths for each sample.
    generator : torch.Generator, optional
        Source of the paths; None is a fresh one. It advances with every call.

    Examples
    --------
    >>> schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    >>> DiffusionScore(lambda x, t: x, schedule)(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        eps: NoiseNetwork,
        schedule: NoiseSchedule,
        stride: int = 10,
        n_rounds: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_schedule(schedule).grid(stride)
        self.eps, self.schedule, self.stride = eps, schedule, stride
        self.n_rounds = check_size(n_rounds, "n_rounds")
        self.generator = fresh(generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return diffusion_log_prob(
            self.eps, x, self.schedule, stride=self.stride, n_rounds=self.n_rounds, generator=self.generator
        )


class ManifoldScore(nn.Module):
    r"""Minus half the squared distance to a manifold, :math:`-\frac12 |x - \Pi(x)|^2`.

    The foot point is taken as fixed for the gradient, :math:`\Pi(x) - x`, which is exact for a nearest point; so the
    projection need not be differentiable.

    Parameters
    ----------
    manifold : Manifold
        Whose ``project`` takes samples (B, ...), a fitted :class:`~manifoldkit.DiffusionManifold` for instance.

    Raises
    ------
    TypeError
        If `manifold` has no ``project`` and ``tangent_basis``.

    Examples
    --------
    >>> from manifoldkit.geometry import Circle
    >>> ManifoldScore(Circle())(torch.tensor([[3.0, 0.0]]))
    tensor([-2.])
    """

    def __init__(self, manifold: Any) -> None:
        super().__init__()
        if not isinstance(manifold, Manifold):
            raise TypeError(f"manifold must have project and tangent_basis, got {type(manifold).__name__}")
        self.manifold = manifold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            foot = torch.as_tensor(self.manifold.project(x.detach())).to(x)
        return -0.5 * (x - foot).flatten(1).square().sum(1)
