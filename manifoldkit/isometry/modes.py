"""Training mode, with what is frozen left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["keep_frozen", "training"]


@contextmanager
def training(net: nn.Module) -> Iterator[None]:
    """Training mode inside; afterwards every submodule has the mode it had.

    A network that is in training mode already keeps the mode of each of its parts. Parts all of whose parameters are
    frozen are evaluated: the statistics of a frozen BatchNorm stay what they are.
    """
    modes = {part: part.training for part in net.modules()}
    try:
        if not net.training:
            net.train()
        keep_frozen(net)
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def keep_frozen(net: nn.Module) -> None:
    """Evaluation mode for the parts that have parameters, none of which requires a gradient."""
    for part in net.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
