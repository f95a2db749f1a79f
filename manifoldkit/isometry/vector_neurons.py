"""Layers on lists of vectors that commute with every rotation and reflection of those vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init  # the weights are drawn below, not from the global seed

from ..datasets._validation import check_count
from .residual_pair import initialise_unit

__all__ = ["VectorNeuronHead", "VectorNeuronLayer"]


class VectorNeuronLayer(nn.Module):
    r"""Mix channels, bend and rescale them: :math:`f(R x) = R f(x)` for every orthogonal R.

    From the channels, vectors of :math:`\mathbb{R}^k`, linear mixtures q and d are formed, and

    .. math:: y = q + \operatorname{silu}(-\langle q, d \rangle) \, d / |d|^2,

    channel by channel: where q points away from the learned direction d, its part along d is (softly) removed. Then
    the lengths of the channels are normalised: :math:`y_i \operatorname{LN}(|y|)_i / |y_i|`.

    Parameters
    ----------
    in_channels, out_channels : int
    generator : torch.Generator, optional
        Source of the initial weights; None is a fresh one.

    References
    ----------
    .. [1] C. Deng et al. "Vector neurons: a general framework for SO(3)-equivariant networks". ICCV 2021.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import VectorNeuronLayer, polar
    >>> layer = VectorNeuronLayer(4, 6)
    >>> x, R = torch.randn(2, 5, 4), polar(torch.randn(5, 5))
    >>> bool(torch.allclose(layer(R @ x), R @ layer(x), atol=1e-4))
    True
    """

    def __init__(self, in_channels: int, out_channels: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        inputs, outputs = check_count(in_channels, "in_channels"), check_count(out_channels, "out_channels")
        self.mix = skip_init(nn.Linear, inputs, 2 * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)
        initialise_unit(self.mix, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (B, k, in_channels) to (B, k, out_channels)."""
        q, d = self.mix(x).chunk(2, dim=-1)
        tiny = torch.finfo(x.dtype).eps
        along = (q * d).sum(dim=-2, keepdim=True)
        y = q + nn.functional.silu(-along) / (d.square().sum(dim=-2, keepdim=True) + tiny) * d
        length = (y.square().sum(dim=-2) + tiny).sqrt()
        return y * (self.norm(length) / length)[:, None, :]


class VectorNeuronHead(nn.Module):
    r"""Classifier of codes whose answer does not change when a code is moved by an isometry.

    Layers of vector neurons, then the inner products :math:`x^\top x` of their channels (upper triangle), which no
    orthogonal map changes, then a perceptron.

    Parameters
    ----------
    channels : int
        c of the codes (B, k, c).
    n_classes : int
    widths : sequence of int, default (32, 32)
        Channels of the equivariant layers; an empty one takes the inner products of the codes themselves.
    hidden : int, default 128
        Width of the perceptron's two hidden layers.
    generator : torch.Generator, optional
        Source of the initial weights; None is a fresh one.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import VectorNeuronHead, polar
    >>> head = VectorNeuronHead(8, 10).eval()
    >>> codes, R = torch.randn(3, 16, 8), polar(torch.randn(3, 16, 16))
    >>> bool(torch.allclose(head(R @ codes), head(codes), atol=1e-4))
    True
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        *,
        widths: Sequence[int] = (32, 32),
        hidden: int = 128,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.channels = check_count(channels, "channels")
        sizes = [self.channels, *(check_count(width, "widths") for width in widths)]
        self.layers = nn.Sequential(
            *(VectorNeuronLayer(before, after, generator=generator) for before, after in pairwise(sizes))
        )
        rows, columns = torch.triu_indices(sizes[-1], sizes[-1])
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        hidden = check_count(hidden, "hidden")
        self.perceptron = nn.Sequential(
            nn.BatchNorm1d(len(rows), affine=False),
            skip_init(nn.Linear, len(rows), hidden), nn.SiLU(),
            skip_init(nn.Linear, hidden, hidden), nn.SiLU(),
            skip_init(nn.Linear, hidden, check_count(n_classes, "n_classes")),
        )  # fmt: skip
        initialise_unit(self.perceptron, generator)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (B, n_classes) of codes (B, k, channels)."""
        if not isinstance(codes, Tensor) or codes.ndim != 3 or codes.shape[2] != self.channels:
            got = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise ValueError(f"codes must be a tensor (B, k, {self.channels}), got {got}")
        x = self.layers(codes)
        gram = x.mT @ x / x.shape[-2]
        return self.perceptron(gram[:, self.rows, self.columns])
