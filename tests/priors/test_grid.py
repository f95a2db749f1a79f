"""The factorised density against enumeration and quadrature, the three divergences, cells."""

from __future__ import annotations

import copy
import math
import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from manifoldkit.priors import GridPrior, grid_kl
from manifoldkit.priors.kl import draw_codes

LEVELS = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
NAN = float("nan")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def enumerated(prior, weights=None):
    """The mixture over all components, by torch.distributions."""
    centres = prior.centers()
    shares = torch.ones(len(centres), dtype=torch.float64) if weights is None else weights
    components = torch.distributions.Independent(torch.distributions.Normal(centres, prior.sigma.expand_as(centres)), 1)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(shares), components)


def exact_kl(mu, logvar, prior):
    """KL(q || p) by the trapezoidal rule on every axis, which is exact to rounding for such smooth integrands."""
    t = torch.linspace(-12, 12, 801, dtype=torch.float64)
    sd = (0.5 * logvar).exp()
    z = mu[:, None] + sd[:, None] * t[None, :, None]  # (B, T, n)
    log_q = -0.5 * t[None, :, None] ** 2 - 0.5 * math.log(2 * math.pi) - sd.log()[:, None]
    ratio = log_q - prior.axis_log_prob(z)
    weight = (-0.5 * t**2).exp() / math.sqrt(2 * math.pi) * (t[1] - t[0])
    return (weight[None, :, None] * ratio).sum(dim=(1, 2))


@pytest.mark.parametrize("sigma", [0.05, 1 / 3, 2.0])
def test_density_is_that_of_all_36_components(sigma):
    prior = GridPrior(2, LEVELS, sigma)
    z = normal(500, 2, scale=3.0)
    assert prior.n_cells == 36
    torch.testing.assert_close(prior.log_prob(z), enumerated(prior).log_prob(z), rtol=0, atol=1e-10)


def test_density_with_weights_and_axes_of_different_lengths():
    weights = [[1.0, 2.0, 5.0], [3.0], [1.0, 9.0]]
    prior = GridPrior(3, [[-1.0, 0.5, 4.0], [2.0], [0.0, 1.0]], [0.3, 1.0, 0.25], weights)
    shares = torch.tensor([a * b * c for a in weights[0] for b in weights[1] for c in weights[2]], dtype=torch.float64)
    z = normal(200, 3, scale=2.0)
    torch.testing.assert_close(prior.log_prob(z), enumerated(prior, shares).log_prob(z), rtol=0, atol=1e-10)
    assert (prior.n_levels, prior.n_cells) == ((3, 1, 2), 6)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 4),
    levels=st.lists(st.integers(-20, 20), min_size=1, max_size=5, unique=True).map(sorted),
    sigma=st.floats(0.1, 3.0),
    batch=st.sampled_from([(), (1,), (7,), (2, 3)]),
)
def test_density_of_any_grid(n, levels, sigma, batch):
    prior = GridPrior(n, [level / 4 for level in levels], sigma)
    z = normal(*batch, n, scale=4.0)
    found = prior.log_prob(z)
    assert found.shape == batch
    torch.testing.assert_close(found, enumerated(prior).log_prob(z), rtol=1e-12, atol=1e-10)


