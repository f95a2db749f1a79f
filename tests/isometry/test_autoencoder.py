"""Penalties against full Jacobians, known isometries, the estimator's contract, and the manifold of a decoder."""

from __future__ import annotations

import math
import pickle
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from manifoldkit.datasets import make_circle, make_s_curve
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import Manifold
from manifoldkit.isometry import (
    MLP,
    DecoderContraction,
    DecoderIsometry,
    EncoderContraction,
    EncoderIsometry,
    IsometricAutoencoder,
    WeightDecay,
    autoencoder,
    baseline,
    edge_ratio_std,
    jacobian_identities,
    residual_pair,
)
from manifoldkit.isometry.baselines import BASELINES
from manifoldkit.isometry.penalties import View
from manifoldkit.isometry.solvers import regress

SHEET = make_s_curve(150, random_state=0)
X = SHEET.points
TINY = {"hidden": (12,), "max_iter": 60}

#: Checks of scikit-learn that cannot hold, by name, with the reason. There are none.
EXCEPTIONS: dict[str, str] = {}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(n_in=5, d=2, seed=0):
    encoder = MLP([n_in, 7, d], generator=seeded(seed)).double()
    return encoder, MLP([d, 7, n_in], generator=seeded(seed + 1)).double()


def view(n=4000, seed=0):
    encoder, decoder = pair()
    x = torch.randn(n, 5, generator=seeded(seed), dtype=torch.float64)
    return View(encoder, decoder, x, seeded(2), True)


def _plain(network):
    layers = list(network)

    def run(x):
        for layer in layers:
            x = layer(x)
        return x

    return run


def test_products_are_those_of_the_full_jacobians():
    seen = view(20)
    u = seen.directions()
    backward = torch.func.vmap(torch.func.jacrev(_plain(seen.encoder)))(seen.x)  # (B, d, D)
    forward = torch.func.vmap(torch.func.jacrev(_plain(seen.decoder)))(seen.codes)  # (B, D, d)
    torch.testing.assert_close(seen.pull_back(u), torch.einsum("bdD,bd->bD", backward, u))
    torch.testing.assert_close(seen.push_forward(seen.codes, u), torch.einsum("bDd,bd->bD", forward, u))
    torch.testing.assert_close(torch.linalg.vector_norm(u, dim=1), torch.ones(20, dtype=torch.float64))
    exact = EncoderContraction(1.0, exact=True)(seen), DecoderContraction(2.0, exact=True)(seen)
    torch.testing.assert_close(exact[0], backward.square().sum(dim=(1, 2)).mean())
    torch.testing.assert_close(exact[1], 2 * forward.square().sum(dim=(1, 2)).mean())


@pytest.mark.parametrize("kind", [EncoderContraction, DecoderContraction])
def test_probes_estimate_the_frobenius_norm(kind):
    """Relative standard deviation of u^T J J^T u for d = 2 is at most sqrt(2); 4,000 samples leave 2.3 per cent."""
    seen = view()
    estimate, exact = kind(1.0)(seen).item(), kind(1.0, exact=True)(seen).item()
    assert estimate == pytest.approx(exact, rel=4 * math.sqrt(2 / 4000))


def test_isometric_penalties_vanish_exactly_for_isometries():
    q = torch.linalg.qr(torch.randn(5, 2, generator=seeded(), dtype=torch.float64))[0]
    encoder, decoder = nn.Linear(5, 2).double(), nn.Linear(2, 5).double()
    encoder.weight.data, decoder.weight.data = q.T.clone(), q.clone()
    x = torch.randn(50, 5, generator=seeded(3), dtype=torch.float64)
    for codes in ("gaussian", "box", "between"):
        assert DecoderIsometry(1.0, codes)(View(encoder, decoder, x, seeded(), True)).item() < 1e-28
    assert EncoderIsometry(1.0)(View(encoder, decoder, x, seeded(), True)).item() < 1e-28
    decoder.weight.data *= 3
    assert DecoderIsometry(0.5)(View(encoder, decoder, x, seeded(), True)).item() == pytest.approx(0.5 * 4)
    found = jacobian_identities(encoder, decoder, x[:, :2])
    assert found["decoder"] == pytest.approx(8.0)
    assert found["encoder"] < 1e-12
    assert found["pseudo_inverse"] == pytest.approx(2.0)


