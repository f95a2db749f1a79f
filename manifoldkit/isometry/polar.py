"""The polar factor of a matrix, differentiated in closed form so that equal singular values do no harm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..datasets._validation import check_flag

__all__ = ["polar"]

_ONCE = "polar can be differentiated once, not twice: use finite differences of its derivative"


def polar(x: Tensor, *, special: bool = False) -> Tensor:
    r"""Nearest matrix with orthonormal columns (or rows): the orthogonal factor of the polar decomposition.

    With the thin singular value decomposition :math:`X = W S V^\top` it is :math:`Q = W V^\top`, the solution of the
    orthogonal Procrustes problem :math:`\max_Q \operatorname{tr} Q^\top X`. Differentiating :math:`X = Q H` gives a
    Sylvester equation for :math:`\Omega = Q^\top dQ`,

    .. math:: \Omega H + H \Omega = Q^\top dX - dX^\top Q,

    which the right singular vectors solve by dividing by :math:`s_i + s_j`. Nothing is divided by
    :math:`s_i^2 - s_j^2`, so that equal singular values, where the derivative of the decomposition itself is infinite,
    are as good as any.

    Parameters
    ----------
    x : Tensor (..., m, n), float32 or float64
        Matrices, on any device. Wide ones have orthonormal rows in the answer, others orthonormal columns.
    special : bool, default False
        Square matrices only: the nearest *rotation*, of determinant +1, for which the last right singular vector (that
        of the smallest singular value) changes its sign where needed (Kabsch's algorithm).

    Returns
    -------
    Tensor (..., m, n)
        Of the dtype and device of `x`.

    Raises
    ------
    TypeError
        If `x` is no floating tensor of 32 or 64 bits, or `special` no bool.
    ValueError
        If `x` is no matrix, holds NaN or infinity, or is not square with `special`.

    Notes
    -----
    The factor is unique where the rank is full. Where :math:`s_i + s_j` vanishes it is not, and no derivative exists;
    there the derivative in these two directions is taken as zero, that is :math:`1 / s` is replaced by
    :math:`s / (s^2 + \delta^2)` with :math:`\delta` the machine epsilon times :math:`s_1`. Forward and reverse mode and
    the transforms of ``torch.func`` differentiate once; the derivative can't be differentiated again.

    References
    ----------
    .. [1] C. S. Kenney and A. J. Laub. "Polar decomposition and matrix sign function condition estimates". SIAM J. Sci.
       Stat. Comput. 12, 1991.
    .. [2] T. Mitchel, M. Taylor and V. Sitzmann. "Neural isometries: taming transformations for equivariant ML".
       NeurIPS 2024.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import polar
    >>> x = torch.diag(torch.tensor([3.0, 3.0, 0.5])).requires_grad_()
    >>> polar(x).sum().backward()
    >>> bool(torch.isfinite(x.grad).all())
    True
    >>> polar(torch.tensor([[0.0, -2.0], [2.0, 0.0]])) + 0.0
    tensor([[ 0., -1.],
            [ 1.,  0.]])
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a torch tensor of float32 or float64, got {got}: convert it by .double()")
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"x must hold matrices (..., m, n), got shape {tuple(x.shape)}")
    if check_flag(special, "special") and x.shape[-1] != x.shape[-2]:
        raise ValueError(f"special=True needs square matrices, got shape {tuple(x.shape)}: leave it out")
    if x.shape[-2] < x.shape[-1]:
        return _Polar.apply(x.mT, special)[0].mT
    return _Polar.apply(x, special)[0]


class _Polar(torch.autograd.Function):
    """Polar factor of matrices that are at least as high as wide, and the decomposition, which has no derivative."""

    @staticmethod
    def forward(x: Tensor, special: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not torch.isfinite(x).all():
            raise ValueError("x contains NaN or infinity: look for overflow in what it was computed from")
        w, s, vh = torch.linalg.svd(x, full_matrices=False)
        if special:
            # det(W) det(V) = -1: the smallest singular value counts negatively, in the derivative, too.
            # Signs by slogdet: products of hundreds of pivots underflow to a determinant of 0.
            sign = torch.linalg.slogdet(w).sign * torch.linalg.slogdet(vh).sign
            s = torch.cat([s[..., :-1], s[..., -1:] * sign[..., None]], dim=-1)
            vh = torch.cat([vh[..., :-1, :], vh[..., -1:, :] * sign[..., None, None]], dim=-2)
        return w @ vh, w, s, vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output[1:])
        ctx.save_for_forward(inputs[0], *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        return _Derivative.apply(gradient, *ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, None, None, None]:
        return _Derivative.apply(tangent, *ctx.saved_tensors), None, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[int, None], x: Tensor, special: bool) -> tuple[Any, tuple[int, ...]]:
        return _Polar.apply(x.movedim(dims[0], 0), special), (0, 0, 0, 0)  # leading axes are a batch already


class _Derivative(torch.autograd.Function):
    """The derivative of the factor applied to a change of the matrix, linear in the change and its own adjoint.

    As a function of the matrix it has no derivative here, and says so: decompositions do not carry one.
    """

    @staticmethod
    def forward(change: Tensor, x: Tensor, w: Tensor, s: Tensor, vh: Tensor) -> Tensor:
        inner = change @ vh.mT  # (..., m, n)
        y = (w.mT @ inner) * _inverse(s[..., :, None] + s[..., None, :], s[..., :1, None])
        result = w @ (y - y.mT)
        if w.shape[-2] > w.shape[-1]:
            outside = inner - w @ (w.mT @ inner)
            result = result + outside * _inverse(s, s[..., :1])[..., None, :]
        return result @ vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.needs_input_grad[1]:
            raise RuntimeError(_ONCE)
        return _Derivative.apply(gradient, *ctx.saved_tensors), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, change: Tensor | None, x: Tensor | None, *_: None) -> Tensor | None:
        if x is not None:
            raise RuntimeError(_ONCE)
        return None if change is None else _Derivative.apply(change, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        moved = (
            tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in zip(tensors, dims, strict=True)
        )
        return _Derivative.apply(*moved), 0


def _inverse(x: Tensor, largest: Tensor) -> Tensor:
    """1 / x, damped to zero where x is below rounding of `largest`; scaled first, so that squares do not underflow."""
    info = torch.finfo(x.dtype)
    scale = largest.clamp_min(info.tiny)
    ratio = x / scale
    return ratio / (ratio * ratio + info.eps**2) / scale
