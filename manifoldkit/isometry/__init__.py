"""Isometries, learned: networks that keep distances, and codes in which transformations act as rigid motions do."""

from __future__ import annotations

from .agreement import eigenspace_energy, off_block_energy, toric_harmonics
from .autoencoder import IsometricAutoencoder
from .baselines import baseline
from .distortion import edge_ratio_std, jacobian_identities
from .full_loss import FullLossView
from .image_networks import convolutional_pair, dense_pair
from .invariant_operator import spectral_start
from .isometry_losses import IsometryLosses, equivariance_error, equivariance_loss, multiplicity_loss
from .isometry_path import isometry_path
from .layers import LocallyIsometricNet
from .learned_operator import LearnedOperator, Spectrum, commutation_mask
from .losses import DiffusionDistance, IsometricLoss
from .metrics import IsometryReport
from .networks import MLP
from .neural_isometries import NeuralIsometry
from .penalties import DecoderContraction, DecoderIsometry, EncoderContraction, EncoderIsometry, WeightDecay
from .polar import polar
from .pretraining import LossRecord, Views, annealed, pretrain, pretrain_in_stages
from .residual_pair import residual_pair
from .sampling import ClassBalancedBatchSampler
from .training import IsometricTrainer
from .vector_neurons import VectorNeuronHead, VectorNeuronLayer

__all__ = [
    "MLP",
    "ClassBalancedBatchSampler",
    "DecoderContraction",
    "DecoderIsometry",
    "DiffusionDistance",
    "EncoderContraction",
    "EncoderIsometry",
    "FullLossView",
    "IsometricAutoencoder",
    "IsometricLoss",
    "IsometricTrainer",
    "IsometryLosses",
    "IsometryReport",
    "LearnedOperator",
    "LocallyIsometricNet",
    "LossRecord",
    "NeuralIsometry",
    "Spectrum",
    "VectorNeuronHead",
    "VectorNeuronLayer",
    "Views",
    "WeightDecay",
    "annealed",
    "baseline",
    "commutation_mask",
    "convolutional_pair",
    "dense_pair",
    "edge_ratio_std",
    "eigenspace_energy",
    "equivariance_error",
    "equivariance_loss",
    "isometry_path",
    "jacobian_identities",
    "multiplicity_loss",
    "off_block_energy",
    "polar",
    "pretrain",
    "pretrain_in_stages",
    "residual_pair",
    "spectral_start",
    "toric_harmonics",
]
