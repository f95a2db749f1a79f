"""Renderings of one picture: known turns, the identity, and agreement of maker and renderer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit.datasets import load_mnist, make_rotated_digit, render_digit


@pytest.fixture(scope="module")
def digit():
    return load_mnist("test", classes=2, n_per_class=1, random_state=0).images[0]


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_no_turn_is_the_identity(digit, order):
    np.testing.assert_allclose(render_digit(digit, 0.0, order=order), digit, atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(28, 28), (7, 7)])
def test_quarter_turns_are_exact_to_the_border(quarters, order, shape):
    picture = np.random.default_rng(0).random(shape)
    if order == 3:
        picture[:2] = picture[-2:] = picture[:, :2] = picture[:, -2:] = 0.0  # splines mix in the zeros outside
    turned = render_digit(picture, 90.0 * quarters, order=order)
    np.testing.assert_allclose(turned, np.rot90(picture, quarters), atol=0.02 if order == 3 else 1e-12)


def test_scale_enlarges_about_the_centre():
    rows, columns = np.mgrid[:29, :29] - 14.0
    bump = lambda width: np.exp(-(rows**2 + columns**2) / (2 * width**2))  # noqa: E731
    np.testing.assert_allclose(render_digit(bump(3.0), 33.0, 1.5), bump(4.5), atol=0.01)
    np.testing.assert_allclose(render_digit(bump(3.0), 33.0, 0.5), bump(1.5), atol=0.01)


def test_values_stay_in_the_unit_interval(digit):
    images = make_rotated_digit(digit, angles=np.linspace(0, 360, 37), scales=[0.7, 1.0, 1.4]).images
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert images.shape == (111, 28, 28)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{"angles": [0, 10.5, 200], "scales": [0.9, 1.1]}, {"angles": (-30, 30), "scales": (0.8, 1.2), "n_samples": 7}],
)
def test_images_are_exactly_the_renderings_at_their_parameters(digit, options, order):
    made = make_rotated_digit(digit, random_state=0, order=order, **options)
    assert made.parameter_names == ("angle", "scale")
    assert made.images.dtype == digit.dtype
    again = np.stack([render_digit(digit, *row, order=order) for row in made.parameters])
    np.testing.assert_array_equal(made.images, again)


def test_lattice_runs_over_angles_slowest_and_draws_fill_their_ranges(digit):
    lattice = make_rotated_digit(digit, angles=[0, 90], scales=[1.0, 2.0]).parameters
    np.testing.assert_array_equal(lattice, [[0, 1], [0, 2], [90, 1], [90, 2]])
    drawn = make_rotated_digit(digit, angles=(-30, 30), n_samples=200, random_state=0).parameters
    assert -30 <= drawn[:, 0].min() < -25
    assert 25 < drawn[:, 0].max() <= 30
    assert set(drawn[:, 1]) == {1.0}


def test_cubic_rendering_is_smooth_in_the_angle(digit):
    # Second differences of a smooth family shrink with the square of the step, of one with kinks only with the step.
    grey = 0.3 + 0.4 * digit.astype(float)  # overshoots are not clipped

    def bend(order, step):
        images = make_rotated_digit(grey, angles=np.arange(40, 50, step), order=order).images[:, 6:22, 6:22]
        return np.abs(images[2:] - 2 * images[1:-1] + images[:-2]).max()

    assert bend(1, 0.1) / bend(1, 0.05) < 2.5
    assert bend(3, 0.1) / bend(3, 0.05) > 3.5


def test_tensors_come_back_as_tensors(digit):
    image = torch.from_numpy(digit)
    made = make_rotated_digit(image, angles=[10.0])
    assert isinstance(made.images, torch.Tensor)
    assert made.images.dtype == torch.float32
    np.testing.assert_array_equal(made.images[0].numpy(), render_digit(digit, 10.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: render_digit(x[None], 0.0),
            ValueError,
            r"must have shape \(height, width\), got \(1, 28, 28\)",
        ),
        (lambda x: render_digit(x * 255, 0.0), ValueError, r"values in \[0, 1\], got \[0, .*divide bytes by 255"),
        (lambda x: render_digit(x, float("inf")), ValueError, "angle must be a finite number"),
        (lambda x: render_digit(x, 0.0, 0.0), ValueError, "scale must be a finite number in"),
        (lambda x: render_digit(x, 0.0, order=6), ValueError, "order must be a spline degree from 0 to 5, got 6"),
        (lambda x: render_digit([["a"]], 0.0), TypeError, "image must hold real numbers"),
        (lambda x: make_rotated_digit(x, angles=[]), ValueError, r"angles must be a number or a list .* \(0,\)"),
        (lambda x: make_rotated_digit(x, angles=[[0.0]]), ValueError, "flatten it first"),
        (lambda x: make_rotated_digit(x, angles=0, scales=[1, -1]), ValueError, "scales must be positive, got -1.0"),
        (lambda x: make_rotated_digit(x, angles=[0, 1, 2], n_samples=3), ValueError, "leave n_samples out"),
        (lambda x: make_rotated_digit(x, angles=(2, 1), n_samples=3), ValueError, r"pair \(lowest, highest\)"),
        (lambda x: make_rotated_digit(x, angles=[np.nan]), ValueError, "angles contains NaN or infinity"),
    ],
)
def test_wrong_arguments_say_what_came_and_what_was_expected(digit, call, error, message):
    with pytest.raises(error, match=message):
        call(digit)
