"""The isometric loss against its formula, its invariances, and gradients that stay finite."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldkit import DiffusionManifold
from manifoldkit._distances import condensed_distances, pairwise_distances, squared_distances
from manifoldkit.datasets import make_circle
from manifoldkit.exceptions import NoPairsWarning, SmallClassWarning
from manifoldkit.isometry import ClassBalancedBatchSampler, DiffusionDistance, IsometricLoss


def draw(seed, n=12, d=5, k=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    z = torch.randn(n, 4, generator=generator, dtype=dtype)
    return x, z, torch.randint(0, k, (n,), generator=generator)


def formula(x, z, g):
    """Equation 3 of the source, by loops."""
    x, z, n = x.numpy(), z.numpy(), len(x)
    d = lambda a, i, j: np.linalg.norm(a[i] - a[j])  # noqa: E731
    return sum(g[i, j] * (d(x, i, j) - d(z, i, j)) ** 2 for i in range(n) for j in range(n)) / n**2


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula_of_the_source(seed):
    x, z, y = draw(seed)
    same = (y[:, None] == y).numpy()
    assert IsometricLoss()(x, z, y).item() == pytest.approx(formula(x, z, same))
    assert IsometricLoss("global")(x, z).item() == pytest.approx(formula(x, z, np.ones((12, 12))))
    assert IsometricLoss(y)(x, z).item() == pytest.approx(formula(x, z, same))
    pairs = (same.sum() - 12) / 2
    mean = IsometricLoss(reduction="pairs")(x, z, y).item()
    assert mean * 2 * pairs / 144 == pytest.approx(formula(x, z, same))


@given(seed=st.integers(0, 10**6), n=st.integers(2, 20), k=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_isometries_cost_nothing_and_order_does_not_matter(seed, n, k):
    x, z, y = draw(seed, n, k=k)
    y[0] = y[1]  # at least one pair
    q = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    assert IsometricLoss()(x, x @ q + 3.0, y).item() < 1e-24
    assert IsometricLoss(scale=0.5)(x, 0.5 * x @ q, y).item() < 1e-24
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for reduction in ("batch", "pairs"):
        loss = IsometricLoss(reduction=reduction)
        assert loss(x[order], z[order], y[order]).item() == pytest.approx(loss(x, z, y).item())


def test_gradient_is_the_finite_difference():
    x, z, y = draw(5)
    x.requires_grad_(True)
    z.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a, b: IsometricLoss()(a, b, y), (x, z))


def test_the_loss_has_a_second_derivative():
    x, z, y = draw(6, n=6)
    z.requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda a: IsometricLoss()(x, a, y), z)
    leaf = z.detach().clone()
    leaf[1] = leaf[0]
    leaf.requires_grad_(True)
    (gradient,) = torch.autograd.grad(IsometricLoss("global")(x, leaf), leaf, create_graph=True)
    once = leaf.detach().clone().requires_grad_(True)
    IsometricLoss("global")(x, once).backward()
    torch.testing.assert_close(gradient.detach(), once.grad)  # the two ways to the gradient agree
    assert torch.isfinite(torch.autograd.grad(gradient.square().sum(), leaf)[0]).all()


@pytest.mark.parametrize("d", [1, 3, 8, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_over_cells_are_those_of_the_cells(dtype, d):
    x = torch.randn(10, d, generator=torch.Generator().manual_seed(0), dtype=dtype, requires_grad=True)
    cells = x.split([4, 1, 5])
    expected = torch.cat([torch.pdist(cell) for cell in cells])
    found = condensed_distances(x, [4, 1, 5])
    torch.testing.assert_close(found, expected, atol=0, rtol=4 * torch.finfo(dtype).eps)  # sums in another order
    weights = torch.randn(len(found), generator=torch.Generator().manual_seed(1), dtype=dtype)
    ours, theirs = (torch.autograd.grad(distances @ weights, x)[0] for distances in (found, expected))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(condensed_distances(x.detach(), [4, 1, 5]), found.detach())


@pytest.mark.parametrize("d", [3, 40])
def test_squared_distances_of_few_and_many_coordinates(d):
    """The expanded product is right to rounding even far from the origin; the matrix of one set is symmetric."""
    x = 100.0 + torch.randn(30, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = pairwise_distances(x).square()
    torch.testing.assert_close(squared_distances(x), exact, atol=1e-11, rtol=0)
    torch.testing.assert_close(squared_distances(x[:7], x), exact[:7], atol=1e-11, rtol=0)
    assert torch.equal(squared_distances(x), squared_distances(x).T)
    assert (squared_distances(x).diagonal() == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_with_duplicates_and_singletons(dtype):
    x, z, _ = draw(0, dtype=dtype)
    x[1], z[1] = x[0], z[0]  # a duplicate that the map keeps
    x[3] = x[2]  # one that it separates
    z[5] = z[4]  # two samples that it glues
    y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 3])
    z.requires_grad_(True)
    IsometricLoss()(x, z, y).backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad[9] == 0).all()  # alone in its class
    assert (z.grad[2] != 0).any()


@pytest.mark.parametrize(("n", "y"), [(1, [0]), (4, [0, 1, 2, 3])])
def test_without_pairs_the_loss_is_zero_and_warns_once(n, y):
    x, z, _ = draw(0, n)
    z.requires_grad_(True)
    loss = IsometricLoss()
    with pytest.warns(NoPairsWarning, match="share a cell"):
        value = loss(x, z, torch.tensor(y))
    value.backward()
    assert value.item() == 0.0
    assert (z.grad == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss(x, z, torch.tensor(y)).item() == 0.0


def test_any_metric_replaces_the_euclidean_one():
    x, z, y = draw(1)
    euclidean = IsometricLoss()(x, z, y).item()
    assert IsometricLoss(metric=lambda a: torch.cdist(a, a))(x, z, y).item() == pytest.approx(euclidean)
    assert IsometricLoss(metric="precomputed")(torch.cdist(x, x), z, y).item() == pytest.approx(euclidean)
    assert IsometricLoss(metric=lambda a: 2 * torch.cdist(a, a))(x, 2 * x, y).item() < 1e-24


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_diffusion_distance_of_a_circle_is_that_of_its_eigenfunctions(radius):
    """Times are in units of the slowest one, so that the size of the circle does not matter."""
    sample = make_circle(300, grid=True)
    x = radius * torch.from_numpy(sample.points)
    manifold = DiffusionManifold(n_components=9, dimension=1).fit(x)
    distance = DiffusionDistance(manifold, time=0.5)(x)[0]
    gap = torch.from_numpy(sample.parameters[:, 0])
    k = torch.arange(1, 5)[:, None]
    exact = (torch.exp(-(k**2.0)) * (4 - 4 * torch.cos(k * gap))).sum(dim=0).sqrt()  # sqrt(2) cos k, sqrt(2) sin k
    assert (distance - exact).abs().max() < 0.01 * exact.max()
    loss = IsometricLoss("global", metric=DiffusionDistance(manifold))
    assert loss(x, DiffusionDistance(manifold).coordinates(x)).item() < 1e-20


@pytest.mark.parametrize(("m", "k"), [(2, 3), (5, 2), (3, 7)])
def test_balanced_batches_hold_m_classes_of_k(m, k):
    labels = torch.arange(200) % 7
    sampler = ClassBalancedBatchSampler(labels, m, k, generator=torch.Generator().manual_seed(0))
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 200 // (m * k)
    for batch in drawn:
        assert len(set(batch)) == m * k
        assert sorted(torch.bincount(labels[batch], minlength=7).tolist()) == [0] * (7 - m) + [k] * m
    again = list(ClassBalancedBatchSampler(labels, m, k, generator=torch.Generator().manual_seed(0)))
    assert again == drawn
    assert list(sampler) != drawn  # the generator has advanced


def test_classes_too_small_for_a_batch_are_named():
    labels = torch.tensor([7] * 3 + [0] * 20 + [1] * 20 + [9] * 2)
    with pytest.warns(SmallClassWarning, match=r"2 of 4 classes have less than 4 .*\(7, 9\)"):
        sampler = ClassBalancedBatchSampler(labels, 2, 4, generator=torch.Generator().manual_seed(0))
    assert {int(labels[i]) for batch in sampler for i in batch} == {0, 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassBalancedBatchSampler(labels, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(dtype):
    x, z, y = draw(2)
    x, z = x.to(dtype), z.to(dtype).requires_grad_(True)
    expected = IsometricLoss()(x.float(), z.float(), y)
    for loss in (IsometricLoss(), IsometricLoss(metric=lambda a: torch.cdist(a.float(), a.float()))):
        value = loss(x, z, y)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(value, z)
    assert gradient.dtype == dtype
    assert gradient.abs().max() > 0


def test_balanced_batches_visit_every_sample_of_a_class_before_any_twice():
    labels = torch.zeros(12, dtype=torch.int64)
    batches = list(ClassBalancedBatchSampler(labels, 1, 4, n_batches=6))
    for first in (0, 3):
        assert sorted(i for batch in batches[first : first + 3] for i in batch) == list(range(12))
