"""Does isometry make an MNIST classifier robust? Locally isometric networks of every beta under one set of attacks.

    python benchmarks/lil_robustness.py --work out/lil --out benchmarks/lil_robustness.md

Networks [784, 100, 100, 100, 100, 10] with tanh, 60,000 images, 5 epochs, batches of 100, Adam 1e-3, seeds 0 to 2, as
in the paper. Needs the MNIST files of `data/` and torchattacks (`pip install --no-deps torchattacks requests`), whose
APGD and Square attacks are used as the judges that come from elsewhere. Every network and every row of figures is
kept in the folder --work, so that an interrupted run goes on.
"""

# ruff: noqa: E402 (threads are set before numpy starts them)
from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import torch
from lil_walks import AFTER, atlas, autoencoder, slopes, walks
from stored import stored
from tables import cell, command, mean, table, write
from torch import Tensor

from manifoldkit import ManifoldAtlas
from manifoldkit.attacks import FGSM, PGD, Attack
from manifoldkit.attacks.losses import cross_entropy, margin
from manifoldkit.datasets import load_mnist
from manifoldkit.geometry import DecoderManifold
from manifoldkit.isometry import FullLossView, IsometricTrainer, IsometryReport, LocallyIsometricNet

BETAS = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0)
PAPER = (0.9701, 0.9688, 0.9686, 0.9665, 0.9588, 0.8816)
EPS = (0.03, 0.1, 0.2)
FULL = {**{f"FGSM {eps}": f"full_{eps}" for eps in EPS}, "PGD 0.5, 10 steps of 0.01": "pgd_full"}
FEW = 100  # images under the slow attacks
PER_CLASS = 1000  # images of the atlas


def network(seed: int) -> LocallyIsometricNet:
    return LocallyIsometricNet.mlp(784, 10, generator=torch.Generator().manual_seed(seed))


def trained(beta: float, seed: int, x: Tensor, y: Tensor, folder: Path) -> LocallyIsometricNet:
    """The network of a beta and seed, from the folder if it is there."""
    net, file = network(seed), folder / f"net_{beta:g}_{seed}.pt"
    if file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        return net.eval()
    start = time.process_time()
    IsometricTrainer(net, beta=beta, generator=torch.Generator().manual_seed(seed)).fit(x, y, epochs=5, batch_size=100)
    print(f"trained beta {beta:g}, seed {seed}: {time.process_time() - start:.0f} CPU s", file=sys.stderr)
    torch.save(net.state_dict(), file)
    return net.eval()


