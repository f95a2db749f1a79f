"""Kernel sums over all training points, each with two engines behind one function."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import chunked, keops
from ._backend import choose_backend

__all__ = ["kernel_product", "nearest", "softmax_average"]


def kernel_product(
    x: Tensor,  # (B, D)
    rho_x: Tensor,  # (B,)
    points: Tensor,  # (n, D)
    rho: Tensor,  # (n,)
    values: Tensor,  # (n, q)
    scale: float,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""Product of the CIDM kernel with a matrix, without the (B, n) matrix of the kernel.

    .. math::
        y_i = \sum_j \exp \left( - \frac{|x_i - x_j|^2}{s\, \rho(x_i) \rho_j} \right) v_j

    Differentiable in all tensors, any number of times; the memory is O(B + n) forwards and backwards.

    Parameters
    ----------
    x, rho_x : Tensor (B, D), (B,)
        Queries and their bandwidths.
    points, rho : Tensor (n, D), (n,)
        Training points and their bandwidths.
    values : Tensor (n, q)
        What is summed. All tensors share one dtype, float32 or float64, and one device.
    scale : float
        Squared global bandwidth times the width of the kernel shape, ``exp(-z / width)``.
    backend : {"auto", "torch", "keops"}, default="auto"
        "torch" makes some rows of the kernel at a time and is the faster one on CPUs. "keops" compiles the formula;
        it pays on GPUs. "auto" is "keops" for CUDA tensors where pykeops and a compiler are found, else "torch".

    Returns
    -------
    Tensor (B, q)

    Raises
    ------
    ValueError
        If shapes do not fit together, or `backend` is unknown.
    TypeError
        If dtypes or devices differ, or a dtype is neither float32 nor float64.
    ImportError
        If ``backend="keops"`` and pykeops or its compiler is missing.

    Notes
    -----
    The exponents underflow to exact zeros some 27 scaled distances away: for averages take `softmax_average`.

    Examples
    --------
    >>> import torch
    >>> line = torch.arange(3.0)[:, None]
    >>> kernel_product(line, torch.ones(3), line, torch.ones(3), torch.ones(3, 1), scale=1.0)
    tensor([[1.3862],
            [1.7358],
            [1.3862]])
    """
    _check(
        scale,
        (x, "x", ("B", "D")),
        (rho_x, "rho_x", ("B",)),
        (points, "points", ("n", "D")),
        (rho, "rho", ("n",)),
        (values, "values", ("n", "q")),
    )
    if choose_backend(backend, x.device) == "keops" and _many(x, points):
        return keops.kernel_product(x, rho_x, points, rho, values, scale)
    return chunked.kernel_product(x, rho_x, points, rho, values, scale).to(x.dtype)


def softmax_average(
    x: Tensor,  # (B, D)
    rho_x: Tensor,  # (B,)
    points: Tensor,  # (n, D)
    rho: Tensor,  # (n,)
    log_weights: Tensor,  # (n,)
    values: Tensor,  # (n, q)
    scale: float,
    *,
    anchor: Tensor | None = None,  # (B, D)
    backend: str = "auto",
) -> Tensor:
    r"""Means of values under the normalised kernel weights of the queries: the Nystrom row, without the row.

    .. math::
        y_i = \sum_j \mathrm{softmax}_j \left(
        \log w_j - \frac{|x_i - x_j|^2 - |x_i - a_i|^2}{s\, \rho(x_i) \rho_j} \right) v_j

    The sum runs with log-sum-exp, so that nothing underflows far away. The term with the anchor a, usually the
    nearest training point, makes the nearest points win there, whatever their bandwidths; it is zero without an
    anchor. Differentiable in all tensors, any number of times.

    Parameters
    ----------
    x, rho_x : Tensor (B, D), (B,)
        Queries and their bandwidths.
    points, rho, log_weights : Tensor (n, D), (n,), (n,)
        Training points, their bandwidths, and the logarithms of their multiplicities.
    values : Tensor (n, q)
        What is averaged. All tensors share one dtype, float32 or float64, and one device.
    scale : float
        Squared global bandwidth times the width of the kernel shape, ``exp(-z / width)``.
    anchor : Tensor (B, D), optional
        Points from whose squared distances those of all others are counted.
    backend : {"auto", "torch", "keops"}, default="auto"
        See :func:`kernel_product`, also for what is raised.

    Returns
    -------
    Tensor (B, q)

    Examples
    --------
    >>> import torch
    >>> line, ones = torch.arange(3.0)[:, None], torch.ones(3)
    >>> softmax_average(torch.tensor([[1000.0]]), torch.ones(1), line, ones, 0 * ones, line, scale=1.0)
    tensor([[2.]])
    """
    _check(
        scale,
        (x, "x", ("B", "D")),
        (rho_x, "rho_x", ("B",)),
        (points, "points", ("n", "D")),
        (rho, "rho", ("n",)),
        (log_weights, "log_weights", ("n",)),
        (values, "values", ("n", "q")),
        (x if anchor is None else anchor, "anchor", ("B", "D")),
    )
    arguments = (x, rho_x, points, rho, log_weights, values, scale, anchor)
    if choose_backend(backend, x.device) == "keops" and _many(x, points):
        return keops.softmax_average(*arguments)
    return chunked.softmax_average(*arguments).to(x.dtype)


