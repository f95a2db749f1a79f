"""What an autoencoder may be asked beside reconstruction: isometry, and the regularisers that it is compared with.

A penalty is a callable ``penalty(view) -> scalar`` of a :class:`View` of one training step; a list of penalties makes
a model. Directional derivatives are forward or backward products (`torch.func.jvp`, `vjp`) with fresh random vectors,
differentiated by the weights; no Jacobian is formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn
from torch.func import jvp, vjp

from .._modules import evaluating

__all__ = [
    "CODE_LAWS",
    "DecoderContraction",
    "DecoderIsometry",
    "EncoderContraction",
    "EncoderIsometry",
    "Penalty",
    "View",
    "WeightDecay",
    "has_batch_statistics",
]

#: Where random codes may lie, see :class:`DecoderIsometry`.
CODE_LAWS = ("gaussian", "box", "between")


class View:
    """One training step: the networks, a batch of samples, its codes, and products with the Jacobians.

    Networks with batch statistics (BatchNorm, or any floating buffers) are evaluated a second time for the products,
    with their running statistics: the derivative of one sample's code by the sample is that of the network as it will
    be used.

    Parameters
    ----------
    encoder, decoder : Module
    x : Tensor (B, ...)
    generator : torch.Generator
        Source of random vectors and codes.
    with_pullback : bool
        Whether a penalty needs :meth:`pull_back`, so that the pass that gives the codes can serve it as well.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, x: torch.Tensor, generator: torch.Generator, with_pullback: bool
    ) -> None:
        self.encoder, self.decoder, self.x, self.generator = encoder, decoder, x, generator
        self._pull: Callable[[torch.Tensor], torch.Tensor] | None = None
        if with_pullback and not has_batch_statistics(encoder):
            self.codes, self._pull = _vjp(encoder, x)
        else:
            self.codes = encoder(x)

    def pull_back(self, u: torch.Tensor) -> torch.Tensor:
        """``u^T dg(x)`` of vectors (B, d), flattened to (B, D)."""
        if self._pull is None:
            with evaluating(self.encoder):
                self._pull = _vjp(self.encoder, self.x)[1]
        return self._pull(u).flatten(1)

    def push_forward(self, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """``df(z) u`` of codes and vectors (B, d), flattened to (B, D)."""
        with evaluating(self.decoder):
            return jvp(self.decoder, (z,), (u,))[1].flatten(1)

    def normal(self) -> torch.Tensor:
        """Standard normal vectors (B, d)."""
        draw = torch.randn(self.codes.shape, generator=self.generator, device=self.generator.device)
        return draw.to(self.codes)

    def directions(self) -> torch.Tensor:
        """Uniform unit vectors (B, d)."""
        return nn.functional.normalize(self.normal(), dim=1)

    def sample_codes(self, law: str) -> torch.Tensor:
        """B random codes of the law asked for, see :class:`DecoderIsometry`; no gradient flows to the encoder."""
        codes = self.codes.detach()
        if law == "box":
            low, high = codes.amin(dim=0), codes.amax(dim=0)
            draw = torch.rand(codes.shape, generator=self.generator, device=self.generator.device)
            return low + (high - low) * draw.to(codes)
        if law == "between":
            order = torch.randperm(len(codes), generator=self.generator, device=self.generator.device)
            share = torch.rand(len(codes), 1, generator=self.generator, device=self.generator.device)
            return torch.lerp(codes, codes[order.to(codes.device)], share.to(codes))
        mean, centred = codes.mean(dim=0), codes - codes.mean(dim=0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(codes) - 1))
        return mean + (self.normal() * values.clamp(min=0.0).sqrt()) @ vectors.T


class Penalty(Protocol):
    """A weighted term of the loss: any callable, or one with ``needs_pullback = True`` if it asks for those products.

    They are computed without the attribute, too, by a second pass through the encoder.
    """

    def __call__(self, view: View) -> torch.Tensor:
        """Scalar to add to the reconstruction error."""
        ...


