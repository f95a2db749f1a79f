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
from .diffusion import diffusion_log_prob
from .flow_pyramid import FlowPyramid
from .grid import GridPrior
from .gridvae import GridVAE
from .kl import grid_kl
from .messages import AxisAccuracy, axis_accuracy, cell_accuracy, topographic_similarity
from .noise_networks import NoiseMLP, NoiseUNet, train_eps
from .samplers import ddim_sample, ddpm_sample, rk4_sample
from .schedule import NoiseSchedule
from .volume import volume_log_det

__all__ = [
    "AxisAccuracy",
    "FlowPyramid",
    "GridPrior",
    "GridVAE",
    "NeighborAttributes",
    "NoiseMLP",
    "NoiseSchedule",
    "NoiseUNet",
    "axis_accuracy",
    "cell_accuracy",
    "ddim_sample",
    "ddpm_sample",
    "diffusion_log_prob",
    "grid_kl",
    "neighbor_attribute_kl",
    "rk4_sample",
    "topographic_similarity",
    "train_eps",
    "volume_log_det",
]
