"""Perceptrons whose weights come from a generator, decoders with tied weights, and networks in units of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from ._input import check_size, fresh

__all__ = ["ACTIVATIONS", "MLP", "Normalised", "ShapedDecoder", "TiedDecoder", "initialise"]

#: Activations by name; "softplus" is nearly a ReLU, with a second derivative.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "softplus": partial(nn.Softplus, beta=100)}


class MLP(nn.Sequential):
    """Linear layers with an activation after each but, optionally, the last; samples of any shape are flattened.

    Parameters
    ----------
    sizes : sequence of int
        Number of inputs, the widths, number of outputs.
    activation : callable, default=nn.Tanh
        Makes an activation module.
    activate_last : bool, default=False
        Whether an activation follows the last layer.
    generator : torch.Generator, optional
        Source of the weights; None is a fresh one.

    Raises
    ------
    ValueError
        If fewer than two sizes are given; in the call, if a sample has another number of entries.

    Examples
    --------
    >>> MLP([784, 100, 10], generator=torch.Generator().manual_seed(0))(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[], nn.Module] = nn.Tanh,
        *,
        activate_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        sizes = [check_size(size, "sizes") for size in sizes]
        if len(sizes) < 2:
            raise ValueError(f"sizes must hold the numbers of inputs and of outputs at least, got {sizes}")
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(pairwise(sizes)):
            layers.append(nn.utils.skip_init(nn.Linear, before, after))
            if activate_last or k < len(sizes) - 2:
                layers.append(activation())
        super().__init__(*layers)
        self.n_inputs = sizes[0]
        initialise(self, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim < 2 or math.prod(x.shape[1:]) != self.n_inputs:
            hint = ": wrap a single sample as x[None]" if x.numel() == self.n_inputs else ""
            raise ValueError(
                f"the network takes samples of {self.n_inputs} entries, (B, {self.n_inputs}) or images of as many "
                f"pixels, got shape {tuple(x.shape)}{hint}"
            )
        return super().forward(x.flatten(1))


class TiedDecoder(nn.Module):
    """Decoder whose linear layers are the transposes of the encoder's, in reverse order, with biases of their own.

    Examples
    --------
    >>> encoder = MLP([5, 4, 2], generator=torch.Generator().manual_seed(0))
    >>> TiedDecoder(encoder)(encoder(torch.zeros(3, 5))).shape
    torch.Size([3, 5])
    """

    def __init__(self, encoder: nn.Module) -> None:
        if not isinstance(encoder, MLP):
            raise TypeError(f"a tied decoder needs an MLP as encoder, got {type(encoder).__name__}")
        super().__init__()
        self.encoder = encoder
        self.biases = nn.ParameterList(torch.zeros(layer.in_features) for layer in self._layers())

    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.encoder if isinstance(layer, nn.Linear)][::-1]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        between = [layer for layer in self.encoder if not isinstance(layer, nn.Linear)][::-1]
        for k, (layer, bias) in enumerate(zip(self._layers(), self.biases, strict=True)):
            z = nn.functional.linear(z, layer.weight.T, bias)
            if k < len(between):
                z = between[k](z)
        return z


class Normalised(nn.Module):
    """A network trained on centred samples divided by one number, as a network in the units of the samples.

    An encoder is ``scale * g((x - shift) / scale)``, a decoder ``shift + scale * f(z / scale)``, so that lengths of
    codes have the units of the samples, too.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, network: nn.Module, shift: torch.Tensor, scale: torch.Tensor, shape: tuple[int, ...], *, encodes: bool
    ) -> None:
        super().__init__()
        self.network, self.shape, self.encodes = network, shape, encodes
        self.register_buffer("shift", shift.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.encodes:
            return self.scale * self.network((x - self.shift) / self.scale)
        return self.shift + self.scale * self.network(x / self.scale).reshape(len(x), *self.shape)


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of all linear and convolutional layers as PyTorch does by default, but from `generator`."""
    generator = fresh(generator)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())  # uniform, of variance 1 / (3 fan_in)
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    draw = torch.rand(parameter.shape, generator=generator, device=generator.device)
                    parameter.copy_((2.0 * draw - 1.0) * bound)


class ShapedDecoder(nn.Module):
    """A network (B, n) -> (B, D) or (B, *shape), as one to samples of `shape`."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        out = self.network(z)
        if len(out) != len(z) or out[0].numel() != math.prod(self.shape):
            raise ValueError(f"the decoder must return samples of shape {self.shape}, got {tuple(out.shape[1:])}")
        return out.reshape(-1, *self.shape)
