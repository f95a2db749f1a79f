"""What each autoencoder of the literature minimises, sentence by sentence of the source, and the nets it names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from manifoldkit.attacks import FGSM, PGD, OnManifoldPGD, RandomTangentWalk
from manifoldkit.datasets import make_s_curve
from manifoldkit.isometry import (
    MLP,
    DecoderIsometry,
    EncoderIsometry,
    IsometricAutoencoder,
    LocallyIsometricNet,
    baseline,
    convolutional_pair,
    dense_pair,
)
from manifoldkit.isometry.networks import TiedDecoder
from manifoldkit.isometry.solvers import Objective

X = make_s_curve(120, random_state=0).points


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_pair():
    """Codes (3 x_0, 2 x_2) and their decoder (z_0, 4 z_1, 0): the squares of the entries are 13 and 17."""
    encoder, decoder = nn.Linear(3, 2, bias=False).double(), nn.Linear(2, 3, bias=False).double()
    encoder.weight.data = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    decoder.weight.data = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    return encoder, decoder


def minimised(options, n=10000):
    x = torch.ones(n, 3, dtype=torch.float64)
    encoder, decoder = linear_pair()
    objective = Objective(encoder, decoder, options["penalties"], options.get("corruption", 0.0), seeded())
    return objective(x)[1]


@pytest.mark.parametrize(
    ("name", "weight", "extra"),
    [
        ("AE", None, 0.0),
        ("AE + weight decay", 0.5, 0.5 * (13 + 17)),
        ("CAE", 0.5, 0.5 * 13),
        ("TCAE", 0.5, 0.5 * 13),
        ("RAE-GP", 0.5, 0.5 * 17),
    ],
)
def test_baselines_minimise_what_their_sources_say(name, weight, extra):
    """The point (1, 1, 1) has codes (3, 2) and is rebuilt as (3, 8, 0): its squared error is 4 + 49 + 1."""
    record = minimised(baseline(name, weight))
    assert record["reconstruction"] == pytest.approx(54)
    assert record["loss"] == pytest.approx(54 + extra, rel=0.01)


def test_the_denoising_autoencoder_sees_noise_and_rebuilds_the_clean_sample():
    """Noise of deviation 0.5 reaches the reconstruction as (3 e_0, 8 e_2, 0), so that the error grows by 0.25 * 73."""
    record = minimised(baseline("DAE", 0.5), n=200000)
    assert record["reconstruction"] == record["loss"] == pytest.approx(54 + 0.25 * 73, rel=0.02)


@pytest.mark.parametrize("chosen", [(EncoderIsometry,), (DecoderIsometry,), (DecoderIsometry, EncoderIsometry)])
def test_either_isometric_term_may_be_switched_off(chosen):
    encoder, decoder = linear_pair()
    losses = minimised({"penalties": tuple(kind(0.1) for kind in chosen)})
    assert [name for name in losses if name not in ("loss", "reconstruction")] == [kind.__name__ for kind in chosen]
    angle = torch.linspace(0, 2 * torch.pi, 20001, dtype=torch.float64)[:-1]
    u = torch.stack([angle.cos(), angle.sin()], dim=1)
    means = {
        "EncoderIsometry": ((u @ encoder.weight).norm(dim=1) - 1).square().mean().item(),
        "DecoderIsometry": ((u @ decoder.weight.T).norm(dim=1) - 1).square().mean().item(),
    }
    for kind in chosen:
        assert losses[kind.__name__] == pytest.approx(0.1 * means[kind.__name__], rel=0.02)


def test_tied_weights_are_the_transposes():
    encoder = MLP([3, 5, 2], nn.Tanh, generator=seeded())
    decoder = TiedDecoder(encoder)
    z = torch.randn(4, 2, generator=seeded())
    first, last = (layer for layer in encoder if isinstance(layer, nn.Linear))
    bias = [p for p in decoder.parameters() if all(p is not q for q in encoder.parameters())]
    hidden = torch.tanh(z @ last.weight + next(b for b in bias if b.shape == (5,)))
    torch.testing.assert_close(decoder(z), hidden @ first.weight + next(b for b in bias if b.shape == (3,)))


def shapes(network, kind):
    return [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, kind)]


def test_networks_of_the_source_have_its_layers():
    encoder, decoder = dense_pair(16, generator=seeded())
    widths = [784, 128, 256, 512, 1024, 16]
    assert shapes(encoder, nn.Linear) == list(zip(widths[1:], widths, strict=False))
    widths = [16, 1024, 512, 256, 128, 784]
    assert shapes(decoder, nn.Linear) == list(zip(widths[1:], widths, strict=False))
    encoder, decoder = convolutional_pair(16, generator=seeded())
    assert shapes(encoder, nn.Conv2d) == [(32, 1, 4, 4), (64, 32, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4)]
    assert shapes(encoder, nn.Linear) == [(16, 256)]
    assert shapes(decoder, nn.Linear) == [(256, 16)]
    assert shapes(decoder, nn.ConvTranspose2d) == [(256, 128, 4, 4), (128, 64, 4, 4), (64, 32, 4, 4), (32, 1, 4, 4)]
    sharp = [layer.beta for layer in encoder.modules() if isinstance(layer, nn.Softplus)]
    assert sharp == [100] * 4


def test_a_block_is_four_layers_of_tanh_and_a_linear_classifier():
    net = LocallyIsometricNet.mlp(784, 10, generator=seeded())
    layers = list(net.blocks[0])
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Tanh] * 4
    assert shapes(net.blocks[0], nn.Linear) == [(100, 784), (100, 100), (100, 100), (100, 100)]
    x = torch.rand(3, 784, generator=seeded())
    (z,) = net.representations(x)
    torch.testing.assert_close(net(x), net.heads[0](z))
    assert type(net.heads[0]) is nn.Linear


@pytest.mark.parametrize("seed", [0, 1])
def test_attacks_run_on_the_autoencoder_as_on_any_manifold(seed):
    """Walks stay on the surface that the decoder draws, those in the ball leave it."""
    model = IsometricAutoencoder(2, hidden=(12,), max_iter=40, random_state=seed).fit(X)
    net = MLP([3, 8, 2], nn.Tanh, generator=seeded(seed)).double()
    x = torch.from_numpy(model.project(X[:12]))
    y = net(x).argmax(1)
    scale = float(np.abs(X).max())
    for kind in (OnManifoldPGD, RandomTangentWalk):
        walk = kind(net, model, alpha=0.05 * scale, steps=5, bounds=None, generator=seeded(seed)).run(x, y)
        moved = (walk.adversarial - x).norm(dim=1)
        off = (walk.adversarial - model.project(walk.adversarial)).norm(dim=1)
        assert moved.max() > 0.04 * scale
        assert off.max() < 0.02 * scale
    for kind in (FGSM, PGD):
        ball = kind(net, eps=0.2 * scale, bounds=None)(x, y)
        assert (ball - model.project(ball)).norm(dim=1).max() > 0.02 * scale