class _Weighted:
    needs_pullback = False

    def __init__(self, weight: float) -> None:
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight must be a finite number >= 0, got {weight!r}")
        self.weight = float(weight)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.weight:g})"


class WeightDecay(_Weighted):
    r"""Weight decay: :math:`w \sum_\theta \theta^2` over all weights of both networks."""

    def __call__(self, view: View) -> torch.Tensor:
        weights = dict.fromkeys(p for net in (view.encoder, view.decoder) for p in net.parameters())
        return self.weight * torch.stack([p.square().sum() for p in weights]).sum()


class DecoderIsometry(_Weighted):
    r"""Decoder that keeps lengths: :math:`w\, E_{z,u} (|df(z) u| - 1)^2`, u uniform on the unit sphere.

    Parameters
    ----------
    weight : float
        w.
    codes : {"gaussian", "box", "between"}, default="gaussian"
        Law of z: normal with the mean and covariance of the codes of the batch; uniform on their bounding box; or
        uniform on segments between two codes of the batch, which does not leave their convex hull.
    """

    def __init__(self, weight: float, codes: str = "gaussian") -> None:
        super().__init__(weight)
        if codes not in CODE_LAWS:
            raise ValueError(f"codes must be one of {CODE_LAWS}, got {codes!r}")
        self.codes = codes

    def __call__(self, view: View) -> torch.Tensor:
        speed = torch.linalg.vector_norm(view.push_forward(view.sample_codes(self.codes), view.directions()), dim=1)
        return self.weight * (speed - 1.0).square().mean()


class EncoderIsometry(_Weighted):
    r"""Encoder that is the decoder's pseudo-inverse: :math:`w\, E_{x,u} (|u^\top dg(x)| - 1)^2` over samples x."""

    needs_pullback = True

    def __call__(self, view: View) -> torch.Tensor:
        speed = torch.linalg.vector_norm(view.pull_back(view.directions()), dim=1)
        return self.weight * (speed - 1.0).square().mean()


class EncoderContraction(_Weighted):
    r"""Contractive autoencoder: :math:`w\, E_x |dg(x)|_F^2`, exactly or by Hutchinson's estimate with one probe."""

    needs_pullback = True

    def __init__(self, weight: float, exact: bool = False) -> None:
        super().__init__(weight)
        self.exact = bool(exact)

    def __call__(self, view: View) -> torch.Tensor:
        if not self.exact:
            return self.weight * view.pull_back(view.normal()).square().sum(dim=1).mean()
        rows = torch.eye(view.codes.shape[1]).to(view.codes)
        total = torch.stack([view.pull_back(row.expand_as(view.codes)).square().sum(dim=1) for row in rows])
        return self.weight * total.sum(dim=0).mean()


class DecoderContraction(_Weighted):
    r"""Regularised autoencoder with gradient penalty: :math:`w\, E_x |df(g(x))|_F^2`, exactly or by one probe."""

    def __init__(self, weight: float, exact: bool = False) -> None:
        super().__init__(weight)
        self.exact = bool(exact)

    def __call__(self, view: View) -> torch.Tensor:
        z = view.codes
        if not self.exact:
            return self.weight * view.push_forward(z, view.normal()).square().sum(dim=1).mean()
        columns = torch.eye(z.shape[1]).to(z)
        total = torch.stack([view.push_forward(z, column.expand_as(z)).square().sum(dim=1) for column in columns])
        return self.weight * total.sum(dim=0).mean()


def _vjp(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Value of a network, and its vector-Jacobian product as a function."""
    answer = vjp(network, x)
    return answer[0], lambda u: answer[1](u)[0]


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether a pass in training mode may mix the samples of a batch, or change what the network keeps of batches.

    BatchNorm does, and so may whatever has floating buffers; where it does not, a second pass costs time alone.
    """
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules()) or any(
        buffer.is_floating_point() for buffer in network.buffers()
    )
