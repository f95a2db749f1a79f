"""The estimator's contract, guidance as a law, restarts, and the manifold of a GridVAE."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from manifoldkit.attacks import OnManifoldPGD, symbol_changes
from manifoldkit.geometry import Manifold
from manifoldkit.isometry import MLP, annealed
from manifoldkit.priors import GridPrior, GridVAE, axis_accuracy
from manifoldkit.priors.objective import GaussianEncoder

NAN = float("nan")
PRIOR = GridPrior(2, [0.0, 1.0, 2.0], 0.2)
TINY = {"hidden": (32,), "obs_sigma": 0.3, "max_steps": 300, "learning_rate": 0.01}

#: Checks of scikit-learn that cannot hold, by name, with the reason. There are none.
EXCEPTIONS: dict[str, str] = {}


def flat_data(n=500, seed=0, noise=0.05):
    """Samples on a curved sheet in R^5 whose two coordinates are 0, 1 or 2, up to noise."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(3, size=(n, 2))
    z = symbols + 0.1 * rng.normal(size=(n, 2))
    mixing = np.random.default_rng(100).normal(size=(2, 5))
    bend = np.sin(2 * z) @ np.random.default_rng(101).normal(size=(2, 5))
    return z @ mixing + 0.3 * bend + noise * rng.normal(size=(n, 5)), symbols


X, SYMBOLS = flat_data()


@pytest.fixture(scope="module")
def guided():
    return GridVAE(PRIOR, **TINY).fit(X, attributes=SYMBOLS)


@parametrize_with_checks(
    [GridVAE(GridPrior(1, [0.0, 1.0], 0.25), hidden=(4,), max_steps=2)], expected_failed_checks=lambda e: EXCEPTIONS
)
def test_contract_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("seed", range(3))
def test_guidance_gives_the_cells_also_to_new_samples(seed):
    model = GridVAE(PRIOR, random_state=seed, **TINY).fit(X, attributes=SYMBOLS)
    new, symbols = flat_data(300, seed=seed + 1)
    assert (model.message(new) == symbols).mean() > 0.97
    centres = model.inverse_transform(symbols.astype(float))
    assert ((centres - new) ** 2).mean() < 0.2 * new.var()


def test_half_of_the_rows_suffice_and_one_column_guides_its_axis():
    rows = SYMBOLS.astype(float)
    rows[::2] = NAN
    assert (GridVAE(PRIOR, kl="nearest", **TINY).fit(X, attributes=rows).message(X) == SYMBOLS).mean() > 0.95
    column = np.column_stack([SYMBOLS[:, 0], np.full(len(X), NAN)])
    model = GridVAE(PRIOR, **TINY).fit(X, attributes=column)
    assert (model.message(X)[:, 0] == SYMBOLS[:, 0]).mean() > 0.95


def test_known_attributes_lower_the_loss_they_name():
    """Guided by permuted attributes, the same samples are told in the other language."""
    renamed = np.column_stack([2 - SYMBOLS[:, 1], SYMBOLS[:, 0]])
    messages = GridVAE(PRIOR, **TINY).fit(X, attributes=renamed).message(X)
    assert (messages == renamed).mean() > 0.97
    assert axis_accuracy(messages, SYMBOLS).axes.tolist() == [1, 0]


def test_runs_are_chosen_by_loss_alone():
    settings = {**TINY, "max_steps": 60}
    single = GridVAE(PRIOR, random_state=5, **settings).fit(X)
    many = GridVAE(PRIOR, random_state=5, n_init=4, **settings).fit(X)
    assert len(many.losses_) == 4
    assert many.losses_[0] == single.loss_  # the first run is that of n_init=1
    assert len(set(many.losses_)) == 4
    assert many.loss_ == min(many.losses_)
    assert many.n_iter_ == len(many.history_) == 30


@pytest.mark.parametrize("mode", ["conditional", "aggregate", "nearest"])
def test_the_best_of_short_starts_goes_on(mode):
    """As if fitted again from its weights."""
    settings = {**TINY, "kl": mode, "random_state": 5}
    model = GridVAE(PRIOR, **{**settings, "max_steps": 60, "n_init": 4, "init_steps": 10}).fit(X)
    short = GridVAE(PRIOR, **{**settings, "max_steps": 10, "n_init": 4}).fit(X)
    assert model.losses_ == short.losses_
    networks = {"encoder": short.encoder_.network, "decoder": short.decoder_.network}
    again = GridVAE(PRIOR, **networks, **{**settings, "max_steps": 60}).fit(X)
    np.testing.assert_array_equal(model.transform(X), again.transform(X))
    assert model.loss_ == again.loss_ < min(model.losses_)
    assert model.history_ == again.history_


