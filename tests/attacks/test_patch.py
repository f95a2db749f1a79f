"""Attacks on a patch: what may change, how steps are taken, and input that is refused."""

from __future__ import annotations

import pytest
import torch

from manifoldkit.attacks import PGD, PatchPGD, PatchSearch, rectangle_mask
from manifoldkit.attacks.losses import cross_entropy
from manifoldkit.exceptions import UnsteadyModelWarning

MASK = rectangle_mask((1, 6, 6), 1, 2, 3, 2)


def attacks(model, **options):
    return [
        PatchPGD(model, MASK, 0.1, 12, **options),
        PatchPGD(model, MASK, 0.1, 12, nesterov=1.0, **options),
        PatchPGD(model, MASK, 0.1, 12, random_start=True, restarts=2, generator=torch.Generator().manual_seed(0)),
        PatchSearch(model, MASK, 40, generator=torch.Generator().manual_seed(0), **options),
    ]


@pytest.mark.parametrize("which", range(4))
def test_only_the_patch_changes_and_stays_within_the_bounds(convnet, images, which):
    y = convnet(images).argmax(1)
    result = attacks(convnet)[which].run(images, y)
    change = result.adversarial - images
    assert (change[:, MASK == 0] == 0).all()
    assert change[:, MASK == 1].abs().max() > 0.2
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert (result.success == (convnet(result.adversarial).argmax(1) != y)).all()
    assert result.success.any()


@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_patch_raises_the_loss(convnet, images, which):
    y = convnet(images).argmax(1)
    adversarial = attacks(convnet, early_stop=False)[which](images, y)
    with torch.no_grad():
        assert cross_entropy(convnet(adversarial), y).mean() > cross_entropy(convnet(images), y).mean() + 0.05


def test_a_mask_of_ones_and_a_ball_is_plain_pgd(convnet, images):
    y = convnet(images).argmax(1)
    ours = PatchPGD(convnet, torch.ones(1, 6, 6), 0.02, 10, eps=0.1)(images, y)
    torch.testing.assert_close(ours, PGD(convnet, 0.1, 0.02, 10)(images, y), rtol=0, atol=0)


def test_replaced_bounds_and_radii_limit_the_patch(convnet, images):
    """Without a radius it is the bounds that limit a patch, also other ones than it was made with."""
    y = convnet(images).argmax(1)
    attack = PatchPGD(convnet, MASK, 5.0, 4, early_stop=False)
    wide = attack.replaced(bounds=(0, 100))
    assert not wide.limited_by_eps
    assert torch.equal(wide(images, y), PatchPGD(convnet, MASK, 5.0, 4, bounds=(0, 100), early_stop=False)(images, y))
    assert (wide(images, y) - images).abs().max() > 5
    near = wide.replaced(eps=0.5)
    assert near.limited_by_eps
    assert (near(images, y) - images).abs().max() <= 0.5 + 1e-6
    assert torch.equal(near.replaced(eps=None)(images, y), wide(images, y))
    other = rectangle_mask((1, 6, 6), 0, 0, 1, 1)
    assert (attack.replaced(mask=other)(images, y) - images)[:, other == 0].abs().max() == 0
    search = PatchSearch(convnet, MASK, 5, generator=torch.Generator().manual_seed(0)).replaced(generator=None)
    assert search.run(images, y).success.shape == y.shape


def test_shortened_steps_keep_the_best_patch_of_a_network_that_draws(convnet, images):
    y = convnet(images).argmax(1)

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.generator = convnet, torch.Generator().manual_seed(0)

        def forward(self, x):
            return self.net(x + 0.1 * torch.randn(x.shape, generator=self.generator))

    attack = PatchPGD(Noisy(), MASK, 0.5, 20, step_control="apgd", loss="margin", early_stop=False, record_path=True)
    with pytest.warns(UnsteadyModelWarning, match="draws random numbers"):
        result = attack.run(images, y)
    assert (result.adversarial - images)[:, MASK == 0].abs().max() == 0
    with torch.no_grad():
        losses = torch.stack([cross_entropy(convnet(x), y) for x in result.path])
    assert (losses[-1] - losses[0]).mean() > 0.05
    moved = [(a != b).flatten(1).any(1).sum() for a, b in zip(result.path[:-1], result.path[1:], strict=True)]
    assert moved[-1] < len(images)  # samples stay at their best patch
    with pytest.raises(ValueError, match="leave nesterov out"):
        attack.replaced(nesterov=1.0)


