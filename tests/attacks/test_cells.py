"""Attacks inside cells and across them, and their report in symbols, where everything is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from manifoldkit.attacks import PGD, CellPGD, LatentPGD, symbol_changes
from manifoldkit.priors import GridPrior, GridVAE

PRIOR = GridPrior(2, [0.0, 1.0, 2.0], 0.2)
FRAME = torch.linalg.qr(torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]


@pytest.fixture(scope="module")
def vae():
    """A plane in R^4 with an isometric decoder; the encoder is off by a constant, which the refinement repairs."""
    encoder, decoder = nn.Linear(4, 4).double(), nn.Linear(2, 4, bias=False).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([FRAME.T, torch.zeros(2, 4)]))
        encoder.bias.copy_(torch.tensor([0.3, -0.3, -4.0, -4.0]))
        decoder.weight.copy_(FRAME)
    codes = PRIOR.sample(50, torch.Generator().manual_seed(1))
    model = GridVAE(PRIOR, encoder=encoder, decoder=decoder, dtype="float64", max_steps=1, learning_rate=1e-300)
    return model.fit((codes @ FRAME.T).numpy())


def classifier(axis):
    """Class 1 where the code of an axis exceeds 0.8."""
    model = nn.Linear(4, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(4), FRAME[:, axis]]))
        model.bias.copy_(torch.tensor([0.0, -0.8]))
    return model


def images(codes):
    return torch.tensor(codes, dtype=torch.float64) @ FRAME.T


OPTIONS = {"alpha": 0.05, "steps": 60, "bounds": None, "norm": 2}


def test_the_walk_starts_at_the_refined_code(vae):
    x = images([[0.1, 0.2], [1.6, 0.9]]) + 0.5 * torch.linalg.svd(FRAME)[0][:, 3]  # normal to the plane
    wrong = torch.tensor([1, 0])  # broken from the outset, so that no step is taken
    result = CellPGD(classifier(0), vae, eps=1.0, **OPTIONS).run(x, wrong)
    torch.testing.assert_close(result.adversarial, images([[0.1, 0.2], [1.6, 0.9]]))


def test_confined_adversaries_keep_their_symbols_and_free_ones_cross(vae):
    """Class 1 begins at 0.8: inside the cell of 1 (0.5 to 1.5), but outside that of 0."""
    x, labels = images([[0.2, 0.0], [0.6, 0.0], [0.2, 2.0]]), torch.tensor([0, 0, 0])
    inside = CellPGD(classifier(0), vae, eps=1.0, **OPTIONS).run(x, labels)
    report = symbol_changes(inside, vae, x)
    assert inside.success.tolist() == [False, True, False]
    assert not report.changed.any()
    assert report.codes_after[0, 0] == pytest.approx(0.5 - 0.001 * 0.2)  # at the edge of its cell
    free = CellPGD(classifier(0), vae, eps=1.0, confined=False, **OPTIONS).run(x, labels)
    report = symbol_changes(free, vae, x, names=("shape", "colour"))
    assert free.success.all()
    assert report.changed.tolist() == [[True, False], [False, False], [True, False]]
    assert report.summary(0) == "broken; shape: 0 -> 1"
    assert report.summary(1) == "broken; same symbols"
    assert report.rates() == {"shape": pytest.approx(2 / 3), "colour": 0.0}
    near = CellPGD(classifier(0), vae, eps=0.5, confined=False, **OPTIONS).run(x, labels)
    assert near.success.tolist() == [False, True, False]  # the ball still holds


@pytest.mark.parametrize("norm", ["inf", 2])
@pytest.mark.parametrize("seed", range(2))
def test_confinement_and_ball_hold_for_every_norm_start_and_stop(vae, norm, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = PRIOR.sample(40, generator)
    labels = torch.randint(2, (40,), generator=generator)
    eps = torch.rand(40, generator=generator, dtype=torch.float64) + 0.1
    attack = CellPGD(
        classifier(seed), vae, eps=eps, norm=norm, random_start=True, restarts=2, alpha=0.1, steps=9, bounds=None,
        generator=generator,
    )  # fmt: skip
    x = images(codes.tolist())
    result = attack.run(x, labels)
    reached = result.adversarial @ FRAME
    order = float("inf") if norm == "inf" else 2
    assert (torch.linalg.vector_norm(reached - codes, ord=order, dim=1) <= eps + 1e-9).all()
    lower, upper = PRIOR.cell_bounds(codes)
    assert ((reached >= lower - 1e-9) & (reached <= upper + 1e-9)).all()
    assert (result.adversarial - x).abs().amax() > 0


def test_unconfined_it_is_the_attack_on_the_codes(vae):
    x, labels = images([[0.2, 0.0], [1.7, 0.4]]), torch.tensor([0, 1])

    class Refined(nn.Module):
        def forward(self, images):
            return vae.manifold.encode(images)

    ours = CellPGD(classifier(0), vae, eps=0.7, confined=False, **OPTIONS).run(x, labels)
    theirs = LatentPGD(classifier(0), vae.decoder_, Refined(), eps=0.7, **OPTIONS).run(x, labels)
    torch.testing.assert_close(ours.adversarial, theirs.adversarial)


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_what_the_bounds_cut_off_is_in_its_cell_all_the_same(vae, seed, early_stop):
    """Decoded codes leave the bounds, and clipping them changes what is read."""
    generator = torch.Generator().manual_seed(seed)
    codes = PRIOR.sample(100, generator)
    x = (codes @ FRAME.T).clamp(-1, 1)
    labels = (classifier(seed % 2)(x)).argmax(1)
    options = {"alpha": 0.1, "steps": 20, "norm": 2, "bounds": (-1, 1), "eps": 1.0, "early_stop": early_stop}
    attack = CellPGD(classifier(seed % 2), vae, record_path=True, **options)
    result = attack.run(x, labels)
    assert not symbol_changes(result, vae, x).changed.any()
    with torch.no_grad():
        wrong = classifier(seed % 2)(result.adversarial).argmax(1) != labels
    assert torch.equal(result.success, wrong)
    assert torch.equal(result.path[-1], result.adversarial)
    assert torch.equal(result.path_predictions[-1], result.prediction_after)
    assert result.success.float().mean() > 0.1
    lower, upper = PRIOR.cell_bounds(vae.manifold.encode(x))
    walked = _walk_alone(attack, x, labels)
    read = vae.manifold.encode(walked)
    outside = ((read < lower) | (read > upper)).any(1)
    assert outside.float().mean() > 0.02  # there was something to bring back
    assert (result.adversarial != x).any(1)[outside].float().mean() > 0.8  # the image given is the last resort


def _walk_alone(attack, x, labels):
    """The adversaries before they are brought back."""
    attack = attack.replaced(record_path=False)
    attack._return = lambda *args: None
    return attack(x, labels)


def test_a_model_and_a_prior_can_be_replaced(vae):
    x, labels = images([[0.2, 0.0], [0.6, 0.0]]), torch.tensor([0, 0])
    other = GridVAE(
        GridPrior(2, [0.0, 4.0], 0.2), encoder=vae.encoder_.network, decoder=vae.decoder_.network, dtype="float64",
        max_steps=1, learning_rate=1e-300,
    ).fit(x.numpy())  # fmt: skip
    attack = CellPGD(classifier(0), vae, eps=1.0, **OPTIONS)
    wide = attack.replaced(vae=other)  # 0.8 lies in the cell of 0, which reaches up to 2
    assert wide.decoder is other.decoder_
    assert wide.run(x, labels).success.tolist() == [True, True]
    assert attack.run(x, labels).success.tolist() == [False, True]
    assert attack.replaced(confined=False).run(x, labels).success.tolist() == [True, True]
    with pytest.raises(TypeError, match="fitted GridVAE"):
        attack.replaced(vae=GridVAE(PRIOR))
    with pytest.raises(ValueError, match="leave it out"):
        attack.replaced(box=(0, 1))


def test_any_attack_can_be_told_in_symbols(vae):
    x = images([[0.4, 1.0], [0.4, 1.0]])
    result = PGD(classifier(0), eps=0.6, alpha=0.1, steps=20, bounds=None).run(x.numpy(), np.array([0, 1]))
    report = symbol_changes(result, vae, x.numpy())
    assert report.success.tolist() == [True, True]  # the second was wrong from the outset
    assert report.changed.tolist() == [[True, False], [False, False]]
    with_nothing = PGD(classifier(0), eps=1e-3, alpha=1e-3, steps=1, bounds=None).run(x[:1], torch.tensor([0]))
    assert np.isnan(symbol_changes(with_nothing, vae, x[:1]).rates()["axis 0"])


def test_an_encoder_that_misreads_adversaries_does_not_change_the_report():
    """On a helix the encoder is a turn and a half ahead where the angle exceeds 0.4."""

    class Circle(nn.Module):
        def forward(self, z):
            return torch.cat([z.cos(), z.sin(), 0.05 * z], dim=1)

    class Misreading(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            angle = torch.atan2(x[:, 1:2], x[:, :1])
            wrong = torch.where(angle > 0.4, angle + 3.0 * torch.pi, angle)
            return torch.cat([wrong + self.weight, torch.zeros_like(angle)], dim=1)

    prior = GridPrior(1, [0.0, 2.0, 8.0], 0.3)
    codes = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    vae = GridVAE(prior, encoder=Misreading(), decoder=Circle(), dtype="float64", max_steps=1)
    vae.fit(Circle()(codes).numpy())
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        model.bias.copy_(torch.tensor([0.0, -0.7]))  # class 1 where the sine exceeds 0.7
    result = CellPGD(model, vae, eps=2.0, **OPTIONS).run(Circle()(codes), torch.tensor([0, 0]))
    report = symbol_changes(result, vae, Circle()(codes))
    assert result.success.all()
    np.testing.assert_allclose(Circle()(torch.from_numpy(report.codes_after)), result.adversarial, atol=1e-6)
    assert not report.changed.any()


class TestBadInput:
    def test_of_the_model(self, vae):
        for wrong in (GridVAE(PRIOR), nn.Linear(4, 2), None):
            with pytest.raises(TypeError, match="fitted GridVAE"):
                CellPGD(classifier(0), wrong)
        with pytest.raises(TypeError, match="unexpected keyword argument 'cell'"):
            CellPGD(classifier(0), vae, cell=1)

    def test_of_images(self, vae):
        attack = CellPGD(classifier(0), vae, bounds=None)
        with pytest.raises(ValueError, match="images must have shape"):
            attack.run(torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
        with pytest.raises(ValueError, match="NaN"):
            attack.run(torch.full((3, 4), float("nan"), dtype=torch.float64), torch.zeros(3, dtype=torch.int64))

    def test_of_the_report(self, vae):
        x = images([[0.2, 0.0]])
        result = CellPGD(classifier(0), vae, bounds=None).run(x, torch.tensor([0]))
        with pytest.raises(TypeError, match="fitted GridVAE"):
            symbol_changes(result, GridVAE(PRIOR), x)
        with pytest.raises(ValueError, match="names must have 2 members"):
            symbol_changes(result, vae, x, names=("shape",))
        with pytest.raises(ValueError, match="as the adversaries"):
            symbol_changes(result, vae, x[:, :3])
