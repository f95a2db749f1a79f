"""Kernel sums over all training points that never form the matrix of pairs.

Each function has two engines that give the same numbers and derivatives: plain torch, in chunks, and KeOps, which
compiles the formula when it is first used.

On a CPU torch is the one to take, throughout: a product of the kernel with a vector in 3-d costs one thread 0.017,
0.15 and 0.38 CPU s at n = 2,000, 6,000 and 10,000, by KeOps 0.041, 0.40 and 0.97 (2.6 times as much; 1e8 pairs/s), and
256 Nystrom rows of 784-d on 6,000 points 0.32 against 6.7, since KeOps has no BLAS. In 3-d neither holds more than
some MiB, where the matrix at n = 10,000 takes 2.3 GiB and ten times the time (``benchmarks/reductions.md``). KeOps is
for GPUs, where one fused loop spares writing blocks of the matrix to memory; that has not been measured here.

A fit without a matrix takes 32 products with a block of vectors at n = 2,000 and 82 at 6,000 (Swiss roll, 16 pairs),
1.1 and 19 CPU s: more than a dense fit costs while the matrix fits into memory, and far more than a sparse one. It is
for full kernels that do not fit, and for GPUs.
"""

from .functions import kernel_product, nearest, softmax_average

__all__ = ["kernel_product", "nearest", "softmax_average"]
