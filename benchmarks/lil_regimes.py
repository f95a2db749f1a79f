"""Where could isometry help? A second manifold for the paper's networks, and a small grid of other regimes.

    python benchmarks/lil_robustness.py --work out/lil --train-only
    python benchmarks/lil_regimes.py --work out/lil > benchmarks/lil_regimes.md

First the networks of `lil_robustness.py` under walks on the manifold of an isometric autoencoder. Then networks for
2,000 training images, 20 epochs, Adam 1e-3: isometry on the last hidden layer as in the paper, on every layer, towards
diffusion distances, and with adversarial training by PGD. The grid was laid out beforehand and is reported whole.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lil_robustness import BETAS, cell, gradient_norms, survived, table, trained, under  # sets the threads
from stored import stored
from torch import Tensor, nn

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import FGSM, PGD, OnManifoldPGD, RandomTangentWalk
from manifoldkit.datasets import load_mnist
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import DecoderManifold, Manifold
from manifoldkit.isometry import MLP, DiffusionDistance, IsometricAutoencoder, IsometricTrainer, LocallyIsometricNet

N, EPOCHS, EPS, FEW = 2000, 20, 0.1, 100
WALK = {"alpha": 1.0, "steps": 12, "residual": "carry"}
#: Name: betas, whether isometry is asked of every layer, of diffusion distances, and the eps of adversarial training.
REGIMES: dict[str, tuple[tuple[float, ...], bool, bool, float]] = {
    "last layer": ((0.0, 0.1, 1.0, 10.0), False, False, 0.0),
    "every layer": ((0.1, 1.0, 10.0), True, False, 0.0),
    "diffusion distance": ((0.1, 1.0, 10.0), False, True, 0.0),
    "PGD training": ((0.0, 0.1, 1.0, 10.0), False, False, EPS),
    "PGD training, every layer": ((1.0,), True, False, EPS),
}


def walks(
    net: nn.Module, manifold: Manifold | ManifoldAtlas, x: Tensor, y: Tensor, seed: int | None = None
) -> dict[str, float]:
    """Accuracy left by on-manifold PGD and, with a seed, by the random walk that controls it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        walk = OnManifoldPGD(net, manifold, **WALK).run(x, y)
        row = {"on_manifold": float((~walk.success).float().mean()), "mean_l2": float(walk.l2.mean())}
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            control = RandomTangentWalk(net, manifold, **WALK, generator=generator).run(x, y)
            row["random_walk"] = float((~control.success).float().mean())
    return row


def autoencoder(x: np.ndarray[Any, Any], file: Path) -> DecoderManifold:
    """Isometric autoencoder of 10,000 digits, 16 codes."""
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
    parser.add_argument("--work", type=Path, default=Path("out/lil"), help="folder of networks and rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sections", nargs="+", default=["autoencoder", "regimes"])
    options = parser.parse_args()
    folder = options.work
    torch.set_num_threads(1)
    images, labels = load_mnist("train")
    test_x, test_y = map(torch.from_numpy, load_mnist("test"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(test_x))[:1000])
    test_x, test_y = test_x[chosen].flatten(1), test_y[chosen]
    flat, ids = torch.from_numpy(images.reshape(len(images), -1)), torch.from_numpy(labels)
    print("# Other manifolds and other regimes\n\nMean ± standard deviation over seeds 0 to", options.seeds - 1)
    print(f"(accuracy on 1,000 test images, under walks on {FEW} of them).")
    if "autoencoder" in options.sections:
        second_manifold(folder, options.seeds, flat, ids, test_x[:FEW], test_y[:FEW])
    if "regimes" in options.sections:
        regimes(folder, options.seeds, flat, ids, test_x, test_y)


def second_manifold(folder: Path, seeds: int, flat: Tensor, ids: Tensor, few_x: Tensor, few_y: Tensor) -> None:
    """Walks on the manifold of an autoencoder against the networks of `lil_robustness.py`."""
    manifold = autoencoder(flat[:10000].numpy(), folder / "autoencoder.pt")
    found: dict[Any, list[dict[str, float]]] = {}
    for beta in BETAS:
        found[beta] = [
            stored(
                folder / f"autoencoder_{beta:g}_{seed}.json",
                lambda beta=beta, seed=seed: walks(
                    trained(beta, seed, flat, ids, folder), manifold, few_x, few_y, seed
                ),
            )
            for seed in range(seeds)
        ]
    columns = {"on-manifold PGD": "on_manifold", "random walk": "random_walk", "mean L2 of the walk": "mean_l2"}
    table("The paper's networks, manifold of an isometric autoencoder (d = 16), 12 steps of 1", columns, found)


def regimes(folder: Path, seeds: int, flat: Tensor, ids: Tensor, test_x: Tensor, test_y: Tensor) -> None:
    """The grid."""
    rows = np.random.default_rng(1).permutation(len(flat))[:N]
    x, y = flat[rows], ids[rows]
    cache: list[Tensor] = []

    def diffusion() -> Tensor:
        """Diffusion coordinates of the training images, scaled to the mean distance within classes."""
        if not cache:
            distance = DiffusionDistance(DiffusionManifold(n_kernel_neighbors=128).fit(x.numpy()))
            z = distance.coordinates(x)[:, 1:].float()
            pairs = [(torch.pdist(x[y == c]).mean(), torch.pdist(z[y == c]).mean()) for c in range(10)]
            cache.append(z * (sum(a for a, _ in pairs) / sum(b for _, b in pairs)))
        return cache[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        atlas = ManifoldAtlas(DiffusionManifold(n_kernel_neighbors=128)).fit(x.numpy(), y.numpy())

        def measure(name: str, beta: float, seed: int) -> dict[str, float]:
            net = regime(name, beta, seed, x, y, diffusion)
            ce, margin = gradient_norms(net, test_x, test_y)
            return {
                "accuracy": survived(net, test_x, test_y),
                "fgsm": under(FGSM(net, eps=EPS), test_x, test_y, 1000),
                "pgd": under(PGD(net, eps=EPS, steps=20, loss="margin"), test_x, test_y, 1000),
                "grad_ce": ce,
                "grad_margin": margin,
                **walks(net, atlas, test_x[:FEW], test_y[:FEW]),
            }

        results = {
            (name, beta): [
                stored(
                    folder / f"regime_{name.replace(' ', '_')}_{beta:g}_{seed}.json",
                    lambda name=name, beta=beta, seed=seed: measure(name, beta, seed),
                )
                for seed in range(seeds)
            ]
            for name, settings in REGIMES.items()
            for beta in settings[0]
        }
    names = ("accuracy", "fgsm", "pgd", "on_manifold", "grad_ce", "grad_margin")
    print(f"\n## Regimes: {N:,} training images, {EPOCHS} epochs; the atlas is of the same images\n")
    head = (f"FGSM {EPS}", f"PGD margin {EPS}", "on-manifold PGD", "L1 grad of CE", "L1 grad of margin")
    print(f"| regime | beta | accuracy | {' | '.join(head)} |\n|{'---|' * (3 + len(head))}")
    for (name, beta), group in results.items():
        print(f"| {name} | {beta:g} | " + " | ".join(cell(group, key) for key in names) + " |")


if __name__ == "__main__":
    main()