def test_density_integrates_to_one_and_gradients_are_those_of_differences():
    prior = GridPrior(1, LEVELS, 0.2, weights=[1, 2, 3, 4, 5, 6])
    t = torch.linspace(-6, 7, 20001, dtype=torch.float64)
    assert torch.trapezoid(prior.log_prob(t[:, None]).exp(), t).item() == pytest.approx(1.0, abs=1e-9)
    assert torch.autograd.gradcheck(GridPrior(3, [0.0, 1.0], 0.3).log_prob, normal(4, 3).requires_grad_())


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 18), (torch.float64, 152)])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 4.0, 4.0, 2.0, 1.0]])
def test_far_codes_are_drawn_to_the_nearest_level(dtype, most, weights):
    """Score (c - z) / sigma^2 on either side at every scale, also where all levels round to the same distance."""
    prior = GridPrior(2, LEVELS, 0.25, weights)
    size = 10.0 ** torch.linspace(2, most, 60, dtype=dtype)
    z = torch.cat([torch.stack([size, -size], dim=1), torch.stack([-size, torch.full_like(size, 0.1)], dim=1)])
    z.requires_grad_()
    prior.log_prob(z).sum().backward()
    far = z.detach().abs() >= 99.0
    expected = (prior.nearest(z) - z.detach()) / 0.25**2
    torch.testing.assert_close(z.grad[far], expected[far], rtol=16 * torch.finfo(dtype).eps, atol=0)
    assert len(z.grad[~far].unique()) == 1  # the other axis does not feel it


def test_draws_follow_the_density():
    """20,000 draws: shares of the levels to 5 standard errors, spread about them as stated."""
    prior = GridPrior(2, [[0.0, 1.0], [0.0, 2.0, 5.0]], [0.05, 0.2], [[1.0, 3.0], [1.0, 1.0, 2.0]])
    z = prior.sample(20_000, seeded(3))
    level, index = prior.nearest(z, return_index=True)
    for axis, shares in enumerate([(0.25, 0.75), (0.25, 0.25, 0.5)]):
        for k, share in enumerate(shares):
            assert (index[:, axis] == k).double().mean().item() == pytest.approx(share, abs=5 * 0.5 / 20_000**0.5)
    torch.testing.assert_close((z - level).std(dim=0), prior.sigma, rtol=0.03, atol=0)
    assert prior.sample(5, seeded(3)).tolist() == prior.sample(5, seeded(3)).tolist()


