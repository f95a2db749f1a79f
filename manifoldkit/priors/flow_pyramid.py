"""`FlowPyramid`: a normalising flow at every resolution of an image, each knowing the coarser image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .._modules import evaluating
from ..isometry._input import check_size, finite_samples, fresh
from ._random import normal
from ._training import minimise
from .flows import from_normal, to_normal
from .volume import volume_log_det

__all__ = ["FlowPyramid"]


class FlowPyramid(nn.Module):
    r"""Autoencoders and flows on a pyramid of resolutions, for scores of images and for super-resolution.

    Level 0 is the image, :math:`x_{i+1}` is :math:`x_i` with 2 x 2 pixels averaged. With encoder :math:`f_i`, decoder
    :math:`f'_i` and flow :math:`g_i`,

    .. math:: y_i = f_i(x_i), \qquad z_i = g_i(y_i \mid x'_{i+1}) \sim N(0, I), \qquad
              x'_i = f'_i(y_i, x'_{i+1})

    so that every level but the coarsest is conditioned on the decoded coarser image. What the levels say is

    .. math:: \log p(x_i) = \log N(z_i \mid 0, I) + \log |\det J_{g_i}| + \tfrac12 \log\det(J_{f_i} J_{f_i}^\top)

    (:meth:`level_log_prob`). Their sum with the volumes of the averaging, :meth:`log_prob`, treats levels as
    independent, which they are not: it is a score to rank images by, no density.

    Parameters
    ----------
    encoders : sequence of L modules, finest first
        (B, C, H_i, W_i) to codes (B, d_i).
    decoders : sequence of L modules
        Codes (B, d_i), and at all levels but the last the coarser image (B, C, H_i / 2, W_i / 2) as a second argument,
        to images (B, C, H_i, W_i).
    flows : sequence of L modules
        Of zuko or normflows, for d_i features and a standard normal base. At all levels but the last with a context
        of C H_i W_i / 4 numbers, the coarser image.
    image_shape : (C, H, W)
        H and W divisible by :math:`2^{L-1}`.

    Raises
    ------
    ValueError
        If the lists differ in length, or H or W cannot be halved often enough.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers
       in Computer Science 5:1253682, 2023, equations (1)-(8). Its (6) is the negative of the log-density, for each
       dimension; here it is the log-density. Its finest level is 1.

    Examples
    --------
    >>> import zuko  # doctest: +SKIP
    >>> pyramid = FlowPyramid(
    ...     [fine_encoder, coarse_encoder], [fine_decoder, coarse_decoder],
    ...     [zuko.flows.RealNVP(8, context=16), zuko.flows.RealNVP(4)], image_shape=(1, 8, 8),
    ... )  # doctest: +SKIP
    >>> _ = pyramid.train_autoencoders(images), pyramid.train_flows(images)  # doctest: +SKIP
    >>> pyramid.log_prob(images).shape, pyramid.sample(5).shape  # doctest: +SKIP
    (torch.Size([100]), torch.Size([5, 1, 8, 8]))
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        flows: Sequence[nn.Module],
        image_shape: Sequence[int],
    ) -> None:
        super().__init__()
        counts = (len(encoders), len(decoders), len(flows))
        if len(set(counts)) != 1 or counts[0] < 1:
            raise ValueError(f"every level needs an encoder, a decoder and a flow, got {counts} of them")
        self.n_levels = counts[0]
        if len(image_shape) != 3:
            raise ValueError(f"image_shape must be (C, H, W), got {tuple(image_shape)}")
        self.image_shape = tuple(check_size(size, "image_shape") for size in image_shape)
        factor = 2 ** (self.n_levels - 1)
        if self.image_shape[1] % factor or self.image_shape[2] % factor:
            raise ValueError(
                f"images of {self.image_shape[1]} x {self.image_shape[2]} cannot be halved {self.n_levels - 1} times: "
                f"crop or pad them to multiples of {factor}, or take fewer levels"
            )
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.flows = nn.ModuleList(flows)

    def pyramid(self, x: Any) -> list[torch.Tensor]:
        """Images at all levels, finest first, of images (B, C, H, W)."""
        checked = finite_samples(x, "x")
        images = (x if isinstance(x, torch.Tensor) else checked).to(next(self.parameters()))
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.image_shape))}), got {tuple(images.shape)}"
            )
        levels = [images]
        while len(levels) < self.n_levels:
            levels.append(functional.avg_pool2d(levels[-1], 2))
        return levels

    def decode(self, codes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Images at all levels, finest first, from codes y_i (B, d_i) of all levels, in evaluation mode."""
        with evaluating(self):
            return self._decode(codes)

    def encode(self, x: Any) -> list[torch.Tensor]:
        """Codes y_i (B, d_i) of images (B, C, H, W), finest level first, in evaluation mode."""
        with evaluating(self):
            return self._encode(self.pyramid(x))

    def latent_log_prob(self, x: Any, level: int = 0, *, per_dimension: str | None = None) -> torch.Tensor:
        r"""How usual the code of a level is: :math:`\log N(z_i | 0, I) + \log|\det J_{g_i}|`, (B,), in nats.

        `per_dimension` "nats" or "bits" divides by the number of codes, of which bits are nats / ln 2. Differentiable
        where x requires a gradient.
        """
        level = self._level(level)
        with _graph_by(x), evaluating(self):
            codes = self._encode(self.pyramid(x))
            images = self._decode(codes)
            z, log_det = to_normal(self.flows[level], codes[level], self._context(images, level))
            value = _log_normal(z) + log_det
        return _per_dimension(value, codes[level].shape[1], per_dimension)

    def level_log_prob(self, x: Any, level: int = 0, *, per_dimension: str | None = None) -> torch.Tensor:
        """Log-density of the image of a level, (B,), the volume element of the encoder included.

        That costs d_i backward passes of the encoder. `per_dimension` and gradients as for :meth:`latent_log_prob`.
        """
        level = self._level(level)
        with _graph_by(x), evaluating(self):
            volume = volume_log_det(self.encoders[level], self.pyramid(x)[level])
            value = self.latent_log_prob(x, level).double() + volume
            return _per_dimension(value, 1 if per_dimension is None else self._n_codes(level), per_dimension)

    def log_prob(self, x: Any, level: int | None = None) -> torch.Tensor:
        r"""Score of images (B,): the sum of :meth:`level_log_prob` over the levels up to `level`, by default all.

        Each level after the first adds :math:`-n \log 2`, the volume of the averaging to its n pixels. Differentiable
        where x requires a gradient, so that :func:`~manifoldkit.defenses.purify` can climb it; the gradient takes the
        second derivatives of the encoders, and that of the volume is 0 for those of ReLU layers alone.
        """
        last = self._level(self.n_levels - 1 if level is None else level)
        total = self.level_log_prob(x, 0)
        for i in range(1, last + 1):
            n_out = math.prod(self.image_shape) // 4**i
            total = total + self.level_log_prob(x, i) - n_out * math.log(2)
        return total

    @torch.no_grad()
    def sample(
        self,
        n: int,
        condition: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """New images (n, C, H, W), or finer versions of coarse ones.

        Parameters
        ----------
        n : int
            Number of images.
        condition : Tensor (n or 1, C, h, w), optional
            Images at the resolution of one of the levels but the finest; the levels below it are drawn.
        temperature : float, default=1.0
            Standard deviation of z; smaller numbers give more usual images.
        generator : torch.Generator, optional
            Source of z; None is a fresh one.

        Raises
        ------
        ValueError
            If the condition has the shape of no coarser level, or the temperature is negative.
        """
        n = check_size(n, "n")
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature!r}")
        generator = fresh(generator)
        like = next(self.parameters())
        top, image = self.n_levels, None
        if condition is not None:
            image = finite_samples(condition, "condition").to(like)
            top = self._level_of(image, n)
            image = image.expand(n, *image.shape[1:])
        with evaluating(self):
            for level in reversed(range(top)):
                z = temperature * normal((n, self._n_codes(level)), like, generator)
                y = from_normal(self.flows[level], z, None if image is None else image.flatten(1))
                image = self._decode_level(level, y, image)
        assert image is not None
        return image

    def train_autoencoders(self, X: Any, **options: Any) -> torch.Tensor:
        r"""First phase: all autoencoders together, on the mean squared error of the decoded images of every level.

        Options: steps=2000, batch_size=64, lr=1e-3 (Adam), generator=None, progress=False. Returns the losses (steps,).
        """
        data = self.pyramid(X)[0].detach()

        def loss(rows: torch.Tensor) -> torch.Tensor:
            levels = self.pyramid(data[rows.to(data.device)])
            shown = self._decode(self._encode(levels))
            errors = [(a - b).square().mean() for a, b in zip(shown, levels, strict=True)]
            return torch.stack(errors).mean()

        parameters = [*self.encoders.parameters(), *self.decoders.parameters()]
        with _training(self.encoders, self.decoders):
            return _minimise(loss, parameters, len(data), "autoencoders", **options)

    def train_flows(self, X: Any, **options: Any) -> torch.Tensor:
        r"""Second phase: the autoencoders stay as they are; all flows together maximise the likelihood of their codes.

        Options as for :meth:`train_autoencoders`. Returns the losses (steps,), nats of all codes of an image.
        """
        data = self.pyramid(X)[0].detach()

        def loss(rows: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                codes = self._encode(self.pyramid(data[rows.to(data.device)]))
                shown = self._decode(codes)
            parts = []
            for level, flow in enumerate(self.flows):
                z, log_det = to_normal(flow, codes[level], self._context(shown, level))
                parts.append(-(_log_normal(z) + log_det).mean())
            return torch.stack(parts).sum()

        with evaluating(self.encoders, self.decoders), _training(self.flows):
            return _minimise(loss, [*self.flows.parameters()], len(data), "flows", **options)

    def _level(self, level: int) -> int:
        level = check_size(level, "level", 0)
        if level >= self.n_levels:
            raise ValueError(f"level must be at most {self.n_levels - 1}, got {level}")
        return level

    def _level_of(self, image: torch.Tensor, n: int) -> int:
        channels, height, width = self.image_shape
        for level in range(1, self.n_levels):
            if image.shape[1:] == (channels, height // 2**level, width // 2**level) and len(image) in (1, n):
                return level
        shapes = [(channels, height // 2**i, width // 2**i) for i in range(1, self.n_levels)]
        raise ValueError(f"condition must hold 1 or {n} images of one of the shapes {shapes}, got {tuple(image.shape)}")

    def _context(self, images: Sequence[torch.Tensor], level: int) -> torch.Tensor | None:
        return images[level + 1].flatten(1) if level + 1 < self.n_levels else None

    def _encode(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Codes of a pyramid of images, the networks in the mode they are in."""
        return [encoder(image) for encoder, image in zip(self.encoders, levels, strict=True)]

    def _decode(self, codes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        images: list[torch.Tensor] = []
        for level in reversed(range(self.n_levels)):
            images.insert(0, self._decode_level(level, codes[level], images[0] if images else None))
        return images

    def _decode_level(self, level: int, y: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        result: torch.Tensor = self.decoders[level](y) if coarser is None else self.decoders[level](y, coarser)
        return result

    @torch.no_grad()
    def _n_codes(self, level: int) -> int:
        """Codes of a level; to be called in evaluation mode."""
        channels, height, width = self.image_shape
        blank = next(self.parameters()).new_zeros(1, channels, height // 2**level, width // 2**level)
        size: int = self.encoders[level](blank).shape[1]
        return size


def _graph_by(x: Any) -> torch.set_grad_enabled:
    """Gradients inside where x asks for them; scores of samples that do not are no part of any graph."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(x, torch.Tensor) and x.requires_grad)


def _log_normal(z: torch.Tensor) -> torch.Tensor:
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def _per_dimension(value: torch.Tensor, size: int, unit: str | None) -> torch.Tensor:
    if unit is None:
        return value
    if unit not in ("nats", "bits"):
        raise ValueError(f"per_dimension must be 'nats', 'bits' or None, got {unit!r}")
    return value / size / (math.log(2) if unit == "bits" else 1.0)


@contextmanager
def _training(*modules: nn.Module) -> Iterator[None]:
    """Training mode inside; afterwards every submodule has the mode it had."""
    with evaluating(*modules):
        for module in modules:
            module.train()
        yield


def _minimise(
    loss: Callable[[torch.Tensor], torch.Tensor],
    parameters: list[nn.Parameter],
    n: int,
    name: str,
    *,
    steps: int = 2000,
    batch_size: int = 64,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """With the defaults of both phases."""
    return minimise(
        loss, parameters, n, steps=steps, batch_size=batch_size, lr=lr, generator=generator, progress=progress,
        name=name,
    )  # fmt: skip
