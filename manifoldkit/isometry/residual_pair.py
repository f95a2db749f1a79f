"""A small residual encoder and its mirror image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init  # the weights are drawn below, not from the global seed

from ..datasets._validation import check_count
from ._input import fresh

__all__ = ["residual_pair"]


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))); starts as the identity, so that no normalisation is needed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = skip_init(nn.Conv2d, width, width, 3, padding=1)
        self.outer = skip_init(nn.Conv2d, width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(nn.functional.silu(self.inner(nn.functional.silu(x))))


class _Centred(nn.Module):
    """Subtract the mean over the batch, in evaluation the running one: what all images share is no part of a code.

    Otherwise a large constant makes the relative error of every isometry small. The mean of a single pair or triplet
    would make the views opposite, whatever they are: for less than two pairs the running one serves in training, too.
    """

    mean: Tensor

    def __init__(self, shape: tuple[int, int, int], momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x - self.mean
        mean = x.mean(dim=0)
        self.mean.lerp_(mean.detach(), self.momentum)
        return x - (mean if len(x) >= 4 else self.mean)


def residual_pair(
    image_shape: tuple[int, int, int],
    grid: tuple[int, int],
    channels: int,
    *,
    widths: Sequence[int] = (64, 128),
    depth: int = 3,
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Convolutional encoder of images into functions on a grid, and its mirrored decoder.

    Each stage halves the image and then has `depth` residual blocks of two 3 x 3 convolutions. The encoder's last layer
    subtracts the mean of the training images' latents.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width.
    grid : (int, int)
        Height and width of the latent functions: those of the image divided by two for each stage.
    channels : int
        Number of latent functions, c.
    widths : sequence of int, default (64, 128)
        Channels of the stages, those of the paper; (16, 48) with depth 1 trains on a processor.
    depth : int, default 3
        Residual blocks of a stage.
    generator : torch.Generator, optional
        Source of the initial weights; None is a fresh one.

    Returns
    -------
    encoder : nn.Module
        (B, *image_shape) to (B, channels, *grid).
    decoder : nn.Module
        The way back.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or the grid is not the image halved at each stage.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import residual_pair
    >>> encoder, decoder = residual_pair((1, 28, 28), (7, 7), 32, widths=(16, 48), depth=1)
    >>> encoder(torch.zeros(2, 1, 28, 28)).shape, decoder(torch.zeros(2, 32, 7, 7)).shape
    (torch.Size([2, 32, 7, 7]), torch.Size([2, 1, 28, 28]))
    """
    for name, value, form in (("image_shape", image_shape, "(C, H, W)"), ("grid", grid, "(height, width)")):
        if not isinstance(value, Sequence) or len(value) != form.count(",") + 1:
            raise TypeError(f"{name} must be {form}, got {value!r}")
    image_channels, height, width = (check_count(size, "image_shape") for size in image_shape)
    c, depth = check_count(channels, "channels"), check_count(depth, "depth", 0)
    stages = [check_count(size, "widths") for size in widths]
    factor = 2 ** len(stages)
    if not stages or (height, width) != (grid[0] * factor, grid[1] * factor):
        raise ValueError(
            f"grid {tuple(grid)} is not an image of {height} x {width} halved {len(stages)} times: pad the image, or "
            "change grid or the number of widths"
        )
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for before, after in zip([image_channels, *stages[:-1]], stages, strict=True):
        down += [skip_init(nn.Conv2d, before, after, 3, stride=2, padding=1), *(_Residual(after) for _ in range(depth))]
        up = [
            *(_Residual(after) for _ in range(depth)),
            skip_init(nn.ConvTranspose2d, after, before, 4, stride=2, padding=1),
            *up,
        ]
    encoder = nn.Sequential(*down, nn.SiLU(), skip_init(nn.Conv2d, stages[-1], c, 1), _Centred((c, *grid)))
    decoder = nn.Sequential(skip_init(nn.Conv2d, c, stages[-1], 1), *up)
    for module in (encoder, decoder):
        initialise_unit(module, generator)
    return encoder, decoder


def initialise_unit(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw weights that keep the variance of what a layer sees; biases, and ends of residuals, are zero."""
    generator = fresh(generator)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # Each output of a transposed convolution sees the kernel thinned by its stride.
            stride = math.prod(layer.stride) if isinstance(layer, nn.ConvTranspose2d) else 1
            inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            fan_in = inputs * math.prod(layer.weight.shape[2:]) / stride
            with torch.no_grad():
                layer.weight.normal_(0.0, fan_in**-0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
    for layer in module.modules():
        if isinstance(layer, _Residual):
            nn.init.zeros_(layer.outer.weight)