def nearest(
    x: Tensor,  # (B, D)
    points: Tensor,  # (n, D)
    k: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The k nearest points of each query, exactly, without the (B, n) matrix of distances.

    Which of several equally near points are found, and in which order, is left open. On CPUs a k-d tree is cheaper
    up to some 15 coordinates.

    Parameters
    ----------
    x : Tensor (B, D)
        Queries.
    points : Tensor (n, D)
        Of the dtype and on the device of `x`.
    k : int
        Number of neighbours, from 1 to n.
    backend : {"auto", "torch", "keops"}, default="auto"
        See :func:`kernel_product`, also for what is raised. KeOps keeps k candidates in registers: it wants small k.

    Returns
    -------
    distances : Tensor (B, k)
        Ascending; differentiable. They are measured by differences of coordinates.
    indices : Tensor (B, k)

    Examples
    --------
    >>> import torch
    >>> distances, indices = nearest(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [3.0]]), 2)
    >>> indices
    tensor([[1, 0]])
    """
    _check(1.0, (x, "x", ("B", "D")), (points, "points", ("n", "D")))
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(points):
        raise ValueError(f"k must be an integer from 1 to the number of points, {len(points)}, got {k!r}")
    engine = keops if choose_backend(backend, x.device) == "keops" and _many(x, points) else chunked
    indices = engine.nearest(x, points, k)

    def measure(rows: Tensor, found: Tensor, points: Tensor) -> Tensor:
        return torch.linalg.vector_norm(rows[:, None] - points[found], dim=2)

    distances = chunked.by_rows(measure, (x, indices), (points,), x.element_size() * k * x.shape[1])
    distances, order = distances.sort(dim=1)
    return distances, indices.gather(1, order)


def _many(x: Tensor, points: Tensor) -> bool:
    """Whether there is a sum to speak of: KeOps knows none over a single point, nor an empty answer."""
    return len(x) > 0 and len(points) > 1


def _check(scale: float, *tensors: tuple[Tensor, str, tuple[str, ...]]) -> None:
    """Raise for tensors whose sizes, dtypes or devices do not fit together."""
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    sizes: dict[str, int] = {}
    first = tensors[0][0]
    for tensor, name, axes in tensors:
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != first.dtype:
            raise TypeError(f"all tensors must be float32 or all float64, got {name} of {tensor.dtype}")
        if tensor.device != first.device:
            raise TypeError(
                f"all tensors must be on one device, got {name} on {tensor.device}, others on {first.device}"
            )
        shape = tuple(tensor.shape)
        fits = len(shape) == len(axes)
        if not fits or any(sizes.setdefault(axis, size) != size for axis, size in zip(axes, shape, strict=True)):
            known = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
            raise ValueError(f"{name} must have shape ({', '.join(axes)}) with {known or 'any sizes'}, got {shape}")
    if 0 in (sizes["n"], sizes["D"], sizes.get("q", 1)):
        raise ValueError(f"there must be points, coordinates and columns, got {sizes}")
