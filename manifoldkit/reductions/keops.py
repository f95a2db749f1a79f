"""The reductions by KeOps: symbolic matrices, O(n) memory, exact derivatives of any order, CPU and CUDA.

KeOps compiles a formula for each dtype and for each length of its vectors, some 10 s on a CPU, and as long again
for each derivative, which it keeps in its cache folder. So the lengths are rounded up here, with zeros: the same
few formulas then serve most data.

What pykeops (2.2 and 2.3) makes necessary:

* It sends CPU tensors through a GPU when it finds one, and may run out of its memory (getkeops/keops #359): the
  backend is named, so that sums run where their tensors are.
* It has no strides: it copies what is not contiguous with a warning, and in older versions lost the gradient
  (gpytorch #1543, keops #149, #245). All is made contiguous before, where autograd sees it.
* It has no derivative of distances found by ``Kmin`` (keops #269): neighbours come as indices from ``argKmin``, and
  their distances are measured by torch.
* It returns indices in the floating dtype of the data, exact in float32 up to 2^24 points: above that the search
  runs in float64.
* Without a compiler it fails at the first formula, with a ModuleNotFoundError that names a hash.
* On CPUs it knows no BLAS (keops #57, #98), so that many coordinates are slow: ``benchmarks/reductions.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ._backend import HINT, announce, import_keops

__all__ = ["kernel_product", "nearest", "softmax_average"]

#: float32 counts exactly up to here.
EXACT_FLOAT32 = 2**24


def kernel_product(x: Tensor, rho_x: Tensor, points: Tensor, rho: Tensor, values: Tensor, scale: float) -> Tensor:
    """See :func:`manifoldkit.reductions.kernel_product`."""
    if len(x) == 1:
        return kernel_product(_twice(x), _twice(rho_x), points, rho, values, scale)[:1]
    LazyTensor = import_keops()
    width = values.shape[1]
    x, points, values = _padded(x), _padded(points), _padded(values)
    announce("the kernel product", x.device.type, x.dtype, coordinates=x.shape[1], columns=values.shape[1])
    x_i, x_j = LazyTensor(x[:, None]), LazyTensor(points[None])
    rho_i, rho_j = LazyTensor(_column(1 / (rho_x * scale))), LazyTensor(_row(1 / rho))
    kernel = (-((x_i - x_j) ** 2).sum(-1) * rho_i * rho_j).exp()
    v_j = LazyTensor(values[None])
    return _run(lambda where: (kernel * v_j).sum(axis=1, backend=where), x)[:, :width]


def softmax_average(
    x: Tensor,
    rho_x: Tensor,
    points: Tensor,
    rho: Tensor,
    log_weights: Tensor,
    values: Tensor,
    scale: float,
    anchor: Tensor | None,
) -> Tensor:
    """See :func:`manifoldkit.reductions.softmax_average`."""
    if len(x) == 1:
        anchor = None if anchor is None else _twice(anchor)
        return softmax_average(_twice(x), _twice(rho_x), points, rho, log_weights, values, scale, anchor)[:1]
    LazyTensor = import_keops()
    width = values.shape[1]
    # |x - y|^2 - |x - a|^2 = (y - a)(y - 2x + a) keeps its digits far away, and without an anchor a is x.
    near, far = (x, x) if anchor is None else (anchor, 2 * x - anchor)
    near, far, points, values = _padded(near), _padded(far), _padded(points), _padded(values)
    announce("the softmax average", x.device.type, x.dtype, coordinates=near.shape[1], columns=values.shape[1])
    near_i, far_i, x_j = LazyTensor(near[:, None]), LazyTensor(far[:, None]), LazyTensor(points[None])
    rho_i, rho_j = LazyTensor(_column(1 / (rho_x * scale))), LazyTensor(_row(1 / rho))
    logits = LazyTensor(_row(log_weights)) - ((x_j - near_i) * (x_j - far_i)).sum(-1) * rho_i * rho_j
    v_j = LazyTensor(values[None])
    return _run(lambda where: logits.sumsoftmaxweight(v_j, axis=1, backend=where), x)[:, :width]


def nearest(x: Tensor, points: Tensor, k: int) -> Tensor:
    """Indices (B, k) of the nearest points, see :func:`manifoldkit.reductions.nearest`."""
    if len(x) == 1:
        return nearest(_twice(x), points, k)[:1]
    LazyTensor = import_keops()
    if len(points) > EXACT_FLOAT32:
        x, points = x.double(), points.double()
    count = min(len(points), _round_up(k))
    x, points = _padded(x.detach()), _padded(points.detach())
    announce("the nearest neighbours", x.device.type, x.dtype, coordinates=x.shape[1], neighbours=count)
    squared = ((LazyTensor(x[:, None]) - LazyTensor(points[None])) ** 2).sum(-1)
    return _run(lambda where: squared.argKmin(count, axis=1, backend=where), x)[:, :k].long()


def _run(reduction: Callable[[str], Tensor], x: Tensor) -> Tensor:
    """The reduction, on the device of `x`."""
    try:
        return torch.as_tensor(reduction("GPU" if x.is_cuda else "CPU"))
    except ImportError as error:  # pykeops imports what the compiler should have made
        raise ImportError(HINT) from error


def _round_up(length: int) -> int:
    """The next power of two, from 4 on; above 64 the next multiple of 64."""
    return -(-length // 64) * 64 if length > 64 else max(4, 1 << (length - 1).bit_length())


def _padded(matrix: Tensor) -> Tensor:
    """`matrix` (m, D) with columns of zeros up to a round number."""
    return F.pad(matrix, (0, _round_up(matrix.shape[1]) - matrix.shape[1])).contiguous()


def _twice(row: Tensor) -> Tensor:
    """A single query as two, since KeOps takes what occurs once for a parameter, and compiles again."""
    return torch.cat([row, row])


def _column(vector: Tensor) -> Tensor:
    return vector.contiguous()[:, None, None]


def _row(vector: Tensor) -> Tensor:
    return vector.contiguous()[None, :, None]
