"""
How likely is a point? A diffusion model's answer
==================================================

A small network learns to see the noise in points of a plane Swiss roll. Going back from noise in steps, it becomes a
sampler; comparing each step back with the step forward, it says how likely a point is. The demo draws

1. the log-density over the plane, with points of four sets,
2. how the four sets are scored: the roll, which was learned, must come out highest, and
3. samples of ten or five long steps: by DDIM, and by RK4, whose steps cost four calls of the network each.

Look at the map between the windings, where a blurred model would put the circle and the moons as high as the roll.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.datasets import make_circles, make_moons, make_s_curve, make_swiss_roll
from torch import Tensor

from manifoldkit.priors import NoiseMLP, NoiseSchedule, ddim_sample, diffusion_log_prob, rk4_sample, train_eps

COLORS = {"Swiss roll": "#0072B2", "circle": "#D55E00", "moons": "#009E73", "S": "#CC79A7"}


def plane_sets(n: int, seed: int) -> dict[str, Tensor]:
    found = {
        "Swiss roll": make_swiss_roll(n, noise=0.5, random_state=seed)[0][:, [0, 2]] / 10,
        "circle": make_circles((n, 0), noise=0.05, random_state=seed)[0],
        "moons": make_moons(n, noise=0.05, random_state=seed)[0],
        "S": make_s_curve(n, noise=0.05, random_state=seed)[0][:, [0, 2]],
    }
    return {name: torch.tensor(x, dtype=torch.float32) for name, x in found.items()}


def draw_map(net: NoiseMLP, schedule: NoiseSchedule, sets: dict[str, Tensor], side: int, ax: Axes) -> None:
    ticks = torch.linspace(-2.3, 2.3, side)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).reshape(-1, 2)
    g = torch.Generator().manual_seed(2)
    values = diffusion_log_prob(net, grid, schedule, n_rounds=4, generator=g, progress=True) / math.log(10)
    picture = ax.imshow(
        values.reshape(side, side).clamp_min(-6), origin="lower", extent=(-2.3, 2.3, -2.3, 2.3), cmap="cividis",
        interpolation="bilinear",
    )  # fmt: skip
    for name, points in sets.items():
        ax.scatter(*points[:120].T, s=5, color=COLORS[name], edgecolor="white", linewidth=0.25)
    ax.figure.colorbar(picture, ax=ax, shrink=0.75, label=r"$\log_{10} p$ (below −6 as −6)")
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    ax.set_title("likelihood over the plane")


def draw_scores(scores: dict[str, Tensor], ax: Axes) -> None:
    edges = np.linspace(-8, 1, 46)
    for name, values in scores.items():
        label = f"{name}: mean {float(values.mean()):.2f}"
        ax.hist(values.clamp(-8, 1), edges, histtype="step", linewidth=1.8, color=COLORS[name], label=label)
    ax.set_xlabel(r"$\log_{10} p$ (below −8 as −8)")
    ax.set_ylabel("points")
    ax.set_title("scores of 500 fresh points of each set")
    ax.legend(frameon=False, fontsize=8, loc="upper center")
    ax.spines[["top", "right"]].set_visible(False)


def draw_samples(samples: dict[str, Tensor], axes: np.ndarray) -> None:
    for ax, (name, x) in zip(axes.ravel(), samples.items(), strict=True):
        ax.scatter(*x.T, s=1.5, color=COLORS["Swiss roll"], rasterized=True)
        ax.set_title(name, fontsize=9)
        ax.set_aspect("equal")
        ax.set_xlim(-1.7, 1.9)
        ax.set_ylim(-1.7, 1.9)
        ax.set_xticks([])
        ax.set_yticks([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000, help="updates of the network")
    parser.add_argument("--side", type=int, default=70, help="points of the map along an axis")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(args.seed)
    schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    net = NoiseMLP(2, 100, generator=g)
    roll = plane_sets(10_000, args.seed)["Swiss roll"]
    train_eps(net, roll, schedule, steps=args.steps, generator=g, progress=True)
    net.requires_grad_(False)
    sets = plane_sets(500, 1000 + args.seed)
    scores = {
        name: diffusion_log_prob(net, x, schedule, n_rounds=8, generator=g) / math.log(10) for name, x in sets.items()
    }
    start = torch.randn(2000, 2, generator=g)
    samples = {"training points": roll[:2000]}
    samples |= {f"DDIM, {100 // h} steps": ddim_sample(net, start, schedule, stride=h) for h in (10, 20)}
    samples["DDIM, 100 steps"] = ddim_sample(net, start, schedule)
    samples |= {f"RK4, {100 // h} steps": rk4_sample(net, start, schedule, stride=h) for h in (10, 20)}
    figure = plt.figure(figsize=(15, 4.8), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1.15, 1, 1.2])
    draw_map(net, schedule, sets, args.side, left.subplots())
    draw_scores(scores, middle.subplots())
    draw_samples(samples, right.subplots(2, 3))
    figure.savefig(args.out / "likelihood.png", dpi=120)
    plt.close(figure)
    print(f"wrote {args.out / 'likelihood.png'}\n")
    print("set         mean log10 p")
    for name, values in scores.items():
        print(f"{name:11s} {float(values.mean()):8.3f}")


if __name__ == "__main__":
    main()
