"""Laws of subspace attacks, of attacks through a projection or a decoder, and of TNAR directions."""

from __future__ import annotations

import math

import pytest
import torch

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import (
    PGD,
    LatentPGD,
    OnManifoldPGD,
    ProjectionAttack,
    SubspacePGD,
    tangent_normal_split,
    tnar_normal,
    tnar_tangent,
)  # fmt: skip
from manifoldkit.datasets import make_circle
from manifoldkit.geometry.exact import Circle, Plane, Sphere


def random_net(size: int, classes: int, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(size, 16), torch.nn.Tanh(), torch.nn.Linear(16, classes)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return net


def points(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("norm", [2, "inf"])
@pytest.mark.parametrize("component", ["normal", "tangent"])
@pytest.mark.parametrize("random_start", [False, True])
def test_change_stays_in_the_subspace_and_the_ball(norm, component, random_start):
    net, plane = random_net(6, 3), Plane(points(6, 2, 5), points(1, 6)[0])
    x = points(40, 6)
    y = net(x).argmax(1)
    attack = SubspacePGD(
        net, plane, 0.7, component, norm=norm, retract=False, bounds=None, steps=15, random_start=random_start,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    result = attack.run(x, y)
    change = result.adversarial - x
    size = change.norm(dim=1) if norm == 2 else change.abs().amax(1)
    assert size.max() <= 0.7 + 1e-9
    changed = size > 0
    assert changed.any()
    share = result.tangent_share[changed]
    assert torch.allclose(share, torch.full_like(share, component == "tangent"), atol=1e-9)
    assert 0 < result.success.double().mean() < 1


def test_ambient_is_pgd_and_normal_and_tangent_are_weaker():
    net, sphere = random_net(8, 4), Sphere(7)
    x = sphere.project(points(200, 8))
    y = net(x).argmax(1)
    rates = {c: SubspacePGD(net, sphere, 0.3, c, bounds=None).run(x, y) for c in ("ambient", "normal", "tangent")}
    assert torch.equal(rates["ambient"].adversarial, PGD(net, 0.3, norm=2, bounds=None)(x, y))
    broken = {c: int(r.success.sum()) for c, r in rates.items()}
    assert broken["normal"] < broken["tangent"] <= broken["ambient"]  # one normal direction, seven tangent ones
    assert rates["tangent"].distance_to_manifold.max() < 1e-8
    assert rates["tangent"].l2.max() <= 0.3 + 1e-6


def test_normal_search_on_the_circle_is_exhaustive():
    """The normal space has one dimension: PGD with restarts finds what a scan of the segment finds."""
    net, circle = random_net(2, 2, 10), Circle()
    x = circle.project(points(150, 2, 1))
    y = net(x).argmax(1)
    t = torch.linspace(-0.4, 0.4, 401, dtype=torch.float64)
    scan = net((x[:, None] * (1 + t)[None, :, None]).reshape(-1, 2)).argmax(1).reshape(150, -1) != y[:, None]
    attack = SubspacePGD(
        net, circle, 0.4, "normal", bounds=None, random_start=True, restarts=6,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    found = attack.run(x, y).success
    assert 0.03 < scan.any(1).double().mean() < 0.97
    assert (found == scan.any(1)).double().mean() >= 0.99


def test_flat_gradients_take_a_random_direction():
    class Step(torch.nn.Module):
        """Changes beyond 0.05 in the third entry, and has a gradient in the first alone."""

        def forward(self, x):
            z = (x[:, 2] > 0.05).to(x) + 0.1 * x[:, 0]
            return torch.stack([1 - z, z - 0.5], dim=1)

    x = torch.zeros(20, 3, dtype=torch.float64)
    plane = Plane(torch.eye(3)[:, :1])
    attack = SubspacePGD(Step(), plane, 0.5, "normal", bounds=None, generator=torch.Generator().manual_seed(0))
    assert attack.run(x, [0] * 20).success.double().mean() > 0.5


def test_a_random_direction_into_the_bounds_is_no_stall():
    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.stack([2 - 0 * x[:, 0], x[:, 0]], dim=1)

    x = torch.zeros(50, 2, dtype=torch.float64)  # at the lower bound: every other direction leads nowhere
    attack = SubspacePGD(Flat(), Plane([[1.0], [0.0]]), 0.5, "normal", steps=30)
    result = attack.replaced(generator=torch.Generator().manual_seed(0)).run(x, [0] * 50)
    assert set(result.status) == {"max_steps"}
    assert (result.adversarial[:, 1] > 0).double().mean() > 0.5


@pytest.mark.parametrize("norm", [2, "inf"])
@pytest.mark.parametrize("component", ["normal", "tangent"])
def test_corners_of_the_box_are_left(half_space, norm, component):
    """A walk that the bounds hold fast stalls and costs one step, not all of them."""
    net = half_space([0.5, 1.0, 0.25])
    plane = Plane(torch.eye(3)[:, :2] if component == "tangent" else torch.eye(3)[:, 2:])
    corner = torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.9, 0.5]], dtype=torch.float64)
    attack = SubspacePGD(net, plane, 0.5, component, norm=norm, retract=False, steps=30)
    result = attack.run(corner, [0, 0])
    assert result.status.tolist() == ["stalled", "stalled"]  # in a corner of the box, and of the ball
    assert torch.equal(result.adversarial[0], corner[0])
    size = result.l2 if norm == 2 else result.linf
    assert size[1].item() == pytest.approx(0.5)
    assert sum(net.sizes) <= 2 + 8


def test_empty_normal_space_has_nothing_to_attack():
    net = random_net(3, 2)
    x = points(10, 3)
    result = SubspacePGD(net, Plane(torch.eye(3)), 1.0, "normal", bounds=None).run(x, net(x).argmax(1))
    assert torch.equal(result.adversarial, x)
    assert set(result.status) == {"stalled"}


def test_split_adds_up_and_refuses_what_is_not_a_basis():
    v, basis = points(5, 6), Sphere(5).tangent_basis(points(5, 6, 1))
    tangent, normal = tangent_normal_split(v, basis)
    assert torch.allclose(tangent + normal, v)
    assert torch.einsum("bi,bik->bk", normal, basis).abs().max() < 1e-12
    padded = torch.nn.functional.pad(basis, (0, 2))
    assert torch.allclose(tangent_normal_split(v, padded)[0], tangent)
    with pytest.raises(ValueError, match="orthonormal"):
        tangent_normal_split(v, 1.1 * basis)
    with pytest.raises(ValueError, match=r"shape \(5, 6, d\)"):
        tangent_normal_split(v, basis[:, :5])


def test_projection_attack_equals_pgd_on_the_composition():
    net, circle = random_net(2, 2, 10), Circle()
    x = points(60, 2, 1)
    y = net(circle.project(x)).argmax(1)

    class Behind(torch.nn.Module):
        def forward(self, u):
            return net(circle.project(u))

    ours = ProjectionAttack(net, circle, 0.5, bounds=None, norm=2, steps=20).run(x, y)
    plain = PGD(Behind(), 0.5, bounds=None, norm=2, steps=20).run(x, y)
    assert 0 < ours.success.double().mean() < 1
    assert torch.equal(ours.success, plain.success)
    assert torch.allclose(ours.adversarial, circle.project(plain.adversarial), atol=1e-12)
    assert ours.distance_to_manifold.max() < 1e-12
    assert torch.equal(ours.prediction_before, net(x).argmax(1))


def test_projection_attack_through_the_nystrom_layer_and_an_atlas():
    ring = make_circle(200, grid=True).points
    manifold = DiffusionManifold(n_components=15).fit(ring)
    net = random_net(2, 2, 10)
    x = torch.tensor(ring[::5]) * 1.05
    y = net(manifold.project(x)).argmax(1)
    result = ProjectionAttack(net, manifold, 0.4, bounds=None, norm=2, steps=20, record_path=True).run(x, y)
    assert 0 < result.success.double().mean() < 1
    assert (result.adversarial.norm(dim=1) - 1).abs().max() < 0.02
    assert torch.allclose(result.path[0], manifold.to_module()(x))

    two = torch.cat([torch.tensor(ring), 3 * torch.tensor(ring)])
    labels = torch.arange(2).repeat_interleave(200)
    atlas = ManifoldAtlas(DiffusionManifold(n_components=15)).fit(two, labels)
    far = torch.nn.Linear(2, 2).double()
    start, members = two[::40] * 1.02, labels[::40]
    radii = ProjectionAttack(far, atlas, 0.2, bounds=None, norm=2, steps=3)(start, members).norm(dim=1)
    assert (radii - torch.where(members == 0, 1.0, 3.0)).abs().max() < 0.1


def test_projection_attack_follows_a_manifold_that_is_fitted_again():
    ring = make_circle(150, grid=True).points
    manifold = DiffusionManifold(n_components=15).fit(ring)
    attack = ProjectionAttack(random_net(2, 2, 3), manifold, 0.2, bounds=None, early_stop=False, steps=2)
    x = torch.from_numpy(ring[::30])
    first = attack(x, [0] * 5)
    manifold.fit(2 * ring)
    assert (first.norm(dim=1) - 1).abs().max() < 0.01
    assert (attack(2 * x, [0] * 5).norm(dim=1) - 2).abs().max() < 0.01


def test_projection_that_cannot_be_differentiated():
    class Detached(Circle):
        def project(self, x):
            return super().project(x).detach()

    with pytest.raises(TypeError, match="not differentiable"):
        ProjectionAttack(random_net(2, 2), Detached(), 0.1, bounds=None)(points(3, 2), [0, 0, 0])
    with pytest.raises(TypeError, match="got None"):
        ProjectionAttack(random_net(2, 2), None, 0.1)


class Linear(torch.nn.Module):
    """Codes (B, 2) to images (B, 6) and back."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(matrix)

    def forward(self, x):
        return x @ self.matrix


def test_latent_attack_stays_in_box_and_ball_of_codes():
    q = torch.linalg.qr(points(6, 2))[0]
    decoder, encoder, net = Linear(q.T), Linear(q), random_net(6, 3)
    x = points(50, 6, 1)
    codes = encoder(x).detach().clamp(-1, 1)
    y = net(decoder(codes)).argmax(1)
    for norm in ("inf", 2):
        result = LatentPGD(net, decoder, encoder, 0.6, box=(-1, 1), bounds=None, norm=norm, steps=20).run(x, y)
        found = encoder(result.adversarial).detach()
        change = found - codes
        assert (change.norm(dim=1) if norm == 2 else change.abs().amax(1)).max() <= 0.6 + 1e-9
        assert found.abs().max() <= 1 + 1e-9
        assert torch.allclose(decoder(found), result.adversarial)
        assert 0 < result.success.double().mean() < 1
        assert torch.equal(result.success, net(result.adversarial).argmax(1) != y)
    plain = PGD(torch.nn.Sequential(decoder, net), 0.6, bounds=(-1, 1), steps=20).run(codes, y)
    ours = LatentPGD(net, decoder, encoder, 0.6, box=(-1, 1), bounds=None, steps=20).run(x, y)
    assert torch.allclose(decoder(plain.adversarial), ours.adversarial)
    assert decoder.matrix.requires_grad
    assert decoder.matrix.grad is None


def test_latent_walks_begin_at_the_codes_of_the_start():
    q = torch.linalg.qr(points(6, 2))[0]
    decoder, encoder, net = Linear(q.T), Linear(q), random_net(6, 3)
    x = points(50, 6, 1)
    rebuilt, begin = decoder(encoder(x)).detach(), decoder(encoder(0.9 * x)).detach()
    y = net(x).argmax(1)
    outset = net(rebuilt).argmax(1) != y  # broken by the reconstruction alone
    assert 0 < outset.sum() < 50
    attack = LatentPGD(net, decoder, encoder, 0.6, bounds=None, steps=1, record_path=True)
    first = attack.run(x, y, start=0.9 * x)
    assert torch.allclose(first.path[0][~outset], begin[~outset])
    assert torch.allclose(first.path[:, outset], rebuilt[outset])
    assert (first.steps_taken[outset] == 0).all()
    assert first.success[outset].all()
    every = attack.replaced(early_stop=False).run(x, y, start=0.9 * x)
    assert torch.allclose(every.path[0], begin)
    far = attack.replaced(early_stop=False).run(x, y, start=3 * x).path[0]  # moved into the ball of codes
    assert torch.allclose(encoder(far), encoder(x) + (2 * encoder(x)).clamp(-0.6, 0.6))


def test_decoded_images_take_the_shape_of_those_attacked():
    net = torch.nn.Sequential(torch.nn.Flatten(), random_net(16, 3))
    x = points(5, 16).reshape(5, 4, 4)
    attack = LatentPGD(net, torch.nn.Unflatten(1, (1, 4, 4)), torch.nn.Flatten(), 0.05, bounds=None, early_stop=False)
    result = attack.run(x, net(x).argmax(1))
    assert result.adversarial.shape == x.shape
    assert torch.allclose(result.l2, (result.adversarial - x).flatten(1).norm(dim=1))
    assert result.linf.max() <= 0.05 + 1e-9


@pytest.mark.parametrize(
    ("decoder", "encoder", "error", "message"),
    [
        (lambda z: z, torch.nn.Identity(), TypeError, "decoder must be"),
        (torch.nn.Identity(), None, TypeError, "encoder must be"),
        (torch.nn.Identity(), torch.nn.Flatten(0), ValueError, "encoder must return codes"),
        (torch.nn.Flatten(0), torch.nn.Identity(), ValueError, "decoder must return images"),
        (torch.nn.Linear(2, 1), torch.nn.Identity(), ValueError, "decoder must return images of shape"),
    ],
)
def test_decoders_that_do_not_fit(decoder, encoder, error, message):
    with pytest.raises(error, match=message):
        LatentPGD(torch.nn.Linear(2, 2), decoder, encoder)(torch.rand(3, 2), [0, 0, 0])


def test_subspace_arguments():
    with pytest.raises(ValueError, match="needs a manifold"):
        SubspacePGD(random_net(2, 2), None, 0.1, "normal")
    with pytest.raises(ValueError, match="component must be one of"):
        SubspacePGD(random_net(2, 2), Circle(), 0.1, "radial")
    with pytest.raises(ValueError, match="norm must be 'inf' or 2"):
        SubspacePGD(random_net(2, 2), Circle(), 0.1, norm=1)


class Origin:
    """The manifold of one point."""

    def project(self, x):
        return torch.zeros_like(x)

    def tangent_basis(self, x):
        return x.new_zeros(len(x), x[0].numel(), 0)


def test_manifold_of_points_has_no_tangent_change():
    x = points(4, 3)
    assert torch.equal(tnar_tangent(random_net(3, 2), Origin(), x, 0.1), torch.zeros_like(x))


def test_tnar_directions_are_eigenvectors():
    net, sphere = random_net(5, 3), Sphere(4)
    x = sphere.project(points(6, 5))
    basis = sphere.tangent_basis(x)
    generator = torch.Generator().manual_seed(0)
    r = tnar_tangent(net, sphere, x, 0.3, n_power=100, generator=generator)
    s = tnar_normal(net, x, 0.2, r, n_power=200, lam=0.0, generator=generator)
    assert torch.allclose(r.norm(dim=1), torch.full((6,), 0.3).double())
    assert torch.allclose(s.norm(dim=1), torch.full((6,), 0.2).double())
    assert (r * s).sum(1).abs().max() < 1e-9
    for i in range(6):
        p = net(x[i]).softmax(0).detach()
        hessian = torch.autograd.functional.hessian(lambda z, p=p: -(p * net(z).log_softmax(0)).sum(), x[i])
        inside = basis[i].T @ hessian @ basis[i]
        rayleigh = r[i] @ hessian @ r[i] / 0.09
        assert rayleigh >= torch.linalg.eigvalsh(inside)[-1] * (1 - 1e-3)
        away = torch.eye(5).double() - torch.outer(r[i], r[i]) / 0.09
        assert s[i] @ hessian @ s[i] / 0.04 >= torch.linalg.eigvalsh(away @ hessian @ away)[-1] * (1 - 1e-3)
    with pytest.raises(ValueError, match="3 radii for 6 images"):
        tnar_tangent(net, sphere, x, torch.ones(3))
    with pytest.raises(ValueError, match="shape of the images"):
        tnar_normal(net, x, 0.1, r[:2])
    with pytest.raises(ValueError, match="lam must be"):
        tnar_normal(net, x, 0.1, r, lam=math.nan)
    with pytest.raises(TypeError, match="lam must be a number"):
        tnar_normal(net, x, 0.1, r, lam="1")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": len}, TypeError, "model must be a torch.nn.Module"),
        ({"model": torch.nn.LSTM(5, 2).double()}, TypeError, "got tuple: wrap it"),
        ({"model": torch.nn.Linear(5, 1).double()}, ValueError, "one logit a sample"),
        ({"manifold": object()}, TypeError, "project and tangent_basis"),
        ({"generator": 0}, TypeError, "manual_seed"),
        ({"n_power": 0}, ValueError, "n_power must be at least 1"),
    ],
)
def test_bad_input_of_tnar(arguments, error, message):
    given = {"model": random_net(5, 3), "manifold": Sphere(4), "images": points(6, 5), "eps": 0.1} | arguments
    with pytest.raises(error, match=message):
        tnar_tangent(**given)


def test_restarts_of_a_walk_on_the_manifold_add_success():
    net, sphere = random_net(8, 4), Sphere(7)
    x = sphere.project(points(200, 8))
    y = net(x).argmax(1)

    def broken(restarts: int) -> torch.Tensor:
        attack = OnManifoldPGD(
            net, sphere, 0.1, 8, eps=0.3, bounds=None, random_start=True, restarts=restarts,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        result = attack.run(x, y)
        assert result.l2.max() <= 0.3 + 1e-6
        return result.success

    assert (broken(4) | ~broken(1)).all()
    for arguments, message in (
        ({"random_start": True}, "needs eps"),
        ({"budget": "geodesic"}, "needs eps"),
        ({"restarts": 2}, "random_start=True"),
        ({"line_search": ()}, "at least one factor"),
        ({"line_search": (1, -1)}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            OnManifoldPGD(net, sphere, **arguments)
