"""What is known of a manifold before a sample is seen: priors over codes, and generative models with them.

Examples
--------
>>> from manifoldkit.priors import GridPrior
>>> prior = GridPrior(2, levels=[-1.0, 0.0, 1.0], sigma=0.25)
>>> prior.n_cells
9
"""

from __future__ import annotations

from .attributes import NeighborAttributes, neighbor_attribute_kl
from .grid import GridPrior
from .gridvae import GridVAE
from .kl import grid_kl
from .messages import AxisAccuracy, axis_accuracy, cell_accuracy, topographic_similarity

__all__ = [
    "AxisAccuracy",
    "GridPrior",
    "GridVAE",
    "NeighborAttributes",
    "axis_accuracy",
    "cell_accuracy",
    "grid_kl",
    "neighbor_attribute_kl",
    "topographic_similarity",
]
