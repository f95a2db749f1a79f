"""
A noisy circle: extension, projection, tangents
===============================================

A thousand points lie near the unit circle. They are dense on the right and sparse on the left, clean at the bottom and
noisy at the top: the easiest manifold there is, made hard.

**What is seen.** The scaling curve and the spectrum that the manifold is learned with; how points far away are
projected, and how a function is extended to the plane, in the modes "plain" (the formula of diffusion maps) and "shift"
(the default); noisy points before and after projection; tangents from smooth vector fields (SEC) and from local
principal components, with their errors.

**What to learn.** Far from the samples "plain" tends to the *sparsest* sample, "shift" to the *nearest*. One projection
removes most of the noise. Local principal components need to be told how many neighbours outlast the noise, and are
level with smooth fields once they know; smooth fields are as good at any number. The default, ``"auto"``, finds the
number by itself, place by place, and takes out the curvature (see ``benchmarks/tangents.md``).

Run it alone with ``python demos/plot_circle.py --out out``: it writes ``circle_*.png`` and prints a table.
"""

# %%
from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from manifoldkit import DiffusionManifold
from manifoldkit.datasets import make_noisy_circle
from manifoldkit.exceptions import MedialAxisWarning
from manifoldkit.plotting import plot_projection, plot_scaling_curve, plot_spectrum, plot_vectors

parser = argparse.ArgumentParser(description="Extension, projection and tangents on a noisy circle.")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures (default: out)")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(out / f"circle_{name}.png", dpi=120)


def summary(degrees: np.ndarray) -> str:
    return f"{degrees.mean():8.2f}{np.median(degrees):8.2f}{np.percentile(degrees, 95):8.2f}"


BLUE, VERMILLION = "#0072B2", "#D55E00"
TRAIN, SEED = 1000, 0

# %%
# Scale and spectrum
# ------------------
# The slope of the kernel sum shows two dimensions: at small scales the noise fills the plane, at large ones the curve
# levels off near 1, the dimension of the circle. The exact eigenvalues are 0, 1, 1, 4, 4, 9, 9, ... times the first.
sample = make_noisy_circle(TRAIN, random_state=SEED)
manifold = DiffusionManifold(n_components=21, n_neighbors=20, dimension=1).fit(sample.points)

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot_scaling_curve(manifold, ax=axes[0]).set_title("Scaling curve")
exact = np.square([(index + 1) // 2 for index in range(21)])
plot_spectrum(manifold, exact, relative=True, n_values=13, ax=axes[1]).set_title("Spectrum")
save(figure, "spectrum")
error = np.abs(manifold.eigenvalues_[1:13] / manifold.eigenvalues_[1] / exact[1:13] - 1).mean()
print(f"scale {manifold.epsilon_:.2f}, slope {manifold.dimension_:.2f}; eigenvalues 1 to 12 off by {100 * error:.1f} %")

# %%
# Projection from near and far
# ----------------------------
# Points should go straight to the circle, as with "shift". "plain" sends distant points astray, most of them to the
# sparse side at the left. The colour is the angle between a point and its projection, seen from the centre.


def turned(points, projected):
    cosines = (points * projected).sum(axis=1) / np.linalg.norm(points, axis=1) / np.linalg.norm(projected, axis=1)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


shades = ScalarMappable(
    Normalize(0, 45), LinearSegmentedColormap.from_list("", plt.get_cmap("viridis")(np.arange(220)))
)
around = 2 * np.pi * np.arange(36) / 36
far = np.concatenate([radius * np.column_stack([np.cos(around), np.sin(around)]) for radius in (0.5, 2.0, 4.0)])
figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.7), layout="constrained", sharey=True)
for ax, mode in zip(axes, ("plain", "shift"), strict=True):
    near = manifold.project(far, far=mode)
    plot_projection(far, near, colors=shades.to_rgba(turned(far, near)), ax=ax, labels=None)
    ax.set_title(f'far="{mode}"')
    ax.label_outer()
figure.colorbar(shades, ax=axes, label="degrees off", extend="max", aspect=28, pad=0.02)
figure.suptitle("Points at radius 0.5, 2 and 4 and their projections")
save(figure, "projection")

print("\nAngle between a point and its projection, in degrees")
print(f"{'radius':>8}" + "".join(f"{mode:>9} mean     max" for mode in ("plain", "shift")))
fine = 2 * np.pi * np.arange(360) / 360
for radius in (0.5, 1.2, 2, 5, 10):
    far, row = radius * np.column_stack([np.cos(fine), np.sin(fine)]), f"{radius:8}"
    for mode in ("plain", "shift"):
        with warnings.catch_warnings():  # seen from radius 10, much of the circle is about equally near
            warnings.simplefilter("ignore", MedialAxisWarning)
            near = manifold.project(far, far=mode)
        degrees = turned(far, near)
        row += f"{degrees.mean():14.1f}{degrees.max():8.1f}"
    print(row)

# %%
# Extension of a function
# -----------------------
# The function sin(3 theta) is known at the samples only; it is extended to the square by a series of eigenfunctions.
# Ideally it is constant along rays. Far away both modes average over a wide part of the circle, which pales the
# colours: project first, then extend.
ticks = np.linspace(-4, 4, 160)
grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
known = np.sin(3 * np.arctan2(sample.points[:, 1], sample.points[:, 0]))
with warnings.catch_warnings():  # no projection means much near the centre, which is as near to all of the circle
    warnings.simplefilter("ignore", MedialAxisWarning)
    projected = manifold.project(grid)