def test_laws_of_random_codes():
    seen = view()
    codes = seen.codes.detach()
    gaussian, box, between = (seen.sample_codes(law) for law in ("gaussian", "box", "between"))
    torch.testing.assert_close(gaussian.mean(0), codes.mean(0), atol=5 * codes.std().item() / 4000**0.5, rtol=0)
    torch.testing.assert_close(gaussian.T.cov(), codes.T.cov(), rtol=0.1, atol=0.1 * codes.var().item())
    low, high = codes.amin(0), codes.amax(0)
    for inside in (box, between):
        assert ((inside >= low - 1e-12) & (inside <= high + 1e-12)).all()
    torch.testing.assert_close(box.mean(0), (low + high) / 2, atol=0.03 * (high - low).max().item(), rtol=0)
    assert between.var(0).sum() < codes.var(0).sum()  # a segment's points are nearer to the mean than its ends
    assert not gaussian.requires_grad


def test_penalties_differentiate_by_the_weights_of_both_networks():
    encoder, decoder = pair()
    x = torch.randn(6, 5, generator=seeded(), dtype=torch.float64)

    def loss():
        seen = View(encoder, decoder, x, seeded(2), True)
        terms = (DecoderIsometry(1.0), EncoderIsometry(1.0), EncoderContraction(0.3), DecoderContraction(0.2))
        return sum(term(seen) for term in (*terms, WeightDecay(0.1)))

    loss().backward()
    for weight in (encoder[0].weight, encoder[2].weight, decoder[0].weight, decoder[2].weight):
        step = torch.zeros_like(weight)
        step[0, 0] = 1e-5
        with torch.no_grad():
            weight += step
            ahead = loss()
            weight -= 2 * step
            behind = loss()
            weight += step
        # Codes of the decoder's law follow the encoder, but no gradient flows through them.
        if weight is decoder[0].weight or weight is decoder[2].weight:
            assert weight.grad[0, 0].item() == pytest.approx((ahead - behind).item() / 2e-5, rel=1e-5)
        assert torch.isfinite(weight.grad).all()


def test_batch_norm_is_differentiated_with_its_running_statistics_and_updated_once():
    encoder = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double().train()
    decoder = MLP([2, 5], generator=seeded()).double()
    seen = View(encoder, decoder, torch.randn(30, 5, generator=seeded(), dtype=torch.float64), seeded(), True)
    u = seen.directions()
    pulled = seen.pull_back(u)
    assert encoder[1].num_batches_tracked.item() == 1
    assert encoder.training
    encoder.eval()
    x = seen.x.clone().requires_grad_(True)
    torch.testing.assert_close(pulled, torch.autograd.grad((encoder(x) * u).sum(), x)[0])


def test_edge_ratios_of_known_maps():
    codes = np.random.default_rng(0).random((800, 2)) * [3.0, 1.0]
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0][:2]
    assert edge_ratio_std(lambda z: 7 * z @ q + 1, codes) < 1e-12  # isometric up to scale
    roll = lambda z: np.column_stack([np.cos(z[:, 0]), np.sin(z[:, 0]), z[:, 1]])  # noqa: E731
    assert edge_ratio_std(roll, codes) < 1e-3  # chords of short edges
    assert edge_ratio_std(roll, codes @ np.array([[0.6, 0.8], [-0.8, 0.6]])) < 1e-3
    stretched = edge_ratio_std(lambda z: z * [1.0, 2.0], codes)
    assert 0.2 < stretched < 0.4
    tensor = edge_ratio_std(MLP([2, 3], generator=seeded()), torch.from_numpy(codes))
    linear = MLP([2, 3], generator=seeded())[0].weight.detach().double().numpy()
    assert tensor == pytest.approx(edge_ratio_std(lambda z: z @ linear.T, codes), rel=1e-4)
    line = np.random.default_rng(0).random((300, 1))
    assert edge_ratio_std(lambda z: 2 * z, line) < 1e-12
    assert edge_ratio_std(np.square, line) > 0.3


