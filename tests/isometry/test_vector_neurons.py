"""Vector neurons commute with rotations and reflections; the head does not see them."""

from __future__ import annotations

import pytest
import torch

from manifoldkit.isometry import VectorNeuronHead, VectorNeuronLayer, polar


def double(module, seed):
    """In float64, with all parameters drawn anew, so that no law holds by the initial values alone."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.5, generator=generator)
    return module, generator


@pytest.mark.parametrize("seed", range(3))
def test_layer_commutes_with_orthogonal_maps(seed):
    layer, generator = double(VectorNeuronLayer(6, 9), seed)
    x = torch.randn(5, 7, 6, generator=generator, dtype=torch.float64)
    turn = polar(torch.randn(5, 7, 7, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(layer(turn @ x), turn @ layer(x))
    assert not torch.allclose(layer(2.0 * x - x.roll(1, dims=2)), 2.0 * layer(x) - layer(x.roll(1, dims=2)))  # it bends


def test_what_points_along_the_direction_stays_and_what_points_against_it_is_taken_away():
    layer = VectorNeuronLayer(2, 1).double()
    layer.norm = torch.nn.Identity()
    layer.mix.weight.data.copy_(torch.eye(2))  # q and d are the two channels
    q = torch.tensor([9.0, 1.0], dtype=torch.float64)
    d = torch.tensor([3.0, 0.0], dtype=torch.float64)
    for sign, first in ((1.0, 9.0), (-1.0, 0.0)):
        y = layer(torch.stack([q, sign * d], dim=1)[None])[0, :, 0]
        torch.testing.assert_close(y, torch.tensor([first, 1.0], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("widths", [(), (8,), (8, 4)])
def test_head_does_not_see_orthogonal_maps_but_sees_others(widths):
    head, generator = double(VectorNeuronHead(6, 10, widths=widths, hidden=16), 0)
    head.eval()
    x = torch.randn(5, 7, 6, generator=generator, dtype=torch.float64)
    turn = polar(torch.randn(5, 7, 7, generator=generator, dtype=torch.float64))
    logits = head(x)
    assert logits.shape == (5, 10)
    torch.testing.assert_close(head(turn @ x), logits)
    stretch = torch.diag(torch.linspace(0.5, 2.0, 7, dtype=torch.float64))
    assert (head(stretch @ x) - logits).abs().max() > 1e-3


def test_derivatives():
    head, generator = double(VectorNeuronHead(3, 2, widths=(4,), hidden=5), 1)
    x = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head.eval(), x)


def test_zero_codes_are_finite():
    head, _ = double(VectorNeuronHead(3, 2), 0)
    x = torch.zeros(2, 4, 3, dtype=torch.float64, requires_grad=True)
    head.eval()(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_generator_decides_the_weights():
    first, second = (VectorNeuronHead(6, 10, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 10), {}, ValueError, "channels must be at least 1"),
        ((2.5, 10), {}, TypeError, "channels must be an integer"),
        ((4, 0), {}, ValueError, "n_classes"),
        ((4, 10), {"widths": (0,)}, ValueError, "widths"),
        ((4, 10), {"hidden": 0}, ValueError, "hidden"),
    ],
)
def test_bad_input(arguments, options, error, message):
    with pytest.raises(error, match=message):
        VectorNeuronHead(*arguments, **options)
