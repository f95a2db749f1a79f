"""
The Swiss roll: unrolling, and what an edge does
================================================

A rectangle of 89 by 21 is rolled up in space, so that its layers come within six units of each other, and sampled by
2500 random points.

**What is seen.** The roll; two of its diffusion coordinates, coloured by arclength and by height; the scaling curve and
the spectrum with few and with many neighbours; tangent planes, and their error against the distance from the edge.

**What to learn.** The second coordinate of a long sheet is *not* the second eigenfunction: the first five or so all run
along its length. Neighbourhoods must stay below the distance of the layers: with 30 neighbours instead of 8 the kernel
takes short cuts through the roll and the spectrum falls apart. Tangents from smooth fields (SEC) are good inside and
poor within a step of the edge, where the fields are held parallel to it; on clean data local principal components are
better everywhere.

Run it alone with ``python demos/plot_swiss_roll.py --out out``: it writes ``swiss_roll_*.png`` and prints a table.
"""

# %%
from __future__ import annotations

import argparse
import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_swiss_roll
from manifoldkit.exceptions import DegenerateTangentWarning
from manifoldkit.plotting import plot_embedding, plot_scaling_curve, plot_spectrum, plot_vectors

parser = argparse.ArgumentParser(description="Diffusion coordinates and tangents of the Swiss roll.")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures (default: out)")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(out / f"swiss_roll_{name}.png", dpi=120)


def summary(degrees: np.ndarray) -> str:
    return f"{degrees.mean():8.2f}{np.median(degrees):8.2f}{np.percentile(degrees, 95):8.2f}"


sample = make_swiss_roll(2500, random_state=0)
arclength, height = sample.parameters.T
sides = np.array([arclength.max(), 21.0])
manifold = DiffusionManifold(n_components=64, n_neighbors=8, dimension=2).fit(sample.points)

# %%
# Diffusion coordinates
# ---------------------
# The first eigenfunction is a cosine of the arclength. The one that goes with the height comes later; it is found by
# its correlation.
correlations = np.abs(np.corrcoef(height, manifold.eigenfunctions_[:, 1:12].T)[0, 1:])
across = 1 + int(correlations.argmax())
along = abs(np.corrcoef(np.cos(np.pi * arclength / sides[0]), manifold.eigenfunctions_[:, 1])[0, 1])
print(f"correlation of component 1 with the cosine of arclength: {along:.4f}")
print(f"correlation of component {across} with the height: {correlations[across - 1]:.3f}")

figure = plt.figure(figsize=(11, 3.6), layout="constrained")
roll = figure.add_subplot(1, 3, 1, projection="3d")
roll.scatter(*sample.points.T, c=arclength, s=3, cmap="viridis", linewidths=0)
roll.set(title="Samples", xlabel="$x$", ylabel="$y$", zlabel="$z$")
roll.view_init(elev=12, azim=-72)
roll.set_box_aspect(np.ptp(sample.points, axis=0), zoom=0.95)
roll.set(xticks=(-10, 0, 10), yticks=(0, 10, 20), zticks=(-10, 0, 10))
for position, (name, values) in enumerate((("arclength", arclength), ("height", height))):
    ax = plot_embedding(
        manifold, values, components=(1, across), ax=figure.add_subplot(1, 3, 2 + position), color_label=name,
        cmap="viridis" if position == 0 else "cividis", point_size=4,
    )  # fmt: skip
    ax.set_title(f"Coordinates, coloured by {name}")
save(figure, "embedding")

