"""Defences at test time, and the attacks that know of them.

A defence is reported with the attack that does not know it and with those that do, side by side: see
:func:`purify` and :class:`PurifiedClassifier`.

Examples
--------
>>> import torch
>>> from manifoldkit.defenses import ManifoldScore, purify
>>> from manifoldkit.geometry import Circle
>>> x = torch.tensor([[1.25, 0.0]])
>>> purify(ManifoldScore(Circle()), x, step=0.125, n_steps=2, bounds=(-2, 2))
tensor([[1., 0.]])
"""

from .adaptive import PurifiedClassifier, UsualLooking
from .purify import Score, purify
from .scores import DiffusionScore, ELBOScore, ManifoldScore
from .vae_classifier import VAEClassifier, train_vae_classifier

__all__ = [
    "DiffusionScore",
    "ELBOScore",
    "ManifoldScore",
    "PurifiedClassifier",
    "Score",
    "UsualLooking",
    "VAEClassifier",
    "purify",
    "train_vae_classifier",
]
