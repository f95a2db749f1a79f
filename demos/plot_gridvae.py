"""
GridVAE: codes whose axes are symbols
=====================================

A variational autoencoder whose prior is a mixture of Gaussians on a grid learns two-digit MNIST and drawn faces, told
(by labels, for a part of the samples) which cell stands for what.

**What is seen.** ``gridvae_grid.png``: codes of test pairs in the plane of the two axes, with the edges of the cells,
and the decoded centres of all 36 cells as a table, left digit by rows and right digit by columns.
``gridvae_traversals.png``: faces while one symbol goes from -0.5 to 1.5, and variation inside one cell of the digits.
``gridvae_attack.png``: adversaries of a classifier of the left digit, walked on the manifold of the decoder inside the
cell and across cells, with what changed in symbols.

**What to learn.** An axis edits what its symbol says, and takes along a little of what goes with it in the data (a
woman made male loses hair). An attack confined to a cell cannot change what the codes say and breaks fewer images than
one that may cross (0.61 against 0.92 of those read correctly, half of the latter with another left digit); what it
finds are the edges of cells, where the decoder blends neighbouring digits.

Run it alone with ``python demos/plot_gridvae.py --out out``: about a minute of one core. ``benchmarks/gridvae.md``
has the numbers, also without labels, where it depends on the start whether an axis names a digit.
"""

# %%
from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from manifoldkit.attacks import CellPGD, symbol_changes
from manifoldkit.datasets import FACE_ATTRIBUTES, load_digit_pairs, make_faces
from manifoldkit.isometry import MLP
from manifoldkit.plotting import plot_embedding, plot_images
from manifoldkit.priors import GridPrior, GridVAE, axis_accuracy, cell_accuracy

parser = argparse.ArgumentParser(description="GridVAE on pairs of digits and drawn faces.")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures (default: out)")
parser.add_argument("--steps", type=int, default=1500, help="gradient steps of each training (default: 1500)")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
start = time.process_time()


def images_from(n: int, pixels: int, width: int = 256) -> torch.nn.Module:
    """A decoder whose images have values between 0 and 1."""
    body = MLP([n, width, width, pixels], torch.nn.ReLU, generator=torch.Generator().manual_seed(0))
    return torch.nn.Sequential(body, torch.nn.Sigmoid())