@pytest.mark.parametrize("mode", ["conditional", "aggregate", "nearest"])
def test_training_lowers_the_loss_and_follows_the_seed(mode):
    settings = {**TINY, "max_steps": 100, "kl": mode}
    model = GridVAE(PRIOR, **settings).fit(X)
    assert model.history_[-1]["loss"] < 0.7 * model.history_[0]["loss"]
    record = model.history_[-1]
    assert record["loss"] == pytest.approx(record["reconstruction"] + record["kl"], rel=1e-5)
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    torch.manual_seed(9)
    np.testing.assert_array_equal(GridVAE(PRIOR, **settings).fit(X).transform(X), model.transform(X))
    assert (GridVAE(PRIOR, **{**settings, "random_state": 1}).fit(X).transform(X) != model.transform(X)).any()


def test_one_level_at_zero_is_the_standard_normal_vae():
    """The loss of a network that is not trained, by torch.distributions."""
    prior = GridPrior(2, [0.0], 1.0)
    model = GridVAE(prior, kl="nearest", hidden=(8,), max_steps=1, learning_rate=1e-12, obs_sigma=0.5).fit(X)
    x = torch.from_numpy(X).float()
    mu, logvar = model.encoder_.gaussian(x)
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
    assert np.mean([entry["kl"] for entry in model.history_]) == pytest.approx(kl.item(), rel=1e-4)


def test_schedules_weigh_the_divergence_and_selection_uses_the_last_weight():
    seen = []

    def weight(progress):
        seen.append(progress)
        return 1.0 - progress

    model = GridVAE(PRIOR, beta=weight, **{**TINY, "max_steps": 10}).fit(X)
    assert seen == [k / 10 for k in range(10)] + [1.0]
    first = model.history_[0]  # weights 1 and 0.9
    assert first["reconstruction"] + 0.9 * first["kl"] < first["loss"] < first["reconstruction"] + first["kl"]
    assert GridVAE(PRIOR, beta=annealed(3.0, 1.0), **{**TINY, "max_steps": 10}).fit(X).loss_ > 0