def test_masks_may_differ_between_images(convnet, images):
    y = convnet(images).argmax(1)
    masks = torch.zeros(len(images), 1, 6, 6)
    masks[torch.arange(len(images)), 0, torch.arange(len(images)) % 6] = 1
    change = PatchPGD(convnet, masks, 0.1, 10)(images, y) - images
    assert (change[masks == 0] == 0).all()
    assert change.flatten(1).any(1).sum() > 30


def test_nesterov_steps_are_those_of_the_formula(convnet, images):
    y = convnet(images).argmax(1)
    alpha, mu, mask = 0.1, 0.9, MASK.double()
    x, g = images.clone(), torch.zeros_like(images)
    for _ in range(5):
        ahead = (x + alpha * mu * g * mask).clamp(0, 1).requires_grad_(True)
        (slope,) = torch.autograd.grad(cross_entropy(convnet(ahead), y).sum(), ahead)
        g = mu * g + slope / slope.flatten(1).abs().sum(1)[:, None, None, None]
        x = (x + alpha * mask * g.sign()).clamp(0, 1)
    ours = PatchPGD(convnet, MASK, alpha, 5, nesterov=mu, early_stop=False)(images, y)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-12)


def test_search_finds_the_best_patch_of_a_linear_classifier(half_space):
    """Without any gradient: the network gives none."""
    w = torch.tensor([1.0, -1.0, 0.5, 2.0])
    model = half_space(w)
    model.weight.requires_grad_(False)
    attack = PatchSearch(model, [1, 1, 0, 0], 400, generator=torch.Generator().manual_seed(0), early_stop=False)
    found = attack(torch.full((3, 4), 0.6, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    expected = torch.tensor([0.0, 1.0, 0.6, 0.6], dtype=torch.float64).expand(3, 4)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_a_rectangle():
    mask = rectangle_mask((2, 5, 6), 1, 2, 3, 4)
    assert mask.sum() == 2 * 12
    assert mask[:, 1:4, 2:].all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("where", "words"),
        [
            ((-1, 0, 1, 1), "top"),
            ((0, 0, 0, 1), "height"),
            ((0, 0, 1, 0), "width"),
            ((4, 0, 3, 1), "outside"),
            ((0, 5, 1, 2), "outside"),
        ],
    )
    def test_rectangles(self, where, words):
        with pytest.raises(ValueError, match=words):
            rectangle_mask((6, 6), *where)

    def test_rectangles_of_wrong_kinds(self):
        with pytest.raises(ValueError, match="height and width"):
            rectangle_mask((6,), 0, 0, 1, 1)
        with pytest.raises(TypeError, match="left"):
            rectangle_mask((6, 6), 0, 0.5, 1, 1)

    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            (torch.zeros(1, 6, 6), "no ones"),
            (torch.full((1, 6, 6), 0.5), "zeros and ones"),
            (2 * torch.ones(1, 6, 6), "zeros and ones"),
            (torch.full((1, 6, 6), float("nan")), "zeros and ones"),
            (torch.ones(1, 5, 6), "broadcast"),
        ],
    )
    def test_masks(self, convnet, images, mask, words):
        with pytest.raises(ValueError, match=words):
            PatchPGD(convnet, mask)(images, torch.zeros(len(images), dtype=torch.int64))

    def test_one_image_without_a_patch(self, convnet, images):
        masks = torch.ones(len(images), 1, 6, 6)
        masks[3] = 0
        with pytest.raises(ValueError, match="no ones"):
            PatchPGD(convnet, masks)(images, torch.zeros(len(images), dtype=torch.int64))

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"nesterov": -1.0}, ValueError, "nesterov"),
            ({"nesterov": "1"}, TypeError, "nesterov"),
            ({"mask": torch.full((1, 6, 6), 0.5)}, ValueError, "zeros and ones"),
            ({"bounds": None}, ValueError, "bounds="),
            ({"alpha": None}, TypeError, "alpha"),
        ],
    )
    def test_values_replaced(self, convnet, changes, error, words):
        with pytest.raises(error, match=words):
            PatchPGD(convnet, MASK).replaced(**changes)

    @pytest.mark.parametrize(
        "options",
        [{"eps": -0.1}, {"eps": 0.0}, {"alpha": 0.0}, {"steps": 0}, {"nesterov": -1.0}, {"bounds": None}],
        ids=str,
    )
    def test_numbers(self, convnet, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            PatchPGD(convnet, MASK, **options)

    def test_images_and_labels(self, convnet, images):
        y = torch.zeros(len(images), dtype=torch.int64)
        with pytest.raises(ValueError, match="within bounds"):
            PatchPGD(convnet, MASK)(images + 1, y)
        with pytest.raises(ValueError, match="labels must lie"):
            PatchPGD(convnet, MASK)(images, y + 4)