def survived(net: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


def under(attack: Attack, x: Tensor, y: Tensor, batch: int = 100) -> float:
    """Accuracy that is left by an attack on batches."""
    rows = zip(x.split(batch), y.split(batch), strict=True)
    return float(torch.cat([~attack.run(a, b).success for a, b in rows]).float().mean())


def gradient_norms(net: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Median L1 norms of the gradients of cross entropy and margin: what an L_inf attack gains to first order."""
    norms = []
    for loss in (cross_entropy, margin):
        leaf = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(net(leaf), y).sum(), leaf)
        norms.append(float(gradient.flatten(1).abs().sum(1).median()))
    return norms[0], norms[1]


def in_balls(
    net: LocallyIsometricNet, beta: float, seed: int, x: Tensor, y: Tensor, transferred: dict[float, Tensor]
) -> dict[str, float]:
    """Geometry, gradients and attacks in balls; `x` are 1,000 test images, the slow attack takes the first 100."""
    row: dict[str, float] = {"accuracy_1000": survived(net, x, y)}
    report = IsometryReport.of_network(net, x, y)[0]
    row["stress"], row["correlation"], row["lipschitz"] = report.stress, report.distance_correlation, report.lipschitz
    row["grad_ce"], row["grad_margin"] = gradient_norms(net, x, y)
    view = FullLossView(net, beta=beta)
    for eps in EPS:
        row[f"fgsm_{eps}"] = under(FGSM(net, eps=eps), x, y)
        row[f"full_{eps}"] = under(FGSM(view, eps=eps, loss=view.objective), x, y)
    row["pgd"] = under(PGD(net, eps=0.5, alpha=0.01, steps=10), x, y)
    row["pgd_full"] = under(PGD(view, eps=0.5, alpha=0.01, steps=10, loss=view.objective), x, y)
    for eps in (0.03, 0.1):
        judged = judges(net, x, y, eps, seed, transferred[eps])
        row |= {f"{name}_{eps}": value for name, value in judged.items()}
    row["square_0.1"] = square(net, x[:FEW], y[:FEW], 0.1, seed)
    return row


def judges(net: torch.nn.Module, x: Tensor, y: Tensor, eps: float, seed: int, transferred: Tensor) -> dict[str, float]:
    """Accuracy under attacks that look for masked gradients: on the margin, adaptive, transferred."""
    import torchattacks

    apgd = torchattacks.APGD(net, norm="Linf", eps=eps, steps=50, n_restarts=1, seed=seed, loss="ce")
    return {
        "pgd_margin": under(PGD(net, eps=eps, steps=40, loss="margin"), x, y, 1000),
        "apgd": survived(net, apgd(x, y), y),
        "transfer": survived(net, transferred, y),
    }


def square(net: torch.nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> float:
    """Accuracy under Square, which uses no gradients."""
    import torchattacks

    attack = torchattacks.Square(net, norm="Linf", eps=eps, n_queries=500, n_restarts=1, seed=seed)
    return survived(net, attack(x, y), y)


def on_manifolds(
    nets: dict[tuple[float, int], LocallyIsometricNet],
    balls: dict[float, list[dict[str, float]]],
    folder: Path,
    train: Tensor,
    x: Tensor,
    y: Tensor,
    names: list[str],
) -> dict[float, list[dict[str, float]]]:
    """Walks on the diffusion manifold of the class of each image, and on that of an isometric autoencoder."""

    @functools.cache
    def diffusion() -> ManifoldAtlas:
        images, labels = load_mnist("train", n_per_class=PER_CLASS, random_state=0)
        return atlas(images[:, None], labels)

    @functools.cache
    def decoder() -> DecoderManifold:
        return autoencoder(train[:10000].flatten(1).numpy(), folder / "autoencoder.pt")

    where = {"atlas": (diffusion, x), "autoencoder": (decoder, x.flatten(1))}
    found: dict[float, list[dict[str, float]]] = {beta: [] for beta in BETAS}
    for (beta, seed), net in nets.items():
        row = dict(balls[beta][seed])
        for name in names:
            manifold, images = where[name]

            def measure(
                net: LocallyIsometricNet = net,
                seed: int = seed,
                manifold: Callable[[], ManifoldAtlas | DecoderManifold] = manifold,
                images: Tensor = images,
            ) -> dict[str, float]:
                return {**walks(net, manifold(), images, y, seed), **slopes(net, manifold(), images, y)}

            on_it = stored(folder / f"{name}_{len(x)}_{beta:g}_{seed}.json", measure)
            row |= {f"{name}_{key}": value for key, value in on_it.items()}
        found[beta].append(row)
    return found


def picture(
    results: dict[float, list[dict[str, float]]],
    walked: dict[float, list[dict[str, float]]],
    manifolds: list[str],
    file: Path,
) -> None:
    """Accuracy against beta, under the paper's attack and under others of the same size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = {
        "clean": ("accuracy", "#000000", "o"),
        "FGSM on the full loss (the paper's)": ("full_0.1", "#0072B2", "s"),
        "transferred PGD": ("transfer_0.1", "#009E73", "D"),
        "FGSM on the cross entropy": ("fgsm_0.1", "#D55E00", "^"),
        "Square, no gradients": ("square_0.1", "#CC79A7", "v"),
        "APGD": ("apgd_0.1", "#E69F00", "P"),
    }
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained", sharex=True)
    walks_of = {
        "atlas, random walk of 12 steps": ("atlas_random_12", "#56B4E9", "o"),
        "atlas, PGD of 12 steps": ("atlas_pgd_12", "#0072B2", "s"),
        "autoencoder, random walk of 4 steps": ("autoencoder_random_4", "#E69F00", "D"),
        "autoencoder, PGD of 1 step": ("autoencoder_pgd_1", "#009E73", "v"),
        "autoencoder, PGD of 4 steps": ("autoencoder_pgd_4", "#D55E00", "^"),
    }
    walks_of = {name: line for name, line in walks_of.items() if line[0].split("_")[0] in manifolds}
    places = np.arange(len(results))
    panels = (
        (curves, results, r"In the ball $L_\infty \leq 0.1$"),
        (walks_of, walked, "On learned manifolds, steps of length 1"),
    )
    for ax, (lines, rows_of, title) in zip(axes, panels, strict=True):
        for name, (key, colour, marker) in lines.items():
            values = np.array([[row[key] for row in rows] for rows in rows_of.values()])
            deviations = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
            ax.errorbar(places, values.mean(axis=1), deviations, color=colour, marker=marker, capsize=3, label=name)
        ax.set(title=title, xlabel=r"weight $\beta$ of the isometric loss", ylabel="accuracy", ylim=(-0.02, 1.02))
        ax.set_xticks(places, [f"{beta:g}" for beta in results])
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="0.9", linewidth=0.6)
    axes[0].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    axes[1].legend(frameon=False, fontsize=9)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("out/lil"), help="folder of networks and rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--walk-seeds", type=int, default=3, help="seeds of the walks on manifolds")
    parser.add_argument("--walk-images", type=int, default=FEW)
    parser.add_argument("--manifolds", nargs="+", default=["atlas", "autoencoder"])
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the tables; the screen without one")
    parser.add_argument("--picture", type=Path, help="file for the curves")
    options = parser.parse_args()
    folder = options.work
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    x, y = map(torch.from_numpy, load_mnist("train"))
    test_x, test_y = map(torch.from_numpy, load_mnist("test"))
    pairs = [(beta, seed) for seed in range(options.seeds) for beta in BETAS]
    nets = {pair: trained(*pair, x, y, folder) for pair in pairs}
    surrogate = trained(0.0, 100, x, y, folder)  # a network that no row is about, for the transfer attack
    if options.train_only:
        return
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(test_x))[:1000])
    few_x, few_y = test_x[chosen][:, None], test_y[chosen]

    @functools.cache
    def transferred() -> dict[float, Tensor]:
        return {eps: PGD(surrogate, eps=eps, steps=40)(few_x, few_y) for eps in (0.03, 0.1)}

    results: dict[float, list[dict[str, float]]] = {beta: [] for beta in BETAS}
    for beta, seed in pairs:
        net = nets[beta, seed]
        row = stored(
            folder / f"ball_{beta:g}_{seed}.json",
            lambda n=net, b=beta, s=seed: {
                "accuracy": survived(n, test_x, test_y),
                **in_balls(n, b, s, few_x, few_y, transferred()),
            },
        )
        results[beta].append(row)
    some = {pair: net for pair, net in nets.items() if pair[1] < options.walk_seeds}
    n = options.walk_images
    walked = on_manifolds(some, results, folder, x, few_x[:n], few_y[:n], options.manifolds)
    write(report(results, walked, n, options.manifolds, command(parser, options)), options.out)
    if options.picture is not None:
        picture(results, walked, options.manifolds, options.picture)


