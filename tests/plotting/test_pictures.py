"""Grids of images and maps of decisions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

from manifoldkit import plotting
from manifoldkit.plotting import plot_attack_rows, plot_decision_map, plot_images, plot_tangent_images
from manifoldkit.plotting._style import GREEN, VERMILLION

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 5, 4))


def test_images_titles_and_limits():
    axes = plot_images(0.5 * IMAGES, rows=2, titles=list("abcdef"), title_colors=["red"] * 6, row_labels=["x", "y"])
    assert axes.shape == (2, 3)
    for ax, image, title in zip(axes.flat, IMAGES, "abcdef", strict=True):
        assert np.allclose(ax.images[0].get_array(), 0.5 * image)
        assert ax.images[0].get_clim() == (0, 1)
        assert ax.get_title() == title
        assert same_color(ax.title.get_color(), "red")
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["x", "y"]


def test_grid_shapes():
    assert plot_images(IMAGES).shape == (2, 3)
    assert plot_images(IMAGES[:5], cols=2).shape == (3, 2)
    empty = plot_images(IMAGES[:5], cols=2)[2, 1]
    assert not empty.images
    assert not empty.axison


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((6, 1, 5, 4), lambda image: image[0]),
        ((6, 3, 5, 4), lambda image: np.moveaxis(image, 0, 2)),
        ((6, 5, 4, 3), lambda image: image),
    ],
)
def test_channels(shape, shown):
    images = RNG.random(shape)
    assert np.allclose(plot_images(images)[0, 0].images[0].get_array(), shown(images[0]))


def test_symmetric_limits_are_common():
    signed = IMAGES - 0.7
    for ax in plot_images(signed, limits="symmetric").flat:
        assert np.allclose(ax.images[0].get_clim(), (-np.abs(signed).max(), np.abs(signed).max()))
    assert plot_images(np.zeros((1, 2, 2)), limits="symmetric")[0, 0].images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("images", "keywords", "message"),
    [
        (IMAGES[0], {}, r"wrap a single image as image\[None\]"),
        (IMAGES[:0], {}, "images must have shape"),
        (np.zeros((2, 5, 4, 2)), {}, "images must have shape"),
        (IMAGES, {"rows": 2, "cols": 2}, "no room for 6"),
        (IMAGES, {"rows": 0}, "rows must be"),
        (IMAGES, {"titles": ["a"]}, "titles must have 6"),
        (IMAGES, {"row_labels": ["a"], "rows": 2}, "row_labels must have 2"),
        (IMAGES, {"limits": (1, 0)}, "low < high"),
        (IMAGES, {"limits": "auto"}, "limits must be a pair"),
        (IMAGES * np.inf, {}, "NaN or infinity"),
    ],
)
def test_bad_images(images, keywords, message):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        plot_images(images, **keywords)
    assert not plt.get_fignums()


def test_tangent_images():
    basis = np.linalg.qr(RNG.standard_normal((20, 3)))[0]
    axes = plot_tangent_images(IMAGES[0].ravel(), basis, (5, 4))
    assert axes.shape == (1, 4)
    assert np.allclose(axes[0, 0].images[0].get_array(), IMAGES[0])
    assert axes[0, 0].images[0].get_clim() == (0, 1)
    for i, ax in enumerate(axes[0, 1:]):
        assert np.allclose(ax.images[0].get_array().ravel(), basis[:, i])
        assert np.allclose(ax.images[0].get_clim(), (-np.abs(basis).max(), np.abs(basis).max()))
        assert ax.get_title() == f"tangent {i + 1}"


@pytest.mark.parametrize(
    ("image", "basis", "keywords", "message"),
    [
        (np.zeros(20), np.zeros((20, 1)), {}, r"give shape=\(H, W\)"),
        (np.zeros(20), np.zeros((20, 1)), {"shape": (4, 4)}, "is no image"),
        (np.zeros((5, 4)), np.zeros((3, 1)), {}, "basis must have shape"),
        (np.zeros((5, 4)), np.zeros((1, 20, 1)), {}, "pass that of one image"),
        (np.zeros((5, 4)), np.zeros((20, 2)), {"titles": ["a"]}, "titles must have 3"),
    ],
)
def test_bad_tangent_images(image, basis, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot_tangent_images(image, basis, **keywords)


def test_attack_rows():
    gradients = RNG.standard_normal((3, 5, 4))
    adversaries = np.clip(IMAGES[:3] + 0.1, 0, 1)
    axes = plot_attack_rows(
        IMAGES[:3], gradients, gradients * 0.25, adversaries, [1, 7, 3], [1, 2, 3], predictions_before=[1, 2, 4]
    )
    for row, stack in enumerate((IMAGES[:3], gradients, gradients * 0.25, adversaries)):
        for ax, image in zip(axes[row], stack, strict=True):
            assert np.allclose(ax.images[0].get_array(), image)
            limit = np.abs(image).max()
            assert np.allclose(ax.images[0].get_clim(), (-limit, limit) if row in (1, 2) else (0, 1))
    assert [ax.get_title() for ax in axes[0]] == ["1 ✓", "2 ✓", "4 ✗"]
    assert [ax.get_title() for ax in axes[2]] == ["25 %"] * 3
    assert [ax.get_title() for ax in axes[3]] == ["1 ✓", "7 ✗", "3 ✓"]
    colors = [ax.title.get_color() for ax in axes[3]]
    assert all(same_color(*pair) for pair in zip(colors, [GREEN, VERMILLION, GREEN], strict=True))
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["original", "gradient", "tangent\npart", "adversary"]


def test_a_gradient_of_zero_has_no_tangent_part():
    zero = np.zeros((1, 5, 4))
    assert plot_attack_rows(zero, zero, zero, zero, [0], [0])[2, 0].get_title() == "0 %"


def test_bad_attack_rows():
    x = IMAGES[:2]
    with pytest.raises(ValueError, match="one shape"):
        plot_attack_rows(x, x, x, IMAGES[:3], [0, 1], [0, 1])
    with pytest.raises(ValueError, match=r"predictions must have shape \(2,\)"):
        plot_attack_rows(x, x, x, x, [0], [0, 1])
    with pytest.raises(ValueError, match="argmax"):
        plot_attack_rows(x, x, x, x, [0.2, 0.8], [0, 1])
    with pytest.raises(ValueError, match="row_labels must have 4"):
        plot_attack_rows(x, x, x, x, [0, 1], [0, 1], row_labels=["a"])
    with pytest.raises(ValueError, match="one channel"):
        plot_attack_rows(np.zeros((2, 3, 5, 5)), x, x, x, [0, 1], [0, 1])
    assert not plt.get_fignums()


ANGLES, SCALES = np.linspace(-90, 90, 37), np.linspace(0.5, 1.5, 21)


def test_decision_map_of_an_array_is_that_of_a_function():
    classes = np.where(ANGLES[None, :] > 0, 9, 6) + 0 * SCALES[:, None]
    by_array = plot_decision_map(classes, ANGLES, SCALES)
    by_function = plot_decision_map(lambda points: np.where(points[:, 0] > 0, 9, 6), ANGLES, SCALES)
    for ax in (by_array, by_function):
        mesh = ax.collections[0]
        assert np.array_equal(np.array([6, 9])[mesh.get_array().reshape(21, 37)], classes)
        assert sorted(text.get_text() for text in ax.texts) == ["6", "9"]
        for text in ax.texts:  # each name lies in its region
            assert (text.get_position()[0] > 0) == (text.get_text() == "9")
    assert np.allclose(by_array.get_xlim(), (-92.5, 92.5))
    assert np.allclose(by_array.get_ylim(), (0.475, 1.525))


@pytest.mark.parametrize("corner", [(0.5, 0.5), (359.5, 0.5), (0.5, 44.5), (359.5, 44.5)])
def test_names_of_ends_stay_within_the_map(corner):
    figure, ax = plt.subplots(figsize=(11, 3))
    path = np.array([[180.0, 20.0], corner])
    plot_decision_map(np.zeros((46, 361), int), np.arange(361), np.arange(46), path=path, ax=ax)
    figure.canvas.draw()
    inside = ax.get_window_extent()
    for text in (text for text in ax.texts if text.get_text() in ("start", "end")):
        box = text.get_window_extent()
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1
    plt.close(figure)


def test_decision_map_path_names_and_true_class():
    path = np.column_stack([np.linspace(-45, 45, 5), np.ones(5)])
    classes = np.where(ANGLES[None, :] > 0, 1, 0) + 0 * SCALES[:, None]
    ax = plot_decision_map(
        classes, ANGLES, SCALES, path=path, true_class=0, class_names=["six", "nine"], xlabel="angle", ylabel="scale"
    )
    assert np.allclose(ax.lines[0].get_xydata(), path)
    assert [text.get_text() for text in ax.texts] == ["six", "nine", "start", "end"]
    assert all(abs(text.get_position()[1] - 1) > 0.05 for text in ax.texts[:2])  # names leave the path free
    colors = ax.collections[0].cmap.colors
    assert min(colors[0]) > 0.95
    assert max(colors[0]) - min(colors[1]) > 0.3
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("angle", "scale")


def test_decision_map_with_one_class_and_one_step():
    ax = plot_decision_map(np.full((21, 37), 4), ANGLES, SCALES, path=[[0.0, 1.0]])
    assert [text.get_text() for text in ax.texts] == ["4", "start", "end"]


@pytest.mark.parametrize("seed", range(4))
def test_names_of_regions_overlap_neither_each_other_nor_the_rim(seed):
    """Small regions of long names in a corner, and a path that ends there."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((21, 37), dtype=int)
    classes[15:, 25:] = np.kron(rng.permutation(6).reshape(2, 3) + 1, np.ones((3, 4), dtype=int))
    names = [f"a long name {i}" for i in range(7)]
    ax = plot_decision_map(classes, ANGLES, SCALES, path=[[0.0, 0.7], [80.0, 1.4]], class_names=names)
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    inside = [text for text in ax.texts if text.get_text() in names]
    listed = [text.get_text() for text in legend.get_texts()]
    assert sorted({text.get_text() for text in inside} | set(listed)) == names  # each class is named somewhere
    assert listed
    assert not {text.get_text() for text in inside} & set(listed)
    boxes = [text.get_window_extent() for text in [*inside, *ax.texts[-2:]]]
    whole = ax.get_window_extent()
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
    for text in legend.get_texts():
        assert text.get_window_extent().x0 > whole.x1


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((np.zeros((37, 21)), ANGLES, SCALES), {}, r"predict must have shape \(21, 37\)"),
        ((np.full((21, 37), 0.5), ANGLES, SCALES), {}, "argmax"),
        ((lambda points: points, ANGLES, SCALES), {}, r"predict\(points\) must have shape"),
        ((np.zeros((21, 37)), ANGLES[::-1].copy(), SCALES), {}, "x must be an ascending"),
        ((np.zeros((21, 37)), ANGLES, 1.0), {}, "y must be an ascending"),
        ((np.zeros((21, 37)), ANGLES, SCALES), {"path": np.zeros((3, 3))}, "path must have 2 columns"),
        ((np.ones((21, 37)), ANGLES, SCALES), {"class_names": ["a"]}, "must name all classes"),
    ],
)
def test_bad_decision_maps(arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot_decision_map(*arguments, **keywords)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.plot_loss_map(np.ones((2, 2)), [0, 1, 2], [0, 1]), r"loss must have shape \(2, 3\)"),
        (lambda: plotting.plot_loss_map(lambda p: p[:1, 0], [0, 1], [0, 1]), "4 numbers for as many points"),
        (lambda: plotting.plot_loss_map(np.ones((2, 2)), [1, 0], [0, 1]), "ascending"),
        (lambda: plotting.plot_loss_map(np.ones((2, 2)), [0, 1], [0, 1], boundary=np.ones(2)), "boundary must have"),
        (lambda: plotting.plot_robustness({}), "one entry at the least"),
        (lambda: plotting.plot_robustness({"a": ([0, 1], [1])}), "two vectors of one length"),
    ],
)
def test_maps_and_curves_that_do_not_fit(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_loss_map_shows_the_loss_where_it_is():
    x, y = np.linspace(0, 1, 5), np.linspace(0, 2, 4)
    ax = plotting.plot_loss_map(lambda p: p[:, 0] + 10 * p[:, 1], x, y)
    values = np.asarray(ax.collections[0].get_array()).reshape(4, 5)
    assert np.allclose(values, x + 10 * y[:, None])


def test_robustness_curves_hold_the_figures_given():
    ax = plotting.plot_robustness({"PGD": ([0, 0.1], [0.9, 0.2]), "FGSM": ([0, 0.1], [0.9, 0.2])})
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.9, 0.2]] * 2
    heights = [text.xy[1] for text in ax.texts]
    assert abs(heights[0] - heights[1]) > 0.05  # names of curves that end together do not overlap
