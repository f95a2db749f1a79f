"""Networks that keep distances: locally isometric layers and isometric autoencoders."""

from .full_loss import FullLossView
from .layers import LocallyIsometricNet
from .losses import DiffusionDistance, IsometricLoss
from .metrics import IsometryReport
from .networks import MLP
from .sampling import ClassBalancedBatchSampler
from .training import IsometricTrainer

__all__ = [
    "MLP",
    "ClassBalancedBatchSampler",
    "DiffusionDistance",
    "FullLossView",
    "IsometricLoss",
    "IsometricTrainer",
    "IsometryReport",
    "LocallyIsometricNet",
]
