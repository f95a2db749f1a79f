"""
Linked rings: distances within classes, kept or torn
====================================================

Two linked unit circles are to be told apart. Cross entropy does it by tearing each ring's distances out of shape; with
the isometric loss the network separates the rings and keeps, within each, every distance.

**What is seen.** The rings; their representations under cross entropy and with the isometric loss, in the two
principal components of twenty dimensions, coloured by the angle; the distances within rings before and after.

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
figure = plt.figure(figsize=(12, 7), layout="constrained")
rings, y, _ = shown[0.0]
space = figure.add_subplot(2, 3, 1, projection="3d")
for ring, marker in ((0, "o"), (1, "^")):
    angle = rings.parameters[y == ring, 0]
    space.scatter(*rings.points[y == ring].T, c=angle, cmap="twilight_shifted", marker=marker, s=8, linewidths=0)
space.set(title="Two linked rings, coloured by angle", xlabel="$x$", ylabel="$y$", zlabel="$z$")
space.set(xticks=(-1, 0, 1, 2), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
space.set_box_aspect((3, 2, 2), zoom=0.9)
space.view_init(elev=25, azim=-55)
for column, (beta, (rings, y, z)) in enumerate(shown.items()):
    centred = z - z.mean(dim=0)
    plane = centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T
    ax = figure.add_subplot(2, 3, 2 + column)
    for ring, marker in ((0, "o"), (1, "^")):
        angle = rings.parameters[y == ring, 0]
        drawn = ax.scatter(
            *plane[y == ring].T, c=angle, cmap="twilight_shifted", marker=marker, s=12, linewidths=0,
            label=f"ring {ring}",
        )  # fmt: skip
    ax.set(title=f"Representation: {NAMES[beta].lower()}", xlabel="component 1", ylabel="component 2", aspect="equal")
    ax.legend(frameon=False, loc="best")
    ax = figure.add_subplot(2, 3, 5 + column)
    for ring, colour in ((0, "#0072B2"), (1, "#D55E00")):
        before, after = torch.pdist(torch.from_numpy(rings.points[y == ring])), torch.pdist(z[y == ring])
        ax.plot(before[::9], after[::9], ".", color=colour, markersize=2, alpha=0.4, label=f"ring {ring}")
    ax.plot([0, 2], [0, 2], color="black", linewidth=1, label="isometry")
    ax.set(title=NAMES[beta], xlabel="distance of points", ylabel="distance of representations")
    ax.legend(frameon=False, markerscale=5, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(options.out / "rings.png", dpi=120)
print(f"\npicture: {options.out}/rings.png")