pictures = {
    "ideal": np.sin(3 * np.arctan2(grid[:, 1], grid[:, 0])),
    'far="plain"': manifold.extend(known, grid, far="plain"),
    'far="shift"': manifold.extend(known, grid, far="shift"),
    'far="shift", projected first': manifold.extend(known, projected, far="shift"),
}
figure, axes = plt.subplots(2, 2, figsize=(8.2, 7.2), layout="constrained", sharex=True, sharey=True)
for ax, (title, values) in zip(axes.flat, pictures.items(), strict=True):
    drawn = ax.pcolormesh(
        ticks, ticks, values.reshape(160, 160), cmap="RdBu_r", vmin=-1, vmax=1, shading="nearest", rasterized=True
    )
    ax.scatter(sample.points[:, 0], sample.points[:, 1], s=1, color="black", linewidths=0)
    ax.set(title=title, xlabel="$x$", ylabel="$y$", aspect="equal")
    ax.label_outer()
figure.colorbar(drawn, ax=axes, label=r"extension of $\sin 3\theta$", aspect=32, pad=0.02)
save(figure, "extension")
print("\nRoot mean square error of the extension at radius 0.5 to 4")
inside = (np.linalg.norm(grid, axis=1) > 0.5) & (np.linalg.norm(grid, axis=1) < 4)
for title, values in list(pictures.items())[1:]:
    print(f"{title:>30}: {np.sqrt(np.mean((values - pictures['ideal'])[inside] ** 2)):.3f}")

# %%
# Projection of noisy points
# --------------------------
# New points from the same source. The circle is not given to the method; one projection comes close to it.
fresh = make_noisy_circle(400, random_state=SEED + 100).points
clean = manifold.project(fresh)
figure, ax = plt.subplots(figsize=(6.8, 5.2), layout="constrained")
plot_projection(fresh, clean, samples=sample.points, ax=ax).set_title("New noisy points and their projections")
save(figure, "denoising")
print("\nDistance of 400 new points to the true circle")
for name, points in (("before", fresh), ("projected", clean)):
    distance = np.abs(np.linalg.norm(points, axis=1) - 1)
    print(f"{name:>10}: mean {distance.mean():.4f}, largest {distance.max():.3f}")

# %%
# Tangents
# --------
# The error is the angle to the tangent of the circle at its nearest point, over three samplings.
seeds, errors = range(3), {}
for seed in seeds:
    data = make_noisy_circle(TRAIN, random_state=seed).points
    truth = np.column_stack([-data[:, 1], data[:, 0]]) / np.linalg.norm(data, axis=1, keepdims=True)

    def error_of(basis, truth=truth):
        return np.degrees(np.arccos(np.clip(np.abs((basis[:, :, 0] * truth).sum(axis=1)), 0, 1)))

    for k in (20, 40, 80):
        fit = DiffusionManifold(n_components=21, n_neighbors=k, dimension=1).fit(data)
        errors.setdefault(("SEC", k), []).append(error_of(fit.tangent_basis(data, "sec")))
    for k in (10, 20, 40, 60, 120):
        fit = DiffusionManifold(n_components=2, n_neighbors=20, dimension=1, n_tangent_neighbors=k).fit(data)
        errors.setdefault(("PCA", k), []).append(error_of(fit.tangent_basis(data, "pca")))
errors = {key: np.concatenate(parts) for key, parts in errors.items()}
print("\nTangent error in degrees, " + f"{len(seeds)} samplings of {TRAIN} points")
print(f"{'method':>10}{'mean':>8}{'median':>8}{'95 %':>8}")
for (method, k), degrees in errors.items():
    print(f"{method + f' k={k}':>10}{summary(degrees)}")

local = DiffusionManifold(n_components=2, n_neighbors=20, dimension=1, n_tangent_neighbors=10).fit(sample.points)
figure, axes = plt.subplots(1, 3, figsize=(11.5, 4), layout="constrained")
some = sample.points[::4]
plot_vectors(some, local.tangent_basis(some, "pca"), ax=axes[0], colors=VERMILLION, length=0.16)
plot_vectors(some, manifold.tangent_basis(some, "sec"), ax=axes[1], colors=BLUE, length=0.16)
axes[0].set_title("Principal components, k = 10")
axes[1].set_title("Smooth fields (SEC), k = 20")
curves = {
    ("PCA", 10): (VERMILLION, ":"), ("PCA", 40): (VERMILLION, "--"), ("PCA", 120): (VERMILLION, "-"),
    ("SEC", 20): (BLUE, "-"),
}  # fmt: skip
for (method, k), (color, style) in curves.items():
    degrees = np.sort(errors[method, k])
    shares = np.arange(1, len(degrees) + 1) / len(degrees)
    axes[2].plot(degrees, 100 * shares, style, color=color, linewidth=2, label=f"{method}, k = {k}")
axes[2].set(title="Share of points below an error", xlabel="degrees", ylabel="% of points", xlim=(0, 45), ylim=(0, 101))
axes[2].set_box_aspect(1)
axes[2].legend(loc="lower right")
axes[2].spines[["top", "right"]].set_visible(False)
axes[2].grid(True, color="0.9", linewidth=0.6)
save(figure, "tangents")
print(f"\npictures: {out}/circle_*.png")
