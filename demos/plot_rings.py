"""
Linked rings: distances within classes, kept or torn
====================================================

Two linked unit circles are to be told apart. Cross entropy does it by tearing each ring's distances out of shape; with
the isometric loss the network separates the rings and keeps, within each, every distance.

**What is seen.** The rings; the representation of each, under cross entropy and with the isometric loss, in its own
two principal components of twenty dimensions, coloured by the angle; the distances within rings before and after.

**What to learn.** Both networks classify perfectly, so that accuracy says nothing about geometry. The isometric loss
costs no accuracy here.

Run it alone with ``python demos/plot_rings.py --out out``: it writes ``rings.png`` and prints a table.
"""

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from manifoldkit.datasets import make_linked_rings
from manifoldkit.isometry import IsometricTrainer, IsometryReport, LocallyIsometricNet

parser = argparse.ArgumentParser(description="Linked rings with and without the isometric loss.")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures (default: out)")
parser.add_argument("--seeds", type=int, default=3, help="networks for the table (default: 3)")
parser.add_argument("--epochs", type=int, default=2000, help="full-batch epochs (default: 2000; the paper: 10000)")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

# %%
# Training
# --------
# Four hidden layers of twenty tanh units, all 600 points in one batch, Adam.
print(f"{'beta':>6}{'seed':>6}{'accuracy':>10}{'stress':>9}{'correlation':>13}")
shown = {}
for seed in range(options.seeds):
    rings, labels = make_linked_rings(600, random_state=seed)
    x, y = torch.from_numpy(rings.points).float(), torch.from_numpy(labels)
    for beta in (0.0, 1.0):
        generator = torch.Generator().manual_seed(seed)
        net = LocallyIsometricNet.mlp(3, 2, width=20, generator=generator)
        IsometricTrainer(net, beta=beta, generator=generator).fit(x, y, epochs=options.epochs)
        report = IsometryReport.of_network(net, x, y)[0]
        with torch.no_grad():
            accuracy = float((net(x).argmax(1) == y).float().mean())
            z = net.representations(x)[0]
        print(f"{beta:>6g}{seed:>6}{accuracy:>10.3f}{report.stress:>9.4f}{report.distance_correlation:>13.4f}")
        if seed == 0:
            shown[beta] = rings, y, z

# %%
# Before and after
# ----------------
NAMES = {0.0: "Cross entropy alone", 1.0: "With the isometric loss"}
figure = plt.figure(figsize=(14, 6.6), layout="constrained")
grid = figure.add_gridspec(2, 4, width_ratios=(1.5, 1, 1, 1.1))
rings, y, _ = shown[0.0]
space = figure.add_subplot(grid[:, 0], projection="3d")
for ring, marker in ((0, "o"), (1, "^")):
    angle = rings.parameters[y == ring, 0]
    space.scatter(*rings.points[y == ring].T, c=angle, cmap="twilight_shifted", marker=marker, s=12, linewidths=0)
space.set(title="Two linked rings, coloured by angle", xlabel="$x$", ylabel="$y$", zlabel="$z$")
space.set(xticks=(-1, 0, 1, 2), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
space.set_box_aspect((3, 2, 2), zoom=0.85)
space.view_init(elev=25, azim=-55)
for row, (beta, (rings, y, z)) in enumerate(shown.items()):
    for ring in (0, 1):
        centred = z[y == ring] - z[y == ring].mean(dim=0)
        plane = centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T
        ax = figure.add_subplot(grid[row, 1 + ring])
        ax.scatter(*plane.T, c=rings.parameters[y == ring, 0], cmap="twilight_shifted", s=12, linewidths=0)
        ax.set(
            title=f"{NAMES[beta]}: ring {ring}", xlabel="component 1", xlim=(-1.35, 1.35), ylim=(-1.35, 1.35),
            aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1),
        )  # fmt: skip
        ax.title.set_fontsize(10)
        ax.set_axisbelow(True)
        ax.grid(True, color="0.9", linewidth=0.6)
        ax.set_ylabel("component 2" if ring == 0 else "")
    ax = figure.add_subplot(grid[row, 3])
    for ring, colour in ((0, "#0072B2"), (1, "#D55E00")):
        before, after = torch.pdist(torch.from_numpy(rings.points[y == ring])), torch.pdist(z[y == ring])
        ax.plot(before[::9], after[::9], ".", color=colour, markersize=2, alpha=0.4, label=f"ring {ring}")
    ax.plot([0, 2], [0, 2], color="black", linewidth=1, label="isometry")
    ax.set(
        xlabel="distance of points", ylabel="of representations", ylim=(-0.05, 2.3), xticks=(0, 1, 2), yticks=(0, 1, 2)
    )
    ax.set_title("Distances within rings", fontsize=10)
    ax.legend(frameon=False, markerscale=5, loc="upper left", fontsize=8, ncols=3, columnspacing=0.8, handletextpad=0.3)
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(options.out / "rings.png", dpi=120)
print(f"\npicture: {options.out}/rings.png")
