"""Where could isometry help? A small grid of other regimes, and whether a gain is more than masked gradients.

    python benchmarks/lil_regimes.py --work out/lil/regimes --out benchmarks/lil_regimes.md

Networks for 2,000 training images, 20 epochs, Adam 1e-3: isometry on the last hidden layer as in the paper, on every
layer, towards diffusion distances, with adversarial training by PGD in the ball and on the manifold of an isometric
autoencoder, with fewer images (500, 80 epochs), and weight decay instead of isometry. Every row is reported. The first
15 were laid out before any was run; training on the manifold, fewer images and the control by weight decay were added
after the first seed had shown a gain with isometry on every layer. Networks and rows are kept in the folder --work, so
that an interrupted run goes on. Needs torchattacks, as `lil_robustness.py` does.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lil_robustness import gradient_norms, judges, square, survived, under  # sets the threads
from lil_walks import atlas, autoencoder, walks
from stored import stored
from tables import cell, command, mean, table, write
from torch import Tensor, nn

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import FGSM, PGD, LatentPGD
from manifoldkit.datasets import load_mnist
from manifoldkit.geometry import DecoderManifold, Manifold
from manifoldkit.isometry import MLP, DiffusionDistance, IsometricTrainer, LocallyIsometricNet

EPS, FEW = 0.1, 100
Row = dict[str, float]


class Regime(NamedTuple):
    betas: tuple[float, ...]
    every: bool = False  # isometry of every layer, not of the last alone
    diffused: bool = False  # towards diffusion distances
    training: str = ""  # on adversaries in the "ball" or on the "manifold"
    n: int = 2000
    epochs: int = 20
    decay: float = 0.0


REGIMES = {
    "last layer": Regime((0.0, 0.1, 1.0, 10.0)),
    "every layer": Regime((0.1, 1.0, 10.0), every=True),
    "diffusion distance": Regime((0.1, 1.0, 10.0), diffused=True),
    "PGD training": Regime((0.0, 0.1, 1.0, 10.0), training="ball"),
    "PGD training, every layer": Regime((1.0,), every=True, training="ball"),
    "on-manifold training": Regime((0.0, 1.0), training="manifold"),
    "on-manifold training, every layer": Regime((1.0,), every=True, training="manifold"),
    "500 images": Regime((0.0, 1.0), n=500, epochs=80),
    "500 images, every layer": Regime((1.0, 10.0), every=True, n=500, epochs=80),
    "weight decay 0.001": Regime((0.0,), decay=1e-3),
    "weight decay 0.01": Regime((0.0,), decay=1e-2),
    "weight decay 0.03": Regime((0.0,), decay=0.03),
    "weight decay 0.1": Regime((0.0,), decay=0.1),
}


class Data(NamedTuple):
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    manifold: Callable[[], DecoderManifold]
    diffusion: Callable[[], Tensor]


def blank(regime: Regime, seed: int) -> LocallyIsometricNet:
    """The network before training: one block, or a block for each layer."""
    generator = torch.Generator().manual_seed(seed)
    if not regime.every:
        return LocallyIsometricNet.mlp(784, 10, generator=generator)
    blocks = [MLP([a, b], activate_last=True, generator=generator) for a, b in pairwise([784, 100, 100, 100, 100])]
    return LocallyIsometricNet(blocks, 100, 10, gradient="full", generator=generator)


def trained(name: str, beta: float, seed: int, data: Data, folder: Path) -> nn.Module:
    """The network of a regime, from the folder if it is there."""
    regime, file = REGIMES[name], folder / f"net_{label(name, beta)}_{seed}.pt"
    net = blank(regime, seed)
    if file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        return net.eval()
    levels = len(net.blocks)
    perturb: Callable[[Tensor, Tensor], Tensor] | None = None
    if regime.training == "ball":
        perturb = PGD(net, eps=EPS, steps=5)
    elif regime.training == "manifold":  # codes of an isometric decoder: their lengths are about those of images
        model = data.manifold()
        perturb = LatentPGD(net, model.decoder, model.encoder, 2.0, alpha=1.0, steps=3, norm=2)
    trainer = IsometricTrainer(
        net,
        alpha=[0.0] * (levels - 1) + [1.0],
        beta=beta,
        optimizer=lambda p: torch.optim.Adam(p, weight_decay=regime.decay),
        generator=torch.Generator().manual_seed(seed),
        perturb=perturb,
    )
    coordinates = data.diffusion() if regime.diffused else None
    x, y = data.x[: regime.n], data.y[: regime.n]
    trainer.fit(x, [y] * levels, epochs=regime.epochs, batch_size=100, coordinates=coordinates)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), file)
    return net.eval()


def label(name: str, beta: float) -> str:
    return f"{name.replace(' ', '_').replace(',', '')}_{beta:g}"


def attacked(net: nn.Module, seed: int, data: Data, surrogate: Tensor, twin: nn.Module) -> Row:
    """Accuracy clean and under attacks in the ball; `twin` is the network of another seed of the same regime."""
    x, y = data.test_x.unflatten(1, (1, 28, 28)), data.test_y
    ce, margin = gradient_norms(net, x, y)
    return {
        "accuracy": survived(net, x, y),
        "fgsm": under(FGSM(net, eps=EPS), x, y, 1000),
        **judges(net, x, y, EPS, seed, surrogate),
        "twin": survived(net, PGD(twin, eps=EPS, steps=40, loss="margin")(x, y), y),
        "square": square(net, x[:FEW], y[:FEW], EPS, seed),
        "apgd_few": judges(net, x[:FEW], y[:FEW], EPS, seed, surrogate[:FEW])["apgd"],
        "grad_ce": ce,
        "grad_margin": margin,
    }


def load(folder: Path) -> Data:
    images, labels = load_mnist("train")
    test_x, test_y = map(torch.from_numpy, load_mnist("test"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(test_x))[:1000])
    rows = np.random.default_rng(1).permutation(len(images))[: max(regime.n for regime in REGIMES.values())]
    x, y = torch.from_numpy(images[rows].reshape(len(rows), -1)), torch.from_numpy(labels[rows])

    @functools.cache
    def diffusion() -> Tensor:
        """Diffusion coordinates of the training images, scaled to the mean distance within classes."""
        distance = DiffusionDistance(DiffusionManifold(n_kernel_neighbors=128).fit(x.numpy()))
        z = distance.coordinates(x)[:, 1:].float()
        pairs = [(torch.pdist(x[y == c]).mean(), torch.pdist(z[y == c]).mean()) for c in range(10)]
        return z * (sum(a for a, _ in pairs) / sum(b for _, b in pairs))

    @functools.cache
    def manifold() -> DecoderManifold:
        return autoencoder(images[:10000].reshape(10000, -1), folder / "autoencoder.pt")

    return Data(x, y, test_x[chosen].flatten(1), test_y[chosen], manifold, diffusion)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("out/lil/regimes"), help="folder of networks and rows")
    parser.add_argument("--out", type=Path, help="file for the tables; the screen without one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--atlas-seeds", type=int, default=3, help="seeds of the walks on the atlas, which are slow")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.work)
    names = [(name, beta) for name, regime in REGIMES.items() for beta in regime.betas]
    twins = range(max(2, options.seeds))  # the last seed is attacked through the first
    nets = {(pair, s): trained(*pair, s, data, options.work) for s in twins for pair in names}
    plain = trained("last layer", 0.0, 100, data, options.work)  # a network that no row is about

    @functools.cache
    def transferred() -> Tensor:
        return PGD(plain, eps=EPS, steps=40)(data.test_x.unflatten(1, (1, 28, 28)), data.test_y)

    @functools.cache
    def charts() -> Manifold:
        return atlas(data.x.numpy(), data.y.numpy())

    found: dict[tuple[str, float], list[Row]] = {pair: [] for pair in names}
    for seed in range(options.seeds):
        for pair in names:
            net, twin = nets[pair, seed], nets[pair, (seed + 1) % len(twins)]
            file = options.work / f"ball_{label(*pair)}_{seed}.json"
            compute = lambda n=net, t=twin, s=seed: attacked(n, s, data, transferred(), t)  # noqa: E731
            found[pair].append(stored(file, compute))
    few, classes = data.test_x[:FEW], data.test_y[:FEW]
    kinds = (("autoencoder", data.manifold, options.seeds), ("atlas", charts, options.atlas_seeds))
    for kind, where, seeds in kinds:
        for seed in range(seeds):
            for pair in names:
                file = options.work / f"{kind}_{label(*pair)}_{seed}.json"
                walked = stored(file, lambda n=nets[pair, seed], m=where: walks(n, m(), few, classes))
                found[pair][seed] |= {f"{kind}_{key}": value for key, value in walked.items()}
    write(report(found, options.atlas_seeds, command(parser, options)), options.out)


def report(found: dict[tuple[str, float], list[Row]], atlas_seeds: int, line: str) -> list[str]:
    """The grid as two tables, and what it says."""
    balls = {
        "accuracy": "accuracy",
        f"FGSM {EPS}": "fgsm",
        "PGD margin": "pgd_margin",
        "APGD": "apgd",
        "transfer": "transfer",
        "transfer from the twin": "twin",
        f"APGD, {FEW} images": "apgd_few",
        f"Square, the same {FEW}": "square",
        "L1 gradient, cross entropy": "grad_ce",
        "L1 gradient, margin": "grad_margin",
    }
    walked = {"clean": "autoencoder_pgd_0"}
    walked |= {f"autoencoder: PGD, {k} step{'s'[: k > 1]}": f"autoencoder_pgd_{k}" for k in (1, 2, 4)}
    if atlas_seeds:
        walked |= {f"atlas: PGD, {k} steps": f"atlas_pgd_{k}" for k in (4, 12)}

    def grid(columns: dict[str, str]) -> str:
        rows = [
            (name, f"{beta:g}", *(cell([row for row in group if key in row], key) for key in columns.values()))
            for (name, beta), group in found.items()
        ]
        return table(("regime", "beta", *columns), rows)

    seeds = len(found["last layer", 0.0])
    return [
        "# Regimes of isometry",
        f"Mean ± standard deviation over {seeds} seeds. {line} "
        "2,000 training images and 20 epochs, or "
        "500 and 80; the same 1,000 test images for all. The twin is the network of the next seed of the same regime, "
        "attacked by PGD on the margin. On-manifold training: PGD of 3 steps of length 1 on the codes, in a ball of "
        "radius 2, of an isometric autoencoder of 10,000 unlabelled images. Both trainings see adversaries alone, no "
        "clean images.",
        "## What is found",
        *findings(found),
        f"## In the ball, eps {EPS}",
        grid(balls),
        f"## On manifolds: accuracy after steps of length 1, {FEW} images"
        + (f" (atlas: seeds {atlas_seeds})" if atlas_seeds else ""),
        grid(walked),
    ]


def findings(found: dict[tuple[str, float], list[Row]]) -> list[str]:
    """What the rows say; every figure is read off them."""
    plain = found["last layer", 0.0]
    black = {"transferred PGD": "transfer", "PGD transferred from the twin": "twin"}

    def seeds(rows: list[Row], name: str) -> str:
        return ", ".join(f"{row[name]:.3f}" for row in rows)

    def gains(rows: list[Row], base: list[Row], key: str) -> str:
        by_seed = ", ".join(f"{a[key] - b[key]:+.3f}" for a, b in zip(rows, base, strict=True))
        return f"{mean(rows, key):.3f} ({by_seed})"

    said = [
        f"Cross entropy alone has {mean(plain, 'accuracy'):.3f} clean, under APGD {seeds(plain, 'apgd')} by seed. "
        "Isometry of every layer: "
        + "; ".join(
            f"beta {beta:g} {mean(rows, 'accuracy'):.3f} clean, under APGD {seeds(rows, 'apgd')}"
            for (name, beta), rows in found.items()
            if name == "every layer"
        )
        + ".",
    ]
    worse = []
    for (name, beta), rows in found.items():
        for attack, key in black.items():
            if any(row[key] < row["apgd"] for row in rows):
                worse.append(f"{attack} ({name}, beta {beta:g})")
        if any(row["square"] < row["apgd_few"] for row in rows):
            worse.append(f"Square ({name}, beta {beta:g})")
    said.append(
        "Masked gradients would show as attacks without the network's own gradient that break more than APGD does: "
        + (f"at some seed so do {', '.join(worse)}." if worse else "none does, in no row and at no seed.")
    )
    controls = [(name, rows) for (name, _), rows in found.items() if name.startswith("weight decay")]
    said.append(
        "Is it isometry, or any brake on slopes? "
        + "; ".join(
            f"{name} and no isometry: {mean(rows, 'accuracy'):.3f} clean, {mean(rows, 'apgd'):.3f} under APGD, L1 "
            f"gradient of the margin {mean(rows, 'grad_margin'):.0f}"
            for name, rows in controls
        )
        + f" (cross entropy alone {mean(plain, 'grad_margin'):.0f}, isometry of every layer "
        + ", ".join(f"{mean(rows, 'grad_margin'):.0f}" for (name, _), rows in found.items() if name == "every layer")
        + "). A collapsed network, which gives one answer to all, keeps its accuracy of about 0.1 under every attack."
    )
    walked = {pair: [row for row in rows if "atlas_pgd_12" in row] for pair, rows in found.items()}
    if walked["last layer", 0.0]:
        said.append(
            "On the atlas of the digits, PGD of 12 steps leaves cross entropy alone "
            f"{mean(walked['last layer', 0.0], 'atlas_pgd_12'):.3f}; with isometry (gains by seed in brackets) "
            + "; ".join(
                f"{name}, beta {beta:g} {gains(rows, walked['last layer', 0.0], 'atlas_pgd_12')}"
                for (name, beta), rows in walked.items()
                if name in ("last layer", "every layer", "diffusion distance") and beta
            )
            + "."
        )
    keys = ("accuracy", "apgd", "autoencoder_pgd_2")
    for training in ("PGD training", "on-manifold training", "500 images"):
        base = found[training, 0.0]
        others = [
            f"beta {beta:g}{name.removeprefix(training)} " + ", ".join(gains(rows, base, key) for key in keys)
            for (name, beta), rows in found.items()
            if name.startswith(training) and beta
        ]
        said.append(
            f"{training[0].upper()}{training[1:]} without isometry: "
            + ", ".join(f"{mean(base, key):.3f}" for key in keys)
            + " clean, under APGD and after two steps along the manifold of the autoencoder (of "
            + f"{FEW}). With it (gains by seed in brackets): {'; '.join(others)}."
        )
    return said


if __name__ == "__main__":
    main()
