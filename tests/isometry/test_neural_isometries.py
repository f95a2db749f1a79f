"""Laws of the learned operator and of the model around it, for random parameters."""

from __future__ import annotations

import copy
import pickle

import matplotlib
import numpy as np
import pytest
import torch

from manifoldkit.datasets import HomographyViews, ShiftViews
from manifoldkit.isometry import (
    LearnedOperator,
    NeuralIsometry,
    VectorNeuronHead,
    VectorNeuronLayer,
    annealed,
    commutation_mask,
    equivariance_error,
    equivariance_loss,
    isometry_path,
    multiplicity_loss,
    polar,
    pretrain,
    pretrain_in_stages,
    residual_pair,
    toric_harmonics,
)
from manifoldkit.plotting import plot_spectrum

matplotlib.use("Agg")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randomised(module, seed=0, scale=0.5):
    """All parameters drawn anew, in float64, so that no law holds by the initial values alone."""
    generator = seeded(seed)
    module = module.double()
    for parameter in module.parameters():
        parameter.data.normal_(0.0, scale, generator=generator)
    return module


def small(seed=0, **options):
    encoder, decoder = residual_pair((1, 8, 8), (4, 4), 6, widths=(5,), depth=1, generator=seeded(seed))
    return NeuralIsometry((4, 4), 9, encoder, decoder, generator=seeded(seed), **options)


