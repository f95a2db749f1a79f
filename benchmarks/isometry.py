"""Isometric networks: what a step costs, edge ratios on three surfaces, linear read-out of MNIST codes.

    python benchmarks/isometry.py --work out/isometry --out benchmarks/isometry.md

CPU seconds of one core. Rows are kept in the folder --work, so that an interrupted run goes on. MNIST files of
`data/` are needed.

The recipe (widths, lambda 0.1, Gaussian codes, L-BFGS from Isomap codes) was designed on seeds 0 and 1; the seeds
reported begin at 10. The section "published" trains the networks of the source by the same recipe, up to 30 minutes.
MNIST is in `isometry_mnist.py`; its lambda is chosen at seed 0.
The "open sphere" of the paper is not described; here it is the cap of 70 degrees around the south pole, and the
hemisphere. Neither is flat: the floor is the smallest figure of any rotationally symmetric map, found numerically,
which leaves no way to 0.07 for caps wider than 75 degrees.
"""

# ruff: noqa: E402 (threads are set before numpy starts them)
from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import torch
from isometry_mnist import mnist
from scipy.optimize import minimize
from stored import stored
from tables import cell, command, mean, table, write

from manifoldkit.datasets import make_open_sphere, make_s_curve, make_swiss_roll
from manifoldkit.isometry import (
    MLP,
    DecoderIsometry,
    EncoderIsometry,
    IsometricAutoencoder,
    IsometricLoss,
    LocallyIsometricNet,
    baseline,
    dense_pair,
    edge_ratio_std,
    jacobian_identities,
)
from manifoldkit.isometry.baselines import BASELINES
from manifoldkit.isometry.solvers import Objective

SURFACES: dict[str, Callable[[int], Any]] = {
    "S": lambda seed: make_s_curve(1000, random_state=seed),
    "Swiss roll": lambda seed: make_swiss_roll(1000, random_state=seed),
    "sphere, 70 degrees": lambda seed: make_open_sphere(1000, opening=np.radians(110), random_state=seed),
    "hemisphere": lambda seed: make_open_sphere(1000, random_state=seed),
}
RECIPE = {"hidden": (64, 64), "activation": "tanh", "solver": "lbfgs", "max_iter": 1500}
MODELS: dict[str, dict[str, Any]] = {
    "I-AE": {},
    "Isomap codes, least squares": {"max_iter": 0},
    "AE from Isomap codes": baseline("AE"),
    **{name: {**baseline(name), "init": None} for name in BASELINES},
}
ALONE = ("hemisphere",)  # surfaces of the first model only
SEEDS = (10, 11, 12)
PUBLISHED = {"hidden": (256,) * 5, "activation": "softplus", "dtype": "float32"}  # networks of the source
TARGETS = {"S": 0.03, "Swiss roll": 0.02, "sphere, 70 degrees": 0.07}


