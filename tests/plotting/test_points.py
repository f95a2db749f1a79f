"""Vectors, projections, curves, embeddings: the artists hold the numbers given."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.quiver import Quiver

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import AttackResult
from manifoldkit.plotting import (
    plot_embedding,
    plot_projection,
    plot_scaling_curve,
    plot_spectrum,
    plot_success_curve,
    plot_vectors,
)
from manifoldkit.plotting.success import GAP


def of_kind(ax, kind):
    return [artist for artist in ax.collections if type(artist) is kind]


def test_basis_lines_are_centred_at_the_points(sample):
    ax = plot_vectors(sample.points, sample.tangents, length=0.2)
    (lines,) = of_kind(ax, LineCollection)
    ends = np.array(lines.get_segments())
    assert np.allclose(ends.mean(axis=1), sample.points)
    assert np.allclose(ends[:, 1] - ends[:, 0], 0.2 * sample.tangents[:, :, 0])
    (markers,) = of_kind(ax, PathCollection)
    assert np.allclose(markers.get_offsets(), sample.points)
    assert ax.get_aspect() == 1


def test_vectors_are_arrows_in_the_scale_of_the_data(sample):
    ax = plot_vectors(sample.points, sample.tangents[:, :, 0], length=0.5, label="tangent", colors="black")
    (arrows,) = of_kind(ax, Quiver)
    assert np.allclose(np.column_stack([arrows.U, arrows.V]), 0.5 * sample.tangents[:, :, 0])
    assert np.allclose(arrows.get_offsets(), sample.points)
    assert arrows.scale == 1
    assert arrows.get_label() == "tangent"


def test_each_column_of_a_basis_has_its_colour():
    points = np.zeros((4, 2)) + np.arange(4)[:, None]
    basis = np.broadcast_to(np.eye(2), (4, 2, 2))
    ax = plot_vectors(points, basis, colors=["red", "blue"], point_size=0)
    first, second = of_kind(ax, LineCollection)
    assert np.allclose(first.get_color(), to_rgba("red"))
    assert np.allclose(second.get_color(), to_rgba("blue"))
    assert not of_kind(ax, PathCollection)


def test_vectors_in_space():
    points = np.random.default_rng(0).standard_normal((5, 3))
    basis = np.broadcast_to(np.eye(3)[:, :2], (5, 3, 2))
    ax = plot_vectors(points, basis, length=1.0, point_size=0)
    assert ax.name == "3d"
    assert len(ax.collections) == 2
    ends = np.array(ax.collections[0]._segments3d)
    assert np.allclose(ends[:, 1] - ends[:, 0], [1, 0, 0])
    assert np.allclose(ends.mean(axis=1), points)
    for limits, column in zip((ax.get_xlim(), ax.get_ylim(), ax.get_zlim()), points.T, strict=True):
        assert limits[0] <= column.min()
        assert column.max() <= limits[1]
    plot_vectors(points, basis[:, :, 0], ax=plt.figure().add_subplot(projection="3d"))


def test_of_many_coordinates_the_first_two_are_drawn():
    points = np.arange(20.0).reshape(4, 5)
    ax = plot_vectors(points, np.ones((4, 5, 1)))
    assert np.allclose(of_kind(ax, PathCollection)[0].get_offsets(), points[:, :2])


@pytest.mark.parametrize(
    ("points", "vectors", "message"),
    [
        (np.zeros(3), np.zeros(3), "points must be a matrix"),
        (np.zeros((3, 1)), np.zeros((3, 1)), "D >= 2"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "points must be"),
        (np.zeros((3, 2)), np.zeros((2, 2)), r"vectors must have shape \(3, 2\)"),
        (np.zeros((3, 2)), np.zeros((3, 2, 1, 1)), "vectors must have shape"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), "NaN"),
    ],
)
def test_bad_vectors(points, vectors, message):
    with pytest.raises(ValueError, match=message):
        plot_vectors(points, vectors)
    assert not plt.get_fignums()


def test_bad_colors():
    with pytest.raises(ValueError, match="each of 2 columns"):
        plot_vectors(np.zeros((3, 2)), np.zeros((3, 2, 2)), colors=["red"])


def test_points_in_space_need_axes_in_space():
    with pytest.raises(ValueError, match="need 3-d axes"):
        plot_vectors(np.zeros((3, 3)), np.zeros((3, 3)), ax=plt.subplots()[1])


def test_projection_segments(sample):
    far = 3 * sample.points[::10]
    ax = plot_projection(far, far / 3, samples=sample.points)
    (ways,) = of_kind(ax, LineCollection)
    assert np.allclose(ways.get_segments(), np.stack([far, far / 3], axis=1))
    behind, start, end = (np.asarray(artist.get_offsets()) for artist in of_kind(ax, PathCollection))
    assert np.allclose(behind, sample.points)
    assert np.allclose(start, far)
    assert np.allclose(end, far / 3)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sample", "point", "projection"]
    assert ax.get_xlim()[0] < -3 < 3 < ax.get_xlim()[1]
    assert plot_projection(far, far / 3, labels=None).get_legend() is None


@pytest.mark.parametrize(
    ("points", "projected", "message"),
    [
        (np.zeros((3, 3)), np.zeros((3, 3)), "must have 2 columns"),
        (np.zeros((3, 2)), np.zeros((2, 2)), "one shape"),
        (np.zeros(2), np.zeros(2), "points must be a matrix"),
    ],
)
def test_bad_projection(points, projected, message):
    with pytest.raises(ValueError, match=message):
        plot_projection(points, projected)


def test_scaling_curve_marks_scale_and_dimension(manifold):
    ax = plot_scaling_curve(manifold)
    curve, down, across, dot = ax.lines
    assert np.allclose(curve.get_xydata().T, manifold.scaling_curve_)
    assert np.allclose(dot.get_xydata(), [[manifold.epsilon_, manifold.dimension_]])
    assert np.allclose(down.get_xdata(), manifold.epsilon_)
    assert np.allclose(across.get_ydata(), manifold.dimension_)
    assert f"{manifold.epsilon_:.2f}" in ax.texts[0].get_text()
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[1] > manifold.scaling_curve_[1].max()


def test_spectrum_against_truth(manifold):
    truth = [0, 1, 1, 4, 4, 9]
    ax = plot_spectrum(manifold, truth)
    estimated, exact = ax.lines
    assert np.allclose(estimated.get_ydata(), manifold.eigenvalues_[:6])
    assert np.allclose(exact.get_ydata(), truth)
    assert len(plot_spectrum(manifold).lines[0].get_ydata()) == 9
    assert len(plot_spectrum(manifold, n_values=4).lines[0].get_ydata()) == 4
    assert plot_spectrum(manifold).get_legend() is None


def test_relative_spectrum(manifold):
    ax = plot_spectrum(10 * manifold.eigenvalues_, [0, 7, 7, 28], relative=True)
    estimated, exact = ax.lines
    assert estimated.get_ydata()[1] == 1
    assert np.allclose(exact.get_ydata(), [0, 1, 1, 4])
    assert "xi_1" in ax.get_ylabel()


def test_spectrum_of_the_exterior_calculus(sample):
    exterior = DiffusionManifold(n_components=21).fit(sample.points).exterior
    ax = plot_spectrum(exterior, n_values=3)
    assert np.allclose(ax.lines[0].get_ydata(), exterior.eigenvalues_[:3])


@pytest.mark.parametrize("draw", [plot_scaling_curve, plot_spectrum, plot_embedding])
def test_not_fitted(draw):
    with pytest.raises(ValueError, match="after calling fit"):
        draw(DiffusionManifold())


def test_bad_spectra():
    with pytest.raises(ValueError, match="non-empty vector"):
        plot_spectrum(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="truth must be"):
        plot_spectrum([0, 1], truth=[])
    with pytest.raises(ValueError, match="n_values must be"):
        plot_spectrum([0, 1], n_values=0)
    with pytest.raises(ValueError, match="above zero"):
        plot_spectrum([0, 0], relative=True)


@pytest.mark.parametrize("offset", [0.0, -400.0])
@pytest.mark.parametrize("color", [None, "real"])
def test_names_of_the_ends_of_a_path_stay_within_the_embedding(offset, color):
    """Limits of the axes are those of the points, however far from (0, 1)."""
    points = np.random.default_rng(0).uniform(0, 400, (60, 2)) + offset
    points[:2] = [[offset, offset], [offset + 400, offset + 400]]
    path = points[:2]
    ax = plot_embedding(points, components=(0, 1), path=path, color=None if color is None else np.linspace(0, 1, 60))
    ax.figure.canvas.draw()
    inside = ax.get_window_extent()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() in ("start", "end")]
    assert len(boxes) == 2
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)


def test_embedding_and_path(sample, manifold):
    ax = plot_embedding(manifold, sample.parameters[:, 0], components=(2, 3), path=sample.points[:9], color_label="t")
    assert np.allclose(ax.collections[0].get_offsets(), manifold.eigenfunctions_[:, 2:4])
    assert np.allclose(ax.collections[0].get_array(), sample.parameters[:, 0])
    assert np.allclose(ax.lines[0].get_xydata(), manifold.eigenfunctions_[:9, 2:4])  # exact at samples
    assert np.allclose(ax.lines[1].get_xydata(), manifold.eigenfunctions_[:1, 2:4])
    assert np.allclose(ax.lines[2].get_xydata(), manifold.eigenfunctions_[8:9, 2:4])
    assert [text.get_text() for text in ax.texts] == ["start", "end"]
    assert ax.get_xlabel() == r"$\phi_{2}$"
    assert ax.figure.axes[1].get_ylabel() == "t"


def test_embedding_of_classes_has_a_legend(manifold):
    classes = np.repeat([3, 5, 9], 40)
    ax = plot_embedding(manifold.eigenfunctions_, classes, color_label="digit")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["3", "5", "9"]
    assert ax.get_legend().get_title().get_text() == "digit"
    assert [len(artist.get_offsets()) for artist in ax.collections] == [40, 40, 40]
    assert len({tuple(artist.get_facecolor()[0]) for artist in ax.collections}) == 3
    assert len(ax.figure.axes) == 1


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"components": (1, 9)}, "between 0 and 8"),
        ({"components": (-1, 1)}, "between 0 and 8"),
        ({"components": 3}, "pair of column numbers"),
        ({"components": (1, 2, 3)}, "pair of column numbers"),
        ({"color": np.zeros(5)}, "each of the 120 points"),
        ({"path": np.zeros((4, 3))}, "path must have|expecting 2 features"),
    ],
)
def test_bad_embedding(manifold, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot_embedding(manifold, **keywords)
    with pytest.raises(ValueError, match=message):
        plot_embedding(manifold.eigenfunctions_, **keywords)
    assert not plt.get_fignums()


def result_of(success, steps_taken):
    nothing = np.zeros(len(success))
    return AttackResult(
        adversarial=nothing, labels=nothing, targeted=False, success=np.array(success),
        steps_taken=np.array(steps_taken), prediction_before=nothing, prediction_after=nothing,
        status=np.array([]), l2=nothing, linf=nothing,
    )  # fmt: skip


def test_success_curves_count_what_is_broken_so_far():
    ax = plot_success_curve({"fast": result_of([True, True, False], [0, 2, 4]), "idle": result_of([False], [4])})
    fast, idle = ax.lines
    assert np.allclose(fast.get_ydata(), [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert fast.get_xdata()[:5].tolist() == [0, 1, 2, 3, 4]
    assert fast.get_drawstyle() == "steps-post"
    assert not idle.get_ydata().any()
    assert fast.get_color() != idle.get_color()
    assert fast.get_linestyle() != idle.get_linestyle()
    assert [text.get_text() for text in ax.texts] == ["fast  67 %", "idle  0 %"]
    assert len(plot_success_curve({"fast": result_of([True], [1])}, steps=7).lines[0].get_xdata()) == 9


def test_names_of_curves_that_end_together_do_not_overlap():
    same = {f"attack {i}": result_of([True, i == 2], [1, 2]) for i in range(4)}
    ax = plot_success_curve(same)
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    heights = np.sort([text.xy[1] for text in ax.texts])
    assert np.diff(heights).min() >= GAP - 1e-12
    assert boxes[0].x0 > ax.get_window_extent().x1


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "dict of names"),
        ([1], "dict of names"),
        ({"a": 3}, "has no success"),
        ({"a": SimpleNamespace(success=[], steps_taken=[])}, "vectors of one length"),
        ({"a": SimpleNamespace(success=[True], steps_taken=[1, 2])}, "vectors of one length"),
    ],
)
def test_bad_results(results, message):
    with pytest.raises(ValueError, match=message):
        plot_success_curve(results)
    with pytest.raises(ValueError, match="steps must be"):
        plot_success_curve({"a": result_of([True], [1])}, steps=0)