# %%
# Two digits
# ----------
# Half of the training pairs have labels.
X, labels = load_digit_pairs("train", 20_000, pool=2, random_state=0)
test, truth = load_digit_pairs("test", 1000, pool=2, random_state=1)
levels = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
known = labels - 2.0
known[::2] = np.nan
digits = GridVAE(
    GridPrior(2, levels, sigma=1 / 3), decoder=images_from(2, 392), kl="nearest", obs_sigma=0.7,
    max_steps=options.steps, learning_rate=2e-3,
).fit(X, attributes=known)  # fmt: skip
messages = digits.message(test)
found = axis_accuracy(messages, truth)
print(f"accuracy of an axis {found.mean:.3f}, of a cell {cell_accuracy(messages, truth):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), layout="constrained", width_ratios=(1, 1.35))
codes = digits.transform(test)
plot_embedding(codes, truth[:, 0], components=(0, 1), color_label="left digit", point_size=14, ax=left)
for edge in np.arange(-1.5, 3):
    left.axvline(edge, color="0.75", linewidth=0.7, zorder=0)
    left.axhline(edge, color="0.75", linewidth=0.7, zorder=0)
left.set(xlabel="$z_1$: left digit", ylabel="$z_2$: right digit", aspect="equal", title="codes of test pairs")
table = digits.inverse_transform(digits.prior.centers().numpy()).reshape(6, 6, 14, 28)
right.imshow(table.transpose(0, 2, 1, 3).reshape(84, 168), cmap="gray", vmin=0, vmax=1)
right.set_xticks(28 * np.arange(6) + 13.5, range(6))
right.set_yticks(14 * np.arange(6) + 6.5, range(6))
right.set(xlabel="cell of axis 2", ylabel="cell of axis 1", title="decoded centres of the 36 cells")
figure.savefig(options.out / "gridvae_grid.png", dpi=110)

# %%
# Faces
# -----
# Eight symbols, and five standard normal axes for position and colours.
faces = make_faces(8000, size=20, random_state=0)
a = len(FACE_ATTRIBUTES)
prior = GridPrior(a + 5, [[0.0, 1.0]] * a + [[0.0]] * 5, [0.25] * a + [1.0] * 5)
attributes = np.concatenate([faces.attributes, np.full((8000, 5), np.nan)], axis=1)
model = GridVAE(
    prior, decoder=images_from(a + 5, 1200, 128), kl="nearest", hidden=(128, 128), obs_sigma=0.7,
    max_steps=options.steps, learning_rate=2e-3,
).fit(faces.images, attributes=attributes)  # fmt: skip
shown = make_faces(40, size=20, random_state=1)
women = np.flatnonzero(shown.attributes[:, 0] == 0)
values = np.linspace(-0.5, 1.5, 11)
rows, names = [], []
for name in ("smiling", "glasses", "long_hair", "male"):
    axis = FACE_ATTRIBUTES.index(name)
    base = model.transform(shown.images[women[:1]]).astype(float)
    rows.append(model.traverse(base, axis, values)[0])
    names.append(name)
figure = plt.figure(figsize=(11.5, 8), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=(4.6, 3.4))
axes = upper.subplots(4, 11)
plot_images(np.concatenate(rows), rows=4, cols=11, row_labels=names, axes=axes)
for ax, value in zip(axes[0], values, strict=True):
    ax.set_title(f"{value:.1f}", fontsize=9)
upper.suptitle("faces, one symbol moved from -0.5 to 1.5", fontsize=11)
axes = lower.subplots(3, 7)
around = np.array([[u, v] for u in (1.6, 2.0, 2.4) for v in np.linspace(1.55, 2.45, 7)])
plot_images(digits.inverse_transform(around), rows=3, cols=7, axes=axes,
            row_labels=[f"$z_1$ = {u}" for u in (1.6, 2.0, 2.4)])  # fmt: skip
for ax, v in zip(axes[0], np.linspace(1.55, 2.45, 7), strict=True):
    ax.set_title(f"$z_2$ = {v:.2f}", fontsize=9)
lower.suptitle("two digits, variation inside the cell of 4 and 4", fontsize=11)
figure.savefig(options.out / "gridvae_traversals.png", dpi=110)

# %%
# Attacks in symbols
# ------------------
generator = torch.Generator().manual_seed(0)
classifier = MLP([392, 100, 6], torch.nn.ReLU, generator=generator)
optimizer = torch.optim.Adam(classifier.parameters(), 2e-3)
images, goals = torch.from_numpy(X), torch.from_numpy(labels[:, 0])
for _ in range(4):
    for batch in torch.randperm(len(images), generator=generator).split(128):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(classifier(images[batch]), goals[batch]).backward()
        optimizer.step()
attacked, left_digit = torch.from_numpy(test[:200]), torch.from_numpy(truth[:200, 0])
with torch.no_grad():
    seen = torch.from_numpy(digits.project(test[:200]))
    right_now = classifier(attacked).argmax(1) == left_digit
    kept = right_now & (classifier(seen).argmax(1) == left_digit)
print(f"test accuracy of the classifier {right_now.float().mean():.3f}, of projections {kept.float().mean():.3f}")
seen, left_digit = seen[kept], left_digit[kept]
reports = {}
for confined in (True, False):
    attack = CellPGD(classifier, digits, eps=1.0, confined=confined, alpha=0.05, steps=40, norm=2)
    result = attack.run(seen, left_digit)
    report = symbol_changes(result, digits, seen, names=("left", "right"))
    reports[confined] = result, report
    where = "inside their cell" if confined else "across cells"
    print(f"{where}: {result.success.float().mean():.2f} broken; share of these with a changed symbol {report.rates()}")
inside, across = (result.success for result, _ in reports.values())
written = torch.from_numpy(reports[False][1].changed[:, 0])
picked = torch.cat([torch.nonzero(mask)[:4, 0] for mask in (inside & across, ~inside & across & written)])
pictures, titles = [seen[picked]], [f"reads {int(digit)}" for digit in left_digit[picked]]
for result, report in reports.values():
    pictures.append(result.adversarial[picked])
    for k in picked.tolist():
        change = report.summary(k).split("; ")[1]
        titles.append(f"reads {int(result.prediction_after[k])}\n{change}")
figure, axes = plt.subplots(3, len(picked), figsize=(12, 4.2), layout="constrained", squeeze=False)
plot_images(torch.cat(pictures), rows=3, cols=len(picked), titles=titles, axes=axes,
            row_labels=["projected image", "inside the cell", "across cells"])  # fmt: skip
figure.savefig(options.out / "gridvae_attack.png", dpi=110)
print(f"CPU {time.process_time() - start:.0f} s; pictures: {options.out}/gridvae_*.png")