def by_beta(columns: dict[str, str], results: dict[float, list[dict[str, float]]]) -> str:
    """A table with a row for each beta."""
    rows = [(f"{beta:g}", *(cell(rows, name) for name in columns.values())) for beta, rows in results.items()]
    return table(("beta", *columns), rows)


def report(
    results: dict[float, list[dict[str, float]]],
    walked: dict[float, list[dict[str, float]]],
    n: int,
    manifolds: list[str],
    line: str,
) -> list[str]:
    """Tables, and what they say."""
    scores = [
        (
            f"{beta:g}",
            str(paper),
            cell(rows, "accuracy", 4),
            *(cell(rows, name) for name in ("stress", "correlation", "lipschitz")),
        )
        for (beta, rows), paper in zip(results.items(), PAPER, strict=True)
    ]
    plain = {**{f"FGSM {eps}": f"fgsm_{eps}" for eps in EPS}, "PGD 0.5, 10 steps of 0.01": "pgd"}
    strong = {
        **{f"PGD margin {eps}": f"pgd_margin_{eps}" for eps in (0.03, 0.1)},
        **{f"APGD {eps}": f"apgd_{eps}" for eps in (0.03, 0.1)},
        **{f"transfer {eps}": f"transfer_{eps}" for eps in (0.03, 0.1)},
        "Square 0.1, 500 queries": "square_0.1",
    }
    survivors = {"FGSM 0.1": "fgsm_0.1", "PGD margin 0.1": "pgd_margin_0.1", f"clean, of {n}": f"{manifolds[0]}_pgd_0"}
    gradients = {"L1, cross entropy": "grad_ce", "L1, margin": "grad_margin", "L2, margin": f"{manifolds[0]}_slope"}
    for name in manifolds:
        survivors |= {f"{name}: PGD, {k} step{'s'[: k > 1]}": f"{name}_pgd_{k}" for k in AFTER[1:]}
        survivors |= {f"{name}: random, {k} steps": f"{name}_random_{k}" for k in AFTER[-2:]}
        gradients |= {f"along the {name}": f"{name}_tangent_slope"}
    seeds = len(walked[0.0])
    return [
        "# Locally isometric networks under attack",
        f"Mean ± standard deviation over {len(results[0.0])} seeds. Accuracy on 10,000 test images, under attack on "
        f"1,000 of them (Square: {FEW}, walks on manifolds: {n}). {line}",
        "## What is found",
        *findings(results, walked, manifolds),
        "Other regimes: [lil_regimes.md](lil_regimes.md).",
        "## Accuracy",
        table(("beta", "paper", "here", "stress", "distance correlation", "largest stretch"), scores),
        "## The paper's attack: gradient of the full training loss, batches of 100",
        by_beta(FULL, results),
        "## The same with the gradient of the cross entropy",
        by_beta(plain, results),
        "## Stronger, transferred and gradient-free attacks",
        by_beta(strong, results),
        f"## In the ball and on manifolds: accuracy after steps of length 1 (seeds: {seeds})",
        by_beta(survivors, walked),
        f"## Median norms of gradients at test images (seeds: {seeds})",
        by_beta(gradients, walked),
    ]


