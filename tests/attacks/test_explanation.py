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
    """A label at random, and one that jumps half way: spread is large everywhere, and at the jump."""
    rng = np.random.default_rng(0)
    labels = {"smooth": RING[:, 0], "noise": rng.standard_normal(180), "jump": (T > 80).astype(float),
              "angle": T, "lost": 360 * rng.random(180)}  # fmt: skip
    found = explain(walk, labels, manifold, periods={"angle": 360, "lost": 360})
    assert found["smooth"].spread.max() < 0.2
    assert 0.5 < np.median(found["noise"].spread) < 1.5
    assert found["angle"].spread.max() < 15
    assert np.median(found["lost"].spread) > 60
    angle = found["angle"].values
    at_jump, far = np.abs(angle - 80) < 3, np.abs(angle - 80) > 30
    assert far.any()
    if at_jump.any():
        assert found["jump"].spread[at_jump].min() > found["jump"].spread[far].max()


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


def test_manifold_that_extends_nothing(walk):
    with pytest.raises(TypeError, match="extend"):
        explain(walk, {"a": T}, object())