def images(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


class TestOperator:
    @pytest.mark.parametrize("eigenvalues", ["cumulative", "clustered"])
    @pytest.mark.parametrize("seed", range(3))
    def test_eigenfunctions_are_orthonormal_in_the_mass_and_eigenvalues_ascend(self, eigenvalues, seed):
        operator = randomised(LearnedOperator(20, 7, eigenvalues=eigenvalues), seed)
        mass, phi, values = operator()
        torch.testing.assert_close(mass, operator.root_mass.square() + 1e-8)
        torch.testing.assert_close(phi.mT @ (mass[:, None] * phi), torch.eye(7, dtype=torch.float64))
        assert (values.diff() >= 0).all()
        assert values.min() >= 0

    @pytest.mark.parametrize(("eigenvalues", "spread"), [("cumulative", 1 / 500), ("clustered", 1.0)])
    def test_initial_values_are_drawn_as_in_the_paper(self, eigenvalues, spread):
        operator = LearnedOperator(600, 500, eigenvalues=eigenvalues, generator=seeded(0))
        assert operator.root_eigenvalues.std().item() == pytest.approx(spread, rel=0.1)
        assert operator.raw_eigenfunctions.std().item() == pytest.approx(0.01, rel=0.02)
        assert (operator.root_mass == 1).all()

    def test_sorting_keeps_functions_with_their_eigenvalues(self):
        operator = randomised(LearnedOperator(12, 12, eigenvalues="clustered"))
        mass, phi, values = operator()
        # M^(-1/2) polar(M^(1/2) U) diag(r^2) (its inverse) before sorting is the same operator.
        unsorted = polar(mass.sqrt()[:, None] * operator.raw_eigenfunctions) / mass.sqrt()[:, None]
        expected = unsorted * operator.root_eigenvalues.square() @ (unsorted.mT * mass)
        torch.testing.assert_close(phi * values @ (phi.mT * mass), expected)

    @pytest.mark.parametrize("eigenvalues", ["cumulative", "clustered"])
    def test_derivatives(self, eigenvalues):
        operator = randomised(LearnedOperator(5, 3, eigenvalues=eigenvalues))
        names, leaves = zip(*operator.named_parameters(), strict=True)

        def spectrum(*values):
            return tuple(torch.func.functional_call(operator, dict(zip(names, values, strict=True)), ()))

        assert torch.autograd.gradcheck(spectrum, leaves)

    @pytest.mark.parametrize("eigenvalues", ["cumulative", "clustered"])
    def test_contraction_multiplies_eigenvalues_and_leaves_functions(self, eigenvalues):
        operator = randomised(LearnedOperator(10, 6, eigenvalues=eigenvalues))
        before = operator()
        operator.contract(0.01)
        torch.testing.assert_close(operator().eigenvalues, 0.01 * before.eigenvalues)
        torch.testing.assert_close(operator().eigenfunctions, before.eigenfunctions)

    def test_analysis_after_synthesis_is_the_identity(self):
        spectrum = randomised(LearnedOperator(10, 6))()
        code = images(3, 6, 4, dtype=torch.float64)
        torch.testing.assert_close(spectrum.analyse(spectrum.synthesise(code)), code)


class TestLosses:
    @pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 2, 2, 2], [3, 1, 2], [5]])
    def test_multiplicity_of_clusters_far_apart(self, sizes):
        values = torch.cat([torch.full((m,), 100.0 * i, dtype=torch.float64) for i, m in enumerate(sizes)])
        expected = sum(m * (m - 1) ** 2 + m * (m - 1) for m in sizes) ** 0.5 / sum(sizes)
        assert float(multiplicity_loss(values)) == pytest.approx(expected, abs=1e-12)

    def test_multiplicity_has_finite_derivatives_at_its_optimum_and_right_ones_elsewhere(self):
        values = torch.tensor([0.0, 200.0, 400.0], requires_grad=True)
        multiplicity_loss(values).backward()
        assert torch.isfinite(values.grad).all()
        values = torch.tensor([0.1, 0.5, 1.7, 2.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(multiplicity_loss, values)

    @pytest.mark.parametrize("seed", range(3))
    def test_isometries_have_no_error_and_errors_do_not_depend_on_scale(self, seed):
        tau, code = polar(images(4, 5, 5, seed=seed, dtype=torch.float64)), images(4, 5, 7, dtype=torch.float64)
        assert float(equivariance_loss(tau, code, tau @ code)) < 1e-14
        assert equivariance_error(tau, code, tau @ code).max() < 1e-28
        other = images(4, 5, 7, seed=seed + 9, dtype=torch.float64)
        torch.testing.assert_close(equivariance_error(tau, 3 * code, 3 * other), equivariance_error(tau, code, other))
        assert (equivariance_error(tau, code, other) > 0.5).all()

    def test_mask_falls_exponentially_with_the_distance_of_eigenvalues(self):
        mask = commutation_mask(torch.tensor([0.0, 0.5, 2.5]))
        far = [[0.0, 0.5, 2.5], [0.5, 0.0, 2.0], [2.5, 2.0, 0.0]]
        torch.testing.assert_close(mask.log(), -torch.tensor(far))


class TestModel:
    @pytest.mark.parametrize("special", [False, True])
    def test_isometries_are_orthogonal_and_the_way_back_is_the_transpose(self, special):
        model = randomised(small(special=special), scale=0.3)
        first, second = (model.encode(images(8, 1, 8, 8, seed=seed, dtype=torch.float64)) for seed in (1, 2))
        tau = model.isometry(first, second)
        torch.testing.assert_close(tau @ tau.mT, torch.eye(9, dtype=torch.float64).expand(8, 9, 9))
        torch.testing.assert_close(model.isometry(second, first), tau.mT)
        assert not special or (torch.linalg.det(tau) > 0).all()

    def test_isometries_commute_with_distinct_eigenvalues(self):
        model = NeuralIsometry((3, 3), 9, generator=seeded(0)).double()
        model.operator.root_eigenvalues.data.fill_(6.0)  # steps of 36: the mask is the identity to 1e-16
        first, second = (model.encode(images(2, 5, 3, 3, seed=seed, dtype=torch.float64)) for seed in (1, 2))
        tau = model.isometry(first, second)
        omega = torch.diag(model.eigenvalues_)
        torch.testing.assert_close(tau @ omega, omega @ tau)
        torch.testing.assert_close(tau.abs(), torch.eye(9, dtype=torch.float64).expand(2, 9, 9))

    @pytest.mark.parametrize("shift", [(0, 1), (2, 3)])
    def test_the_toric_laplacian_makes_shifts_isometries_for_new_images(self, shift):
        """With the true operator a shift estimated from eight images carries over to others, exactly."""
        values, waves = toric_harmonics(4, 6)
        model = NeuralIsometry((4, 6), 24).double()
        model.operator.raw_eigenfunctions.data.copy_(waves)
        model.operator.root_eigenvalues.data.copy_((100 * values.diff(prepend=values[:1]).clamp_min(0)).sqrt())
        stack = images(1, 20, 4, 6, dtype=torch.float64)
        before, after = model.encode(stack), model.encode(torch.roll(stack, shift, (2, 3)))
        tau = model.isometry(before[..., :8], after[..., :8])
        assert equivariance_error(tau, before[..., 8:], after[..., 8:]).item() < 1e-20

    def test_the_operator_is_a_space_with_a_spectrum(self):
        model = small()
        ax = plot_spectrum(model)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), model.eigenvalues_, rtol=1e-6)
        assert not any(x.requires_grad for x in (model.mass_, model.eigenfunctions_, model.eigenvalues_))

    def test_unit_codes_have_mean_square_one(self):
        codes = small(unit_codes=True).encode(5 * images(4, 1, 8, 8))
        torch.testing.assert_close(codes.square().mean((1, 2)), torch.ones(4))

    def test_losses_are_those_of_the_formulas(self):
        model = randomised(small().eval(), scale=0.3)
        views = images(2, 5, 1, 8, 8, dtype=torch.float64)
        losses = model(views)
        first, second = model.encode(views[0]), model.encode(views[1])
        tau = model.isometry(first, second)
        transport = (model.decode(tau @ first) - views[1]).abs().mean()
        transport = transport + (model.decode(tau.mT @ second) - views[0]).abs().mean()
        torch.testing.assert_close(losses.transport, transport)
        torch.testing.assert_close(losses.equivariance, equivariance_loss(tau, first, second))
        torch.testing.assert_close(losses.multiplicity, multiplicity_loss(model.eigenvalues_))
        total = losses.transport + 0.5 * losses.equivariance + 0.1 * losses.multiplicity
        torch.testing.assert_close(losses.total(0.5, 0.1), total)

    def test_triplets_add_the_transport_by_the_product(self):
        model = randomised(small().eval(), scale=0.3)
        views = images(3, 5, 1, 8, 8, dtype=torch.float64)
        losses = model(views)
        codes = [model.encode(view) for view in views]
        there, on = model.isometry(codes[0], codes[1]), model.isometry(codes[1], codes[2])
        across = (model.decode(on @ there @ codes[0]) - views[2]).abs().mean()
        across = across + (model.decode((on @ there).mT @ codes[2]) - views[0]).abs().mean()
        pairs = [model(views[:2]), model(views[1:])]
        torch.testing.assert_close(losses.transport, (pairs[0].transport + pairs[1].transport) / 2 + across)
        torch.testing.assert_close(losses.equivariance, (pairs[0].equivariance + pairs[1].equivariance) / 2)

    def test_pairs_in_a_row_are_pairs(self):
        model = small().eval()
        views = images(2, 5, 1, 8, 8)
        row = views.transpose(0, 1).flatten(0, 1)
        for rows in (row, (views[0], views[1]), list(views)):
            for one, other in zip(model(rows), model(views), strict=True):
                torch.testing.assert_close(one, other)

    def test_spectral_dropout_keeps_leading_coefficients_in_training_alone(self):
        model = small(spectral_dropout=1.0)
        codes = torch.ones(400, 9, 6)
        kept = model._drop(codes)[..., 0]
        assert (kept.diff(dim=1) <= 0).all()  # ones, then zeros
        counts = kept.sum(1).long().bincount(minlength=10)
        assert counts[0] == 0
        assert counts[1:].min() > 20  # every length comes, 44 expected
        torch.testing.assert_close(model.eval()._drop(codes), codes)
        some = small(spectral_dropout=0.25)._drop(codes)[..., 0]
        assert 0.1 < float((some.sum(1) < 9).double().mean()) < 0.35

    def test_without_a_generator_the_global_one_is_left_alone(self):
        before = torch.random.get_rng_state()
        first, second = (
            NeuralIsometry((4, 4), 9, *residual_pair((1, 8, 8), (4, 4), 6, widths=(5,)), spectral_dropout=0.5)
            for _ in range(2)
        )
        copied = copy.deepcopy(first).train()
        for model in (first, second, copied):
            model(images(2, 5, 1, 8, 8))
        VectorNeuronHead(3, 4), VectorNeuronLayer(3, 4)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert not torch.equal(first.operator.raw_eigenfunctions, second.operator.raw_eigenfunctions)
        assert not torch.equal(first.encoder[0].weight, second.encoder[0].weight)

    def test_every_parameter_gets_a_gradient(self):
        model = small(unit_codes=True)
        for name, parameter in model.named_parameters():
            parameter.data.add_(0.05 * torch.ones_like(parameter))  # residuals start as the identity
            assert parameter.requires_grad, name
        model(images(2, 5, 1, 8, 8)).total(0.5, 0.1).backward()
        assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())

    def test_answers_depend_on_nothing_but_the_image(self):
        """Also in training mode, in which the encoder centres by batches and keeps a running mean."""
        model = small().train()
        model(images(2, 5, 1, 8, 8))
        x = images(3, 1, 8, 8)
        codes, state = model.encode(x), copy.deepcopy(model.state_dict())
        torch.testing.assert_close(model.encode(x[:1]), codes[:1])
        assert codes[:1].abs().max() > 0.01
        torch.testing.assert_close(small().functions(x[1:2]), small().functions(x)[1:2])
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert all(part.training for part in model.modules())
        torch.testing.assert_close(model.eval().encode(x), codes, atol=0, rtol=0)

    def test_codes_are_centred_by_the_running_mean(self):
        model = small()
        x = 3 + images(30, 1, 8, 8)
        with torch.no_grad():
            before = model.functions(x).mean(0).abs().max()
            for _ in range(200):
                model(torch.stack([x, x]))
            assert model.functions(x).mean(0).abs().max() < 1e-3 * before
            # The mean of one pair would make its views opposite, and the equivariance error zero.
            assert model(x[:2]).equivariance > 0.01

    def test_codes_are_differentiable_by_torch_func(self):
        model = randomised(small(), scale=0.3)
        codes = images(4, 9, 6, dtype=torch.float64)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda code: model.decode(code[None])[0]))(codes)
        forward = torch.func.vmap(torch.func.jacfwd(lambda code: model.decode(code[None])[0]))(codes)
        torch.testing.assert_close(jacobian, forward)
        step = 1e-6 * images(9, 6, seed=1, dtype=torch.float64)
        change = model.decode(codes + step) - model.decode(codes - step)
        torch.testing.assert_close(2 * torch.einsum("bchwkj,kj->bchw", jacobian, step), change, atol=1e-11, rtol=1e-4)

    def test_copies_pickles_and_state_dicts_give_the_same_codes(self):
        model = small()
        model(images(2, 5, 1, 8, 8))  # moves the running mean
        model.eval()
        x = images(3, 1, 8, 8)
        fresh = small(seed=1).eval()
        assert not torch.equal(fresh.encode(x), model.encode(x))
        fresh.load_state_dict(model.state_dict())
        for other in (copy.deepcopy(model), fresh, pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other.encode(x), model.encode(x), atol=0, rtol=0)
        assert model.generator is not None