def rise(name: str, results: dict[float, list[dict[str, float]]]) -> str:
    """Where mean accuracies rise with beta, and at how many steps of beta each seed does."""
    steps = list(pairwise(results))
    falls = [f"{a:g} to {b:g}" for a, b in steps if mean(results[b], name) <= mean(results[a], name)]
    by_seed = zip(*([row[name] for row in rows] for rows in results.values()), strict=True)
    counts = ", ".join(str(sum(b > a for a, b in pairwise(values))) for values in by_seed)
    told = f"not from {' and '.join(falls)}" if falls else "at every beta"
    return f"{told} (by seed at {counts} of {len(steps)} steps)"


def findings(
    results: dict[float, list[dict[str, float]]],
    walked: dict[float, list[dict[str, float]]],
    manifolds: list[str],
) -> list[str]:
    """What the rows say of the largest beta and of all, beside none; every figure is read off them."""
    last = max(results)
    missed = [
        f"{beta:g}"
        for (beta, rows), paper in zip(results.items(), PAPER, strict=True)
        if beta <= 1 and abs(mean(rows, "accuracy") - paper) > 0.01
    ]

    def ends(name: str, rows: dict[float, list[dict[str, float]]] = results) -> str:
        return f"{mean(rows[0.0], name):.3f} to {mean(rows[last], name):.3f}"

    said = [
        "Accuracies for beta up to 1 are the paper's within 0.01"
        + (f", except for beta {', '.join(missed)}." if missed else ".")
        + f" From beta 0 to {last:g}, FGSM 0.1 on the paper's loss leaves {ends('full_0.1')}; the same step on the "
        f"cross entropy {ends('fgsm_0.1')}, APGD {ends('apgd_0.1')}, the gradient-free Square "
        f"{ends('square_0.1')}, transferred PGD {ends('transfer_0.1')}. At eps 0.03, where networks have something to "
        f"lose, APGD leaves {ends('apgd_0.03')}, at a clean accuracy of {ends('accuracy')}.",
        "Does accuracy rise with beta under the paper's attack? "
        + "; ".join(f"{attack}: {rise(name, results)}" for attack, name in FULL.items())
        + ".",
    ]
    for name in manifolds:
        told = []
        for k in AFTER[1:]:
            key = f"{name}_pgd_{k}"
            plain = [row[key] for row in walked[0.0]]
            best = max((beta for beta in walked if beta), key=lambda beta: mean(walked[beta], key))
            gains = [row[key] - base for row, base in zip(walked[best], plain, strict=True)]
            told.append(
                f"after {k} step{'s'[: k > 1]} {mean(walked[0.0], key):.3f} (best beta {best:g}: "
                f"{mean(walked[best], key):.3f}, gain by seed {', '.join(f'{gain:+.2f}' for gain in gains)})"
            )
        said.append(
            f"On-manifold PGD on the {name} leaves, at beta 0, {'; '.join(told)}. The best beta is chosen on the same "
            f"images, which flatters it. The gradient of the margin along the {name}: "
            f"{ends(f'{name}_tangent_slope', walked)}."
        )
    return said


if __name__ == "__main__":
    main()
