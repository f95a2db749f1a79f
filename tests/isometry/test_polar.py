"""The polar factor: nearest orthonormal matrix, rotations recovered, and a derivative that is right and finite."""

from __future__ import annotations

import pytest
import torch

from manifoldkit.isometry import polar

SHAPES = [(5, 5), (7, 4), (4, 7), (1, 1), (3, 6, 6), (2, 3, 5, 2)]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_factor_is_orthonormal_and_its_remainder_symmetric_and_positive(shape, dtype, tolerance):
    x = random(*shape, dtype=dtype)
    q = polar(x)
    assert (q.shape, q.dtype) == (x.shape, dtype)
    q, x = (q.mT, x.mT) if shape[-2] < shape[-1] else (q, x)
    torch.testing.assert_close(q.mT @ q, torch.eye(x.shape[-1], dtype=dtype).expand(*x.shape[:-2], -1, -1),
                               atol=tolerance, rtol=0)  # fmt: skip
    h = q.mT @ x
    torch.testing.assert_close(h, h.mT, atol=10 * tolerance, rtol=0)
    assert torch.linalg.eigvalsh(h).min() > 0
    torch.testing.assert_close(q @ h, x, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("special", [False, True])
def test_rotations_of_codes_are_recovered(seed, special):
    """Kabsch: with a full-rank code A, the nearest orthogonal map of (R A) A^T is R; in noise it is near."""
    rotation = polar(random(4, 32, 32, seed=seed, dtype=torch.float32), special=True)
    code = random(4, 32, 48, seed=seed + 10, dtype=torch.float32)
    found = polar(rotation @ code @ code.mT, special=special)
    torch.testing.assert_close(found, rotation, atol=1e-5, rtol=0)


def test_special_has_determinant_one_and_is_the_nearest_rotation():
    x = random(200, 3, 3)
    q = polar(x, special=True)
    torch.testing.assert_close(torch.linalg.det(q), torch.ones(200, dtype=torch.float64))
    others = polar(random(200, 3, 3, seed=1), special=True)
    assert ((q - x).square().sum((1, 2)) <= (others - x).square().sum((1, 2))).all()
    assert (torch.linalg.det(polar(x)) < 0).any()


@pytest.mark.parametrize("seed", range(2))
def test_special_holds_in_hundreds_of_dimensions(seed):
    """There determinants in float32 underflow to 0, and have no sign."""
    w, v = (torch.linalg.qr(random(400, 400, seed=seed + part, dtype=torch.float32))[0] for part in (0, 10))
    q = polar(w * torch.linspace(1, 2, 400) @ v.mT, special=True)
    torch.testing.assert_close(q @ q.mT, torch.eye(400), atol=1e-5, rtol=0)
    assert torch.linalg.slogdet(q).sign == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_derivative_agrees_with_finite_differences(shape):
    assert torch.autograd.gradcheck(polar, random(*shape).requires_grad_())


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("special", [False, True])
def test_transforms_of_torch_func(shape, special):
    if special and shape[0] != shape[1]:
        shape = (3, 3)
    x = random(6, *shape)

    def factor(matrix):
        return polar(matrix, special=special)

    torch.testing.assert_close(torch.func.vmap(factor, in_dims=1, out_dims=1)(x.movedim(0, 1)), factor(x).movedim(0, 1))
    expected = torch.stack([torch.autograd.functional.jacobian(factor, matrix) for matrix in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(factor))(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(factor))(x), expected)
    assert torch.autograd.gradcheck(factor, x.requires_grad_(), check_forward_ad=True, check_batched_grad=True)


def test_a_second_derivative_is_refused():
    x = random(3, 3)
    with pytest.raises(RuntimeError, match="once, not twice"):
        torch.func.hessian(lambda matrix: polar(matrix)[0, 0])(x)
    x.requires_grad_()
    first = torch.autograd.grad(polar(x).pow(2)[0, 0], x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once, not twice"):
        first.sum().backward()
    with pytest.raises(ValueError, match="NaN or infinity"):
        torch.func.vmap(polar)(torch.full((2, 2, 2), torch.nan))


@pytest.mark.parametrize("seed", range(4))  # of both signs of the determinant
def test_derivative_of_the_nearest_rotation(seed):
    x = random(4, 4, seed=seed).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: polar(x, special=True), x)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.5, 0.5], [3.0, 1.0, 1.0, 1e-3]])
def test_derivative_is_right_at_equal_singular_values(values):
    """Where that of the singular vectors is infinite: multiples of the identity, and pairs."""
    x = polar(random(4, 4)) @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ polar(random(4, 4, seed=1))
    assert torch.autograd.gradcheck(polar, x.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "rank"), [((4, 4), 3), ((4, 4), 1), ((4, 4), 0), ((6, 3), 1), ((3, 6), 2)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_derivative_is_finite_where_the_rank_is_not_full(dtype, shape, rank, scale):
    x = scale * random(shape[0], rank, dtype=dtype) @ random(rank, shape[1], seed=1, dtype=dtype)
    x.requires_grad_()
    polar(x).pow(3).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_one_lost_dimension_of_a_square_matrix_keeps_its_derivative():
    """Rank n - 1 leaves all sums of two singular values positive: the factor is smooth up to the sign of one vector."""
    w, v = polar(random(4, 4)), polar(random(4, 4, seed=1))
    x = w @ torch.diag(torch.tensor([2.0, 1.0, 0.5, 1e-7], dtype=torch.float64)) @ v
    assert torch.autograd.gradcheck(polar, x.requires_grad_(), eps=1e-9, atol=1e-4)


def test_factor_and_derivative_do_not_depend_on_scale():
    x = random(5, 5, dtype=torch.float32)
    gradients = []
    for scale in (1.0, 2.0**-80, 2.0**80):
        leaf = (scale * x).requires_grad_()
        (polar(leaf) * random(5, 5, seed=2, dtype=torch.float32)).sum().backward()
        gradients.append(leaf.grad * scale)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "torch tensor"),
        (torch.ones(2, 2, dtype=torch.int64), {}, TypeError, "float32 or float64"),
        (torch.ones(2, 2, dtype=torch.float16), {}, TypeError, "float32 or float64"),
        (torch.ones(3), {}, ValueError, "matrices"),
        (torch.ones(3, 0), {}, ValueError, "matrices"),
        (torch.tensor([[float("nan"), 1.0], [1.0, 1.0]]), {}, ValueError, "NaN or infinity"),
        (torch.full((2, 2), float("inf")), {}, ValueError, "NaN or infinity"),
        (torch.ones(3, 2), {"special": True}, ValueError, "square"),
        (torch.eye(2), {"special": 1}, TypeError, "special"),
    ],
)
def test_bad_input(x, options, error, message):
    with pytest.raises(error, match=message):
        polar(x, **options)
