"""Kernel sums over all training points that never form the matrix of pairs.

Each function has two engines that give the same numbers and derivatives: plain torch, in chunks, and KeOps, which
compiles the formula when it is first used.

A CPU wants the torch engine, throughout. KeOps is for GPUs, where one fused loop beats writing blocks of the
matrix to memory. What both cost on a CPU is in ``benchmarks/reductions.md``.
"""

from .functions import kernel_product, nearest, softmax_average

__all__ = ["kernel_product", "nearest", "softmax_average"]
