"""Laws of on-manifold PGD on manifolds that are known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import OnManifoldPGD, RandomTangentWalk
from manifoldkit.attacks.manifold_constraint import ManifoldConstraint, ManifoldOptions
from manifoldkit.datasets import make_circle
from manifoldkit.geometry import DecoderManifold
from manifoldkit.geometry.exact import Circle, FlatTorus, Plane, Sphere
from manifoldkit.geometry.tangents import TANGENT_METHODS

MANIFOLDS = [Circle(2.0, center=[0.3, -0.2]), Sphere(2), Sphere(5, 1.5), FlatTorus((1.0, 2.0))]


def noisy_points(manifold, n: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, manifold.ambient_dimension, generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return manifold.project(x) + 0.05 * noise


class Atlas:
    """Two circles; counts the labels it is asked for."""

    def __init__(self) -> None:
        self.members = [Circle(1.0), Circle(2.0, center=[0.5, 0.0])]
        self.asked: list[int] = []

    def at(self, labels):
        self.asked.append(len(labels))
        atlas = self

        class Here:
            def project(self, x):
                both = torch.stack([m.project(x) for m in atlas.members])
                return both[labels, torch.arange(len(x))]

            def tangent_basis(self, x):
                both = torch.stack([m.tangent_basis(x) for m in atlas.members])
                return both[labels, torch.arange(len(x))]

        return Here()


class OnCircle(torch.nn.Module):
    """Decoder of angles."""

    def forward(self, z):
        return torch.cat([z.cos(), z.sin()], dim=1)


class Angle(torch.nn.Module):
    """Encoder of points of the plane."""

    def forward(self, x):
        return torch.atan2(x[:, 1:], x[:, :1])


def learned_circle(tangents: str) -> DiffusionManifold | DecoderManifold:
    if tangents == "decoder":
        return DecoderManifold(Angle(), OnCircle())
    ring = make_circle(300, grid=True).points
    return DiffusionManifold(n_components=21, dimension=1, tangent_method=tangents).fit(ring)


@pytest.mark.parametrize("tangents", [*TANGENT_METHODS, "decoder"])
@pytest.mark.parametrize("tangent", ["fixed", "refresh"])
def test_learned_tangents_of_every_kind_walk_as_the_exact_ones(half_space, tangents, tangent):
    model, x = half_space([0.2, 1.0]), noisy_points(Circle(), n=24)
    y = model(Circle().project(x)).argmax(1)
    options = {"alpha": 0.05, "steps": 150, "tangent": tangent, "bounds": None}
    exact = OnManifoldPGD(model, Circle(), **options).run(x, y)
    learned = OnManifoldPGD(model, learned_circle(tangents), **options).run(x, y)
    assert exact.success.all()
    assert learned.success.all()
    late = (learned.steps_taken - exact.steps_taken).abs()
    assert (late <= 1 + exact.steps_taken // 20).all()  # far from where a fixed tangent was taken, steps are short
    assert (learned.adversarial - exact.adversarial).norm(dim=1).max() < 0.06  # a step, at the most
    assert (learned.adversarial.norm(dim=1) - 1).abs().max() < 0.01


@pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)
@pytest.mark.parametrize("tangent", ["fixed", "refresh"])
@pytest.mark.parametrize("projection", ["full", "normal"])
def test_stays_on_the_manifold_and_stops_at_the_boundary(half_space, manifold, tangent, projection):
    normal = torch.zeros(manifold.ambient_dimension, dtype=torch.float64)
    normal[0], normal[1] = 1.0, 0.5
    model = half_space(normal)
    x = noisy_points(manifold)
    y = model(manifold.project(x)).argmax(1)
    attack = OnManifoldPGD(
        model, manifold, 0.05, 150, tangent=tangent, projection=projection, bounds=None, record_path=True
    )
    result = attack.run(x, y)
    assert result.success.all()
    assert result.distance_to_manifold.max() < 1e-6
    assert (result.path - torch.stack([manifold.project(p) for p in result.path])).abs().max() < 1e-6
    heights = result.adversarial @ normal / normal.norm()
    assert heights.abs().max() <= 0.05 + 1e-9  # the last step crossed the boundary
    rows = torch.arange(len(x))
    walked = result.steps_taken > 0
    assert (result.path_predictions[result.steps_taken[walked] - 1, rows[walked]] == y[walked]).all()
    assert (result.path_predictions[-1] != y).all()


@pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)
def test_normal_and_full_projection_agree_on_exact_manifolds(half_space, manifold):
    model = half_space(torch.arange(1.0, manifold.ambient_dimension + 1))
    x = noisy_points(manifold)
    y = model(x).argmax(1)
    full, normal = (
        OnManifoldPGD(model, manifold, steps=9, projection=p, bounds=None)(x, y) for p in ("full", "normal")
    )
    assert (full - manifold.project(x)).abs().max() > 0.05
    assert torch.allclose(full, normal, atol=1e-12)


def test_normal_projection_does_not_drift(half_space):
    """A projection that slides towards angle 0 beats small full steps, but neither large nor normal ones."""

    class Drifting(Circle):
        def project(self, x):
            p = super().project(x)
            angle = torch.atan2(p[:, 1], p[:, 0])
            angle = angle - 0.02 * angle.sign()
            return torch.stack([angle.cos(), angle.sin()], dim=1)

    model = half_space([1.0, 0.0])
    x = torch.tensor([[math.cos(0.5), math.sin(0.5)]], dtype=torch.float64)
    options = {"steps": 150, "tangent": "refresh", "bounds": None}
    full = OnManifoldPGD(model, Drifting(), 0.015, projection="full", **options).run(x, [0])
    normal = OnManifoldPGD(model, Drifting(), 0.015, projection="normal", **options).run(x, [0])
    assert full.status.tolist() != ["success"]
    assert normal.status.tolist() == ["success"]
    large = OnManifoldPGD(model, Drifting(), 0.1, projection="full", **options).run(x, [0])
    assert large.status.tolist() == ["success"]


def test_whole_space_is_plain_normalised_gradient_ascent(convnet, images):
    y = convnet(images).argmax(1)
    x, ever = images.clone(), torch.zeros(len(y), dtype=torch.bool)
    for _ in range(8):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(convnet(x), y, reduction="sum"), x)
        step = 0.05 * g / g.flatten(1).norm(dim=1)[:, None, None, None]
        x = torch.where(ever[:, None, None, None], x, x + step).detach()
        ever |= convnet(x).argmax(1) != y
    assert 0 < ever.sum() < len(y)
    space = Plane(torch.eye(36), origin=torch.arange(36.0))
    result = OnManifoldPGD(convnet, space, 0.05, 8, bounds=None).run(images, y)
    assert torch.equal(result.success, ever)
    assert torch.allclose(result.adversarial, x, atol=1e-10)


def test_raw_gradient_when_not_normalised(half_space):
    w = torch.tensor([0.5, 0.25], dtype=torch.float64)
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    plane = Plane([[1.0], [0.0]])
    attack = OnManifoldPGD(half_space(w), plane, 0.1, 1, normalize=False, loss="margin", bounds=None)
    assert torch.allclose(attack(x, [0]), torch.tensor([[3.0 - 0.1 * 2 * 0.5, 0.0]], dtype=torch.float64))


def test_gradient_beats_the_random_walk(half_space):
    sphere = Sphere(30)
    normal = torch.zeros(31, dtype=torch.float64)
    normal[0] = 1.0
    model = half_space(normal)
    x = sphere.project(noisy_points(sphere, 100) + 4 * normal)
    y = torch.zeros(100, dtype=torch.long)
    options = {"alpha": 0.1, "steps": 25, "bounds": None}
    generator = torch.Generator().manual_seed(0)
    walk = RandomTangentWalk(model, sphere, generator=generator, record_path=True, **options).run(x, y)
    assert OnManifoldPGD(model, sphere, **options).run(x, y).success.double().mean() > 0.95
    assert walk.success.double().mean() < 0.05
    assert (walk.adversarial.norm(dim=1) - 1).abs().max() < 1e-9
    steps = (walk.path[1] - walk.path[0]).norm(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 2 * math.sin(math.atan(0.1) / 2)))  # it does walk


def test_random_walk_needs_no_gradient_and_follows_its_generator():
    class Blind(torch.nn.Module):
        def forward(self, x):
            return torch.stack([2 * torch.ones(len(x)), torch.zeros(len(x))], dim=1).to(x)

    x = noisy_points(Circle(), 4)

    def run(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return RandomTangentWalk(Blind(), Circle(), steps=5, bounds=None, generator=generator)(x, [0] * 4)

    torch.manual_seed(1)
    first = run(7)
    torch.manual_seed(2)
    assert torch.equal(first, run(7))
    assert not torch.equal(first, run(8))


@pytest.mark.parametrize("projection", ["full", "normal"])
def test_carry_starts_at_the_image_and_keeps_its_residual(half_space, projection):
    circle = Circle()
    x = noisy_points(circle)
    model = half_space([1.0, 0.3])
    y = model(x).argmax(1)
    attack = OnManifoldPGD(
        model, circle, steps=60, residual="carry", tangent="refresh", projection=projection, bounds=None,
        record_path=True,
    )  # fmt: skip
    result = attack.run(x, y)
    assert torch.equal(result.path[0], x)
    assert result.success.all()
    walker = result.adversarial - (x - circle.project(x))
    assert (walker.norm(dim=1) - 1).abs().max() < 1e-9
    assert (result.adversarial.norm(dim=1) - 1).abs().max() > 1e-3  # the image itself is off the circle


@pytest.mark.parametrize("residual", ["drop", "carry"])
@pytest.mark.parametrize("tangent", ["fixed", "refresh"])
def test_equals_algorithm_1_written_out(residual, tangent):
    """A walk that never succeeds and runs into the bounds; the walker is the clipped image less the residual."""
    circle, w = Circle(0.6, center=[0.5, 0.5]), torch.tensor([-1.0, 0.4], dtype=torch.float64)
    x0 = torch.tensor([[0.9, 0.85]], dtype=torch.float64)
    r = x0 - circle.project(x0) if residual == "carry" else torch.zeros_like(x0)
    x = (circle.project(x0) + r).clamp(0, 1)
    basis, path, clipped = circle.tangent_basis(x0)[0], [x], 0
    for _ in range(9):
        if tangent == "refresh":
            basis = circle.tangent_basis(x - r)[0]
        g = basis @ basis.T @ w
        free = circle.project(x - r + 0.1 * g / g.norm()) + r
        x = free.clamp(0, 1)
        clipped += int((free != x).any())
        path.append(x)
    assert clipped > 0
    model = torch.nn.Linear(2, 2).double()
    model.weight.data.copy_(torch.stack([w, 0 * w]))
    model.bias.data.copy_(torch.tensor([0.0, 100.0]))
    options = {"residual": residual, "tangent": tangent, "record_path": True}
    result = OnManifoldPGD(model, circle, 0.1, 9, loss=lambda z, y: z[:, 0], **options).run(x0, [1])
    assert result.status.tolist() == ["max_steps"]
    assert torch.allclose(result.path, torch.stack(path), atol=1e-12)


def test_steps_zero_is_the_projection_alone(half_space):
    model = half_space([1.0, 0.0])
    x = torch.tensor([[0.4, 0.0], [0.6, 0.0]], dtype=torch.float64)
    line = Plane([[0.0], [1.0]], origin=[-1.0, 0.0])
    result = OnManifoldPGD(model, line, steps=0, bounds=None).run(x, [0, 0])
    assert result.success.tolist() == [True, True]
    assert result.steps_taken.tolist() == [0, 0]
    assert result.prediction_before.tolist() == [0, 0]
    assert torch.allclose(result.adversarial[:, 0], torch.full((2,), -1.0, dtype=torch.float64))
    near = Plane([[0.0], [1.0]], origin=[1.0, 0.0])
    assert OnManifoldPGD(model, near, steps=0, bounds=None).run(x, [0, 0]).status.tolist() == ["max_steps"] * 2


@settings(deadline=None, max_examples=30)
@given(angle=st.floats(0, 2 * math.pi), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_zero_tangent_gradient_stalls(angle, dtype):
    """The gradient of a linear model is normal where the circle touches its level sets."""
    w = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64).to(dtype)
    model = torch.nn.Linear(2, 2, bias=False).to(dtype)
    model.weight.data.copy_(torch.stack([w, -w]))
    result = OnManifoldPGD(model, Circle(), bounds=None).run(w[None], [0])
    assert result.status.tolist() == ["stalled"]
    assert result.steps_taken.tolist() == [0]
    assert torch.allclose(result.adversarial, w[None], atol=1e-6)


@pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)
def test_budget_is_kept_on_the_manifold(half_space, manifold):
    model = half_space(torch.ones(manifold.ambient_dimension))
    x = noisy_points(manifold)
    y = model(manifold.project(x)).argmax(1)
    eps = torch.linspace(0.1, 0.5, len(x))
    result = OnManifoldPGD(model, manifold, steps=30, eps=eps, bounds=None, tangent="refresh").run(x, y)
    distance = (result.adversarial - manifold.project(x)).norm(dim=1)
    assert (distance <= eps + 1e-6).all()
    assert result.distance_to_manifold.max() < 1e-6
    free = OnManifoldPGD(model, manifold, steps=30, bounds=None, tangent="refresh").run(x, y)
    assert ((free.adversarial - manifold.project(x)).norm(dim=1) > eps + 0.01).any()  # it binds


def test_atlas_sends_each_sample_to_its_member(half_space):
    atlas = Atlas()
    model = half_space([1.0, 0.0])
    start = torch.tensor([0.5, 2.5, 1.0, 2.9], dtype=torch.float64)
    x = torch.stack([start.cos(), start.sin()], dim=1)
    y = torch.tensor([0, 1, 0, 1])
    result = OnManifoldPGD(model, atlas, 0.1, 60, tangent="refresh", bounds=None).run(x, y)
    assert result.success.all()
    for member, rows in ((0, [0, 2]), (1, [1, 3])):
        on = result.adversarial[rows]
        assert torch.allclose(atlas.members[member].project(on), on, atol=1e-9)
        assert (atlas.members[1 - member].project(on) - on).norm(dim=1).min() > 0.1
    assert result.distance_to_manifold.max() < 1e-9
    assert {1, 2, 3, 4} & set(atlas.asked) == set(atlas.asked)
    assert min(atlas.asked) < 4  # members are asked for the samples still active only


def test_targeted_attack_on_an_atlas_needs_the_classes_of_the_samples(half_space):
    x = torch.tensor([[0.9, 0.4]], dtype=torch.float64)
    attack = OnManifoldPGD(half_space([1.0, 0.0]), Atlas(), targeted=True, bounds=None, tangent="refresh")
    with pytest.raises(ValueError, match="manifold_labels"):
        attack.run(x, [1])
    result = attack.run(x, [1], manifold_labels=[0])
    assert result.success.all()
    assert abs(result.adversarial.norm() - 1) < 1e-9  # on circle 0, though the label is 1


def test_images_of_any_shape():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).double()
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plane = Plane(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)), origin=torch.full((16,), 0.5))
    result = OnManifoldPGD(model, plane, 0.01, 5, bounds=None).run(x, model(x).argmax(1))
    assert result.adversarial.shape == x.shape
    assert result.distance_to_manifold.max() < 1e-9


def test_constraint_direction_is_tangent():
    sphere = Sphere(3)
    x = noisy_points(sphere, 6)
    constraint = ManifoldConstraint(x, sphere, None, ManifoldOptions(), None)
    start = constraint.start()
    direction = constraint.direction(start, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double())
    assert (direction * start).sum(dim=1).abs().max() < 1e-12
    assert torch.allclose(direction.norm(dim=1), torch.ones(6, dtype=torch.float64))