def test_cells():
    prior = GridPrior(2, [[0.0, 1.0], [-2.0, 0.0, 5.0]], 0.25)
    z = torch.tensor([[0.5, -1.0], [9.0, 2.5], [-9.0, 2.6], [0.51, 99.0]])
    level, index = prior.nearest(z, return_index=True)
    assert level.tolist() == [[0, -2], [1, 0], [0, 5], [1, 5]]  # ties go down, ends are ends
    assert index.tolist() == [[0, 0], [1, 1], [0, 2], [1, 2]]
    torch.testing.assert_close(prior.at(index), level.double())
    x = z.clone().requires_grad_()
    assert not prior.nearest(x).requires_grad
    assert prior.nearest(torch.zeros(3, 0, 2)).shape == (3, 0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_of_cells_are_in_their_cells_and_the_next_numbers_are_not(dtype):
    prior = GridPrior(3, [-1.0, 0.1, 2.0], 0.25)
    z = normal(200, 3, scale=2.0).to(dtype)
    index = prior.nearest(z, return_index=True)[1]
    lower, upper = prior.cell_bounds(z)
    assert ((lower <= z) & (z <= upper)).all()
    for edge, away in ((lower, -math.inf), (upper, math.inf)):
        inside = edge.isfinite()
        assert (inside == (index > 0 if away < 0 else index < 2)).all()
        at = torch.where(inside, edge, z)
        assert (prior.nearest(at, return_index=True)[1] == index).all()
        beyond = torch.where(inside, torch.nextafter(edge, torch.tensor(away, dtype=dtype)), z)
        assert ((prior.nearest(beyond, return_index=True)[1] != index) == inside).all()


def test_centres_run_over_the_grid_the_last_axis_fastest():
    prior = GridPrior(2, [[0.0, 1.0], [5.0, 6.0, 7.0]], 1.0)
    assert prior.centers().tolist() == [[0, 5], [0, 6], [0, 7], [1, 5], [1, 6], [1, 7]]
    assert GridPrior(1, LEVELS, 1.0).centers().shape == (6, 1)


def test_many_axes_are_the_sum_of_single_ones():
    """So many that they are computed in blocks."""
    levels = [[0.0, 1.0, 3.0][: 1 + d % 3] for d in range(1000)]
    sigma = [0.2 + d / 1000 for d in range(1000)]
    prior, z = GridPrior(1000, levels, sigma), normal(400, 1000)
    single = [GridPrior(1, levels[d], sigma[d]).log_prob(z[:, d : d + 1]) for d in range(1000)]
    torch.testing.assert_close(prior.axis_log_prob(z), torch.stack(single, dim=1))
    torch.testing.assert_close(prior.log_prob(z), torch.stack(single).sum(dim=0))


def test_copies_are_equal():
    prior = GridPrior(2, [[0.0, 1.0], [3.0]], [0.25, 1.0], [[1.0, 2.0], [5.0]])
    z = normal(20, 2)
    for twin in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert torch.equal(twin.log_prob(z), prior.log_prob(z))
        assert pickle.dumps(twin) == pickle.dumps(prior)


def test_copies_hold_what_was_loaded_and_the_dtype_and_mode():
    """With equal pickles still."""
    prior = GridPrior(2, [0.0, 1.0], 0.25)
    prior.load_state_dict(GridPrior(2, [-3.0, 5.0], 0.5, [1.0, 3.0]).state_dict())
    prior.float().eval()
    z = normal(20, 2)
    for twin in (copy.copy(prior), copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert [axis.tolist() for axis in twin.levels] == [[-3.0, 5.0]] * 2
        assert torch.equal(twin.log_prob(z), prior.log_prob(z))
        assert {buffer.dtype for buffer in twin.buffers()} == {torch.float32}
        assert not twin.training
        assert pickle.dumps(twin) == pickle.dumps(prior)
        twin.load_state_dict(GridPrior(2, [0.0, 1.0], 0.25).state_dict())  # on buffers of its own
        assert prior.levels[0].tolist() == [-3.0, 5.0]


def test_cost_is_linear_in_the_axes():
    """Of enumeration 2^1000 components would be asked. A factor of 3 is left for a crowded machine."""

    def seconds(n):
        prior, z = GridPrior(n, LEVELS, 1 / 3), torch.randn(64, n, generator=seeded())
        spent = []
        for _ in range(9):
            start = time.process_time()
            prior.log_prob(z)
            spent.append(time.process_time() - start)
        return min(spent)

    seconds(10)
    assert seconds(1000) < 3 * 10 * seconds(100)


@pytest.mark.parametrize("seed", range(3))
def test_nearest_mode_is_an_upper_bound_up_to_the_number_of_cells(seed):
    prior = GridPrior(2, LEVELS, 1 / 3)
    mu, logvar = normal(60, 2, seed=seed, scale=2.5), normal(60, 2, seed=seed + 10, scale=2.0) - 2
    exact, bound = exact_kl(mu, logvar, prior), grid_kl(mu, logvar, prior, "nearest")
    assert (exact <= bound + math.log(36) + 1e-9).all()
    assert (exact >= -1e-9).all()
    # It is attained, up to the overlap of neighbours, where q is narrow and at a centre.
    tight = grid_kl(mu.round().clamp(-2, 3), torch.full_like(mu, 2 * math.log(0.02)), prior, "nearest")
    at_centre = exact_kl(mu.round().clamp(-2, 3), torch.full_like(mu, 2 * math.log(0.02)), prior)
    torch.testing.assert_close(tight + math.log(36), at_centre, atol=0.05, rtol=0)


def test_weights_enter_the_bound():
    prior = GridPrior(1, [0.0, 1.0], 0.2, weights=[1.0, 9.0])
    mu, logvar = normal(50, 1, scale=2.0), normal(50, 1, seed=1) - 3
    share = torch.tensor([0.1, 0.9], dtype=torch.float64)[prior.nearest(mu, return_index=True)[1][:, 0]]
    assert (exact_kl(mu, logvar, prior) <= grid_kl(mu, logvar, prior, "nearest") - share.log() + 1e-9).all()


def test_closed_form_is_the_gaussian_divergence_for_one_component():
    prior = GridPrior(3, [0.7], 0.4)
    mu, logvar = normal(20, 3), normal(20, 3, seed=1)
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    p = torch.distributions.Normal(torch.full_like(mu, 0.7), torch.full_like(mu, 0.4))
    expected = torch.distributions.kl_divergence(q, p).sum(dim=1)
    torch.testing.assert_close(grid_kl(mu, logvar, prior, "nearest"), expected)
    torch.testing.assert_close(grid_kl(mu, logvar, prior, targets=torch.full_like(mu, 0.7)), expected)


@pytest.mark.parametrize("seed", range(3))
def test_conditional_mode_has_the_exact_divergence_as_its_mean(seed):
    prior = GridPrior(2, LEVELS, 1 / 3)
    mu, logvar = normal(4, 2, seed=seed, scale=2.0), normal(4, 2, seed=seed + 5) - 2
    draws = torch.stack([grid_kl(mu, logvar, prior, generator=seeded(k)) for k in range(1500)])
    error = draws.std(dim=0) / 1500**0.5
    assert ((draws.mean(dim=0) - exact_kl(mu, logvar, prior)).abs() < 4.5 * error).all()


def test_aggregate_mode_is_the_mixture_of_the_batch():
    prior = GridPrior(2, LEVELS, 1 / 3)
    mu, logvar, z = normal(30, 2, scale=2.0), normal(30, 2, seed=1) - 2, normal(30, 2, seed=2)
    components = torch.distributions.Independent(torch.distributions.Normal(mu, (0.5 * logvar).exp()), 1)
    uniform = torch.distributions.Categorical(torch.ones(30, dtype=torch.float64))
    expected = torch.distributions.MixtureSameFamily(uniform, components).log_prob(z) - prior.log_prob(z)
    torch.testing.assert_close(grid_kl(mu, logvar, prior, "aggregate", z=z), expected)
    least = torch.full_like(mu, -12.0)  # what encoders are clamped to, in single precision
    near = mu + 2e-3 * z
    components = torch.distributions.Independent(torch.distributions.Normal(mu, (0.5 * least).exp()), 1)
    expected = torch.distributions.MixtureSameFamily(uniform, components).log_prob(near) - prior.log_prob(near)
    single = grid_kl(mu.float(), least.float(), prior, "aggregate", z=near.float())
    assert (single - expected).abs().max() < 2e-3  # rounding of the codes, a ten thousandth of a deviation
    # Codes that fill the prior cost nothing together, though each of them alone is far from it.
    codes = prior.sample(1500, seeded(4))
    narrow = torch.full_like(codes, 2 * math.log(0.15))
    z = draw_codes(codes, narrow, seeded(5))
    assert abs(grid_kl(codes, narrow, prior, "aggregate", z=z).mean().item()) < 0.15
    assert grid_kl(codes, narrow, prior, "conditional", z=z).mean().item() > 3.0


@pytest.mark.parametrize(("spread", "log_variance"), [(2.0, -2.0), (30.0, -7.0)])
def test_aggregate_mode_has_the_gradients_of_the_mixture_in_single_precision(spread, log_variance):
    """In the second case the densities of most pairs are below the least number of single precision."""
    prior = GridPrior(2, LEVELS, 1 / 3)
    given = [normal(60, 2, scale=spread), torch.full((60, 2), log_variance, dtype=torch.float64), normal(60, 2, seed=2)]
    given[2] = given[0] + (0.5 * given[1]).exp() * given[2]
    slopes = []
    for dtype in (torch.float64, torch.float32):
        mu, logvar, z = (t.float().to(dtype).requires_grad_() for t in given)
        if dtype == torch.float32:
            value = grid_kl(mu, logvar, prior, "aggregate", z=z)
        else:
            components = torch.distributions.Independent(torch.distributions.Normal(mu, (0.5 * logvar).exp()), 1)
            uniform = torch.distributions.Categorical(torch.ones(60, dtype=torch.float64))
            value = torch.distributions.MixtureSameFamily(uniform, components).log_prob(z) - prior.log_prob(z)
        slopes.append(
            [value.detach().double(), *(g.double() for g in torch.autograd.grad(value.sum(), (mu, logvar, z)))]
        )
    for expected, found in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_derivatives_of_the_aggregate_mode_are_those_of_differences():
    prior, targets = GridPrior(2, LEVELS, 1 / 3), torch.full((7, 2), NAN, dtype=torch.float64)
    targets[:3, 1] = 1.0  # rows that are free on one axis
    given = [t.requires_grad_() for t in (normal(7, 2), normal(7, 2, seed=1) - 1, normal(7, 2, seed=2))]
    for known in (None, targets):
        for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
            assert check(lambda mu, logvar, z, known=known: grid_kl(mu, logvar, prior, "aggregate", known, z), given)
    mu, logvar = given[:2]  # draws from outside, and one tensor in two places
    assert torch.autograd.gradgradcheck(lambda mu: grid_kl(mu, logvar.detach(), prior, "aggregate", z=mu), mu)


@pytest.mark.parametrize("mode", ["conditional", "aggregate", "nearest"])
@pytest.mark.parametrize("guided", [False, True])
def test_derivatives_by_torch_func_and_forward_mode(mode, guided):
    prior = GridPrior(2, LEVELS, [0.25, 0.4])
    mu, logvar, z = normal(7, 2), normal(7, 2, seed=1) - 1, normal(7, 2, seed=2)
    targets = torch.full((7, 2), math.nan)
    targets[:3, 1] = 1.0

    def loss(mu, logvar):
        return grid_kl(mu, logvar, prior, mode, targets if guided else None, z=z + mu).sum()

    leaves = mu.clone().requires_grad_(), logvar.clone().requires_grad_()
    slopes = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(torch.func.grad(loss, argnums=(0, 1))(mu, logvar), slopes, rtol=1e-9, atol=1e-9)
    change = normal(7, 2, seed=3), normal(7, 2, seed=4)
    along = sum((slope * step).sum() for slope, step in zip(slopes, change, strict=True))
    value, derivative = torch.func.jvp(loss, (mu, logvar), change)
    torch.testing.assert_close((value, derivative), (loss(mu, logvar), along), rtol=1e-9, atol=1e-9)
    with forward_ad.dual_level():
        dual = loss(*(forward_ad.make_dual(*pair) for pair in zip((mu, logvar), change, strict=True)))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, along, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["conditional", "aggregate"])
def test_priors_of_the_user_are_asked(mode):
    class Shifted(GridPrior):
        def axis_log_prob(self, z):
            return super().axis_log_prob(z) + 3 * z

    mu, logvar, z = normal(7, 2).requires_grad_(), normal(7, 2, seed=1), normal(7, 2, seed=2)
    plain, shifted = (grid_kl(mu, logvar, kind(2, LEVELS, 0.25), mode, z=z + mu) for kind in (GridPrior, Shifted))
    torch.testing.assert_close(plain - shifted, 3 * (z + mu).sum(dim=1))
    (slope,) = torch.autograd.grad((plain - shifted).sum(), mu)
    torch.testing.assert_close(slope, torch.full_like(mu, 3.0))


@pytest.mark.parametrize("mode", ["conditional", "aggregate", "nearest"])
def test_guidance_replaces_the_levels_where_they_are_known(mode):
    prior = GridPrior(2, [0.0, 1.0], 0.25)
    mu, logvar, z = normal(6, 2), normal(6, 2, seed=1) - 2, normal(6, 2, seed=2)
    closed = torch.stack(
        [grid_kl(mu[:, d : d + 1], logvar[:, d : d + 1], GridPrior(1, [1.0], 0.25), "nearest") for d in range(2)], dim=1
    )
    one = GridPrior(1, [0.0, 1.0], 0.25)
    free = torch.stack(
        [grid_kl(mu[:, d : d + 1], logvar[:, d : d + 1], one, mode, z=z[:, d : d + 1]) for d in range(2)], dim=1
    )
    none = grid_kl(mu, logvar, prior, mode, torch.full((6, 2), NAN), z)
    torch.testing.assert_close(none, grid_kl(mu, logvar, prior, mode, None, z))
    torch.testing.assert_close(grid_kl(mu, logvar, prior, mode, torch.ones(6, 2), z), closed.sum(dim=1))
    column = torch.tensor([[1.0, NAN]]).expand(6, 2)
    torch.testing.assert_close(grid_kl(mu, logvar, prior, mode, column, z), closed[:, 0] + free[:, 1])
    rows = torch.tensor([[1.0, 1.0]] * 3 + [[NAN, NAN]] * 3)
    mixed, plain = grid_kl(mu, logvar, prior, mode, rows, z), grid_kl(mu, logvar, prior, mode, None, z)
    torch.testing.assert_close(mixed, torch.cat([closed.sum(dim=1)[:3], plain[3:]]))


@pytest.mark.parametrize("mode", ["conditional", "aggregate", "nearest"])
def test_divergences_have_finite_gradients_and_leave_their_arguments(mode):
    prior = GridPrior(40, [0.0, 1.0], 0.25)
    mu, logvar = normal(8, 40, scale=30.0).float(), torch.full((8, 40), -12.0)
    targets = torch.ones(8, 40)
    targets[::2, ::3] = NAN
    before = copy.deepcopy((mu, logvar, targets))
    mu.requires_grad_()
    logvar.requires_grad_()
    value = grid_kl(mu, logvar, prior, mode, targets, generator=seeded())
    value.sum().backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(mu.grad).all()
    assert torch.isfinite(logvar.grad).all()
    for old, new in zip(before, (mu, logvar, targets), strict=True):
        torch.testing.assert_close(old, new.detach(), equal_nan=True, rtol=0, atol=0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"sigma": 0.0}, ValueError, "sigma must be positive"),
            ({"sigma": -1.0}, ValueError, "sigma must be positive"),
            ({"sigma": NAN}, ValueError, "NaN"),
            ({"sigma": [1.0, 1.0, 1.0]}, ValueError, "one for each of the 2 axes"),
            ({"levels": []}, ValueError, "one number at least"),
            ({"levels": [1.0, 0.0]}, ValueError, "ascend"),
            ({"levels": [0.0, 0.0]}, ValueError, "ascend"),
            ({"levels": [0.0, math.inf]}, ValueError, "infinity"),
            ({"levels": [[0.0], [1.0], [2.0]]}, ValueError, "got 3"),
            ({"levels": "ab"}, TypeError, "real numbers"),
            ({"n_dims": 0}, ValueError, "at least 1"),
            ({"n_dims": 2.0}, TypeError, "integer"),
            ({"weights": [1.0]}, ValueError, "each of the 2 levels"),
            ({"weights": [1.0, 0.0]}, ValueError, "positive"),
        ],
    )
    def test_of_the_prior(self, change, error, match):
        with pytest.raises(error, match=match):
            GridPrior(**{"n_dims": 2, "levels": [0.0, 1.0], "sigma": 0.25, **change})

    @pytest.mark.parametrize(
        ("z", "error", "match"),
        [
            (torch.zeros(3, 3), ValueError, r"\(\.\.\., 2\)"),
            (torch.tensor(0.0), ValueError, r"\(\.\.\., 2\)"),
            (torch.zeros(3, 2, dtype=torch.int64), TypeError, "floating"),
            ([[0.0, 0.0]], TypeError, "list"),
            (torch.tensor([[0.0, NAN]]), ValueError, "NaN"),
            (torch.tensor([[0.0, math.inf]]), ValueError, "infinity"),
        ],
    )
    def test_of_codes(self, z, error, match):
        prior = GridPrior(2, [0.0, 1.0], 0.25)
        for method in (prior.log_prob, prior.nearest, prior.cell_bounds):
            with pytest.raises(error, match=match):
                method(z)

    @pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e20), (torch.float64, 1e155)])
    def test_of_codes_whose_exponent_overflows(self, dtype, far):
        """Their gradient would be NaN; up to there it is finite."""
        for sign, levels in ((1, [0.0, 1.0]), (-1, [0.0, 1.0]), (1, [0.0])):
            prior = GridPrior(2, levels, 0.25)
            z = torch.tensor([[0.0, sign * far]], dtype=dtype, requires_grad=True)
            with pytest.raises(ValueError, match="overflows in torch"):
                prior.log_prob(z)
            near = (z.detach() / 100).requires_grad_()
            value = prior.log_prob(near)
            value.backward()
            assert torch.isfinite(value).all()
            assert torch.isfinite(near.grad).all()
            if len(levels) == 1:
                torch.testing.assert_close(near.grad, -near.detach() / 0.25**2)

    def test_of_centres_nodes_and_draws(self):
        prior = GridPrior(40, [0.0, 1.0], 0.25)
        with pytest.raises(ValueError, match="1099511627776 cells"):
            prior.centers()
        with pytest.raises(ValueError, match="max_cells=8"):
            GridPrior(2, [0.0, 1.0, 2.0], 0.25).centers(max_cells=8)
        for index in (torch.zeros(3, 2, dtype=torch.int64), torch.full((40,), 2), torch.full((40,), -1)):
            with pytest.raises(ValueError, match="index must have shape"):
                prior.at(index)
        with pytest.raises(TypeError, match="integers"):
            prior.at(torch.zeros(40))
        with pytest.raises(ValueError, match="n must be at least 1"):
            prior.sample(0)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"prior": torch.distributions.Normal(0.0, 1.0)}, TypeError, "GridPrior"),
            ({"mode": "kl"}, ValueError, "mode must be one of"),
            ({"mu": torch.zeros(4, 3)}, ValueError, r"shape \(B, 2\)"),
            ({"mu": torch.zeros(3, 2)}, ValueError, "that of mu"),
            ({"mu": torch.full((4, 2), NAN)}, ValueError, "mu holds NaN"),
            ({"logvar": torch.full((4, 2), -math.inf)}, ValueError, "clamp logvar"),
            ({"logvar": torch.zeros(4, 2, dtype=torch.int64)}, TypeError, "floating"),
            ({"z": torch.zeros(4, 3)}, ValueError, "z must have shape"),
            ({"targets": torch.zeros(4, 3)}, ValueError, r"\(4, 2\)"),
            ({"targets": torch.full((4, 2), 0.5)}, ValueError, r"targets\[0, 0\] is 0.5, axis 0 has the levels"),
            ({"targets": torch.full((4, 2), math.inf)}, ValueError, "infinity"),
        ],
    )
    def test_of_the_divergence(self, change, error, match):
        given = {"mu": torch.zeros(4, 2), "logvar": torch.zeros(4, 2), "prior": GridPrior(2, [0.0, 1.0], 0.25)}
        with pytest.raises(error, match=match):
            grid_kl(**{**given, **change})

    def test_generators(self):
        for wrong in (0, np.random.default_rng(0)):
            with pytest.raises(TypeError, match="or None, got"):
                GridPrior(2, [0.0, 1.0], 0.25).sample(3, generator=wrong)
            with pytest.raises(TypeError, match="or None, got"):
                grid_kl(torch.zeros(3, 2), torch.zeros(3, 2), GridPrior(2, [0.0, 1.0], 0.25), generator=wrong)

    def test_one_sample_has_no_aggregate(self):
        with pytest.raises(ValueError, match="needs 2 at least"):
            grid_kl(torch.zeros(1, 2), torch.zeros(1, 2), GridPrior(2, [0.0, 1.0], 0.25), "aggregate")
