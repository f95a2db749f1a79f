"""Nothing but wrong input: each is refused with a message that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldkit.isometry import (
    LearnedOperator,
    NeuralIsometry,
    VectorNeuronHead,
    annealed,
    commutation_mask,
    eigenspace_energy,
    equivariance_error,
    equivariance_loss,
    isometry_path,
    multiplicity_loss,
    off_block_energy,
    pretrain,
    pretrain_in_stages,
    residual_pair,
    spectral_start,
    toric_harmonics,
)

MODEL = NeuralIsometry((4, 4), 16, generator=torch.Generator().manual_seed(0))
VIEWS = torch.randn(2, 3, 5, 4, 4, generator=torch.Generator().manual_seed(1))
CODES = torch.ones(2, 4, 3)


class Source:
    def draw(self, n_samples):
        return VIEWS


class Same:
    def __init__(self, factor=1.0):
        self.factor = factor

    def draw(self, n_samples):
        return self.factor * VIEWS[:1].expand(2, -1, -1, -1, -1)


class Wrong(torch.nn.Module):
    """An encoder that forgets half of the grid."""

    def forward(self, x):
        return x[..., :2]


def with_value(value):
    views = VIEWS.clone()
    views[1, 2, 0, 1, 1] = value
    return views


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LearnedOperator(16, 17), ValueError, "at most the 16 places"),
        (lambda: NeuralIsometry((4, 4), 17), ValueError, "at most the 16 places"),
        (lambda: LearnedOperator(16, 0), ValueError, "n_eigenfunctions must be at least 1"),
        (lambda: LearnedOperator(16, 4.0), TypeError, "n_eigenfunctions must be an integer"),
        (lambda: LearnedOperator(16, 4, eigenvalues="sorted"), ValueError, "'cumulative' or 'clustered'"),
        (lambda: NeuralIsometry(4, 4), TypeError, "pair"),
        (lambda: NeuralIsometry((4, 0), 4), ValueError, "grid"),
        (lambda: NeuralIsometry((4, 4), 4, torch.nn.Identity()), ValueError, "come together"),
        (lambda: NeuralIsometry((4, 4), 4, special=1), TypeError, "special"),
        (lambda: NeuralIsometry((4, 4), 4, spectral_dropout=1.5), ValueError, "spectral_dropout"),
        (lambda: NeuralIsometry((4, 4), 4, torch.sin, torch.sin), TypeError, "encoder must be a torch.nn.Module"),
        (lambda: MODEL(VIEWS.numpy()), TypeError, "torch.stack"),
        (lambda: MODEL(VIEWS.double()), ValueError, r"torch.float64 on cpu and the model torch.float32"),
        (lambda: MODEL(VIEWS.to("meta")), ValueError, "on meta and the model torch.float32 on cpu"),
        (lambda: MODEL((VIEWS[0], VIEWS[1, :2])), ValueError, r"one shape .*\(3, 5, 4, 4\), \(2, 5, 4, 4\)"),
        (lambda: MODEL([VIEWS[0]]), ValueError, "two or three batches"),
        (lambda: MODEL(VIEWS[0]), ValueError, "even number of images, got 3"),
        (lambda: MODEL(VIEWS[:1]), ValueError, "pairs or triplets"),
        (lambda: MODEL(VIEWS[:, :0]), ValueError, "pairs or triplets"),
        (lambda: MODEL(VIEWS[0, 0]), ValueError, "pairs or triplets"),
        (lambda: MODEL(with_value(float("nan"))), ValueError, "NaN or infinity"),
        (lambda: MODEL(with_value(float("inf"))), ValueError, "NaN or infinity"),
        (lambda: MODEL.encode(torch.zeros(2, 5, 6, 4)), ValueError, r"grid \(4, 4\) does not divide images of 6 x 4"),
        (lambda: MODEL.encode(torch.zeros(2, 5, 8, 8)), ValueError, "choose grid or encoder"),
        (lambda: MODEL.encode(torch.zeros(5, 4, 4)), ValueError, "B, C, H, W"),
        (lambda: MODEL.encode(torch.zeros(2, 5, 4, 4, dtype=torch.uint8)), ValueError, "floating"),
        (lambda: MODEL.encode(np.zeros((2, 5, 4, 4))), ValueError, "ndarray"),
        (lambda: NeuralIsometry((4, 4), 4, Wrong(), Wrong()).encode(VIEWS[0]), ValueError, "encoder must give"),
        (lambda: MODEL.isometry(CODES, CODES[:1]), ValueError, "one shape"),
        (lambda: MODEL.isometry(CODES[0], CODES[0]), ValueError, "one shape"),
        (lambda: MODEL.isometry(CODES, CODES), ValueError, r"one shape \(B, 16, c\)"),
        (lambda: MODEL.isometry(CODES.numpy(), CODES), ValueError, "got ndarray"),
        (lambda: MODEL.isometry(VIEWS[0, ..., 0] * torch.nan, VIEWS[0, ..., 0]), ValueError, "one shape"),
        (lambda: MODEL.isometry(torch.full((1, 16, 3), torch.nan), torch.ones(1, 16, 3)), ValueError, "NaN"),
        (lambda: MODEL.decode(CODES), ValueError, r"\(B, 16, c\), got \(2, 4, 3\)"),
        (lambda: MODEL.decode(3), ValueError, "got int"),
        (lambda: equivariance_error(torch.eye(3).expand(2, 3, 3), CODES, CODES), ValueError, "one shape"),
        (lambda: equivariance_error(np.eye(4)[None], CODES, CODES), TypeError, "tau must be a torch tensor"),
        (lambda: equivariance_loss(torch.eye(4).expand(2, 4, 4), CODES, CODES[:1]), ValueError, "one shape"),
        (lambda: multiplicity_loss(torch.ones(2, 2)), ValueError, r"shape \(k,\), got \(2, 2\)"),
        (lambda: commutation_mask(torch.ones(0)), ValueError, r"shape \(k,\), got \(0,\)"),
        (lambda: VectorNeuronHead(8, 10)(CODES), ValueError, r"\(B, k, 8\), got \(2, 4, 3\)"),
        (lambda: equivariance_error(torch.eye(4).expand(2, 4, 4), 0 * CODES, CODES), ValueError, "zero"),
        (lambda: equivariance_error(torch.eye(4).expand(2, 4, 4), CODES, CODES * torch.nan), ValueError, "NaN"),
        (lambda: equivariance_error(torch.eye(4).expand(2, 4, 4), CODES * torch.inf, CODES), ValueError, "infinite"),
        (lambda: residual_pair((1, 28, 28), (8, 8), 4), ValueError, "halved 2 times"),
        (lambda: residual_pair((1, 28, 28), (7, 7), 4, widths=()), ValueError, "halved 0 times"),
        (lambda: residual_pair((1, 28, 28), (7, 7), 0), ValueError, "channels"),
        (lambda: residual_pair((28, 28), (7, 7), 4), TypeError, r"image_shape must be \(C, H, W\)"),
        (lambda: residual_pair((1, 28, 28), 7, 4), TypeError, r"grid must be \(height, width\)"),
        (lambda: pretrain(torch.nn.Linear(2, 2), Source(), steps=1), TypeError, "NeuralIsometry, got Linear"),
        (lambda: pretrain(MODEL, VIEWS, steps=1), TypeError, "draw"),
        (lambda: pretrain_in_stages(MODEL, Source(), steps=3, betas=(1.0,)), TypeError, "steps must be a sequence"),
        (lambda: pretrain_in_stages(MODEL, Source(), steps=(), betas=()), ValueError, "got 0, 0"),
        (lambda: pretrain_in_stages(MODEL, Source(), steps=(1, 1), betas=(1.0,)), ValueError, "got 2, 1 and 2"),
        (lambda: pretrain_in_stages(MODEL, Wrong(), steps=(1, 0), betas=(1.0, 1.0)), ValueError, "steps"),
        (lambda: pretrain_in_stages(MODEL, Wrong(), steps=(1, 1), betas=(1.0, 0.01)), ValueError, "betas"),
        (
            lambda: pretrain_in_stages(MODEL, Wrong(), steps=(1, 1), betas=(1.0, 1.0), contractions=(0.0,)),
            ValueError,
            "contractions must be",
        ),
        (
            lambda: pretrain_in_stages(MODEL, Wrong(), steps=(1, 1), betas=(1.0, 1.0), contractions=(0.5, 0.5)),
            ValueError,
            "each training but the first, 1, got 2",
        ),
        (lambda: spectral_start(torch.nn.Linear(2, 2), Source()), TypeError, "NeuralIsometry, got Linear"),
        (lambda: spectral_start(MODEL, VIEWS), TypeError, "draw"),
        (lambda: pretrain(MODEL, Source, steps=1), TypeError, "an object with draw"),
        (lambda: LearnedOperator(4, 2).assign(np.eye(4)[:, :2], torch.ones(2)), TypeError, "eigenfunctions must be a"),
        (lambda: LearnedOperator(4, 2).assign(torch.full((4, 2), torch.nan), torch.ones(2)), ValueError, "NaN"),
        (lambda: spectral_start(MODEL, Source(), n_draws=2), ValueError, "30 conditions for 136 entries"),
        (lambda: spectral_start(MODEL, Source(), n_draws=0), ValueError, "n_draws"),
        (lambda: spectral_start(MODEL, Source(), n_iterations=0), ValueError, "n_iterations"),
        (lambda: spectral_start(MODEL, Source(), gap=0.0), ValueError, "gap"),
        (lambda: spectral_start(MODEL, Same()), ValueError, "the same before and after"),
        (lambda: spectral_start(MODEL, Same(torch.nan)), ValueError, "NaN or infinity"),
        (lambda: LearnedOperator(4, 2).assign(torch.eye(4), torch.arange(4.0)), ValueError, r"shape \(4, 2\)"),
        (lambda: LearnedOperator(4, 2).assign(torch.eye(4)[:, :2], -torch.arange(2.0)), ValueError, "ascending"),
        (lambda: pretrain(MODEL, Source(), steps=0), ValueError, "steps"),
        (lambda: pretrain(MODEL, Source(), steps=1, batch_size=0), ValueError, "batch_size"),
        (lambda: pretrain(MODEL, Source(), steps=1, alpha=-1), ValueError, "alpha"),
        (lambda: pretrain(MODEL, Source(), steps=1, beta=-1), ValueError, "beta"),
        (lambda: pretrain(MODEL, Source(), steps=1, learning_rate=0), ValueError, "learning_rate"),
        (lambda: pretrain(MODEL, Source(), steps=1, learning_rate=1e-5), ValueError, "final_rate"),
        (lambda: pretrain(MODEL, Source(), steps=1, clip=0), ValueError, "clip"),
        (lambda: pretrain(MODEL, Source(), steps=1, progress=1), TypeError, "progress"),
        (lambda: annealed(0.0, 1.0), ValueError, "first"),
        (lambda: annealed(1.0, 1.0, hold=0.9, end=0.8), ValueError, "end"),
        (lambda: LearnedOperator(16, 4).contract(0.0), ValueError, "factor"),
        (lambda: LearnedOperator(16, 4).contract(2.0), ValueError, "factor"),
        (lambda: isometry_path(np.eye(3), [1.0]), TypeError, "torch tensor"),
        (lambda: isometry_path(torch.ones(3), [1.0]), ValueError, "tau must be"),
        (lambda: isometry_path(torch.eye(3), [[1.0]]), ValueError, "times"),
        (lambda: isometry_path(torch.ones(3, 3), [1.0]), ValueError, "orthogonal"),
        (lambda: isometry_path(-torch.eye(3), [1.0]), ValueError, "determinant -1"),
        (lambda: toric_harmonics(0, 4), ValueError, "height"),
        (lambda: eigenspace_energy(torch.eye(4), torch.ones(3), torch.eye(3)), ValueError, "do not fit"),
        (lambda: eigenspace_energy(torch.eye(3) * torch.nan, torch.ones(3), torch.eye(3)), ValueError, "NaN"),
        (lambda: eigenspace_energy(np.eye(3), torch.ones(3), torch.eye(3)), TypeError, "torch tensor"),
        (lambda: off_block_energy(torch.ones(1, 3, 3), [0, 1, 2]), TypeError, "space must be a torch tensor"),
        (lambda: off_block_energy(torch.zeros(1, 3, 3), torch.arange(3)), ValueError, "zero"),
        (lambda: off_block_energy(torch.eye(4)[None], torch.ones(3)), ValueError, "tau must have shape"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_loss_that_is_not_finite_ends_the_training():
    model = NeuralIsometry((4, 4), 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(FloatingPointError, match="at step 0"):
        pretrain(model, Source(), steps=3, beta=lambda _: float("inf"))
    assert model.training
