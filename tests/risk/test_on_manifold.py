"""Laws of the test for being on a manifold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import PGD
from manifoldkit.datasets import make_circle
from manifoldkit.geometry import Circle, Plane
from manifoldkit.risk import OnManifoldTest


def ring(n: int, seed: int, noise: float = 0.02) -> np.ndarray:
    return make_circle(n, noise=noise, random_state=seed).points


@pytest.mark.parametrize("seed", range(3))
def test_real_data_are_uniform_and_rarely_rejected(seed):
    test = OnManifoldTest(Circle()).fit(ring(800, seed))
    fresh = ring(800, 100 + seed)
    apart = np.linalg.norm(fresh[:, None] - fresh, axis=2) + 9 * np.eye(800)
    # What fit does with the held-out samples, on new ones. (Nearest neighbours of noisy points lie nearer to the
    # manifold than a sample does at large, so that distances are looked at on the samples.)
    distance_p = test.test(fresh, fresh).distance_p
    report = test.test(fresh[apart.argmin(axis=1)], fresh)
    for level in (0.05, 0.1, 0.25, 0.5):
        assert abs((distance_p <= level).mean() - level) < 0.07
        assert abs((report.tangent_p <= level).mean() - level) < 0.07
        assert (report.p_value <= level).mean() <= level + 0.04


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("length", [0.05, 0.3, 1.0, 1.7])
def test_changes_are_compared_with_real_ones_of_their_length(noise, length):
    """Real samples at any distance come out uniform, or less often small: chords of a circle are the less tangent."""
    levels, rejected = (0.05, 0.1, 0.25, 0.5), []
    for seed in range(3):
        test = OnManifoldTest(Circle()).fit(ring(600, seed, noise))
        fresh = ring(600, 100 + seed, noise)
        apart = np.linalg.norm(fresh[:, None] - fresh, axis=2)
        other = fresh[abs(apart - length).argmin(axis=1)]
        tangent_p = test.test(other, fresh).tangent_p
        rejected.append([(tangent_p <= level).mean() for level in levels])
        assert (test.test(1.15 * other, fresh).p_value < 0.05).all()
    assert (np.mean(rejected, axis=0) <= np.array(levels) + 0.04).all()
    assert noise == 0 or abs(np.mean(rejected, axis=0) - levels).max() < 0.07


def test_real_neighbours_among_few_and_noisy_samples_are_uniform():
    """40 samples of a circle in ten dimensions, whose noise is as long as the way to the neighbours."""

    def sample(n, rng):
        angle = 2 * np.pi * rng.random(n)
        x = np.zeros((n, 10))
        x[:, 0], x[:, 1] = np.cos(angle), np.sin(angle)
        return x + 0.05 * rng.standard_normal((n, 10))

    class Ring:
        def project(self, x):
            return torch.cat([Circle().project(x[:, :2]), 0 * x[:, 2:]], dim=1)

        def tangent_basis(self, x):
            basis = Circle().tangent_basis(x[:, :2])
            return torch.cat([basis, basis.new_zeros(len(x), 8, 1)], dim=1)

    low = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        test, fresh = OnManifoldTest(Ring()).fit(sample(40, rng)), sample(40, rng)
        apart = np.linalg.norm(fresh[:, None] - fresh, axis=2) + 9 * np.eye(40)
        report = test.test(fresh[apart.argmin(axis=1)], fresh)
        low.append([(report.tangent_p <= level).mean() for level in (0.05, 0.25, 0.5)])
    assert (np.abs(np.mean(low, axis=0) - [0.05, 0.25, 0.5]) < [0.03, 0.05, 0.06]).all()


@pytest.mark.parametrize("dimension", [10, 50])
def test_single_precision_is_no_normal_part(dimension):
    rng = np.random.default_rng(0)
    plane = Plane(np.eye(dimension)[:, :5])
    x = plane.project(rng.standard_normal((200, dimension)))
    held, begin, end = x[:100], x[100:150], x[150:]
    for kind in (np.float64, np.float32):
        turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        test = OnManifoldTest(Plane(turn[:, :5])).fit(held @ turn.T)
        report = test.test((end @ turn.T).astype(kind), (begin @ turn.T).astype(kind))
        assert (report.p_value > 0.05).all()


@pytest.mark.parametrize("spacing", [1, 5])
def test_long_walks_among_samples_without_noise_are_on_the_manifold(spacing):
    """Also where the real samples are a lattice, whose distances the walk lies between."""
    t = np.radians(np.arange(0, 360, spacing))
    test = OnManifoldTest(Circle()).fit(np.column_stack([np.cos(t), np.sin(t)]))
    start = np.array([[1.0, 0.0]])
    for degrees in np.radians([0.3, 2.4, 7.7, 33.0, 90.5, 179.0]):
        end = np.array([[np.cos(degrees), np.sin(degrees)]])
        assert test.test(end, start).p_value > 0.05
    for factor in (0.98, 1.02):
        assert test.test(factor * end, start).p_value < 0.05


def test_normal_changes_are_rejected_and_tangent_ones_are_not():
    test = OnManifoldTest(Circle()).fit(ring(500, 0))
    x = Circle().project(ring(200, 1))
    turned = np.stack([x[:, 0] * np.cos(0.2) - x[:, 1] * np.sin(0.2), x[:, 0] * np.sin(0.2) + x[:, 1] * np.cos(0.2)], 1)
    assert (test.test(turned, x).p_value > 0.05).all()
    assert (test.test(1.3 * x, x).p_value < 0.05).all()
    short = test.test(1.0001 * x, x)  # too small a distance to tell, and hardly tangent
    assert (short.distance_p > 0.5).all()
    assert (short.tangent_share < 1e-6).all()
    assert (short.tangent_p < 0.1).all()


def test_no_change_is_no_evidence():
    test = OnManifoldTest(Circle()).fit(ring(100, 0))
    x = Circle().project(ring(5, 1))
    report = test.test(x, x)
    assert np.isnan(report.tangent_share).all()
    assert (report.tangent_p == 1).all()
    assert (report.p_value == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_rounding_of_a_network_is_no_change(seed):
    """Images that went through single precision unchanged, or differ in its last digits, are no adversaries."""
    test = OnManifoldTest(Circle()).fit(ring(300, seed, noise=0.2))
    x = ring(300, 100 + seed, noise=0.05)
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        wrong = 1 - net(torch.from_numpy(x).float()).argmax(1)
    still = PGD(net, 0.1, bounds=None).run(x, wrong).adversarial  # wrong from the outset: not attacked
    assert still.dtype == x.dtype
    assert (still != x).all(axis=1).any()  # rounded
    nudge = np.float32(x) * (1 + np.finfo(np.float32).eps * np.sign(ring(300, 7)))
    tensors = torch.from_numpy(still), torch.from_numpy(x)
    for end, begin in ((still, x), tensors, (np.float32(x), x), (nudge, x)):
        report = test.test(end, begin)
        assert np.isnan(report.tangent_share).all()
        assert (report.tangent_p == 1).all()
        assert np.array_equal(report.p_value, np.minimum(1, 2 * report.distance_p))
    moved = test.test(x * (1 + 1e-5), x)
    assert (moved.tangent_share < 0.1).all()


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.CalibrationWarning")
def test_images_of_another_shape_are_refused():
    test = OnManifoldTest(Circle()).fit(ring(30, 0))
    with pytest.raises(ValueError, match=r"images must have shape \(3, 2\), as the adversaries, got \(1, 2\)"):
        test.test(ring(3, 1), ring(1, 1))


def test_smallest_p_value_is_that_of_the_sample_size():
    test = OnManifoldTest(Circle()).fit(ring(99, 0))
    report = test.test(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert report.distance_p == pytest.approx(0.01)
    assert report.p_value == pytest.approx(0.02)


@pytest.mark.filterwarnings("ignore::manifoldkit.exceptions.CalibrationWarning")
def test_each_label_has_its_own_standard():
    t = 2 * np.pi * np.arange(300) / 300
    circle = np.column_stack([np.cos(t), np.sin(t)])
    rng = np.random.default_rng(0)

    def data(n):
        angle = 2 * np.pi * rng.random(2 * n)
        points = np.column_stack([np.cos(angle), np.sin(angle)])
        y = np.arange(2 * n) % 2
        noise = np.where(y == 0, 0.005, 0.1)[:, None]
        return (1 + 2 * y[:, None]) * points * (1 + noise * rng.standard_normal((2 * n, 1)) / (1 + 2 * y[:, None])), y

    x = np.concatenate([circle, 3 * circle])
    atlas = ManifoldAtlas(DiffusionManifold(n_components=15)).fit(x, np.repeat([0, 1], 300))
    test = OnManifoldTest(atlas).fit(*data(100))
    start = np.array([[1.0, 0.0], [3.0, 0.0]])
    moved = start + np.array([[0.08, 0.0], [0.08, 0.0]])
    report = test.test(moved, start, [0, 1])
    assert report.distance_p[0] < 0.05 < report.distance_p[1]
    with pytest.raises(ValueError, match="labels are needed"):
        test.test(moved, start)
    with pytest.raises(ValueError, match="single held-out sample"):
        OnManifoldTest(atlas).fit(start, [0, 1])
