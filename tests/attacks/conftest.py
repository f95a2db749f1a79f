"""Small networks whose answers are known or cheap."""

from __future__ import annotations

import pytest
import torch


class Counter(torch.nn.Module):
    """Linear classifier with ``z = W x`` that counts the samples it has seen, in `seen` and per call in `sizes`."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return x.flatten(1) @ self.weight.T


@pytest.fixture
def half_space():
    """Builds the classifier "class 0 where w.x > 0, class 1 elsewhere" for a normal w."""

    def build(normal: list[float] | torch.Tensor, dtype: torch.dtype = torch.float64) -> Counter:
        w = torch.as_tensor(normal, dtype=dtype)
        return Counter(torch.stack([w, -w]))

    return build


@pytest.fixture
def convnet() -> torch.nn.Module:
    """Random convolutional classifier of 1 x 6 x 6 images into four classes, float64."""
    generator = torch.Generator().manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 4)
    ).double()
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


@pytest.fixture
def images() -> torch.Tensor:
    """Forty 1 x 6 x 6 images in [0, 1], float64."""
    return torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
