"""Multilayer perceptrons whose weights come from a generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from ._input import check_size

__all__ = ["MLP", "initialise"]


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


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of all linear and convolutional layers as PyTorch does by default, but from `generator`."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())  # uniform, of variance 1 / (3 fan_in)
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    draw = torch.rand(parameter.shape, generator=generator, device=generator.device)
                    parameter.copy_((2.0 * draw - 1.0) * bound)
