"""
Isometric autoencoders: coordinates that keep lengths
=====================================================

Three surfaces in space are given coordinates by autoencoders with the same small networks: one whose decoder is asked
to keep lengths and whose encoder to be its pseudo-inverse, and the regularised ones of the literature.

**What is seen.** For each surface (rows) the samples, and a square grid of codes carried to space by each decoder;
under every picture the standard deviation of the relative lengths of the grid's edges.

**What to learn.** Only the isometric one has coordinates that measure: its squares stay squares, as far as the surface
lets them (the sphere does not; its best is 0.06). It begins at Isomap codes, the others at random weights, as in the
literature; a plain autoencoder from Isomap codes lies between (``benchmarks/isometry.md``).

Run it alone with ``python demos/plot_isometric_autoencoder.py --out out``: it writes ``isometric_autoencoder.png`` and
prints a table. Of one core it takes about four minutes; ``benchmarks/isometry.md`` has the table.
"""

# %%
from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from manifoldkit.datasets import make_open_sphere, make_s_curve, make_swiss_roll
from manifoldkit.isometry import IsometricAutoencoder, baseline, edge_ratio_std
from manifoldkit.isometry.baselines import BASELINES
from manifoldkit.isometry.distortion import code_grid

parser = argparse.ArgumentParser(description="Isometric autoencoders against others on three surfaces.")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures (default: out)")
parser.add_argument("--iterations", type=int, default=1000, help="of L-BFGS for each autoencoder (default: 1000)")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

SEED = 10
SURFACES = {
    "S": make_s_curve(1000, random_state=SEED),
    "Swiss roll": make_swiss_roll(1000, random_state=SEED),
    "open sphere": make_open_sphere(1000, opening=np.radians(110), random_state=SEED),
}
VIEWS = {"S": (15, -75), "Swiss roll": (12, -72), "open sphere": (35, -60)}
MODELS = {"I-AE": {}, **{name: {"init": None, **baseline(name)} for name in BASELINES}}

# %%
# Fits
# ----
figure = plt.figure(figsize=(17, 7.5), layout="constrained")
print(f"{'surface':>12}{'model':>20}{'std of edge ratios':>20}{'relative error':>16}{'CPU s':>8}")
for row, (surface, sample) in enumerate(SURFACES.items()):
    points = sample.points
    size = np.sqrt(((points - points.mean(axis=0)) ** 2).sum())

    def panel(column: int, row: int = row, surface: str = surface, points: np.ndarray = points) -> plt.Axes:
        ax = figure.add_subplot(3, 8, 8 * row + column + 1, projection="3d")
        low, high = points.min(axis=0), points.max(axis=0)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        ax.set_box_aspect(high - low, zoom=0.84)
        ax.view_init(*VIEWS[surface])
        ax.set_axis_off()
        return ax

    ax = panel(0)
    ax.scatter(*points.T, c=sample.parameters[:, 0], cmap="viridis", s=3, linewidths=0)
    ax.set_title(surface, fontsize=11)
    for column, (name, settings) in enumerate(MODELS.items(), start=1):
        start = time.process_time()
        model = IsometricAutoencoder(2, max_iter=options.iterations, **settings, random_state=SEED).fit(points)
        seconds = time.process_time() - start
        codes = model.transform(points)
        std = edge_ratio_std(model.inverse_transform, codes)
        error = np.sqrt(((model.inverse_transform(codes) - points) ** 2).sum()) / size
        print(f"{surface:>12}{name:>20}{std:>20.4f}{error:>16.4f}{seconds:>8.0f}", flush=True)
        nodes, edges = code_grid(codes, n_grid=500)
        lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
        straight = edges[lengths < 1.2 * lengths.min()]  # without the diagonals of the triangulation
        image = model.inverse_transform(nodes)
        ax = panel(column)
        ax.add_collection3d(Line3DCollection(image[straight], colors="#0072B2", linewidths=0.6))
        ax.set_title(f"{name}\nstd {std:.2g}", fontsize=10, y=1.0)
figure.savefig(options.out / "isometric_autoencoder.png", dpi=110)
print(f"\npicture: {options.out}/isometric_autoencoder.png")