def test_networks_of_the_user_are_copied_and_left_alone():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(4 * 6 * 5, 4)

        def forward(self, x):
            return self.head(self.body(x))

    images = np.random.default_rng(0).random((40, 1, 6, 5)).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, decoder = Encoder(), MLP([2, 8, 30])
    encoder.train()
    before = copy.deepcopy((encoder.state_dict(), decoder.state_dict()))
    model = GridVAE(PRIOR, encoder=encoder, decoder=decoder, max_steps=4, n_init=2, batch_size=10).fit(images)
    for old, network in zip(before, (encoder, decoder), strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(old[name], value)
    assert encoder.training
    assert not model.encoder_.training
    assert all(parameter.grad is None for parameter in model.encoder_.parameters())
    assert model.project(images).shape == images.shape
    assert model.inverse_transform(model.transform(images)).shape == images.shape
    alone = model.message(images[:3])  # the mode is that of evaluation: rows do not depend on their batch
    np.testing.assert_array_equal(alone, model.message(images)[:3])


def test_every_restart_of_given_networks_has_its_own_weights_and_all_are_compared_on_the_same_draws():
    """Nearly nothing is learned, so that the losses are those of the first weights."""
    settings = {**TINY, "max_steps": 1, "learning_rate": 1e-12, "n_init": 3, "batch_size": 500}
    model = GridVAE(PRIOR, encoder=MLP([5, 8, 4]), decoder=MLP([2, 8, 5]), **settings).fit(X)
    assert len({round(loss, 3) for loss in model.losses_}) == 3

    class Fixed(nn.Module):
        """Means and variances of its own, the same after every start."""

        def __init__(self, n_in, n_out):
            super().__init__()
            self.shift, self.n_out = nn.Parameter(torch.zeros(1)), n_out

        def forward(self, x):
            return x[:, :1] * torch.ones(self.n_out) + 1e-12 * self.shift

    same = GridVAE(PRIOR, encoder=Fixed(5, 4), decoder=Fixed(2, 5), **settings).fit(X)
    assert len(set(same.losses_)) == 1


def test_kinds_of_arrays(guided):
    z = guided.transform(torch.from_numpy(X).float())
    assert (z.dtype, tuple(z.shape)) == (torch.float32, (500, 2))
    messages = guided.message(torch.from_numpy(X)), guided.message(X)
    assert messages[0].dtype == torch.int64
    assert messages[1].dtype == np.int64
    np.testing.assert_array_equal(messages[0].numpy(), messages[1])
    np.testing.assert_array_equal(PRIOR.nearest(z, return_index=True)[1].numpy(), messages[1])
    copied = pickle.loads(pickle.dumps(guided))
    np.testing.assert_array_equal(copied.transform(X), guided.transform(X))
    assert guided.get_feature_names_out().tolist() == ["gridvae0", "gridvae1"]


def test_traversals_and_draws(guided):
    codes = np.array([[0.0, 1.0], [2.0, 2.0]])
    line = [-0.5, 0.0, 2.0]
    walks = guided.traverse(codes, 0, line)
    assert walks.shape == (2, 3, 5)
    np.testing.assert_allclose(walks[1, 2], guided.inverse_transform(codes)[1], atol=1e-6)
    for k, value in enumerate(line):
        np.testing.assert_allclose(walks[:, k], guided.inverse_transform([[value, 1.0], [value, 2.0]]), atol=1e-6)
    drawn = guided.sample(400, random_state=0)
    np.testing.assert_array_equal(drawn, guided.sample(400, random_state=0))
    counts = np.bincount(guided.message(drawn) @ [3, 1], minlength=9)
    assert counts.min() > 400 / 9 - 5 * (400 / 9) ** 0.5  # all cells are filled, to five standard deviations


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trained_model_is_a_manifold(dtype):
    model = GridVAE(PRIOR, dtype=dtype, **{**TINY, "max_steps": 100}).fit(X, attributes=SYMBOLS)
    assert isinstance(model, Manifold)
    off = X[:20] + 0.3 * np.random.default_rng(1).normal(size=(20, 5))
    points, basis = model.project_with_tangents(off)
    assert basis.shape == (20, 5, 2)
    np.testing.assert_allclose(np.swapaxes(basis, 1, 2) @ basis, np.broadcast_to(np.eye(2), (20, 2, 2)), atol=1e-5)
    normal = np.linalg.norm(np.einsum("bdk,bd->bk", basis, off - points), axis=1) / np.linalg.norm(off - points, axis=1)
    assert np.median(normal) < 1e-2  # ReLU decoders have edges, where the nearest point has no normal
    first = model.inverse_transform(model.transform(off))
    assert (np.linalg.norm(off - points, axis=1) <= np.linalg.norm(off - first, axis=1) + 1e-5).all()
    np.testing.assert_allclose(model.distance(off), np.linalg.norm(off - points, axis=1), atol=1e-5)
    assert np.median(model.distance(points)) < 1e-4  # what is on it stays, but for folds of the decoder
    np.testing.assert_array_equal(model.project(torch.from_numpy(off)).numpy(), points)
    np.testing.assert_array_equal(model.tangent_basis(off), basis)


def test_attacks_walk_on_it(guided):
    """A network that reads the first symbol is broken by the next symbol, and the walk ends on the manifold."""
    classifier = nn.Linear(5, 2).double()
    direction = np.linalg.lstsq(np.c_[X, np.ones(len(X))], SYMBOLS[:, 0] - 0.9, rcond=None)[0]
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(np.stack([0 * direction[:-1], direction[:-1]])))
        classifier.bias.copy_(torch.tensor([0.0, direction[-1]]))
    x = torch.from_numpy(guided.project(X[SYMBOLS[:, 0] == 0][:20]))
    attack = OnManifoldPGD(classifier, guided, alpha=0.1, steps=40, bounds=None)
    result = attack.run(x, torch.zeros(20, dtype=torch.int64))
    assert result.success.all()
    assert result.distance_to_manifold.max() < 1e-3
    report = symbol_changes(result, guided, x, names=("first", "second"))
    assert report.changed[:, 0].mean() > 0.5
    assert report.rates()["first"] > 2 * report.rates()["second"]


