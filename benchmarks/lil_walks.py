"""Walks on two learned manifolds of digits, for `lil_robustness.py` and `lil_regimes.py`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import AttackResult, OnManifoldPGD, RandomTangentWalk
from manifoldkit.attacks.losses import margin
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import DecoderManifold, Manifold
from manifoldkit.isometry import IsometricAutoencoder

OPTIONS = {"alpha": 1.0, "steps": 12, "residual": "carry"}
AFTER = (0, 1, 2, 4, 12)  # steps of length 1 after which survivors are counted


def atlas(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> ManifoldAtlas:
    """A diffusion manifold for each digit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        return ManifoldAtlas(DiffusionManifold(n_kernel_neighbors=128)).fit(images, labels)


def autoencoder(x: np.ndarray[Any, Any], file: Path) -> DecoderManifold:
    """Manifold of an isometric autoencoder with 16 codes, from the file if it is there."""
    model = IsometricAutoencoder(
        16, hidden=(256, 128), solver="adam", init=None, dtype="float32", batch_size=128, max_iter=10, normalize=False
    )  # fmt: skip
    if file.exists():
        model.set_params(max_iter=0).fit(x[:2])
        for network, state in zip((model.encoder_, model.decoder_), torch.load(file, weights_only=True), strict=True):
            network.load_state_dict(state)
    else:
        model.fit(x)
        torch.save([model.encoder_.state_dict(), model.decoder_.state_dict()], file)
        print(f"autoencoder: {model.history_[-1]}", file=sys.stderr)
    return DecoderManifold(model.encoder_, model.decoder_, n_refinements=3, tol=1e-3)


def walks(
    net: nn.Module, manifold: Manifold | ManifoldAtlas, x: Tensor, y: Tensor, seed: int | None = None
) -> dict[str, float]:
    """Accuracy left by on-manifold PGD after some steps, the same for the random walk if there is a seed for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        walk = OnManifoldPGD(net, manifold, **OPTIONS).run(x, y)
        row = {f"pgd_{k}": left(walk, k) for k in AFTER}
        row["pgd_l2"] = float(walk.l2[walk.success].mean())
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            control = RandomTangentWalk(net, manifold, **OPTIONS, generator=generator).run(x, y)
            row |= {f"random_{k}": left(control, k) for k in AFTER}
    return row


def left(result: AttackResult, steps: int) -> float:
    """Share of samples that are still classified correctly after that many steps."""
    return float((~result.success | (result.steps_taken > steps)).float().mean())


def slopes(net: nn.Module, manifold: Manifold | ManifoldAtlas, x: Tensor, y: Tensor) -> dict[str, float]:
    """Median L2 norm of the gradient of the margin, and of its part along the manifold."""
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(margin(net(leaf), y).sum(), leaf)
    gradient = gradient.flatten(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        at = manifold.at(y) if isinstance(manifold, ManifoldAtlas) else manifold
        basis = at.tangent_basis(at.project(x)).to(gradient)
    along = torch.einsum("bnd,bn->bd", basis, gradient)
    return {"slope": float(gradient.norm(dim=1).median()), "tangent_slope": float(along.norm(dim=1).median())}
