"""The autoencoder networks of the isometric autoencoders' source for images of 28 by 28 pixels."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ._input import check_size
from .networks import initialise

__all__ = ["convolutional_pair", "dense_pair"]

_softplus = partial(nn.Softplus, beta=100)
_DENSE = (128, 256, 512, 1024)


def dense_pair(
    n_components: int, n_pixels: int = 784, *, generator: torch.Generator | None = None
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of four dense blocks each, with batch normalisation: the "FC-NN" of the source.

    Parameters
    ----------
    n_components : int
        Number of codes.
    n_pixels : int, default=784
        Entries of an image, which may have any shape; the decoder returns vectors.
    generator : torch.Generator, optional
        Source of the weights; None is a fresh one.

    Examples
    --------
    >>> encoder, decoder = dense_pair(16)
    >>> decoder(encoder(torch.zeros(3, 28, 28))).shape
    torch.Size([3, 784])
    """

    def stack(first: int, widths: tuple[int, ...], last: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.utils.skip_init(nn.Linear, first, width), nn.BatchNorm1d(width), _softplus()]
            first = width
        return [*layers, nn.utils.skip_init(nn.Linear, first, last)]

    n_components, n_pixels = check_size(n_components, "n_components"), check_size(n_pixels, "n_pixels")
    encoder = nn.Sequential(nn.Flatten(), *stack(n_pixels, _DENSE, n_components))
    decoder = nn.Sequential(*stack(n_components, _DENSE[::-1], n_pixels))
    for network in (encoder, decoder):
        initialise(network, generator)
    return encoder, decoder


def convolutional_pair(
    n_components: int, *, generator: torch.Generator | None = None
) -> tuple[nn.Sequential, nn.Sequential]:
    """Convolutional encoder and decoder for images (B, 1, 28, 28), with batch normalisation: the "S-CNN" of the source.

    Two numbers of the source's table do not fit images of 28 by 28: its four convolutions need 32 by 32, so that the
    images are padded by 2 here, and its last transposed convolution has padding 3, which would give 24 by 24; here 1.

    Parameters
    ----------
    n_components : int
        Number of codes.
    generator : torch.Generator, optional
        Source of the weights; None is a fresh one.

    Examples
    --------
    >>> encoder, decoder = convolutional_pair(16)
    >>> decoder(encoder(torch.zeros(3, 1, 28, 28))).shape
    torch.Size([3, 1, 28, 28])
    """
    check_size(n_components, "n_components")

    def down(before: int, after: int, padding: int) -> list[nn.Module]:
        return [nn.utils.skip_init(nn.Conv2d, before, after, 4, 2, padding), nn.BatchNorm2d(after), _softplus()]

    def up(before: int, after: int, stride: int, padding: int) -> list[nn.Module]:
        layer = nn.utils.skip_init(nn.ConvTranspose2d, before, after, 4, stride, padding)
        return [layer, nn.BatchNorm2d(after), _softplus()]

    encoder = nn.Sequential(
        nn.ZeroPad2d(2), *down(1, 32, 1), *down(32, 64, 1), *down(64, 128, 1), *down(128, 256, 0), nn.Flatten(),
        nn.utils.skip_init(nn.Linear, 256, n_components),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.utils.skip_init(nn.Linear, n_components, 256), nn.Unflatten(1, (256, 1, 1)),
        *up(256, 128, 1, 0), *up(128, 64, 1, 0), *up(64, 32, 2, 1),
        nn.utils.skip_init(nn.ConvTranspose2d, 32, 1, 4, 2, 1),
    )  # fmt: skip
    for network in (encoder, decoder):
        initialise(network, generator)
    return encoder, decoder
