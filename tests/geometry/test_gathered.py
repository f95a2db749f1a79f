"""Sums over few points, and the kernel softmax: the plain formula, and derivatives of every kind and order."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from manifoldkit.geometry._gathered import gathered_distances, gathered_products, gathered_sums
from manifoldkit.geometry._softmax import kernel_softmax
from manifoldkit.geometry.nystrom import NystromLayer

SIZES = [10, 400]  # of the table: products are taken with all rows, or with the chosen ones alone


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=SIZES)
def chosen(request):
    """A table, indices into it (one row repeated), queries and weights of which some are 0."""
    n = request.param
    index = torch.randint(n, (3, 5), generator=torch.Generator().manual_seed(1))
    index[0, 1] = index[0, 0]
    weights = normal(3, 5, seed=2)
    weights[1, 2] = 0
    return normal(n, 4), index, normal(3, 4, seed=3), weights


def test_they_are_the_plain_formulas(chosen):
    table, index, x, weights = chosen
    torch.testing.assert_close(gathered_products(x, table, index), torch.einsum("bd,bkd->bk", x, table[index]))
    torch.testing.assert_close(gathered_products(x, table, index, x @ table.T), gathered_products(x, table, index))
    torch.testing.assert_close(gathered_sums(weights, table, index), torch.einsum("bk,bkd->bd", weights, table[index]))
    plain = torch.linalg.vector_norm(x[:, None] - table[index], dim=2)
    torch.testing.assert_close(gathered_distances(x, table, index), plain)


@pytest.mark.parametrize("name", ["products", "sums", "distances"])
def test_derivatives_backward_forward_and_second(chosen, name):
    table, index, x, weights = chosen
    function, leaf = {
        "products": (gathered_products, x),
        "sums": (gathered_sums, weights + 1),
        "distances": (gathered_distances, x),
    }[name]
    leaf = leaf.clone().requires_grad_()
    assert gradcheck(lambda v: function(v, table, index), (leaf,), check_forward_ad=True)
    assert gradgradcheck(lambda v: function(v, table, index) ** 2, (leaf,))


def test_the_derivative_of_a_distance_of_zero_is_zero():
    table = normal(6, 3)
    x = table[:2].clone().requires_grad_()
    gathered_distances(x, table, torch.tensor([[0], [1]])).sum().backward()
    assert (x.grad == 0).all()


@pytest.mark.parametrize("per_query", [False, True])
def test_kernel_softmax(per_query):
    shape = (3, 7) if per_query else (7,)
    scale, offset = normal(*shape, seed=4).exp(), normal(*shape, seed=5)
    leaves = [
        normal(3, 7).requires_grad_(),
        normal(3, seed=1).requires_grad_(),
        normal(3, seed=2).exp().requires_grad_(),
    ]
    score, shift, inverse = leaves
    plain = torch.softmax(offset - (score + shift[:, None]) * inverse[:, None] * scale, dim=1)
    torch.testing.assert_close(kernel_softmax(score, shift, inverse, scale, offset), plain)
    assert gradcheck(lambda *v: kernel_softmax(*v, scale, offset), leaves, check_forward_ad=True)
    assert gradgradcheck(lambda *v: kernel_softmax(*v, scale, offset), leaves)


REGIMES = {"full": {}, "masked": {"n_kernel_neighbors": 40}, "gathered": {"n_kernel_neighbors": 30, "dense_limit": 50}}


@pytest.fixture(scope="module", params=REGIMES)
def wide_layer(request, learn):
    """A layer over a circle in 20 dimensions, whose coefficients are kept as factors, and two queries."""
    from manifoldkit.datasets import make_circle

    points = make_circle(120, density=0.5, noise=0.05, random_state=0).points @ normal(2, 20).numpy()
    layer = learn(points, 8, 7, 1, **REGIMES[request.param]).to_module()
    return layer, torch.from_numpy(1.07 * points[[3, 40]] + 0.01)


def test_factors_are_the_coefficients(wide_layer):
    layer, x = wide_layer
    assert layer.modes is not None
    whole = NystromLayer(layer.row, layer.coefficients @ layer.modes, layer.sample_shape)
    torch.testing.assert_close(layer(x), whole(x), rtol=1e-12, atol=1e-12)


def test_derivatives_of_the_layer(wide_layer):
    layer, x = wide_layer
    leaf = x.clone().requires_grad_()
    assert gradcheck(layer, (leaf,), check_forward_ad=True)
    assert gradgradcheck(layer, (leaf,))


def test_the_layer_under_transforms(wide_layer):
    """Also where candidates are found outside of torch, and differ in number from query to query."""
    layer, x = wide_layer
    explicit = torch.autograd.functional.jacobian(lambda v: layer(v).sum(dim=0), x).permute(1, 0, 2)
    torch.testing.assert_close(torch.func.vmap(lambda v: layer(v[None])[0])(x), layer(x), rtol=1e-12, atol=1e-12)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        mapped = torch.func.vmap(transform(lambda v: layer(v[None])[0]))(x)
        torch.testing.assert_close(mapped, explicit, rtol=1e-10, atol=1e-12)
        whole = transform(layer)(x)
        torch.testing.assert_close(whole[[0, 1], :, [0, 1]], explicit, rtol=1e-10, atol=1e-12)
        assert not whole[0, :, 1].any()
    hessian = torch.func.vmap(torch.func.hessian(lambda v: layer(v[None])[0, 0]))(x)
    by_rows = torch.stack([torch.autograd.functional.hessian(lambda v: layer(v[None])[0, 0], row) for row in x])
    torch.testing.assert_close(hessian, by_rows, rtol=1e-9, atol=1e-10)