class TestPath:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("size", [2, 5, 8])
    def test_powers_form_a_group_through_the_rotation(self, size, seed):
        tau = polar(images(size, size, seed=seed, dtype=torch.float64), special=True)
        path = isometry_path(tau, [0.0, 1.0, 0.3, 0.7, 2.0, -1.0])
        torch.testing.assert_close(path[0], torch.eye(size, dtype=torch.float64))
        torch.testing.assert_close(path[1], tau)
        torch.testing.assert_close(path[2] @ path[3], tau)
        torch.testing.assert_close(path[4], tau @ tau)
        torch.testing.assert_close(path[5], tau.mT)

    def test_reversed_axes_turn_by_half_a_turn_and_equal_angles_stay_apart(self):
        turn = polar(images(6, 6, dtype=torch.float64))
        for diagonal in ([-1.0, -1.0, 1.0, -1.0, 1.0, -1.0], [1.0] * 6, [-1.0] * 6):
            tau = turn @ torch.diag(torch.tensor(diagonal, dtype=torch.float64)) @ turn.mT
            half, whole = isometry_path(tau, [0.5, 1.0])
            torch.testing.assert_close(whole, tau)
            torch.testing.assert_close(half @ half, tau)
            torch.testing.assert_close(half @ half.mT, torch.eye(6, dtype=torch.float64))