def test_variances_are_clamped():
    class Extreme(nn.Module):
        def forward(self, x):
            return torch.cat([x[:, :2], x[:, :1] * 0 - 1e9, x[:, :1] * 0 + 1e9], dim=1)

    assert GaussianEncoder(Extreme(), 2).gaussian(torch.zeros(1, 3))[1].tolist() == [[-12.0, 4.0]]


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"prior": "grid"}, TypeError, "prior must be a GridPrior"),
            ({"encoder": "mlp"}, TypeError, "encoder must be a torch"),
            ({"decoder": "tied"}, TypeError, "decoder must be a torch"),
            ({"encoder": MLP([5, 6])}, ValueError, "n_dims=2"),
            ({"decoder": MLP([2, 6])}, ValueError, r"samples of shape \(5,\)"),
            ({"encoder": nn.Linear(6, 4)}, ValueError, "encoder and decoder must take samples"),
            ({"decoder": nn.Linear(3, 5)}, ValueError, "encoder and decoder must take samples"),
            ({"kl": "mean"}, ValueError, "kl must be one of"),
            ({"dtype": "float16"}, ValueError, "dtype"),
            ({"beta": -1.0}, ValueError, "beta"),
            ({"beta": "high"}, TypeError, "beta"),
            ({"obs_sigma": 0.0}, ValueError, "obs_sigma"),
            ({"learning_rate": NAN}, ValueError, "learning_rate"),
            ({"batch_size": 0}, ValueError, "batch_size"),
            ({"max_steps": 1.5}, TypeError, "max_steps"),
            ({"n_init": 0}, ValueError, "n_init"),
            ({"init_steps": 0}, ValueError, "init_steps"),
            ({"init_steps": 2.5}, TypeError, "init_steps"),
            ({"kl": "aggregate", "batch_size": 1}, ValueError, "a batch of one"),
            ({"hidden": 32}, TypeError, "sequence of widths"),
            ({"hidden": (32, 0)}, ValueError, "hidden"),
            ({"beta": lambda progress: None}, TypeError, r"beta\(progress\) must be a real number"),
            ({"beta": lambda progress: -1.0}, ValueError, r"beta\(progress\)"),
            (
                {"encoder": MLP([5, 4]).requires_grad_(False), "decoder": MLP([2, 5]).requires_grad_(False)},
                ValueError,
                "unfreeze",
            ),
        ],
    )
    def test_of_parameters(self, change, error, match):
        with pytest.raises(error, match=match):
            GridVAE(**{"prior": PRIOR, "hidden": (4,), "max_steps": 2, **change}).fit(X)

    @pytest.mark.parametrize(
        ("attributes", "match"),
        [
            (SYMBOLS[:-1], r"attributes must have shape \(500, 2\)"),
            (SYMBOLS[:, :1], r"attributes must have shape \(500, 2\)"),
            (SYMBOLS + 0.5, "must be levels of their axes or NaN"),
            (np.full((500, 2), np.inf), "infinity"),
            (SYMBOLS + 1, r"axis \d has the levels \[0.0, 1.0, 2.0\]"),
        ],
    )
    def test_of_attributes(self, attributes, match):
        with pytest.raises(ValueError, match=match):
            GridVAE(PRIOR, hidden=(4,), max_steps=2).fit(X, attributes=attributes)

    def test_attributes_in_the_place_of_targets(self):
        with pytest.raises(TypeError, match="attributes must hold levels"):
            GridVAE(PRIOR, hidden=(4,), max_steps=2).fit(X, attributes=[["red", "round"]] * 500)
        with pytest.raises(ValueError, match="attributes by name"):
            GridVAE(PRIOR, hidden=(4,), max_steps=2).fit(X, SYMBOLS)

    def test_of_samples(self, guided):
        with pytest.raises(ValueError, match="NaN"):
            GridVAE(PRIOR).fit(np.full((10, 5), NAN))
        with pytest.raises(ValueError, match="infinity"):
            GridVAE(PRIOR).fit(np.full((10, 5), np.inf))
        for method in (guided.message, guided.transform, guided.project):
            with pytest.raises(ValueError, match="5"):
                method(np.zeros((3, 4)))
        with pytest.raises(ValueError, match="NaN"):
            guided.message(torch.full((3, 5), NAN))

    def test_of_traversals_and_draws(self, guided):
        codes = np.zeros((3, 2))
        with pytest.raises(ValueError, match="dim must be below 2"):
            guided.traverse(codes, 2, [0.0])
        with pytest.raises(TypeError, match="dim"):
            guided.traverse(codes, 0.0, [0.0])
        with pytest.raises(ValueError, match="values must be a sequence"):
            guided.traverse(codes, 0, [])
        with pytest.raises(ValueError, match="Z must have shape"):
            guided.traverse(np.zeros((3, 3)), 0, [0.0])
        with pytest.raises(ValueError, match="n must be at least 1"):
            guided.sample(0)

    def test_a_loss_that_becomes_nan_names_the_remedy(self):
        with pytest.raises(ValueError, match="learning rate"):
            GridVAE(PRIOR, hidden=(8,), learning_rate=1e30, max_steps=20).fit(X)

    def test_a_refused_fit_leaves_the_model_as_it_was(self, guided):
        model = copy.deepcopy(guided)
        before = model.transform(X)
        with pytest.raises(ValueError, match="levels"):
            model.fit(X, attributes=SYMBOLS + 9)
        np.testing.assert_array_equal(model.transform(X), before)

    def test_not_fitted(self):
        for call in (
            lambda model: model.message(X),
            lambda model: model.transform(X),
            lambda model: model.sample(3),
            lambda model: model.traverse(np.zeros((1, 2)), 0, [0.0]),
            lambda model: model.manifold,
            lambda model: model.n_iter_,
        ):
            with pytest.raises(NotFittedError, match="not fitted"):
                call(GridVAE(PRIOR))
