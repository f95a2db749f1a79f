"""Are samples of the training data the likeliest, and how long may the steps of a sampler be?

    python benchmarks/likelihoods.py --out benchmarks/likelihoods.md

A small diffusion model learns the plane Swiss roll; points of the roll, a circle, two moons and an S are scored. Each
seed draws its own data, network and paths and is written to a file of its own in the folder of `--parts`, so that an
interrupted run goes on where it was. The roll is scikit-learn's with noise 0.5, coordinates 0 and 2, divided by 10;
the others have their natural size, and noise 0.05.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from sklearn.datasets import make_circles, make_moons, make_s_curve, make_swiss_roll
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity
from torch import Tensor

from manifoldkit.priors import (
    NoiseMLP,
    NoiseSchedule,
    ddim_sample,
    ddpm_sample,
    diffusion_log_prob,
    rk4_sample,
    train_eps,
)

STRIDES = (2, 5, 10, 20)


def plane_sets(n: int, seed: int) -> dict[str, Tensor]:
    """The four sets, (n, 2) each; the first is the one to learn."""
    found = {
        "roll": make_swiss_roll(n, noise=0.5, random_state=seed)[0][:, [0, 2]] / 10,
        "circle": make_circles((n, 0), noise=0.05, random_state=seed)[0],
        "moons": make_moons(n, noise=0.05, random_state=seed)[0],
        "S": make_s_curve(n, noise=0.05, random_state=seed)[0][:, [0, 2]],
    }
    return {name: torch.tensor(x, dtype=torch.float32) for name, x in found.items()}


@torch.no_grad()
def run(seed: int, steps: int, rounds: int) -> dict[str, float]:
    """Figures of one seed, by name."""
    clock = time.process_time()
    g = torch.Generator().manual_seed(seed)
    schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    train = plane_sets(10_000, seed)["roll"]
    net = NoiseMLP(2, 100, generator=g)
    train_eps(net, train, schedule, steps=steps, generator=g)
    found = {}

    def note(name: str, value: float) -> None:
        found[name] = float(value)
        print(f"{seed} {name}: {value:.3f} ({time.process_time() - clock:.0f} CPU s)", flush=True)

    sets = plane_sets(1000, 10_000 + seed)
    settings = {
        "": (1, "beta"),
        "stride 2, ": (2, "beta"),
        "stride 10, ": (10, "beta"),
        "posterior, ": (1, "posterior"),
    }
    for prefix, (stride, variance) in settings.items():
        scores, bounds = {}, {}
        for name, x in sets.items():
            draws = diffusion_log_prob(
                net, x, schedule, stride=stride, n_rounds=rounds, variance=variance, reduce="none", generator=g
            ) / math.log(10)  # fmt: skip
            scores[name] = draws.mean(0)
            bounds[name] = (torch.logsumexp(draws * math.log(10), 0) - math.log(rounds)) / math.log(10)
            note(f"{prefix}mean log10 p, {name}", scores[name].mean())
            if not prefix:
                note(f"logmeanexp log10 p, {name}", bounds[name].mean())
                note(f"SD over rounds, {name}", draws.std(0).mean())
                assert (bounds[name] >= scores[name]).all()
        others = [name for name in sets if name != "roll"]
        note(f"{prefix}gap of the roll to the next", scores["roll"].mean() - max(scores[o].mean() for o in others))
        for other in others:
            truth = np.repeat([1, 0], [len(scores["roll"]), len(scores[other])])
            note(
                f"{prefix}AUROC roll against {other}", roc_auc_score(truth, torch.cat([scores["roll"], scores[other]]))
            )
    density = KernelDensity(bandwidth=0.03).fit(train)
    for name, x in sets.items():
        note(f"kernel density log10 p, {name}", density.score_samples(x).mean() / math.log(10))

    start = torch.randn(1000, 2, generator=g)
    tree = cKDTree(train)
    fine = {"DDIM": ddim_sample(net, start, schedule), "RK4": rk4_sample(net, start, schedule)}
    fine["RK4, noise midpoint"] = rk4_sample(net, start, schedule, midpoint="noise")
    for h in STRIDES:
        coarse = {
            "DDIM": ddim_sample(net, start, schedule, stride=h),
            "RK4": rk4_sample(net, start, schedule, stride=h),
        }
        coarse["RK4, noise midpoint"] = rk4_sample(net, start, schedule, stride=h, midpoint="noise")
        for name, x in coarse.items():
            note(f"{name} h = {h}: distance to its h = 1", (x - fine[name]).norm(dim=1).mean())
        coarse["DDPM"] = ddpm_sample(net, start, schedule, stride=h, generator=g)
        coarse["RK4-DDPM"] = rk4_sample(net, start, schedule, stride=h, transfer="ddpm", generator=g)
        for name, x in coarse.items():
            note(f"{name} h = {h}: distance to the data", tree.query(x)[0].mean())
    found["CPU s"] = time.process_time() - clock
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8000, help="updates of the network, of 512 points")
    parser.add_argument("--rounds", type=int, default=8, help="paths for each point")
    parser.add_argument("--parts", type=Path, default=Path("out/likelihoods"), help="folder of finished seeds")
    args = parser.parse_args()
    args.parts.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in range(args.seeds):
        part = args.parts / f"{seed}-{args.steps}-{args.rounds}.json"
        if not part.exists():
            part.write_text(json.dumps(run(seed, args.steps, args.rounds), indent=1))
        results.append(json.loads(part.read_text()))
    rows = []
    for name in results[0]:
        values = np.array([result[name] for result in results])
        each = ", ".join(f"{value:.3g}" for value in values)
        rows.append(f"| {name} | {values.mean():.3f} ± {values.std(ddof=1):.3f} | {each} |")
    lines = [
        "# Likelihoods and samples of a diffusion model of the plane Swiss roll", "",
        "    python benchmarks/likelihoods.py --out benchmarks/likelihoods.md", "",
        f"{args.seeds} seeds (0 to {args.seeds - 1}); {args.steps} updates; 1,000 fresh points of each set, "
        f'{args.rounds} paths a point; variance "beta" and stride 1 where nothing else is said. Densities are of the '
        "plane, log10. A distance to h = 1 is that between the ends from the same start, mean over 1,000; RK4 calls "
        "the network four times a step (and once more for each half-integer time), so RK4 at h = 20 costs about as "
        f"much as DDIM at h = 5. {platform.machine()}, {os.cpu_count()} cores.", "",
        "| | mean ± SD | seed by seed |", "|---|---|---|", *rows,
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