class TestPretraining:
    @pytest.mark.parametrize("n_views", [2, 3])
    def test_it_learns_repeats_with_its_seeds_and_leaves_mode_and_global_seed(self, n_views):
        ramp = torch.linspace(0, 1, 8)
        pictures = torch.stack([torch.outer(ramp**p, ramp**q) for p in range(4) for q in range(4)])
        results, before = [], torch.random.get_rng_state()
        for _ in range(2):
            model = small(unit_codes=True, spectral_dropout=0.1).eval()
            views = HomographyViews(pictures, n_views=n_views, random_state=0)
            record = pretrain(model, views, steps=40, batch_size=4, learning_rate=3e-3, record_every=10, clip=1.0)
            assert not model.training
            assert all(parameter.grad is None for parameter in model.parameters())
            results.append(record)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert results[0] == results[1]
        assert [entry.step for entry in record] == [0, 10, 20, 30, 39]
        assert record[-1].transport < 0.7 * record[0].transport

    def test_alpha_and_clip_change_the_training(self):
        """The weight of the equivariance loss, and the largest gradient, which AdamW sees in its first two steps."""
        ends = []
        for options in ({"alpha": 0.0}, {"alpha": 5.0}, {"alpha": 0.0, "clip": 1e-9}):
            model = small(unit_codes=True)
            views = HomographyViews(images(9, 8, 8).abs(), random_state=0)
            ends.append(pretrain(model, views, steps=40, batch_size=4, learning_rate=3e-3, warm_up=0, **options)[-1])
        assert ends[1].equivariance < 0.9 * ends[0].equivariance
        assert ends[2].transport != ends[0].transport

    def test_parts_keep_their_own_modes(self):
        """As a frozen part of an encoder in evaluation mode."""
        encoder, decoder = residual_pair((1, 8, 8), (4, 4), 6, widths=(5,), depth=0, generator=seeded(0))
        encoder = torch.nn.Sequential(torch.nn.BatchNorm2d(1).eval(), encoder)
        model = NeuralIsometry((4, 4), 9, encoder, decoder, generator=seeded(0)).train()
        encoder[0].eval()
        pretrain(model, HomographyViews(images(4, 8, 8).abs(), random_state=0), steps=1, batch_size=2)
        assert model.training
        assert encoder[1].training
        assert not encoder[0].training

    def test_views_are_brought_to_the_dtype_of_the_model(self):
        model = NeuralIsometry((4, 4), 16, generator=seeded(0)).double()
        before = model.operator.root_eigenvalues.detach().clone()
        pretrain(model, ShiftViews(images(20, 4, 4), channels=18, random_state=0), steps=1, batch_size=2)
        after = model.operator.root_eigenvalues.detach()
        assert after.dtype == torch.float64
        assert not torch.equal(after, before)

    def test_stages_count_on_and_bring_eigenvalues_together_between_them(self):
        model = NeuralIsometry((4, 4), 16, eigenvalues="clustered", generator=seeded(0))
        model.operator.root_eigenvalues.data.copy_(torch.linspace(0.0, 10.0, 16))
        views = ShiftViews(images(20, 4, 4), channels=18, random_state=0)
        record = pretrain_in_stages(
            model, views, steps=(6, 4, 3), betas=(5.0, 2.0, 1.0), contractions=(0.01, 0.01), batch_size=1
        )
        assert [entry.step for entry in record] == [0, 5, 6, 9, 10, 12]
        multiplicity = [entry.multiplicity for entry in record]
        assert max(multiplicity[:2]) < 1 < 2.5 < min(multiplicity[2:4]) < 3.7 < min(multiplicity[4:])  # 3.87: all equal

    @pytest.mark.parametrize(("stages", "joined"), [(1, []), (2, [1]), (4, [3])])
    def test_by_default_eigenvalues_come_together_before_the_last_stage_alone(self, stages, joined):
        model = NeuralIsometry((4, 4), 16, eigenvalues="clustered", generator=seeded(0))
        model.operator.root_eigenvalues.data.copy_(torch.linspace(5.0, 10.0, 16))
        views = ShiftViews(images(20, 4, 4), channels=18, random_state=0)
        largest = []

        class Watched:
            def draw(self, n_samples):
                largest.append(float(model.operator.root_eigenvalues.detach().square().max()))
                return views.draw(n_samples)

        pretrain_in_stages(model, Watched(), steps=[1] * stages, betas=[1.0] * stages, learning_rate=1e-6, batch_size=1)
        assert [i for i in range(1, stages) if largest[i] < 0.9 * largest[i - 1]] == joined
        assert largest[-1] == pytest.approx(100.0 if stages == 1 else 10.0, rel=1e-3)

    def test_multiplicity_falls_with_its_weight_and_rises_without(self):
        ends = []
        for beta in (0.0, 5.0):
            model = NeuralIsometry((4, 4), 16, eigenvalues="clustered", generator=seeded(0))
            views = ShiftViews(images(20, 4, 4), channels=18, random_state=0)
            record = pretrain(model, views, steps=40, batch_size=1, alpha=0.0, beta=beta, learning_rate=3e-2, warm_up=5)
            ends.append((record[0].multiplicity, record[-1].multiplicity))
        (start, freely), (_, forced) = ends
        assert forced < 0.8 * start < start < freely

    def test_eigenvalues_have_a_rate_of_their_own(self):
        """A first step of AdamW has the length of the rate in each coordinate."""
        steps = []
        for rate in (1.0, 3.0):
            model = NeuralIsometry((4, 4), 16, generator=seeded(0))
            model.operator.root_eigenvalues.data.fill_(0.1)
            start = {name: value.detach().clone() for name, value in model.operator.named_parameters()}
            views = ShiftViews(images(20, 4, 4), channels=18, random_state=0)
            pretrain(model, views, steps=1, batch_size=1, learning_rate=1e-3, eigenvalue_rate=rate, warm_up=0)
            steps.append(
                {name: (value.detach() - start[name]).abs().max() for name, value in model.operator.named_parameters()}
            )
        assert float(steps[1]["root_eigenvalues"]) == pytest.approx(3e-3, rel=0.01)
        assert float(steps[0]["root_eigenvalues"]) == pytest.approx(1e-3, rel=0.01)
        assert steps[1]["raw_eigenfunctions"] == steps[0]["raw_eigenfunctions"]

    def test_weights_follow_their_schedule(self):
        seen = []

        def beta(progress):
            seen.append(progress)
            return 0.1

        model = NeuralIsometry((4, 4), 16, generator=seeded(0))
        views = ShiftViews(images(20, 4, 4), channels=18, random_state=0)
        pretrain(model, views, steps=5, batch_size=1, beta=beta)
        assert seen == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
        schedule = annealed(8.0, 0.5, hold=0.25, end=0.75)
        assert [schedule(t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([8.0, 8.0, 2.0, 0.5, 0.5])
