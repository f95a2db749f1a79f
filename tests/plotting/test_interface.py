"""What all plots have in common: axes in and out, no global state, numpy and torch, matplotlib only when asked for."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

import manifoldkit.plotting as plotting

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((7, 2))
IMAGES = RNG.random((3, 5, 5))


def calls(manifold):
    """Each function as a function of `convert` (of arrays) and keywords."""
    result = SimpleNamespace(success=np.array([True, False]), steps_taken=np.array([1, 3]))
    return {
        "plot_vectors": lambda c, **kw: plotting.plot_vectors(c(POINTS), c(POINTS[::-1].copy()), **kw),
        "plot_projection": lambda c, **kw: plotting.plot_projection(c(POINTS), c(POINTS / 2), samples=c(POINTS), **kw),
        "plot_scaling_curve": lambda c, **kw: plotting.plot_scaling_curve(manifold, **kw),
        "plot_spectrum": lambda c, **kw: plotting.plot_spectrum(c(manifold.eigenvalues_), c(np.arange(9.0)), **kw),
        "plot_embedding": lambda c, **kw: plotting.plot_embedding(
            manifold, c(manifold.eigenfunctions_[:, 1]), path=c(POINTS), **kw
        ),
        "plot_success_curve": lambda c, **kw: plotting.plot_success_curve(
            {"PGD": SimpleNamespace(success=c(result.success), steps_taken=c(result.steps_taken))}, **kw
        ),
        "plot_decision_map": lambda c, **kw: plotting.plot_decision_map(
            c(np.arange(6).reshape(2, 3)), c(np.arange(3.0)), c(np.arange(2.0)), path=c(np.ones((2, 2))), **kw
        ),
        "plot_loss_map": lambda c, **kw: plotting.plot_loss_map(
            c(np.arange(6.0).reshape(2, 3)), c(np.arange(3.0)), c(np.arange(2.0)), path=c(np.ones((2, 2))),
            boundary=c(np.eye(2, 3)), **kw,
        ),
        "plot_robustness": lambda c, **kw: plotting.plot_robustness(
            {"PGD": (c(np.arange(3.0)), c(np.array([0.9, 0.5, 0.1]))), "FGSM": (c(np.ones(1)), c(np.ones(1)))}, **kw
        ),
    }  # fmt: skip


def grid_calls():
    basis = np.linalg.qr(RNG.standard_normal((25, 2)))[0]
    return {
        "plot_images": (lambda c, **kw: plotting.plot_images(c(IMAGES), rows=1, **kw), (1, 3)),
        "plot_tangent_images": (lambda c, **kw: plotting.plot_tangent_images(c(IMAGES[0]), c(basis), **kw), (1, 3)),
        "plot_attack_rows": (
            lambda c, **kw: plotting.plot_attack_rows(
                *map(c, (IMAGES, IMAGES, IMAGES, IMAGES)), c(np.arange(3)), c(np.arange(3)), **kw
            ),
            (4, 3),
        ),
    }


NAMES = (
    "plot_vectors", "plot_projection", "plot_scaling_curve", "plot_spectrum", "plot_embedding", "plot_success_curve",
    "plot_decision_map", "plot_loss_map", "plot_robustness",
)  # fmt: skip
GRIDS = ("plot_images", "plot_tangent_images", "plot_attack_rows")


def test_the_lists_above_are_complete():
    assert sorted(NAMES + GRIDS) == sorted(plotting.__all__)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_draws_in_the_axes_given_or_in_a_new_figure(name, convert, manifold):
    draw = calls(manifold)[name]
    figure, (ax, other) = plt.subplots(1, 2)
    assert draw(convert, ax=ax) is ax
    assert ax.has_data()
    assert not other.has_data()
    assert plt.get_fignums() == [figure.number]
    new = draw(convert)
    assert isinstance(new, Axes)
    assert new.figure is not figure
    assert new.has_data()
    new.figure.canvas.draw()


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", GRIDS)
def test_grids_draw_in_the_axes_given_or_in_a_new_figure(name, convert):
    draw, shape = grid_calls()[name]
    figure, axes = plt.subplots(*shape, squeeze=False)
    result = draw(convert, axes=axes)
    assert result.shape == shape
    assert all(mine is given for mine, given in zip(result.flat, axes.flat, strict=True))
    assert plt.get_fignums() == [figure.number]
    new = draw(convert)
    assert new.shape == shape
    assert new[0, 0].figure is not figure
    new[0, 0].figure.canvas.draw()


@pytest.mark.parametrize("name", NAMES)
def test_everything_drawn_lies_inside_the_figure(name, manifold):
    ax = calls(manifold)[name](np.asarray)
    figure = ax.figure
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    tight = figure.get_tightbbox(figure.canvas.get_renderer())
    assert tight.x0 >= -0.02
    assert tight.y0 >= -0.02
    assert tight.x1 <= width + 0.02
    assert tight.y1 <= height + 0.02


@pytest.mark.parametrize("name", NAMES)
def test_bad_axes(name, manifold):
    draw = calls(manifold)[name]
    with pytest.raises(ValueError, match="ax must be a matplotlib Axes"):
        draw(np.asarray, ax=plt.figure())
    with pytest.raises(ValueError, match="3-d axes"):
        draw(np.asarray, ax=plt.figure().add_subplot(projection="3d"))


@pytest.mark.parametrize("name", GRIDS)
def test_bad_grids(name):
    draw, _ = grid_calls()[name]
    with pytest.raises(ValueError, match="axes must hold"):
        draw(np.asarray, axes=plt.subplots(1, 2)[1])
    with pytest.raises(ValueError, match="axes must hold"):
        draw(np.asarray, axes=["no", "axes", "here"])


@pytest.mark.parametrize("package", ["manifoldkit", "manifoldkit.attacks", "manifoldkit.datasets"])
def test_matplotlib_is_imported_by_plots_only(package):
    code = f"import sys, {package}; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