def test_the_grid_stays_out_of_holes():
    angles = np.random.default_rng(0).random(3000) * 2 * np.pi
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    hole = lambda z: np.where(np.linalg.norm(z, axis=1, keepdims=True) < 0.7, 9.0, 1.0) * z  # noqa: E731
    assert edge_ratio_std(hole, ring) < 1e-12


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sheet_is_flattened_isometrically_where_the_plain_autoencoder_is_not(seed):
    sheet = make_s_curve(300, random_state=seed)
    options = {"hidden": (24,), "max_iter": 300, "random_state": seed}
    isometric = IsometricAutoencoder(2, **options).fit(sheet.points)
    codes = isometric.transform(sheet.points)
    apart = np.linalg.norm(sheet.parameters[:, None] - sheet.parameters[None], axis=2)
    found = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    assert np.corrcoef(apart.ravel(), found.ravel())[0, 1] > 0.998
    plain = IsometricAutoencoder(2, init=None, **baseline("AE"), **options).fit(sheet.points)
    stds = [edge_ratio_std(m.inverse_transform, m.transform(sheet.points)) for m in (isometric, plain)]
    assert stds[0] < 0.1 < 0.2 < stds[1]
    rms = np.sqrt(((isometric.inverse_transform(codes) - sheet.points) ** 2).sum(axis=1).mean())
    assert rms < 0.1


