"""
Where a network's risk comes from
=================================

Data on a circle, four arcs of two classes, and a small network. Each sample that a change of length eps can break has
one cause: it is wrong as it is ("standard"); a change straight off the circle breaks it ("normal"); the circle itself
leads to another class nearby ("in-manifold"; where the classes touch, no training can cure that); or it lies beside a
place with a normal risk ("nearby normal"). The demo

1. colours the samples by their causes over the network's decisions,
2. draws the risk and the sum that bounds it for growing eps, counted over every point of a grid round the circle, and
3. compares the causes after four kinds of training.

Look at the left picture for tongues of a class that end between the dashed circles: beside them lie the normal risks.
Look at the bars: training on normal changes takes the normal part away and nothing else; the other part, by far the
larger, falls only where the network learns the manifold's own boundaries, in-manifold or in the whole space.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import nn
from tqdm.auto import tqdm

from manifoldkit.attacks import PGD, Attack, SubspacePGD, adversarial_training
from manifoldkit.datasets import make_circle_task
from manifoldkit.geometry import Circle
from manifoldkit.risk import RiskDecomposition, decompose_risk, tubular_grid_risk

EPS = 0.25
COLORS = {
    "standard": "#000000", "normal": "#D55E00", "in_manifold": "#0072B2", "nearby_normal": "#E69F00",
    "unexplained": "#CC79A7",
}  # fmt: skip
NAMES = {
    "standard": "standard", "normal": "normal", "in_manifold": "in-manifold", "nearby_normal": "nearby normal",
    "unexplained": "unexplained",
}  # fmt: skip


def train(kind: str, seed: int) -> nn.Module:
    """A network of 90 samples, one label in fifteen of them wrong: it bends where it should not."""
    task = make_circle_task(90, kind="double", random_state=seed)
    x, y = torch.as_tensor(task.points).float(), torch.as_tensor((task.labels + 1) // 2)
    y[::15] = 1 - y[::15]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    walk = {"steps": 5, "alpha": EPS / 2, "bounds": None, "early_stop": False}
    attacks: dict[str, Attack | None] = {
        "plain": None,
        "normal": SubspacePGD(net, Circle(), EPS, "normal", **walk),
        "in-manifold": SubspacePGD(net, Circle(), EPS, "tangent", **walk),
        "ambient": PGD(net, EPS, norm=2, **walk),
    }
    adversarial_training(
        net, x, y, attacks[kind], epochs=500, batch_size=90, clean_share=0.0,
        optimizer=lambda p: torch.optim.Adam(p, 5e-3), generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return net


def draw_map(net: nn.Module, points: np.ndarray, risk: RiskDecomposition, ax: Axes) -> None:
    side = np.linspace(-1.6, 1.6, 300)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    with torch.no_grad():
        classes = net(torch.as_tensor(grid).float()).argmax(1).numpy().reshape(300, 300)
    ax.contourf(side, side, classes, levels=[-0.5, 0.5, 1.5], colors=["#f7f7f7", "#c6d4e3"])
    angles = np.linspace(0, 2 * np.pi, 400)
    for radius in (1 - EPS, 1 + EPS):
        ax.plot(radius * np.cos(angles), radius * np.sin(angles), color="0.4", linewidth=0.8, linestyle="--")
    safe = ~risk.adv
    ax.scatter(*points[safe].T, s=9, color="0.6")
    for cause, color in COLORS.items():
        chosen = risk.cause == cause
        if chosen.any():
            ax.scatter(*points[chosen].T, s=20, color=color, zorder=3)
    ax.set_aspect("equal")
    ax.set_xlim(-1.6, 1.6)
    ax.set_ylim(-1.6, 1.6)
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    ax.set_title(f"causes at eps = {EPS}")


def draw_bound(net: nn.Module, points: np.ndarray, labels: np.ndarray, ax: Axes) -> None:
    angles = 2 * np.pi * np.arange(1440) / 1440
    base = np.column_stack([np.cos(angles), np.sin(angles)])
    budgets = np.linspace(0.02, 0.4, 14)
    found = [tubular_grid_risk(net, Circle(), points, labels, e, base=base) for e in tqdm(budgets, desc="budgets")]
    rates = [risk.rates() for risk in found]
    parts = ("std", "normal", "in_manifold", "nnr")
    heights = np.array([[rate[part] for rate in rates] for part in parts])
    colors = [COLORS[name] for name in ("standard", "normal", "in_manifold", "nearby_normal")]
    ax.stackplot(budgets, heights, colors=colors, alpha=0.55)
    ax.plot(budgets, [rate["adv"] for rate in rates], color="black", linewidth=2.2)
    ax.annotate(
        "adversarial risk", (budgets[-4], rates[-4]["adv"]), xytext=(-8, -22), textcoords="offset points", ha="center",
        weight="bold", bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip
    ax.set_xlim(budgets[0], budgets[-1])
    ax.set_ylim(0, None)
    ax.set_xlabel("eps")
    ax.set_ylabel("rate")
    violations = sum(int(risk.violations.sum()) for risk in found)
    ax.set_title("the four risks and what they bound")
    print(f"samples that violate the bound: {violations} in {len(found)} budgets of {len(points)} samples")


def draw_bars(
    nets: dict[str, nn.Module], points: np.ndarray, labels: np.ndarray, ax: Axes
) -> dict[str, RiskDecomposition]:
    risks = {
        name: decompose_risk(net, points, labels, Circle(), EPS, restarts=2, steps=20)
        for name, net in tqdm(nets.items(), desc="trainings")
    }
    left = np.zeros(len(nets))
    for cause, color in COLORS.items():
        width = np.array([risk.shares()[cause] for risk in risks.values()])
        ax.barh(list(nets), width, left=left, color=color, height=0.6)
        left += width
    for row, total in enumerate(left):
        ax.text(total + 0.01, row, f"{total:.2f}", va="center")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * left.max())
    ax.set_xlabel(f"adversarial risk at eps = {EPS}")
    ax.set_title("causes after four trainings")
    ax.spines[["top", "right"]].set_visible(False)
    return risks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    test = make_circle_task(300, kind="double", random_state=1000 + args.seed)
    points, labels = test.points, (test.labels + 1) // 2
    kinds = ("plain", "normal", "in-manifold", "ambient")
    nets = {kind: train(kind, args.seed) for kind in tqdm(kinds, desc="training")}
    figure, axes = plt.subplots(1, 3, figsize=(14, 5), layout="constrained")
    risks = draw_bars(nets, points, labels, axes[2])
    draw_map(nets["plain"], points, risks["plain"], axes[0])
    draw_bound(nets["plain"], points, labels, axes[1])
    marks = [Line2D([], [], color=color, marker="o", linestyle="", label=NAMES[c]) for c, color in COLORS.items()]
    marks.append(Line2D([], [], color="0.6", marker="o", markersize=4, linestyle="", label="not vulnerable"))
    figure.legend(handles=marks, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(args.out / "risk.png", dpi=120)
    plt.close(figure)
    print(f"wrote {args.out / 'risk.png'}\n")
    print("training     clean   adversarial  " + "  ".join(NAMES.values()))
    for kind, risk in risks.items():
        shares = "  ".join(f"{risk.shares()[cause]:{len(name)}.3f}" for cause, name in NAMES.items())
        print(f"{kind:12s} {1 - risk.std.mean():.3f}   {risk.adv.mean():11.3f}  {shares}")


if __name__ == "__main__":
    main()
