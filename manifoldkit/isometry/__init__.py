"""Networks that keep distances: locally isometric layers and isometric autoencoders."""

from .autoencoder import IsometricAutoencoder
from .baselines import baseline
from .distortion import edge_ratio_std, jacobian_identities
from .full_loss import FullLossView
from .image_networks import convolutional_pair, dense_pair
from .layers import LocallyIsometricNet
from .losses import DiffusionDistance, IsometricLoss
from .metrics import IsometryReport
from .networks import MLP
from .penalties import DecoderContraction, DecoderIsometry, EncoderContraction, EncoderIsometry, WeightDecay
from .sampling import ClassBalancedBatchSampler
from .training import IsometricTrainer

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
    "IsometryReport",
    "LocallyIsometricNet",
    "WeightDecay",
    "baseline",
    "convolutional_pair",
    "dense_pair",
    "edge_ratio_std",
    "jacobian_identities",
]
