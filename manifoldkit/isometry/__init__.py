"""Isometries, learned: latent spaces in which transformations act as rigid motions do."""

from __future__ import annotations

from .agreement import eigenspace_energy, off_block_energy, toric_harmonics
from .isometry_losses import IsometryLosses, equivariance_error, equivariance_loss, multiplicity_loss
from .isometry_path import isometry_path
from .learned_operator import LearnedOperator, Spectrum, commutation_mask
from .neural_isometries import NeuralIsometry
from .polar import polar
from .pretraining import LossRecord, Views, annealed, pretrain, pretrain_in_stages
from .residual_pair import residual_pair
from .vector_neurons import VectorNeuronHead, VectorNeuronLayer

__all__ = [
    "IsometryLosses",
    "LearnedOperator",
    "LossRecord",
    "NeuralIsometry",
    "Spectrum",
    "VectorNeuronHead",
    "VectorNeuronLayer",
    "Views",
    "annealed",
    "commutation_mask",
    "eigenspace_energy",
    "equivariance_error",
    "equivariance_loss",
    "isometry_path",
    "multiplicity_loss",
    "off_block_energy",
    "polar",
    "pretrain",
    "pretrain_in_stages",
    "residual_pair",
    "toric_harmonics",
]
