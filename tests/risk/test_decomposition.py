"""Exact oracles of the risks, and the inequality that must hold for each sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import SubspacePGD
from manifoldkit.datasets import make_circle, make_circle_task, make_plane_task
from manifoldkit.exceptions import BoundsWarning, ReachWarning
from manifoldkit.geometry import Circle, Plane, Sphere
from manifoldkit.risk import decompose_risk, foot_points, pessimistic_classifier, tubular_grid_risk
from manifoldkit.risk.result import CAUSES

LINE = Plane([[1.0], [0.0]])


def interval(n: int) -> np.ndarray:
    return np.column_stack([(np.arange(n) + 0.5) / n, np.zeros(n)])


@pytest.mark.parametrize(("n", "eps"), [(40, 0.1), (6, 0.1), (4, 0.2), (10, 0.03)])
def test_pessimistic_classifier_has_the_risks_it_says(n, eps):
    """Brute force over a fine grid, the exact formulas beside it."""
    score, exact = pessimistic_classifier(n, eps)
    x = interval(4000)
    found = tubular_grid_risk(score, LINE, x, np.ones(4000, dtype=int), eps, n_offset=201)
    for name, value in exact.items():
        assert abs(found.rates()[name] - value) < 4 * n / 4000, name  # each end of an interval by a grid step or two
    assert not found.violations.any()
    # With closed intervals for the slots the sum is 1 - 1/n + 1/n where 2 eps reaches across an A.
    if 2 * eps >= (n - 1) / (n * (n + 1)):
        assert exact["normal"] + exact["nnr"] == pytest.approx(1)
    assert exact["adv"] <= exact["std"] + exact["normal"] + exact["in_manifold"] + exact["nnr"] + 1e-12


def test_threshold_of_the_source_is_too_small():
    eps, n = 0.1, 6
    assert n > 1 / (math.sqrt(3) * eps)
    assert pessimistic_classifier(n, eps)[1]["adv"] == pytest.approx(0.9351, abs=1e-4)
    assert pessimistic_classifier(math.ceil(2 / (math.sqrt(3) * eps)), eps)[1]["adv"] == pytest.approx(1)


def test_event_a_as_printed_breaks_the_inequality_and_with_eps_it_holds():
    score, exact = pessimistic_classifier(40, 0.1, height=0.15)
    x, y = interval(4000), np.ones(4000, dtype=int)
    right = tubular_grid_risk(score, LINE, x, y, 0.1, n_offset=201)
    printed = tubular_grid_risk(score, LINE, x, y, 0.1, n_offset=201, clean_radius=2)
    assert right.rates()["nnr"] == pytest.approx(exact["nnr"], abs=0.004)
    assert right.rates()["rhs4"] == pytest.approx(1, abs=0.004)
    assert not right.violations.any()
    assert printed.rates()["nnr"] == 0
    assert printed.rates()["rhs4"] == pytest.approx(0.025, abs=0.004)
    assert printed.violations.mean() > 0.97


def test_a_score_of_zero_is_an_error_for_either_label():
    class Half(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x[:, 0])

    t = np.linspace(0.3, 6, 40)
    ring = np.column_stack([np.cos(t), np.sin(t)])
    y = np.where(ring[:, 0] > 0, 1, -1)
    ours = decompose_risk(Half(), ring, y, Circle(), 0.1, steps=5, restarts=1)
    grid = tubular_grid_risk(Half(), Circle(), ring, y, 0.1)
    assert np.array_equal(ours.std, y < 0)
    assert np.array_equal(ours.std, grid.std)
    assert (ours.adv >= grid.adv).all()  # the grid is coarse along the circle


def test_labels_outside_the_classes_are_refused():
    ring = make_circle(20, grid=True).points
    y = np.full(20, 2)
    net = torch.nn.Linear(2, 2).double()
    for risk in (
        lambda: tubular_grid_risk(net, Circle(), ring, y, 0.1),
        lambda: decompose_risk(net, ring, y, Circle(), 0.1),
    ):
        with pytest.raises(ValueError, match=r"class indices in 0\.\.1"):
            risk()


def test_scores_and_an_atlas_of_their_labels():
    """The atlas is fitted on labels -1 and 1, which choose the member of each sample; classes 0 and 1 do the same."""
    ring = make_circle(120, grid=True).points
    x, y = np.concatenate([ring, 1.5 * ring]), np.repeat([-1, 1], 120)
    atlas = ManifoldAtlas(DiffusionManifold(n_components=15))

    class Radius(torch.nn.Module):
        def forward(self, x):
            return 6 * (x.square().sum(1) - 1.4 + 0.3 * x[:, 0])

    class Logits(Radius):
        def forward(self, x):
            z = super().forward(x)
            return torch.stack([-z, z], dim=1)

    rows = slice(None, None, 12)
    options = {"steps": 5, "restarts": 1, "n_refine": 2}
    scores = decompose_risk(Radius(), x[rows], y[rows], atlas.fit(x, y), 0.12, **options)
    classes = (y + 1) // 2
    other = ManifoldAtlas(atlas.estimator).fit(x, classes)
    logits = decompose_risk(Logits(), x[rows], classes[rows], other, 0.12, **options)
    assert scores.rates() == logits.rates()
    assert 0 < scores.adv.mean() < 1
    assert scores.off_manifold.max() < 0.1  # each sample is measured from its own ring


class Origin:
    """The manifold of one point."""

    def project(self, x):
        return torch.zeros_like(x)

    def tangent_basis(self, x):
        return x.new_zeros(len(x), x[0].numel(), 0)


def test_manifold_of_points_has_no_risk_inside():
    net = torch.nn.Linear(2, 2).double()
    net.bias.data = torch.tensor([0.5, -0.25], dtype=torch.float64)
    rates = decompose_risk(net, np.zeros((5, 2)), np.zeros(5, dtype=int), Origin(), 10.0, steps=5, restarts=1).rates()
    assert rates["in_manifold"] == 0
    assert rates["normal"] == rates["adv"] == 1


@pytest.mark.parametrize("kind", ["single", "double"])
@pytest.mark.parametrize("norm", [2, "inf"])
def test_perfect_classifier_on_the_circle(kind, norm):
    """Closed forms: the nearest error is straight across the axis, or the arc to it."""
    angles = 2 * np.pi * (np.arange(3600) + 0.5) / 3600
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    truth = (lambda p: p[:, 0]) if kind == "single" else (lambda p: p[:, 0] * p[:, 1])
    factor = 1 if kind == "single" else 2
    for eps in (0.1, 0.3):
        risk = tubular_grid_risk(truth, Circle(), ring, np.sign(truth(ring)).astype(int), eps, norm=norm)
        rates = risk.rates()
        assert rates["adv"] == pytest.approx(factor * 2 * math.asin(eps) / math.pi, abs=0.01 * factor)
        assert rates["std"] == rates["normal"] == rates["nnr"] == 0
        if norm == 2:
            assert rates["in_manifold"] == pytest.approx(factor * 4 * math.asin(eps) / math.pi, abs=0.003 * factor)
        assert not risk.violations.any()


def wild(seed: int, size: int, classes: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    last = torch.nn.Flatten(0) if classes == 1 else torch.nn.Identity()
    net = torch.nn.Sequential(torch.nn.Linear(size, 32), torch.nn.Tanh(), torch.nn.Linear(32, classes), last)
    for p in net.parameters():
        p.data = 2 * torch.randn(p.shape, generator=generator)
    return net


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("norm", [2, "inf"])
@pytest.mark.parametrize("classes", [1, 3])
def test_no_violation_on_the_grid(seed, norm, classes):
    """Random networks, wrong on much of the data, labels at random for some: the bound holds for every sample."""
    for manifold, points in (
        (Circle(), make_circle_task(400, random_state=seed).points),
        (Plane(np.eye(3)[:, :2]), make_plane_task(400, random_state=seed).points),
    ):
        net = wild(seed, points.shape[1], classes)
        with torch.no_grad():
            z = net(torch.as_tensor(points).float())
        y = (z > 0).int().numpy() * 2 - 1 if classes == 1 else z.argmax(1).numpy()
        y[::10] = -y[::10] if classes == 1 else (y[::10] + 1) % 3
        risk = tubular_grid_risk(net, manifold, points, y, 0.15, norm=norm, n_offset=21)
        assert 0 < risk.rates()["adv"] < 1
        assert risk.rates()["nnr"] > 0 or classes == 1
        assert not risk.violations.any()
        assert sum(risk.shares().values()) == pytest.approx(risk.rates()["adv"])
        assert risk.shares()["unexplained"] == 0


def test_attacks_find_what_the_grid_finds():
    """decompose_risk beside the exhaustive search, on a network of five bumps."""
    net, points = wild(1, 2, 1), make_circle_task(150, random_state=0).points
    with torch.no_grad():
        y = np.where(net(torch.as_tensor(points).float()) > 0, 1, -1)
    y[:5] *= -1
    angles = 2 * np.pi * np.arange(2000) / 2000
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    for eps in (0.05, 0.15):
        grid = tubular_grid_risk(net, Circle(), points, y, eps, base=ring, n_offset=81).rates()
        risk = decompose_risk(net, points, y, Circle(), eps, steps=25, restarts=4)
        rates = risk.rates()
        for name in ("adv", "std", "normal", "in_manifold", "nnr"):
            assert rates[name] == pytest.approx(grid[name], abs=0.05), (name, eps)
        assert risk.shares()["unexplained"] == 0


def test_witnesses_show_what_they_claim():
    net, points = wild(1, 3, 3), Sphere(2).project(np.random.default_rng(0).standard_normal((150, 3)))
    with torch.no_grad():
        y = net(torch.as_tensor(points).float()).argmax(1).numpy()
    y[:7] = (y[:7] + 1) % 3
    eps, sphere = 0.15, Sphere(2)
    risk = decompose_risk(net, points.astype(np.float32), y, sphere, eps, steps=20, restarts=2)
    assert min(risk.rates()[name] for name in ("adv", "std", "normal", "in_manifold", "nnr")) > 0

    def classes(p):
        with torch.no_grad():
            return net(torch.as_tensor(p).float()).argmax(1).numpy()

    for name in ("adv", "normal", "in_manifold"):
        mask, at = getattr(risk, name), risk.witnesses[name]
        have = ~np.isnan(at).any(axis=1)
        assert (have[mask & ~risk.std]).all()
        have &= mask
        assert (classes(at[have]) != y[have]).all()
        size = np.linalg.norm(at[have] - points[have], axis=1)
        assert size.max() <= (2 if name == "in_manifold" else 1) * eps * (1 + 1e-4)
        if name == "in_manifold":
            assert np.abs(np.linalg.norm(at[have], axis=1) - 1).max() < 1e-5
        if name == "normal":
            unit = at[have] / np.linalg.norm(at[have], axis=1, keepdims=True)
            assert np.abs(unit - points[have]).max() < 0.05
    z = risk.witnesses["nnr"][risk.nnr]
    foot = sphere.project(z)
    assert (classes(z) != classes(foot)).all()
    assert np.linalg.norm(foot - points[risk.nnr], axis=1).max() <= 2 * eps * (1 + 1e-4)
    assert not (risk.nnr & (risk.normal | risk.in_manifold)).any()
    assert np.isnan(risk.witnesses["nnr"][~risk.nnr]).all()


def test_causes_are_exclusive_and_in_order():
    net, points, y = wild(2, 2, 3), make_circle_task(100, random_state=1).points, np.arange(100) % 3
    risk = decompose_risk(net, points, y, Circle(), 0.1, steps=10, restarts=2)
    assert set(risk.cause) <= {"", *CAUSES}
    assert ((risk.cause != "") == risk.adv).all()
    assert (risk.cause[risk.std] == "standard").all()
    assert "unexplained" not in risk.cause
    assert repr(risk).startswith("RiskDecomposition(100 samples, eps=0.1: adv ")
    assert risk.vacuous
    without = decompose_risk(net, points, y, Circle(), 0.1, steps=10, restarts=2, exclude_misclassified=True)
    assert not (without.normal & without.std).any()
    assert not (without.in_manifold & without.std).any()


def test_samples_off_the_manifold():
    """At their foot points, or with larger budgets, everything is explained; in place with plain budgets it is not."""
    net = wild(3, 2, 1)
    rng = np.random.default_rng(0)
    points = make_circle_task(60, random_state=0).points * (1 + 0.25 * rng.standard_normal((60, 1)))
    with torch.no_grad():
        y = np.where(net(torch.as_tensor(Circle().project(points)).float()) > 0, 1, -1)
    shares, deltas = {}, {}
    for mode in ("project", "inflate", "raw"):
        risk = decompose_risk(net, points, y, Circle(), 0.1, off_manifold=mode, steps=15, restarts=2)
        shares[mode], deltas[mode] = risk.shares()["unexplained"], risk.off_manifold
    assert shares["project"] == shares["inflate"] == 0
    expected = np.abs(np.linalg.norm(points, axis=1) - 1) / 0.1
    assert np.allclose(deltas["raw"], expected, atol=1e-4)
    assert shares["raw"] > 0


def test_same_seed_same_answer():
    net, task = wild(1, 2, 1), make_circle_task(60, random_state=0)
    first, second = (decompose_risk(net, task.points, task.labels, Circle(), 0.1, steps=5, restarts=2) for _ in "ab")
    assert np.isfinite(first.witnesses["adv"]).any()
    assert np.array_equal(first.witnesses["adv"], second.witnesses["adv"], equal_nan=True)


class Sheared(Sphere):
    """Projects onto the sphere, but not to the nearest point: it turns by a share of the distance."""

    def project(self, x):
        p = super().project(x)
        height = (x - p).flatten(1).norm(dim=1, keepdim=True)
        away = torch.roll(p, 1, dims=1)
        return super().project(p + height * (away - (away * p).sum(1, keepdim=True) * p))


def test_foot_points_are_refined_to_the_nearest():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sheared, exact = Sheared(3), Sphere(3)
    rough, rough_share = foot_points(sheared, x, n_iter=0)
    fine, share = foot_points(sheared, x, n_iter=50)
    nearest = exact.project(x)
    assert (rough - nearest).norm(dim=1).median() > 0.1
    assert (fine - nearest).norm(dim=1).median() < 0.01
    assert (share <= rough_share + 1e-12).all()
    assert ((x - fine).norm(dim=1) <= (x - rough).norm(dim=1) + 1e-12).all()
    assert (exact.project(fine) - fine).norm(dim=1).max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eps": 0}, ValueError, "eps must be positive"),
        ({"eps": "big"}, TypeError, "eps must be a number"),
        ({"eps": 1.0}, ValueError, "not below the reach 1"),
        ({"norm": 1}, ValueError, "norm must be 'inf' or 2"),
        ({"y": np.zeros(20, dtype=int)}, ValueError, "must be -1 or 1"),
        ({"y": np.ones(20)}, TypeError, "y must hold integers"),
        ({"y": np.ones(3, dtype=int)}, ValueError, r"shape \(20,\)"),
        ({"X": np.full((20, 2), np.nan)}, ValueError, "NaN"),
    ],
)
def test_bad_input_of_both(arguments, error, message):
    task = make_circle_task(20, random_state=0)
    given = {"X": task.points, "y": task.labels, "eps": 0.1} | arguments
    x, y, eps = given.pop("X"), given.pop("y"), given.pop("eps")
    net = wild(0, 2, 1)
    with pytest.raises(error, match=message):
        decompose_risk(net, x, y, Circle(), eps, **given)
    with pytest.raises(error, match=message):
        tubular_grid_risk(net, Circle(), x, y, eps, **given)


def test_bad_input_of_each():
    task = make_circle_task(20, random_state=0)
    x, y = task.points, task.labels
    with pytest.raises(TypeError, match="wrap a function"):
        decompose_risk(lambda p: p, x, y, Circle(), 0.1)
    with pytest.raises(ValueError, match="off_manifold must be"):
        decompose_risk(wild(0, 2, 1), x, y, Circle(), 0.1, off_manifold="ignore")
    with pytest.raises(ValueError, match=r"0\.\.2"):
        decompose_risk(wild(0, 2, 3), x, np.full(20, 5), Circle(), 0.1)
    with pytest.warns(ReachWarning, match="not below the reach"):
        tubular_grid_risk(wild(0, 2, 1), Circle(), x, y, 1.5, allow_large_eps=True)
    with pytest.raises(ValueError, match="codimension one"):
        tubular_grid_risk(lambda p: p[:, 0], Plane(np.eye(3)[:, :1]), np.zeros((20, 3)), y, 0.1)
    with pytest.raises(ValueError, match="returns NaN"):
        tubular_grid_risk(lambda p: p[:, 0] * np.nan, Circle(), x, y, 0.1)
    with pytest.raises(ValueError, match="K > 1"):
        tubular_grid_risk(lambda p: p[:, :1], Circle(), x, y, 0.1)
    with pytest.raises(ValueError, match="n_offset"):
        tubular_grid_risk(wild(0, 2, 1), Circle(), x, y, 0.1, n_offset=2)
    with pytest.raises(ValueError, match="clean_radius"):
        tubular_grid_risk(wild(0, 2, 1), Circle(), x, y, 0.1, clean_radius=0)
    for options, error in (
        ({"n_refine": -1}, ValueError),
        ({"tolerance": 2}, ValueError),
        ({"tolerance": "a"}, TypeError),
    ):
        with pytest.raises(error, match=f"{next(iter(options))} must be"):
            decompose_risk(wild(0, 2, 1), x, y, Circle(), 0.1, **options)
    for manifold in (None, object()):
        for use in (decompose_risk, lambda net, x, y, m, eps: tubular_grid_risk(net, m, x, y, eps)):
            with pytest.raises(TypeError, match="manifold must have project and tangent_basis"):
                use(wild(0, 2, 1), x, y, manifold, 0.1)
    lstm = torch.nn.LSTM(2, 2).double()
    with pytest.raises(TypeError, match="got tuple: wrap it"):
        decompose_risk(lstm, x, (y + 1) // 2, Circle(), 0.1)
    with pytest.raises(TypeError, match="got tuple: wrap it"):
        tubular_grid_risk(lstm, Circle(), x, y, 0.1)
    with pytest.raises(ValueError, match="one logit a sample"):
        decompose_risk(torch.nn.Linear(2, 1).double(), x, y, Circle(), 0.1)
    with pytest.raises(TypeError, match="score must be a function"):
        tubular_grid_risk(None, Circle(), x, y, 0.1)
    with pytest.raises(TypeError, match="n must be an integer"):
        pessimistic_classifier(2.5, 0.1)
    for n, eps, height in ((1, 0.1, 1), (4, 0.6, 1), (4, 0.1, 0.05)):
        with pytest.raises(ValueError, match="must"):
            pessimistic_classifier(n, eps, height=height)
    with pytest.raises(ValueError, match="kind must be"):
        make_circle_task(10, kind="triple")


EPS = 0.2


class Discs(torch.nn.Module):
    """A score that is negative in discs, and beyond a limit of the first coordinate."""

    def __init__(self, *discs, beyond=math.inf):
        super().__init__()
        self.discs, self.beyond = discs, beyond

    def forward(self, x):
        scores = [((x[:, 0] - a) ** 2 + (x[:, 1] - b) ** 2 + 1e-12).sqrt() - r for a, b, r in self.discs]
        return torch.stack([*scores, (self.beyond - x[:, 0]).clamp_max(9)]).amin(0)


class Careless(Plane):
    """The first axis, with a projection that goes astray by a multiple of the height, or falls below the axis."""

    def __init__(self, slope=0.0, drop=0.0):
        super().__init__([[1.0], [0.0]])
        self.slope, self.drop = slope, drop

    def project(self, x):
        return torch.stack([x[:, 0] + self.slope * x[:, 1], 0 * x[:, 1] - self.drop * (x[:, 1].abs() > 1e-9)], dim=1)


ASIDE = (0.5 * EPS, 0.5 * EPS, 0.1 * EPS)  # a disc within the ball about the origin, on the normal of another foot


@pytest.mark.parametrize(
    ("score", "manifold", "cause"),
    [
        (Discs(ASIDE), LINE, "nearby_normal"),
        (Discs((0, 0.5 * EPS, 0.1 * EPS)), LINE, "normal"),
        (Discs((0.5 * EPS, 0, 0.1 * EPS)), LINE, "in_manifold"),
        (Discs(ASIDE), Careless(slope=1.0), "unexplained"),  # what is called its foot is none: half the rest is tangent
        (Discs(ASIDE, beyond=2.5 * EPS), Careless(slope=5.0), "unexplained"),  # the "foot" is wrong, but too far away
        (Discs(ASIDE), Careless(drop=3 * EPS), "unexplained"),  # the rest is normal, but longer than eps
    ],
)
def test_witnesses_count_only_for_what_they_prove(score, manifold, cause):
    risk = decompose_risk(score, np.zeros((1, 2)), [1], manifold, EPS, n_refine=0, off_manifold="raw", random_state=0)
    assert risk.adv.all()
    assert risk.cause.tolist() == [cause]
    assert risk.normal[0] == (cause == "normal")


class Shrinking(Plane):
    """The first axis, with a projection that is not idempotent, as one that was learned: it moves points inwards."""

    def __init__(self):
        super().__init__([[1.0], [0.0]])

    def project(self, x):
        return 0.9 * super().project(x)


def test_walks_go_on_until_they_land_on_an_adversary():
    """Broken at 1.5 eps, where a walk ends, the network is right at 1.35, where it lands; 2 eps land at 1.8."""
    walk = SubspacePGD(torch.nn.Module(), Shrinking(), 2 * EPS, "tangent")
    assert float(walk._step_sizes(1, walk.eps.expand(1))) == pytest.approx(0.5 * EPS)
    risk = decompose_risk(Discs(beyond=1.45 * EPS), np.zeros((1, 2)), [1], Shrinking(), EPS, tnar=False, restarts=1)
    assert risk.in_manifold.all()
    assert risk.witnesses["in_manifold"][0, 0] == pytest.approx(1.8 * EPS, rel=1e-5)


class TwoLines:
    """The lines of height 0 and 2, with a projection that takes whatever is above the lower one to the upper one."""

    def project(self, x):
        return torch.stack([x[:, 0], 2.0 * (x[:, 1] > 0.05)], dim=1)

    def tangent_basis(self, x):
        return LINE.tangent_basis(x)


def test_feet_are_looked_for_from_that_of_the_sample_too():
    """Else the foot of an adversary may be one that is farther away than the sample itself, and explain nothing."""
    options = {"off_manifold": "raw", "random_state": 0}
    risk = decompose_risk(Discs(ASIDE), np.zeros((1, 2)), [1], TwoLines(), EPS, **options)
    assert risk.cause.tolist() == ["nearby_normal"]


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_each_risk_begins_at_the_distance_of_the_boundary(factor):
    above, ahead = Discs((0, 1, 0.9)), Discs(beyond=0.1)
    x, reached = np.zeros((1, 2)), [factor > 1]
    risk = decompose_risk(above, x, [1], LINE, 0.1 * factor)
    assert (risk.adv.tolist(), risk.normal.tolist(), risk.in_manifold.tolist()) == (reached, reached, [False])
    risk = decompose_risk(ahead, x, [1], LINE, 0.1 * factor)
    assert (risk.adv.tolist(), risk.normal.tolist(), risk.in_manifold.tolist()) == (reached, [False], [True])
    assert decompose_risk(ahead, x, [1], LINE, 0.05 * factor).in_manifold.tolist() == reached


def test_witnesses_on_the_manifold_lie_near_a_sample_that_is_off_it():
    """The walk on the axis may go 2 eps from the foot of a sample, which is farther from the sample itself."""
    x, wrong = np.array([[0.0, 1.5 * EPS]]), Discs(beyond=1.8 * EPS)
    assert np.hypot(1.8, 1.5) > 2
    options = {"n_refine": 0, "off_manifold": "raw"}
    assert not decompose_risk(wrong, x, [1], LINE, EPS, **options).in_manifold.any()
    assert decompose_risk(wrong, x, [1], LINE, 1.5 * EPS, **options).in_manifold.all()


def test_normal_risk_in_a_box_is_of_normal_changes():
    """Samples on the edge of the box, whose normal is oblique to it: a change that was merely clipped is not normal."""
    basis = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    plane = Plane(basis, torch.full((6,), 0.2))
    net = torch.nn.Linear(6, 2).double()
    generator = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    net.bias.data = -net.weight.data.sum(dim=1) / 5  # the boundary goes through the plane's origin
    x = plane.project(torch.rand(400, 6, generator=generator, dtype=torch.float64))
    x = x[((x >= 0) & (x <= 1)).all(1)][:80]
    y = net(x).argmax(1)
    risk = decompose_risk(net, x, y, plane, 0.15, bounds=(0, 1), restarts=1)
    found = risk.witnesses["normal"][risk.normal]
    assert 0 < len(found) < len(x)
    assert ((found >= 0) & (found <= 1)).all()
    change = found - x[risk.normal]
    assert ((change @ basis).norm(dim=1) <= 2e-3 * change.norm(dim=1)).all()
    assert (found == 0).any() or (found == 1).any()  # the box was in the way
    assert (net(found).argmax(1) != y[risk.normal]).all()


@pytest.mark.parametrize("off_manifold", ["project", "inflate"])
def test_budgets_inside_may_exceed_the_range(off_manifold):
    """2 (eps + delta) of an eps that is allowed; delta is measured in the norm of the budget."""
    x, plane = np.random.default_rng(0).random((10, 4)), Plane(np.eye(4)[:, :2], np.full(4, 0.5))
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Linear(4, 3).double()
    net.weight.data = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    risk = decompose_risk(net, x, [0] * 10, plane, 0.6, norm="inf", bounds=(0, 1), off_manifold=off_manifold, steps=5)
    assert not risk.violations.any()


def test_witnesses_on_the_normals_of_others_are_within_the_own_budget():
    """With budgets of eps + delta the adversary of a sample far off is none for one on the line."""
    score, x = Discs((0.3, 0.9, 0.1)), np.array([[0.0, 0.0], [0.3, 0.75]])
    risk = decompose_risk(score, x, [1, 1], LINE, 0.2, off_manifold="inflate")
    assert risk.normal.tolist() == [False, True]
    assert not risk.nnr.any()


def test_points_of_the_manifold_beyond_the_bounds_are_no_witnesses():
    """The line x = 1.05 lies beyond the box; what is clipped to it is off the line by a quarter of eps."""
    line = Plane([[0.0], [1.0]], [1.05, 0.0])

    class Low(torch.nn.Module):
        def forward(self, x):
            return 0.6 - x[:, 1]

    with pytest.warns(BoundsWarning, match=r"1 of 1 samples leave the bounds, by up to 0\.25 eps"):
        risk = decompose_risk(Low(), np.array([[1.0, 0.5]]), [1], line, 0.2, bounds=(0, 1))
    assert risk.off_manifold[0] == pytest.approx(0.25)
    assert risk.adv.all()
    assert not risk.in_manifold.any()
    assert decompose_risk(Low(), np.array([[1.0, 0.5]]), [1], line, 0.2).in_manifold.all()


def test_a_network_that_gives_nan_beside_the_data_is_refused():
    class Root(torch.nn.Module):
        def forward(self, x):
            return torch.stack([0 * x[:, 0], torch.where(x[:, 1] == 0, 1.0, torch.nan)], dim=1)

    with pytest.raises(ValueError, match="NaN logits"):
        decompose_risk(Root(), np.array([[0.0, 0.0], [0.0, 0.1]]), [1, 1], LINE, 0.2, off_manifold="inflate")


def test_whole_space_and_point_manifolds():
    """Without normals there is no normal risk."""
    task = make_circle_task(40, random_state=0)
    risk = decompose_risk(
        wild(3, 2, 1), task.points, task.labels, Plane(np.eye(2)), 0.1, steps=10, exclude_misclassified=True
    )
    assert not risk.normal.any()
    assert risk.shares()["unexplained"] == 0