# %%
# Scale and spectrum
# ------------------
# The rectangle has the eigenvalues :math:`(\pi j / 89.4)^2 + (\pi k / 21)^2`. The slope of the kernel sum has a
# shoulder near 2, the dimension; the peak above it is where the kernel begins to join the layers.
short_cuts = DiffusionManifold(n_components=64, n_neighbors=30, dimension=2).fit(sample.points)
counts = np.arange(30)
exact = np.sort(((np.pi * counts[:, None] / 89.4) ** 2 + (np.pi * counts / 21.0) ** 2).ravel())
figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
axes[2].sharey(axes[1])
plot_scaling_curve(manifold, ax=axes[0]).set_title("Scaling curve, k = 8")
for ax, fit, title in ((axes[1], manifold, "k = 8"), (axes[2], short_cuts, "k = 30: short cuts")):
    plot_spectrum(fit, exact, n_values=13, ax=ax).set_title(f"Spectrum, {title}")
    bias = np.abs(fit.eigenvalues_[1:13] / exact[1:13] - 1).mean()
    print(f"k = {fit.n_neighbors_:2}: dimension {fit.dimension_:.2f}, eigenvalues 1 to 12 off by {100 * bias:.0f} %")
axes[2].set_ylabel("")
save(figure, "spectrum")

# %%
# Tangents, inside and at the edge
# --------------------------------
# The error is the larger principal angle between the estimated and the true plane.
edge = np.minimum(sample.parameters, np.array([89.4, 21.0]) - sample.parameters).min(axis=1)


def errors_of(basis: np.ndarray) -> np.ndarray:
    cosines = np.linalg.svd(np.swapaxes(basis, 1, 2) @ sample.tangents, compute_uv=False)[:, -1]
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


bases = {}
with warnings.catch_warnings():  # at the very edge the fields span a line only, which is what this demo is about
    warnings.simplefilter("ignore", DegenerateTangentWarning)
    bases["SEC"] = manifold.tangent_basis(sample.points, "sec")
for k in (10, 60):
    local = DiffusionManifold(n_components=2, n_neighbors=8, dimension=2, n_tangent_neighbors=k).fit(sample.points)
    bases[f"PCA k={k}"] = local.tangent_basis(sample.points, "pca")
errors = {name: errors_of(basis) for name, basis in bases.items()}
print(f"\nkernel width: {manifold.epsilon_ * manifold.bandwidth_.mean():.2f}")
print("tangent error in degrees: mean, median, 95 %")
zones = ((3, np.inf), (1, 3), (0, 1))
print(f"{'method':>10}{'3 or more from the edge':>27}{'1 to 3':>27}{'nearer than 1':>27}")
for name, degrees in errors.items():
    print(f"{name:>10}" + "".join("   " + summary(degrees[(edge >= low) & (edge < high)]) for low, high in zones))

figure = plt.figure(figsize=(11.5, 4.6), layout="constrained")
space = figure.add_subplot(1, 2, 1, projection="3d")
shown = np.random.default_rng(0).permutation(len(sample.points))[:600]
plot_vectors(sample.points[shown], bases["SEC"][shown], ax=space, length=1.8, colors=(BLUE, VERMILLION), point_size=0)
space.view_init(elev=12, azim=-72)
space.set_box_aspect(np.ptp(sample.points, axis=0), zoom=1.15)
space.set(xticks=(-10, 0, 10), yticks=(0, 10, 20), zticks=(-10, 0, 10))
space.set_title("Tangent planes (SEC): two directions each")
ax = figure.add_subplot(1, 2, 2)
bins = np.array([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 10.5])
middles = (bins[1:] + bins[:-1]) / 2
ax.scatter(edge, errors["SEC"], s=3, color="0.75", linewidths=0, label="SEC, each point")
for (name, degrees), color, marker in zip(errors.items(), (BLUE, VERMILLION, GREEN), "osD", strict=True):
    means = [degrees[(edge >= low) & (edge < high)].mean() for low, high in pairwise(bins)]
    ax.plot(middles, means, color=color, marker=marker, markersize=4, label=f"{name.replace('=', ' = ')}, mean")
ax.set(
    title="Error against the distance from the edge", xlabel="distance from the edge", ylabel="degrees",
    xlim=(0, 10.5), ylim=(0, 45),
)  # fmt: skip
ax.spines[["top", "right"]].set_visible(False)
ax.grid(True, color="0.9", linewidth=0.6)
ax.legend(loc="upper right")
save(figure, "tangents")
print(f"\npictures: {out}/swiss_roll_*.png")