def test_identities_of_a_curved_decoder_take_both_jacobians_where_they_belong():
    """f(z) = (cos z, sin z) and g(x) = c atan2(x): df = (-sin, cos) and dg = c df^T on the circle, whatever z is."""

    class Circle(nn.Module):
        def forward(self, z):
            return torch.cat([z.cos(), z.sin()], dim=1)

    class Angle(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.c = c

        def forward(self, x):
            return self.c * torch.atan2(x[:, 1:], x[:, :1])

    codes = torch.linspace(-3, 3, 20, dtype=torch.float64)[:, None]
    assert max(jacobian_identities(Angle(1.0), Circle(), codes).values()) < 1e-12
    found = jacobian_identities(Angle(2.0), Circle(), codes)
    assert found == pytest.approx({"decoder": 0.0, "encoder": 3.0, "pseudo_inverse": 1.0}, abs=1e-12)


class Watching(nn.Module):
    """A linear encoder that tells what it is shown."""

    shown: ClassVar[list[torch.Tensor]] = []

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        if self.layer.weight.requires_grad and torch.is_grad_enabled():
            self.shown.append(x.detach().clone())
        return self.layer(x)


@pytest.mark.parametrize(("name", "noise"), [("AE", 0.0), ("DAE", 0.5)])
def test_the_denoising_autoencoder_alone_is_shown_noise(name, noise):
    """In normalised units; 150 x 3 draws leave 7 per cent of its deviation."""
    Watching.shown.clear()
    options = baseline(name, noise or None)
    IsometricAutoencoder(2, encoder=Watching(), hidden=(4,), init=None, solver="adam", max_iter=1, **options).fit(X)
    (shown,) = Watching.shown
    centred = X - X.mean(axis=0)
    added = shown.numpy() - centred / np.sqrt(np.square(centred).mean())
    assert added.std() == pytest.approx(noise, rel=0.2, abs=1e-6)


def test_the_law_of_codes_is_that_of_the_decoders_penalty():
    options = {"hidden": (4,), "max_iter": 1, "init": None}
    losses = {}
    for law in ("gaussian", "box", "between"):
        model = IsometricAutoencoder(2, codes=law, **options).fit(X)
        spelt = (DecoderIsometry(0.1, law), EncoderIsometry(0.1))
        assert model.history_ == IsometricAutoencoder(2, penalties=spelt, **options).fit(X).history_
        losses[law] = model.history_[0]["DecoderIsometry"]
    assert len(set(losses.values())) == 3


class Root(nn.Module):
    """Finite, with a gradient that is NaN: the root of the square of a feature that is 0."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x):
        return (self.layer(x) * torch.arange(2)).square().sqrt()


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_gradient_that_is_not_finite_breaks_no_weights(solver):
    root = Root()
    model = IsometricAutoencoder(2, encoder=root, hidden=(4,), init=None, solver=solver, max_iter=2, penalties=())
    with pytest.raises(ValueError, match=r"not finite|gradient is NaN or infinite"):
        model.fit(X)
    assert torch.equal(model.encoder_.network.layer.weight, root.layer.weight)
    assert all(torch.isfinite(p).all() for p in model.decoder_.parameters())
    assert model.history_ == []


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_train(name):
    model = IsometricAutoencoder(2, **TINY, init=None, **baseline(name)).fit(X)
    assert model.history_[-1]["reconstruction"] < 2.5  # of 3, the variance of normalised samples
    assert np.isfinite(model.transform(X)).all()
    tied = name == "TCAE"
    shared = {id(p) for p in model.encoder_.parameters()} & {id(p) for p in model.decoder_.parameters()}
    assert bool(shared) == tied


@parametrize_with_checks(
    [IsometricAutoencoder(1, hidden=(4,), max_iter=2, init=None)], expected_failed_checks=lambda e: EXCEPTIONS
)
def test_contract_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return IsometricAutoencoder(2, **TINY).fit(X)


def test_clone_pickle_and_kinds_of_arrays(fitted):
    again = clone(fitted).fit(X)
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.project(X), fitted.project(X))
    tensor = fitted.transform(torch.from_numpy(X).float())
    assert (tensor.dtype, tensor.shape) == (torch.float32, (150, 2))
    assert fitted.get_feature_names_out().tolist() == ["isometricautoencoder0", "isometricautoencoder1"]
    assert isinstance(fitted, Manifold)


def test_plain_callables_are_penalties():
    def unit_gradients(view):
        return 0.1 * (view.pull_back(view.directions()).norm(dim=1) - 1).square().mean()

    def same(view):
        return unit_gradients(view)

    same.needs_pullback = True
    options = {"hidden": (4,), "max_iter": 2, "init": None}
    plain, marked = (
        IsometricAutoencoder(2, **options, penalties=[penalty]).fit(X) for penalty in (unit_gradients, same)
    )
    assert plain.history_[0]["unit_gradients"] == pytest.approx(marked.history_[0]["same"], rel=1e-9)


def test_fits_with_isomap_follow_the_random_state_alone():
    points = make_s_curve(250, random_state=0).points  # above 200, Isomap's own choice is a random start
    state = np.random.get_state()  # noqa: NPY002 - it is the global generator that is to be left alone
    codes = [IsometricAutoencoder(2, hidden=(4,), max_iter=3).fit(points).transform(points) for _ in range(2)]
    np.testing.assert_array_equal(*codes)
    after = np.random.get_state()  # noqa: NPY002
    assert state[2] == after[2]
    np.testing.assert_array_equal(state[1], after[1])


def test_rounds_of_lbfgs_share_no_draws():
    rounds = [set()]

    def spy(view):
        rounds[-1].update(view.normal().flatten().tolist())
        return 0 * view.codes.sum()

    def advance(model, record):
        rounds.append(set())

    IsometricAutoencoder(2, hidden=(4,), init=None, max_iter=300, penalties=(spy,), callbacks=(advance,)).fit(X)
    *rounds, rest = rounds
    assert rest == set()
    assert [len(draws) for draws in rounds] == [300, 300, 300]  # 150 pairs, the same in all evaluations of a round
    assert len(set().union(*rounds)) == 900


def test_lengths_have_the_units_of_the_samples():
    one = IsometricAutoencoder(2, **TINY).fit(X)
    eight = IsometricAutoencoder(2, **TINY).fit(8 * X)  # a power of two, so that no number is rounded
    np.testing.assert_allclose(eight.transform(8 * X), 8 * one.transform(X), rtol=1e-9)


def test_training_goes_on_after_an_interruption():
    def interrupt(model, record):
        if len(model.history_) == 2:
            raise KeyboardInterrupt

    options = {"hidden": (8,), "solver": "adam", "init": None, "max_iter": 4, "batch_size": 50, "warm_start": True}
    model = IsometricAutoencoder(2, **options, callbacks=(interrupt,))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert len(model.history_) == 2
    before = model.transform(X)  # usable, in evaluation mode
    assert not model.encoder_.training
    model.set_params(callbacks=(), max_iter=6).fit(X)
    assert len(model.history_) == 8
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]
    assert np.abs(model.transform(X) - before).max() > 0
    rates = []
    note = lambda model, record: rates.append(model._optimizer.param_groups[0]["lr"])  # noqa: E731
    model.set_params(callbacks=(note,), max_iter=2, learning_rate=0.01)
    model.fit(X).fit(X)
    assert rates == pytest.approx([0.005, 0.0, 0.005, 0.0])  # every call has a schedule of its own
    stopped = IsometricAutoencoder(2, **options, callbacks=(lambda model, record: True,)).fit(X)
    assert len(stopped.history_) == 1


def test_a_refused_fit_leaves_the_estimator_as_it_was():
    fresh = IsometricAutoencoder(2, encoder=nn.Linear(3, 1), max_iter=2, init=None, warm_start=True)
    with pytest.raises(ValueError, match="set n_components"):
        fresh.fit(X)
    assert not hasattr(fresh, "encoder_")
    assert fresh.set_params(encoder=nn.Linear(3, 2)).fit(X).transform(X).shape == (150, 2)
    model = IsometricAutoencoder(2, hidden=(4,), max_iter=2, init=None, warm_start=True).fit(X)
    before = model.transform(X)
    wider = np.hstack([X, X])
    for options, samples, message in [
        ({}, wider, r"goes on with samples of shape \(3,\), got \(6,\)"),
        ({"warm_start": False, "encoder": nn.Linear(6, 1)}, wider, "set n_components"),
        ({"warm_start": False, "n_components": 7}, wider, "exceeds the 6 entries"),
        ({"warm_start": False, "codes": "uniform"}, wider, "codes must be"),
        ({"warm_start": False, "init": X}, X, "init must have shape"),
    ]:
        start = model.get_params()
        with pytest.raises(ValueError, match=message):
            model.set_params(**options).fit(samples)
        model.set_params(**start)
        assert model.n_features_in_ == 3
        np.testing.assert_array_equal(model.transform(X), before)


def test_an_interrupted_start_is_made_again(monkeypatch):
    calls = []

    def interrupt(*arguments):
        raise KeyboardInterrupt

    def watched(*arguments):
        calls.append(arguments)
        return regress(*arguments)

    model = IsometricAutoencoder(2, hidden=(4,), max_iter=0, warm_start=True)
    monkeypatch.setattr(autoencoder, "regress", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    monkeypatch.setattr(autoencoder, "regress", watched)
    model.fit(X)
    assert len(calls) == 2  # encoder and decoder
    model.fit(X)
    assert len(calls) == 2


def test_networks_of_the_user_are_copied_and_images_keep_their_shape():
    images = torch.rand(40, 1, 8, 8, generator=seeded())
    encoder = nn.Sequential(nn.Conv2d(1, 4, 4, 2), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(36, 3))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8)))
    weights = [p.clone() for p in [*encoder.parameters(), *decoder.parameters()]]
    model = IsometricAutoencoder(
        3, encoder=encoder, decoder=decoder, solver="adam", init=None, max_iter=3, batch_size=16, dtype="float32"
    ).fit(images)
    assert all(torch.equal(p, q) for p, q in zip([*encoder.parameters(), *decoder.parameters()], weights, strict=True))
    assert model.transform(images).shape == (40, 3)
    assert model.inverse_transform(model.transform(images)).shape == images.shape
    assert model.project(images[:5]).shape == (5, 1, 8, 8)
    assert model.tangent_basis(images[:5]).shape == (5, 64, 3)


def test_given_codes_are_where_training_begins():
    flat = SHEET.parameters - SHEET.parameters.mean(axis=0)
    model = IsometricAutoencoder(2, hidden=(24,), init=flat, max_iter=0).fit(X)
    assert np.abs(model.transform(X) - flat).max() < 0.2
    circle = make_circle(100, random_state=0).points
    line = IsometricAutoencoder(1, hidden=(8,), init="pca", max_iter=0).fit(circle)
    u, s, _ = np.linalg.svd(circle - circle.mean(axis=0), full_matrices=False)
    assert abs(np.corrcoef(line.transform(circle)[:, 0], u[:, 0] * s[0])[0, 1]) > 0.99


def test_given_codes_keep_their_place():
    far = SHEET.parameters + np.array([30.0, -20.0])
    model = IsometricAutoencoder(2, hidden=(24,), init=far, max_iter=0).fit(X)
    assert np.abs(model.transform(X) - far).max() < 0.3


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_frozen_networks_stay_and_the_other_learns(solver):
    axes = torch.linalg.svd(torch.from_numpy(X - X.mean(axis=0)), full_matrices=False)[2][:2]
    encoder, decoder = nn.Linear(3, 2).double(), nn.Linear(2, 3).double()
    encoder.weight.data, decoder.weight.data = axes.clone(), axes.T.clone()
    options = {"init": "pca", "hidden": (8,), "solver": solver, "max_iter": 20, "learning_rate": 1e-2}
    model = IsometricAutoencoder(2, encoder=encoder.requires_grad_(False), **options).fit(X)
    assert torch.equal(model.encoder_.network.weight, axes)
    best = IsometricAutoencoder(2, encoder=encoder, **{**options, "max_iter": 0}).fit(X)
    error = np.square(best.inverse_transform(best.transform(X)) - X).sum(axis=1).mean()
    centred = X - X.mean(axis=0)
    principal = (np.square(centred).sum(axis=1) - np.square(centred @ axes.numpy().T).sum(axis=1)).mean()
    assert error <= principal + 1e-6  # the decoder was fitted to the codes of the frozen encoder
    model = IsometricAutoencoder(2, decoder=decoder.requires_grad_(False), **options).fit(X)
    assert torch.equal(model.decoder_.network.weight, axes.T)
    both = IsometricAutoencoder(2, encoder=encoder, decoder=decoder, **{**options, "max_iter": 0}).fit(X)
    assert both.transform(X).shape == (150, 2)


def test_frozen_networks_keep_their_running_statistics():
    encoder = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).requires_grad_(False)
    options = {"solver": "adam", "init": None, "hidden": (4,), "max_iter": 2, "batch_size": 50, "dtype": "float32"}
    model = IsometricAutoencoder(2, encoder=encoder, **options).fit(X)
    for name, value in encoder.state_dict().items():
        assert torch.equal(model.encoder_.network.state_dict()[name], value), name


def test_frozen_parts_of_networks_that_learn_keep_their_statistics():
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    encoder[1].requires_grad_(False)
    options = {"solver": "adam", "init": None, "hidden": (4,), "max_iter": 2, "batch_size": 50, "dtype": "float32"}
    model = IsometricAutoencoder(2, encoder=encoder, **options).fit(X)
    assert model.encoder_.network[1].num_batches_tracked.item() == 0
    assert not torch.equal(model.encoder_.network[0].weight, encoder[0].weight)


def test_networks_without_weights_are_networks():
    class First(nn.Module):
        def forward(self, x):
            return x[:, :2]

    model = IsometricAutoencoder(2, encoder=First(), hidden=(8,), max_iter=20, normalize=False).fit(X)
    np.testing.assert_allclose(model.transform(X), X[:, :2])


def test_records_name_every_penalty():
    nothing = lambda view: 0 * view.codes.sum()  # noqa: E731
    penalties = (DecoderContraction(0.1), EncoderContraction(0.2), DecoderContraction(0.3), nothing)
    model = IsometricAutoencoder(2, hidden=(4,), max_iter=1, init=None, penalties=penalties).fit(X)
    record = model.history_[0]
    names = ["DecoderContraction", "EncoderContraction", "DecoderContraction_2", "<lambda>"]
    assert list(record) == ["loss", "reconstruction", *names]
    assert record["loss"] == pytest.approx(sum(record[name] for name in ["reconstruction", *names]))


def test_batch_norm_takes_any_number_of_samples():
    encoder = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    options = {"solver": "adam", "init": None, "max_iter": 1, "batch_size": 50, "dtype": "float32"}
    model = IsometricAutoencoder(2, encoder=encoder, hidden=(4,), **options).fit(np.vstack([X, X[:1]]))
    assert model.encoder_.network[1].num_batches_tracked.item() == 3


def test_the_residual_pair_trains_as_an_isometric_autoencoder():
    """Its encoder subtracts a running mean, which a pass under torch.func could not update."""
    images = torch.rand(40, 1, 8, 8, generator=seeded())
    encoder, decoder = residual_pair((1, 8, 8), (4, 4), 2, widths=(4,), depth=1, generator=seeded())
    model = IsometricAutoencoder(
        32, encoder=nn.Sequential(encoder, nn.Flatten()), decoder=nn.Sequential(nn.Unflatten(1, (2, 4, 4)), decoder),
        solver="adam", init=None, max_iter=5, batch_size=13, dtype="float32", normalize=False,
    ).fit(images)  # fmt: skip
    assert model.history_[-1]["reconstruction"] < model.history_[0]["reconstruction"]
    codes = model.transform(images)
    assert codes.mean(dim=0).abs().max() < codes.abs().max() / 2  # the running mean has moved
    assert model.inverse_transform(codes).shape == images.shape


def test_own_warnings_of_fits_are_none(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ManifoldWarning)
        fitted.tangent_basis(X[:5])


@pytest.mark.parametrize("options", [{}, {"decoder": "tied"}, {"solver": "adam", "batch_size": 40}])
def test_default_networks_take_images_as_they_take_vectors(options):
    points = make_circle(120, random_state=0).points
    fits = [
        IsometricAutoencoder(1, hidden=(16,), init=None, max_iter=20, **options).fit(points.reshape(120, *shape))
        for shape in ((2,), (1, 2), (1, 2, 1))
    ]
    assert fits[1].inverse_transform(np.zeros((3, 1))).shape == (3, 1, 2)
    for one in fits[1:]:
        assert one.history_[-1]["reconstruction"] == pytest.approx(fits[0].history_[-1]["reconstruction"], rel=1e-3)
