"""Findings of the source on two-digit MNIST and on drawn faces, as laws over fresh seeds. All tests are slow."""

from __future__ import annotations

import numpy as np
import pytest

from manifoldkit.datasets import FACE_ATTRIBUTES, draw_faces, face_is_possible, load_digit_pairs, make_faces
from manifoldkit.priors import GridPrior, GridVAE, axis_accuracy

LEVELS = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
STYLE = 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 15))
def test_guided_axes_name_the_digits(seed):
    X, labels = load_digit_pairs("train", 30_000, pool=2, random_state=seed)
    model = GridVAE(
        GridPrior(2, LEVELS, 1 / 3), kl="nearest", obs_sigma=1.0, max_steps=2500, learning_rate=2e-3, random_state=seed
    )
    model.fit(X, attributes=labels - 2.0)
    test, truth = load_digit_pairs("test", 4000, pool=2, random_state=seed)
    found = axis_accuracy(model.message(test), truth)
    assert found.axes.tolist() == [0, 1]
    assert found.mean >= 0.93


@pytest.mark.slow
def test_guidance_on_one_axis_leaves_the_other_to_chance():
    X, labels = load_digit_pairs("train", 20_000, pool=4, random_state=0)
    known = np.column_stack([labels[:, 0] - 2.0, np.full(len(X), np.nan)])
    model = GridVAE(
        GridPrior(2, LEVELS, 1 / 3), kl="nearest", hidden=(128, 128), obs_sigma=0.3, max_steps=1500, learning_rate=3e-3
    )
    test, truth = load_digit_pairs("test", 4000, pool=4, random_state=0)
    matrix = axis_accuracy(model.fit(X, attributes=known).message(test), truth).matrix
    assert matrix[0, 0] >= 0.8
    assert matrix[0, 0] > matrix[1, 1] + 0.2


@pytest.fixture(scope="module", params=[(), ("male", "smiling")], ids=["all attributes", "two hidden"])
def faces(request):
    """A model of drawn faces, and the names of the attributes that it was not told."""
    train = make_faces(10_000, size=20, random_state=0)
    a = len(FACE_ATTRIBUTES)
    attributes = np.full((len(train.images), a + STYLE), np.nan)
    attributes[:, :a] = train.attributes
    attributes[:, [FACE_ATTRIBUTES.index(name) for name in request.param]] = np.nan
    prior = GridPrior(a + STYLE, [[0.0, 1.0]] * a + [[0.0]] * STYLE, [0.25] * a + [1.0] * STYLE)
    model = GridVAE(prior, kl="nearest", hidden=(128, 128), obs_sigma=0.7, max_steps=1200, learning_rate=2e-3)
    return model.fit(train.images, attributes=attributes), request.param


@pytest.mark.slow
def test_symbols_edit_what_they_were_told_and_nothing_else(faces):
    """Cosine of the change of the decoded face with the change of the drawn one, for possible faces."""
    model, hidden = faces
    flags = make_faces(500, size=20, random_state=1).attributes
    variation = np.random.default_rng(2).random((500, 5))
    plain = draw_faces(flags, variation, size=20)
    codes = model.transform(plain).astype(float)
    told = []
    for axis, name in enumerate(FACE_ATTRIBUTES):
        flipped = flags.copy()
        flipped[:, axis] ^= 1
        possible = face_is_possible(flipped)
        moved = codes[possible].copy()
        moved[:, axis] += (flipped - flags)[possible, axis]
        change = (model.inverse_transform(moved) - model.inverse_transform(codes[possible])).reshape(len(moved), -1)
        true = (draw_faces(flipped, variation, size=20) - plain)[possible].reshape(len(moved), -1)
        cosine = (change * true).sum(1) / np.sqrt((change**2).sum(1) * (true**2).sum(1))
        if name in hidden:
            assert abs(cosine.mean()) < 0.15
        else:
            told.append(cosine.mean())
    assert min(told) > 0.15  # lipstick, a few pixels
    assert np.mean(told) > 0.5


@pytest.mark.slow
def test_combinations_that_never_occur_are_decoded_worse(faces):
    model, _ = faces
    a = len(FACE_ATTRIBUTES)
    cells = np.array(np.meshgrid(*[[0, 1]] * a, indexing="ij")).reshape(a, -1).T
    codes = np.concatenate([cells, np.zeros((len(cells), STYLE))], axis=1)
    error = ((model.inverse_transform(codes) - draw_faces(cells, size=20)) ** 2).mean(axis=(1, 2, 3))
    possible = face_is_possible(cells)
    assert error[~possible].mean() > 1.2 * error[possible].mean()