def cpu(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def rounds(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each job, round after round, in turn and in the other order."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for k in range(repeats):
        for name in list(jobs)[:: -1 if k % 2 else 1]:
            seconds[name].append(cpu(jobs[name]))
    return seconds


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> str:
    """Median and quartiles of the ratios of neighbours in time."""
    pairs = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


# ------------------------------------------------------------------------ steps


def lil_steps(batch: int) -> dict[str, Callable[[], object]]:
    """Training steps of the MNIST network, and the isometric loss without the network: the floor."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, 784, generator=generator), torch.randint(0, 10, (batch,), generator=generator)
    loss = IsometricLoss()

    def step(beta: float) -> Callable[[], object]:
        net = LocallyIsometricNet.mlp(784, 10, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(net.parameters())

        def run() -> None:
            for _ in range(20):
                (z,) = net.representations(x)
                value = torch.nn.functional.cross_entropy(net.logits([z])[0], y)
                value = value + beta * loss(x, z, y) if beta else value
                optimizer.zero_grad()
                value.backward()
                optimizer.step()

        return run

    z = torch.rand(batch, 100, generator=generator, requires_grad=True)
    return {
        "cross entropy": step(0.0),
        "LIL": step(1.0),
        "loss alone": lambda: [loss(x, z, y).backward() for _ in range(20)],
    }


def autoencoder_steps(networks: Callable[[], tuple[Any, Any]], x: torch.Tensor) -> dict[str, Callable[[], object]]:
    def step(penalties: tuple[Any, ...]) -> Callable[[], object]:
        encoder, decoder = networks()
        objective = Objective(encoder, decoder, penalties, 0.0, torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(objective.parameters())

        def run() -> None:
            for _ in range(5):
                loss, _ = objective(x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return run

    return {"AE": step(()), "I-AE": step((DecoderIsometry(0.1), EncoderIsometry(0.1)))}


def measure_steps(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every job; networks of the same sizes side by side."""
    found = {f"LIL {batch}": rounds(lil_steps(batch), repeats) for batch in (100, 500)}
    generator = torch.Generator().manual_seed(0)

    def surface(width: int, depth: int) -> tuple[Any, Any]:
        activation = lambda: torch.nn.Softplus(beta=100)  # noqa: E731
        sizes = [width] * depth
        return MLP([3, *sizes, 2], activation, generator=generator), MLP(
            [2, *sizes, 3], activation, generator=generator
        )

    for name, networks, x in (
        ("surfaces 256x5, batch 250", lambda: surface(256, 5), torch.rand(250, 3, generator=generator)),
        ("surfaces 64x2, batch 1000", lambda: surface(64, 2), torch.rand(1000, 3, generator=generator)),
        ("dense MNIST, d = 16, batch 128", lambda: dense_pair(16), torch.rand(128, 784, generator=generator)),
    ):
        found[name] = rounds(autoencoder_steps(networks, x), repeats)
    return found


def steps(folder: Path, repeats: int) -> list[str]:
    found = stored(folder / f"steps-{repeats}.json", lambda: measure_steps(repeats))
    lil, pairs = [], []
    for name, seconds in found.items():
        middle = {job: 1e3 * statistics.median(times) for job, times in seconds.items()}
        if name.startswith("LIL"):
            least = [
                1 + loss / step for loss, step in zip(seconds["loss alone"], seconds["cross entropy"], strict=True)
            ]
            parts = (ratio(seconds, "LIL", "cross entropy"), statistics.median(least))
            lil.append((name.removeprefix("LIL "), middle["cross entropy"] / 20, middle["LIL"] / 20, *parts))
        else:
            pairs.append((name, middle["AE"] / 5, middle["I-AE"] / 5, ratio(seconds, "I-AE", "AE")))
    return [
        f"Steps: CPU times of {repeats} rounds in turn; medians, and median (quartiles) of the ratios within a round.",
        "## A LIL step, MLP 784-100x4-10, Adam (target: ratio 1.5 at batch 100)",
        table(("batch", "cross entropy, ms", "LIL, ms", "ratio", "floor: 1 + loss alone"), lil),
        "## An I-AE step, Adam (target: ratio 4; floor 3 by counting passes: 6 of AE, 18 of I-AE)",
        table(("networks", "AE, ms", "I-AE, ms", "ratio"), pairs),
    ]


# --------------------------------------------------------------------- surfaces


def fit_surface(surface: str, model: str, seed: int) -> dict[str, float]:
    points = SURFACES[surface](seed).points
    estimator = IsometricAutoencoder(2, **{**RECIPE, **MODELS[model], "random_state": seed})
    seconds = cpu(lambda: estimator.fit(points))
    codes = estimator.transform(points)
    error = estimator.inverse_transform(codes) - points
    return {
        "std": edge_ratio_std(estimator.inverse_transform, codes),
        "seconds": seconds,
        "relative_error": float(np.sqrt((error**2).sum() / ((points - points.mean(axis=0)) ** 2).sum())),
        **jacobian_identities(estimator.encoder_, estimator.decoder_, codes),
    }


def sphere_floor(angle: float, rings: int = 60) -> float:
    """Smallest std of edge ratios of a rotationally symmetric map of a cap of this angular radius onto a disc."""
    psi = (np.arange(24) + 0.5) / 24 * np.pi / 2
    r = np.linspace(0, angle, rings + 1)
    middle = (r[1:] + r[:-1]) / 2

    def std(logarithms: np.ndarray) -> float:
        widths = np.exp(logarithms) * np.diff(r)
        edges = np.concatenate([[0], np.cumsum(widths)])
        radius = (edges[1:] + edges[:-1]) / 2
        radial, around = np.diff(r) / widths, np.sin(middle) / radius
        ratios = np.hypot(radial[:, None] * np.cos(psi), around[:, None] * np.sin(psi))
        weights = (radius * widths / (radius * widths).sum())[:, None] / len(psi)
        mean = (weights * ratios).sum()
        return float(np.sqrt((weights * (ratios / mean - 1) ** 2).sum()))

    return float(minimize(std, np.zeros(rings), method="L-BFGS-B", options={"maxfun": 10**5}).fun)


def surfaces(folder: Path, seeds: list[int], models: list[str]) -> list[str]:
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in seeds:
        for model in models:
            for surface in SURFACES:
                if surface not in ALONE or model == "I-AE":
                    file = folder / f"{surface}-{model}-{seed}.json"
                    row = stored(file, lambda s=surface, m=model, k=seed: fit_surface(s, m, k))
                    found.setdefault((surface, model), []).append(row)
    floors = (0.0, 0.0, *(sphere_floor(np.radians(degrees)) for degrees in (70, 90)))

    def grid(text: Callable[[list[dict[str, float]]], str], *more: tuple[object, ...]) -> str:
        rows = [(m, *(text(found[s, m]) if (s, m) in found else "" for s in SURFACES)) for m in models]
        return table(("model", *SURFACES), [*rows, *more])

    names = ("seconds", "relative_error", "decoder", "encoder", "pseudo_inverse")
    return [
        f"## Std of edge ratios, 1,000 points, seeds {seeds}; {RECIPE['max_iter']:,} iterations of L-BFGS each",
        grid(
            lambda rows: cell(rows, "std", 4),
            ("floor", *(f"{floor:.3f}" for floor in floors)),
            ("paper's I-AE", *(f"{TARGETS[s]}" if s in TARGETS else "" for s in SURFACES)),
        ),
        "The source does not describe its open sphere. Here it is the cap within 70 degrees of the south pole "
        "(`make_open_sphere(opening=110 degrees)`), and beside it the hemisphere. No map flattens a sphere: the floor "
        "is the smallest std of all rotationally symmetric maps, found numerically, "
        f"{floors[2]:.3f} and {floors[3]:.3f}; for a cap of 75 degrees it is {sphere_floor(np.radians(75)):.3f}. So "
        "no factor of 5 below other autoencoders can be had there.",
        *(beside_baselines(found, models) if "I-AE" in models else ()),
        "## I-AE: CPU seconds, error of reconstruction, identities of the Jacobians at the codes",
        table(
            ("surface", "CPU s", "relative error", "A^T A - I", "B B^T - I", "B - A^T"),
            [(s, *(cell(found[s, "I-AE"], name) for name in names)) for s in SURFACES if (s, "I-AE") in found],
        ),
        "## Relative error of reconstruction: a flat image has small ratios, too",
        grid(lambda rows: cell(rows, "relative_error")),
        "## CPU seconds of a fit",
        grid(lambda rows: f"{mean(rows, 'seconds'):.0f}"),
    ]


def beside_baselines(found: dict[tuple[str, str], list[dict[str, float]]], models: list[str]) -> list[str]:
    """Targets met or not, and the nearest other model of each surface."""
    said = []
    for surface, target in TARGETS.items():
        ours = found[surface, "I-AE"]
        largest = max(row["std"] for row in ours)
        text = (
            f"{surface}: the largest std of a seed, {largest:.4f}, is {'within' if largest <= target else 'above'} the "
            f"target {target}"
        )
        for what, others in (
            ("baseline from random weights", [m for m in models if m in BASELINES]),
            ("model from Isomap codes", [m for m in models if "Isomap" in m]),
        ):
            if others:
                best = min(others, key=lambda m: mean(found[surface, m], "std"))
                ratio = mean(found[surface, best], "std") / mean(ours, "std")
                text += f"; the best {what}, {best}, has {ratio:.1f} times the mean of I-AE"
        said.append(text + ".")
    return said


# ----------------------------------------------------- the networks of the source


def train_published(file: Path, surface: str, seed: int, limit: float) -> tuple[list[float], list[float]]:
    """CPU seconds and std of edge ratios after each round of L-BFGS, until the target or the limit; kept in a file."""
    points = SURFACES[surface](seed).points
    if file.exists():
        estimator, seconds, stds = pickle.loads(file.read_bytes())
    else:
        options = {**RECIPE, **PUBLISHED, "max_iter": 100, "warm_start": True, "random_state": seed}
        estimator, seconds, stds = IsometricAutoencoder(2, **options), [], []
    while not stds or (stds[-1] > TARGETS[surface] and seconds[-1] < limit):
        round_seconds = cpu(lambda: estimator.fit(points))
        seconds.append(round_seconds + (seconds[-1] if seconds else 0.0))
        stds.append(edge_ratio_std(estimator.inverse_transform, estimator.transform(points)))
        partial = file.with_suffix(".partial")
        partial.write_bytes(pickle.dumps((estimator, seconds, stds)))
        partial.replace(file)
        print(f"{file.stem}: {100 * len(stds)} iterations, {seconds[-1]:.0f} s, {stds[-1]:.4f}", file=sys.stderr)
    return seconds, stds


def published(folder: Path, seeds: list[int], names: list[str], limit: float) -> list[str]:
    rows: list[tuple[object, ...]] = []
    reached = []
    for name in names:
        for seed in seeds:
            seconds, stds = train_published(folder / f"published-{name}-{seed}.pickle", name, seed, limit)
            pairs = list(zip(seconds, stds, strict=True))
            marks = [next((f"{std:.4f}" for t, std in pairs if t >= m * 60), "") for m in (1, 5, 15)]
            last = f"{stds[-1]:.4f}"
            rows.append((name, TARGETS[name], seed, *marks, last, f"{seconds[-1]:.0f}", 100 * len(stds)))
            reached.append(stds[-1] <= TARGETS[name])
    return [
        f"## The networks of the source (256 x 5, Softplus 100) by our recipe, until the target or {limit / 60:.0f} "
        "CPU minutes",
        table(
            ("surface", "target", "seed", "std after 1 min", "5 min", "15 min", "last std", "CPU s", "iterations"), rows
        ),
        f"{sum(reached)} of {len(reached)} runs reach the target.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("out/isometry"), help="folder of the rows")
    parser.add_argument("--out", type=Path, help="file for the tables; the screen without one")
    parser.add_argument("--sections", nargs="+", default=["steps", "surfaces", "published", "mnist"])
    parser.add_argument("--surfaces", nargs="+", default=list(TARGETS), help="of the networks of the source")
    parser.add_argument("--limit", type=float, default=1800.0, help="CPU seconds for each of these")
    parser.add_argument("--repeats", type=int, default=40, help="rounds of the steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--published-seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="of the surfaces")
    parser.add_argument("--images", type=int, default=60000, help="of MNIST to train on")
    parser.add_argument("--epochs", type=int, default=3, help="of the autoencoders of MNIST")
    parser.add_argument("--mnist-seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--choice-epochs", type=int, default=2, help="where lambda is chosen")
    parser.add_argument("--choice-seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    parts = ["# Isometric networks", command(parser, options)]
    if "steps" in options.sections:
        parts += steps(options.work, options.repeats)
    if "surfaces" in options.sections:
        parts += surfaces(options.work, options.seeds, options.models)
    if "published" in options.sections:
        parts += published(options.work, options.published_seeds, options.surfaces, options.limit)
    if "mnist" in options.sections:
        parts += mnist(
            options.work,
            options.images,
            options.epochs,
            options.mnist_seeds,
            options.choice_epochs,
            options.choice_seeds,
        )
    write(parts, options.out)


if __name__ == "__main__":
    main()
