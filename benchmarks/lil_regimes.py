"""Where could isometry help? A small grid of other regimes.

    python benchmarks/lil_regimes.py --work out/lil > benchmarks/lil_regimes.md

Networks for 2,000 training images, 20 epochs, Adam 1e-3: isometry on the last hidden layer as in the paper, on every
layer, towards diffusion distances, and with adversarial training by PGD. The grid was laid out beforehand and is
reported whole. Every row is kept in the folder --work, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from lil_robustness import cell, gradient_norms, survived, under  # sets the threads
from lil_walks import atlas, walks
from stored import stored
from torch import Tensor, nn

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import FGSM, PGD
from manifoldkit.datasets import load_mnist
from manifoldkit.isometry import MLP, DiffusionDistance, IsometricTrainer, LocallyIsometricNet

N, EPOCHS, EPS, FEW = 2000, 20, 0.1, 100
#: Name: betas, whether isometry is asked of every layer, of diffusion distances, and the eps of adversarial training.
REGIMES: dict[str, tuple[tuple[float, ...], bool, bool, float]] = {
    "last layer": ((0.0, 0.1, 1.0, 10.0), False, False, 0.0),
    "every layer": ((0.1, 1.0, 10.0), True, False, 0.0),
    "diffusion distance": ((0.1, 1.0, 10.0), False, True, 0.0),
    "PGD training": ((0.0, 0.1, 1.0, 10.0), False, False, EPS),
    "PGD training, every layer": ((1.0,), True, False, EPS),
}


def regime(name: str, beta: float, seed: int, x: Tensor, y: Tensor, diffusion: Callable[[], Tensor]) -> nn.Module:
    """A trained network of a regime."""
    _, every, diffused, eps = REGIMES[name]
    generator = torch.Generator().manual_seed(seed)
    if every:
        sizes = [784, 100, 100, 100, 100]
        blocks = [MLP([a, b], activate_last=True, generator=generator) for a, b in pairwise(sizes)]
        net = LocallyIsometricNet(blocks, 100, 10, gradient="full", generator=generator)
    else:
        net = LocallyIsometricNet.mlp(784, 10, generator=generator)
    levels = len(net.blocks)
    trainer = IsometricTrainer(
        net,
        alpha=[0.0] * (levels - 1) + [1.0],
        beta=beta,
        generator=generator,
        perturb=PGD(net, eps=eps, steps=5) if eps else None,
    )
    coordinates = diffusion() if diffused else None
    trainer.fit(x, [y] * levels, epochs=EPOCHS, batch_size=100, coordinates=coordinates)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("out/lil"), help="folder of the rows")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = load_mnist("train")
    test_x, test_y = map(torch.from_numpy, load_mnist("test"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(test_x))[:1000])
    test_x, test_y = test_x[chosen].flatten(1), test_y[chosen]
    rows = np.random.default_rng(1).permutation(len(images))[:N]
    x, y = torch.from_numpy(images[rows].reshape(N, -1)), torch.from_numpy(labels[rows])

    @functools.cache
    def diffusion() -> Tensor:
        """Diffusion coordinates of the training images, scaled to the mean distance within classes."""
        distance = DiffusionDistance(DiffusionManifold(n_kernel_neighbors=128).fit(x.numpy()))
        z = distance.coordinates(x)[:, 1:].float()
        pairs = [(torch.pdist(x[y == c]).mean(), torch.pdist(z[y == c]).mean()) for c in range(10)]
        return z * (sum(a for a, _ in pairs) / sum(b for _, b in pairs))

    @functools.cache
    def manifold() -> ManifoldAtlas:
        return atlas(x.numpy(), y.numpy())

    def measure(name: str, beta: float, seed: int) -> dict[str, float]:
        net = regime(name, beta, seed, x, y, diffusion)
        ce, margin = gradient_norms(net, test_x, test_y)
        return {
            "accuracy": survived(net, test_x, test_y),
            "fgsm": under(FGSM(net, eps=EPS), test_x, test_y, 1000),
            "pgd": under(PGD(net, eps=EPS, steps=20, loss="margin"), test_x, test_y, 1000),
            "grad_ce": ce,
            "grad_margin": margin,
            **walks(net, manifold(), test_x[:FEW], test_y[:FEW]),
        }

    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for name, (betas, *_) in REGIMES.items():
            for beta in betas:
                file = options.work / f"regime_{name.replace(' ', '_')}_{beta:g}_{seed}.json"
                row = stored(file, functools.partial(measure, name, beta, seed))
                found.setdefault((name, beta), []).append(row)
    report(found, options.seeds)


def report(found: dict[tuple[str, float], list[dict[str, float]]], seeds: int) -> None:
    """The grid as a table."""
    print(f"# Regimes of isometry\n\nMean ± standard deviation over {seeds} seeds. Command: ", end="")
    print(
        f"`python benchmarks/lil_regimes.py`.\n{N:,} training images, {EPOCHS} epochs; the atlas is of the same images."
    )
    print(f"Accuracy on 1,000 test images, under walks of steps of length 1 on {FEW} of them.\n")
    columns = {
        "accuracy": "accuracy",
        f"FGSM {EPS}": "fgsm",
        f"PGD margin {EPS}": "pgd",
        "clean, of 100": "pgd_0",
        "atlas: PGD, 4 steps": "pgd_4",
        "atlas: PGD, 12 steps": "pgd_12",
        "L1 gradient, cross entropy": "grad_ce",
        "L1 gradient, margin": "grad_margin",
    }
    print(f"| regime | beta | {' | '.join(columns)} |\n|{'---|' * (2 + len(columns))}")
    for (name, beta), group in found.items():
        print(f"| {name} | {beta:g} | " + " | ".join(cell(group, key) for key in columns.values()) + " |")


if __name__ == "__main__":
    main()
