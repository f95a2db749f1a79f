"""Sums over all training points that never form the matrix of pairs.

The twin of every function here is the plain torch formula in :mod:`manifoldkit.geometry.nystrom`; both give the
same numbers and gradients.
"""

from .keops import softmax_average

__all__ = ["softmax_average"]
