"""Labels read off the manifold along a walk, against labels that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import FGSM, OnManifoldPGD, explain

T = np.arange(0, 360, 2.0)
RING = np.column_stack([np.cos(np.radians(T)), np.sin(np.radians(T))])


@pytest.fixture(scope="module")
def manifold():
    return DiffusionManifold(n_components=25).fit(RING)


@pytest.fixture
def walk(half_space, manifold):
    attack = OnManifoldPGD(half_space([0.2, 1.0]), manifold, 0.05, 80, bounds=None, record_path=True)
    return attack.run(torch.tensor(RING[[20, 60]]), [0, 0])  # at 40 and 120 degrees


def test_labels_along_the_walk(walk, manifold):
    quadrant = np.array(["I", "II", "III", "IV"])[(T // 90).astype(int)]
    found = explain(
        walk, {"angle": T, "height": RING[:, 1], "quadrant": quadrant}, manifold, periods={"angle": 360},
        classes=("quadrant",),
    )  # fmt: skip
    path = walk.path.numpy()
    angle = np.degrees(np.arctan2(path[..., 1], path[..., 0]))
    assert found["angle"].values.shape == path.shape[:2]
    assert np.abs(found["angle"].values - angle).max() < 1
    assert np.abs(found["height"].values - path[..., 1] / np.linalg.norm(path, axis=2)).max() < 0.02
    inside = np.abs(((angle % 90) + 45) % 90 - 45) > 8
    assert (found["quadrant"].values[inside] == quadrant[(angle[inside] % 360 // 2).astype(int)]).all()
    assert found["quadrant"].kind == "class"
    ends = found.path("angle", "height", 0)
    assert len(ends) == int(walk.steps_taken[0]) + 1
    assert "angle: 40" in found.summary(0)


def test_spread_tells_where_neighbours_disagree(walk, manifold):
    """A label at random has its own spread; one that jumps half way has spread at the jump, and none away from it."""
    rng = np.random.default_rng(0)
    labels = {"smooth": RING[:, 0], "noise": rng.standard_normal(180), "angle": T, "lost": 360 * rng.random(180)}
    for at in (20, 140):
        beyond = (at < T) & (at + 180 > T)  # the walks do not come near the other end
        labels[f"jump {at}"] = beyond.astype(float)
        labels[f"side {at}"] = np.where(beyond, "beyond", "before")
    found = explain(
        walk, labels, manifold, periods={"angle": 360, "lost": 360}, classes=("side 20", "side 140")
    )  # fmt: skip
    assert found["smooth"].spread.max() < 0.2
    assert 0.5 < np.median(found["noise"].spread) < 1.5
    assert found["angle"].spread.max() < 15
    assert np.median(found["lost"].spread) > 60
    angle = found["angle"].values
    for at in (20, 140):
        at_jump, far = np.abs(angle - at) < 3, np.abs(angle - at) > 30
        assert at_jump.sum() >= 2
        assert far.sum() >= 15
        jump, side = found[f"jump {at}"].spread, found[f"side {at}"].spread
        assert jump[at_jump].min() > 0.4  # half of the neighbours have 0, half have 1
        assert side[at_jump].min() > 0.3
        assert jump[far].max() < 0.1
        assert side[far].max() < 0.01


def test_spread_is_that_of_the_weights():
    """Weights are not negative and add up to 1; the spread is the standard deviation that they give."""
    t = np.linspace(-1, 1, 41)
    line = np.column_stack([t, 0 * t])
    manifold = DiffusionManifold(n_components=9, n_neighbors=6).fit(line)
    x = torch.tensor([[0.3, 0.0], [-0.52, 0.0]])
    weights = manifold.local_average(np.eye(41), x.double()).numpy()
    assert weights.min() >= 0
    assert np.allclose(weights.sum(axis=1), 1)
    label = np.random.default_rng(1).standard_normal(41)
    result = FGSM(torch.nn.Linear(2, 2), 1e-3, bounds=None).run(x, [0, 0])
    found = explain(result, {"a": label}, manifold, images=x)["a"].spread[0]
    mean = weights @ label
    assert np.allclose(found, np.sqrt((weights * (label - mean[:, None]) ** 2).sum(axis=1)), atol=1e-6)


def test_ends_without_a_path(half_space, manifold):
    x = torch.tensor(RING[[20, 60]])
    result = FGSM(half_space([0.2, 1.0]), 0.3, bounds=None).run(x, [0, 0])
    found = explain(result, {"angle": T}, manifold, images=x, periods={"angle": 360})
    assert found["angle"].values.shape == (2, 2)
    assert np.abs(found["angle"].values[0] - [40, 120]).max() < 1
    assert found.path("angle", "angle", 1).shape == (2, 2)
    with pytest.raises(ValueError, match="record_path=True"):
        explain(result, {"angle": T}, manifold)
    with pytest.raises(ValueError, match="images must have shape"):
        explain(result, {"angle": T}, manifold, images=x[:1])


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        ({}, {}, ValueError, "one entry at the least"),
        ({"a": T[:9]}, {}, ValueError, "180 training samples"),
        ({"a": T, "b": T[:9]}, {}, ValueError, "labels must have one length"),
        ({"a": T[:, None]}, {}, ValueError, r"must have shape \(n,\)"),
        ({"a": T}, {"periods": {"b": 360}}, ValueError, "not among the labels"),
        ({"a": T}, {"periods": {"a": -1}}, ValueError, "must be positive"),
        ({"a": T}, {"periods": {"a": 1}, "classes": ("a",)}, ValueError, "both an angle and a class"),
        ({"a": np.full(180, np.nan)}, {}, ValueError, "NaN"),
    ],
)
def test_bad_input(walk, manifold, labels, options, error, message):
    with pytest.raises(error, match=message):
        explain(walk, labels, manifold, **options)


def test_what_is_no_result(manifold):
    with pytest.raises(TypeError, match="result must be an AttackResult"):
        explain(torch.tensor(RING), {"a": T}, manifold)


def test_manifold_that_extends_nothing(walk):
    with pytest.raises(TypeError, match="extend and local_average"):
        explain(walk, {"a": T}, object())
