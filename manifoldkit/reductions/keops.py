"""Kernel averages by KeOps: O(n) memory, exact derivatives, CPU and CUDA."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

__all__ = ["softmax_average"]

logger = logging.getLogger("manifoldkit")


def softmax_average(
    x: Tensor,  # (B, D)
    rho_x: Tensor,  # (B,)
    offset: Tensor,  # (B,)
    points: Tensor,  # (n, D)
    rho: Tensor,  # (n,)
    log_weights: Tensor,  # (n,)
    values: Tensor,  # (n, q)
    scale: float,
) -> Tensor:
    r"""Means of `values` under normalised kernel weights, without the (B, n) matrix.

    .. math::
        y_i = \sum_j \mathrm{softmax}_j \left(
        \log w_j - \frac{|x_i - x_j|^2 - o_i}{s\, \rho(x_i) \rho_j} \right) v_j

    The sum runs with log-sum-exp, so that nothing underflows far away. Differentiable in all tensors, any number
    of times. pykeops is imported here, and compiles each pair (D, q) once, about 15 s with the derivative; the
    result is kept in its cache folder.

    Parameters
    ----------
    x, rho_x, offset : Tensor (B, D), (B,), (B,)
        Queries, their bandwidths, and what is subtracted from their squared distances.
    points, rho, log_weights, values : Tensor (n, D), (n,), (n,), (n, q)
        Training points, their bandwidths, the logarithms of their multiplicities, and what is averaged.
    scale : float
        Squared global bandwidth times the width of the kernel shape.

    Returns
    -------
    Tensor (B, q)

    Raises
    ------
    ImportError
        If pykeops does not work on this machine, for want of a compiler, say.
    """
    LazyTensor = _lazy_tensor()
    x_i, rho_i, offset_i = LazyTensor(x[:, None]), LazyTensor(rho_x[:, None, None]), LazyTensor(offset[:, None, None])
    x_j, rho_j = LazyTensor(points[None]), LazyTensor(rho[None, :, None])
    z = (((x_i - x_j) ** 2).sum(-1) - offset_i) / (rho_i * rho_j * scale)
    average = (LazyTensor(log_weights[None, :, None]) - z).sumsoftmaxweight(LazyTensor(values[None]), axis=1)
    return torch.as_tensor(average)


def _lazy_tensor() -> type:
    """Import LazyTensor when it is first asked for."""
    try:
        from pykeops.torch import LazyTensor
    except Exception as error:  # it may fail in many ways where there is no compiler
        raise ImportError(
            "reduction='keops' needs pykeops and a C++ compiler: install g++, or use reduction='torch'"
        ) from error
    logger.info("KeOps compiles each new formula once, which takes some seconds")
    return LazyTensor
