"""Homographies: a group of determinant one, content that moves where the matrix says, views made as described."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from manifoldkit.datasets import (
    HOMOGRAPHY_GENERATORS,
    HomographyViews,
    ShiftViews,
    random_homographies,
    warp_homographies,
)


def bump(size, centre, width=0.12, matrix=None):
    """A smooth spot at a place of the picture, moved exactly by a homography."""
    ticks = (2 * np.arange(size) + 1) / size - 1
    points = np.stack([*np.meshgrid(ticks, ticks), np.ones((size, size))], axis=-1)
    if matrix is not None:
        points = points @ np.linalg.inv(matrix).T
        points = points / points[..., 2:]
    return np.exp(-np.square(points[..., :2] - centre).sum(-1) / (2 * width**2))


def test_generators_are_a_basis_of_the_traceless_matrices():
    assert np.linalg.matrix_rank(HOMOGRAPHY_GENERATORS.reshape(8, 9)) == 8
    np.testing.assert_allclose(np.trace(HOMOGRAPHY_GENERATORS, axis1=1, axis2=2), 0, atol=1e-15)
    with pytest.raises(ValueError, match="read-only"):
        HOMOGRAPHY_GENERATORS[0, 0, 0] = 1.0


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_exponentials_of_scaled_normal_coefficients(seed):
    strengths = np.arange(8) / 8
    drawn = random_homographies(50, scale=0.7, strengths=strengths, random_state=seed)
    coefficients = 0.7 * strengths * np.random.default_rng(seed).standard_normal((50, 8))
    expected = [expm(np.tensordot(row, HOMOGRAPHY_GENERATORS, axes=1)) for row in coefficients]
    np.testing.assert_allclose(drawn, expected, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(drawn), 1.0, atol=1e-12)


def test_scale_zero_is_the_identity_and_leaves_images_as_they_are():
    matrices = random_homographies(4, scale=0.0, random_state=0)
    np.testing.assert_array_equal(matrices, np.broadcast_to(np.eye(3), (4, 3, 3)))
    images = np.random.default_rng(0).random((4, 9, 12))
    np.testing.assert_allclose(warp_homographies(images, matrices), images, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_content_moves_by_the_homography(seed):
    """Against the spot computed exactly at the moved coordinates: bilinear error of a smooth picture."""
    matrix = random_homographies(1, random_state=seed)[0]
    warped = warp_homographies(bump(96, (0.1, -0.2))[None], matrix)[0]
    np.testing.assert_allclose(warped, bump(96, (0.1, -0.2), matrix=matrix), atol=0.01)
    row, column = np.unravel_index(warped.argmax(), warped.shape)
    there = matrix @ [0.1, -0.2, 1.0]
    np.testing.assert_allclose([(2 * column + 1) / 96 - 1, (2 * row + 1) / 96 - 1], there[:2] / there[2], atol=2.1 / 96)


def test_shifts_and_quarter_turns_are_exact():
    picture = np.random.default_rng(0).random((1, 8, 8))
    right = np.eye(3) + 0.25 * HOMOGRAPHY_GENERATORS[0]
    np.testing.assert_allclose(warp_homographies(picture, right)[0, :, 1:], picture[0, :, :-1], atol=1e-12)
    assert not warp_homographies(picture, right)[0, :, 0].any()
    down = np.eye(3) + 0.25 * HOMOGRAPHY_GENERATORS[1]
    np.testing.assert_allclose(warp_homographies(picture, down)[0, 1:], picture[0, :-1], atol=1e-12)
    turn = expm(np.pi / 2 * HOMOGRAPHY_GENERATORS[2])  # x to y, and y counts downwards: clockwise as displayed
    np.testing.assert_allclose(warp_homographies(picture, turn)[0], np.rot90(picture[0], -1), atol=1e-12)


def test_a_homography_after_another_is_their_product():
    first, second = random_homographies(2, scale=0.3, random_state=1)
    picture = bump(128, (0.0, 0.1), width=0.2)[None]
    twice = warp_homographies(warp_homographies(picture, first), second)
    np.testing.assert_allclose(twice, warp_homographies(picture, second @ first), atol=0.01)


@pytest.mark.parametrize("factor", [-1.0, 1e-6, -1e6])
def test_multiples_are_the_same_homography(factor):
    matrices = random_homographies(5, random_state=0)
    images = np.random.default_rng(0).random((5, 9, 9))
    np.testing.assert_allclose(warp_homographies(images, factor * matrices), warp_homographies(images, matrices))
    mirror = np.diag([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(warp_homographies(images, factor * mirror), images[:, :, ::-1], atol=1e-12)


def test_beyond_the_horizon_there_is_nothing():
    matrix = expm(2.0 * HOMOGRAPHY_GENERATORS[6])
    warped = warp_homographies(np.ones((1, 16, 16)), matrix)
    # The inverse sends x to x / (1 - 2 x): the left half comes from within, x > 1/2 lies behind the horizon.
    assert not warped[0, :, 13:].any()
    assert warped[0, :, :8].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kind_dtype_channels_and_derivatives(dtype):
    matrices = random_homographies(3, random_state=0)
    images = np.random.default_rng(0).random((3, 10, 10)).astype(dtype)
    warped = warp_homographies(images, matrices)
    assert isinstance(warped, np.ndarray)
    assert warped.dtype == dtype
    leaf = torch.from_numpy(images).requires_grad_()
    from_torch = warp_homographies(leaf, torch.from_numpy(matrices))
    np.testing.assert_array_equal(from_torch.detach().numpy(), warped)
    from_torch.sum().backward()
    assert leaf.grad.abs().max() > 0
    stacked = warp_homographies(np.stack([images, images], axis=1), matrices)
    np.testing.assert_array_equal(stacked[:, 1], warped)


def test_views_are_warped_images_and_draws_differ_but_repeat_with_the_seed():
    images = np.random.default_rng(0).random((7, 12, 12))
    first, second = (HomographyViews(images, n_views=3, random_state=4) for _ in range(2))
    views = first.draw(5)
    assert views.shape == (3, 5, 1, 12, 12)
    torch.testing.assert_close(second.draw(5), views, atol=0, rtol=0)
    assert (first.draw(5) - views).abs().max() > 0
    still = HomographyViews(images, scale=0.0, random_state=0).draw(5)
    torch.testing.assert_close(still[0], still[1], atol=1e-6, rtol=0)
    distances = torch.cdist(still[0].flatten(1), torch.as_tensor(images).float().flatten(1))
    assert distances.min(dim=1).values.max() < 1e-4


def test_stacks_are_shifted_by_allowed_shifts_alone():
    images = np.random.default_rng(0).standard_normal((30, 6, 8))
    allowed = [(1, 2), (5, 0)]
    before, after = ShiftViews(images, 10, shifts=allowed, random_state=0).draw(40)
    hits = [[torch.equal(torch.roll(b, s, (1, 2)), a) for s in allowed] for b, a in zip(before, after, strict=True)]
    assert (np.sum(hits, axis=1) == 1).all()
    assert (np.sum(hits, axis=0) > 5).all()
    assert len(torch.unique(before[0].flatten(1), dim=0)) == 10  # without repetition
    for dtype in (np.int8, np.uint8):
        again = ShiftViews(images, 10, shifts=np.array(allowed, dtype=dtype), random_state=0).draw(40)
        assert torch.equal(again, torch.stack([before, after]))
    before, after = ShiftViews(images, 3, random_state=0).draw(500)
    norms = torch.stack([(torch.roll(before, s, (2, 3)) - after).abs().amax((1, 2, 3)) for s in np.ndindex(6, 8)])
    assert ((norms == 0).sum(dim=1) > 0).all()  # every shift comes


IMAGES = np.zeros((2, 4, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random_homographies(0), ValueError, "n_samples must be at least 1"),
        (lambda: random_homographies(2, scale=-1.0), ValueError, "scale"),
        (lambda: random_homographies(2, strengths=[1.0] * 7), ValueError, "8 numbers"),
        (lambda: random_homographies(2, strengths=[-1.0] * 8), ValueError, "8 numbers"),
        (lambda: random_homographies(2, random_state="x"), TypeError, "random_state"),
        (lambda: warp_homographies(np.zeros((2, 4, 4), dtype=np.uint8), np.eye(3)), TypeError, "floating"),
        (lambda: warp_homographies(np.zeros((4, 4)), np.eye(3)), ValueError, "shape"),
        (lambda: warp_homographies(np.full((1, 4, 4), np.nan), np.eye(3)), ValueError, "NaN"),
        (lambda: warp_homographies(IMAGES, np.eye(2)), ValueError, "homographies must have shape"),
        (lambda: warp_homographies(IMAGES, np.stack([np.eye(3)] * 3)), ValueError, "homographies must have shape"),
        (lambda: warp_homographies(IMAGES, np.zeros((3, 3))), ValueError, "invertible"),
        (lambda: warp_homographies(IMAGES, np.full((3, 3), np.inf)), ValueError, "NaN or infinity"),
        (lambda: HomographyViews(IMAGES[0]), ValueError, "images must have shape"),
        (lambda: HomographyViews(IMAGES.astype(np.uint8)), TypeError, "scale bytes"),
        (lambda: ShiftViews(torch.zeros(2, 4, 4, dtype=torch.uint8), 2), TypeError, "scale bytes"),
        (lambda: HomographyViews(IMAGES, n_views=1), ValueError, "n_views"),
        (lambda: HomographyViews(IMAGES * np.nan), ValueError, "NaN"),
        (lambda: HomographyViews(IMAGES).draw(0), ValueError, "n_samples"),
        (lambda: ShiftViews(IMAGES, 3), ValueError, "at most the 2 images"),
        (lambda: ShiftViews(IMAGES, 2, shifts=[1, 2]), ValueError, "pairs of integers"),
        (lambda: ShiftViews(IMAGES, 2, shifts=[(0.5, 1.0)]), ValueError, "pairs of integers"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
