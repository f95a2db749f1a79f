"""
Learned isometries: shifts find the Laplacian, and a digit walks along a homography
===================================================================================

A neural isometry learns an operator such that unknown transformations of images become orthogonal maps that commute
with it, as rigid motions do with the Laplacian. Nothing is said about the transformations.

**What is seen.** First, thumbnails under cyclic shifts: the learned eigenfunctions beside the harmonics of the torus
that they belong to, the map of a shift (it joins functions of one eigenspace alone), and what a shift that was
estimated from 16 images does to others. Then MNIST under homographies, with a small encoder: views carried onto each
other by isometries; and a walk. The isometry between a digit and its homography is a rotation of codes; its powers lead
from one to the other, and on. The demo looks for such a walk along which a classifier changes its mind, and asks the
classifier about the true homographies along the same path.

**What to learn.** Pairs of images fix the operator up to what shifts can tell apart, and a shift estimated from a few
images carries over to others. The operator is found in closed form here, and trained a little; gradient descent from
random functions leaves some eigenspaces mixed (``benchmarks/neural_isometries.md``). A walk is a digit at its two ends;
between and beyond them it frays after so short a training, so that a misreading may be the fault of the walk. The rows
of true homographies tell.

Run it alone with ``python demos/plot_neural_isometries.py --out out``: three minutes on a core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from mnist_classifier import train_classifier
from torch import Tensor, nn

from manifoldkit.datasets import HomographyViews, ShiftViews, load_mnist, random_homographies, warp_homographies
from manifoldkit.isometry import (
    NeuralIsometry,
    eigenspace_energy,
    equivariance_error,
    isometry_path,
    off_block_energy,
    pretrain,
    residual_pair,
    spectral_start,
    toric_harmonics,
)
from manifoldkit.plotting import plot_images

SIZE, SEED = 8, 0
TIMES = np.linspace(0.0, 1.5, 7)


def thumbnails(split: str, count: int) -> Tensor:
    """Small digits of mean 0 and variance 1."""
    images = torch.as_tensor(load_mnist(split).images[:count])
    small = nn.functional.adaptive_avg_pool2d(images[:, None], SIZE)[:, 0]
    return (small - small.mean((1, 2), keepdim=True)) / small.std((1, 2), keepdim=True)


def learn_torus() -> NeuralIsometry:
    views = ShiftViews(thumbnails("train", 20000), SIZE * SIZE + 10, random_state=SEED)
    model = NeuralIsometry(
        (SIZE, SIZE), SIZE * SIZE, eigenvalues="clustered", generator=torch.Generator().manual_seed(SEED)
    )
    spectral_start(model, views)
    pretrain(model, views, steps=300, batch_size=2, alpha=0.0, learning_rate=5e-4, final_rate=1e-5, progress=True)
    return model.eval()


@torch.no_grad()
def show_torus(model: NeuralIsometry, out: Path) -> None:
    values, waves = toric_harmonics(SIZE, SIZE)
    learned = nn.functional.normalize(model.eigenfunctions_.double(), dim=0)
    energy, space = eigenspace_energy(learned, values, waves)
    levels = values.round(decimals=6).unique()
    print(
        f"torus: {len(energy)} eigenfunctions, mean energy inside one of {len(levels)} eigenspaces {energy.mean():.3f}"
    )

    # Eigenfunctions of the lowest eigenspaces, and their parts inside.
    shown = torch.argsort(space.double() + 1e-3 * torch.arange(len(space)))[:10]
    inside = (values[:, None] - levels[space[shown]]).abs() < 1e-5  # (N, 10)
    parts = waves @ ((waves.T @ learned[:, shown]) * inside)
    stack = torch.cat([learned[:, shown].T, parts.T]).reshape(-1, SIZE, SIZE)
    titles = [f"λ = {levels[space[i]]:.2f}\n{100 * energy[i]:.0f} % inside" for i in shown] + [""] * len(shown)
    grid = plot_images(
        stack, rows=2, titles=titles, row_labels=["learned", "part in the\neigenspace"], limits="symmetric"
    )
    save(grid, out, "eigenfunctions")

    # The map of a shift, functions in the order of their eigenspaces.
    stacks = ShiftViews(thumbnails("test", 5000), SIZE * SIZE + 10, shifts=[(1, 2)], random_state=SEED + 1).draw(1)
    first, second = model.encode(stacks[0]), model.encode(stacks[1])
    order = torch.argsort(space, stable=True)
    maps = {
        "isometry\nfrom 16 images": model.isometry(first[..., :16], second[..., :16])[0],
        "least squares\nfrom 16 images": (second[0, :, :16] @ torch.linalg.pinv(first[0, :, :16])),
        "true": (model.eigenfunctions_.mT @ (model.mass_[:, None] * rolled(model.eigenfunctions_, (1, 2)))),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9), layout="constrained")
    edges = np.flatnonzero(np.diff(space[order].numpy())) + 0.5
    for ax, (title, tau) in zip(axes, maps.items(), strict=True):
        drawn = ax.imshow(tau[order][:, order], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.hlines(edges, -0.5, len(order) - 0.5, color="0.75", linewidth=0.4)
        ax.vlines(edges, -0.5, len(order) - 0.5, color="0.75", linewidth=0.4)
        ax.set_title(f"{title}\noff-block {off_block_energy(tau[None], space).item():.3f}", fontsize=10)
        ax.set(xlabel="eigenfunction", xticks=[0, 20, 40, 60], yticks=[0, 20, 40, 60])
    axes[0].set_ylabel("eigenfunction, by eigenspace")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="entry of the map")
    figure.savefig(out / "niso_tau.png", dpi=120)
    plt.close(figure)

    new = slice(64, 74)
    for name, tau in maps.items():
        error = equivariance_error(tau[None], first[..., new], second[..., new]).item()
        print(f"torus: {name.replace(chr(10), ' ')}: equivariance error on ten other images {error:.4f}")
    carried = [model.decode(tau[None] @ first)[0, new] for tau in list(maps.values())[:2]]
    grid = plot_images(
        torch.cat([stacks[0][0, new], stacks[1][0, new], *carried]), rows=4, limits="symmetric",
        row_labels=["image", "shifted", "by the\nisometry", "by least\nsquares"], size=0.9,
    )  # fmt: skip
    save(grid, out, "shifted")


def rolled(functions: Tensor, shift: tuple[int, int]) -> Tensor:
    return torch.roll(functions.T.reshape(-1, SIZE, SIZE), shift, (1, 2)).flatten(1).T


def learn_homographies(images: Tensor, steps: int) -> NeuralIsometry:
    generator = torch.Generator().manual_seed(SEED)
    encoder, decoder = residual_pair((1, 28, 28), (7, 7), 32, widths=(16, 48), depth=1, generator=generator)
    model = NeuralIsometry((7, 7), 32, encoder, decoder, special=True, generator=generator)
    views = HomographyViews(images, random_state=SEED)
    pretrain(model, views, steps=steps, learning_rate=2e-3, final_rate=1e-4, clip=1.0, progress=True)
    return model.eval()


@torch.no_grad()
def show_transport(model: NeuralIsometry, images: Tensor, out: Path) -> None:
    first, second = HomographyViews(images, random_state=SEED + 2).draw(10)
    codes, others = model.encode(first), model.encode(second)
    tau = model.isometry(codes, others)
    error = equivariance_error(tau, codes, others).mean().item()
    print(f"homographies: equivariance error of ten unseen pairs {error:.3f}")
    grid = plot_images(
        torch.cat([first, second, model.decode(tau @ codes), model.decode(others)]), rows=4, size=0.9,
        row_labels=["view", "other view", "view, by\nisometry", "other view,\ndecoded"],
    )  # fmt: skip
    save(grid, out, "transport")


@torch.no_grad()
def find_walk(model: NeuralIsometry, classifier: nn.Module, digit: Tensor, label: int, seed: int) -> tuple | None:
    """Of 24 walks from a digit, the one along which the classifier errs first: (time, homography, isometry)."""
    generators = random_homographies(24, scale=0.35, random_state=seed)
    others = warp_homographies(digit.expand(24, -1, -1), generators)
    codes = model.encode(torch.cat([digit, others])[:, None])
    best = None
    for homography, tau in zip(generators, model.isometry(codes[:1].expand(24, -1, -1), codes[1:]), strict=True):
        decoded = model.decode(isometry_path(tau, TIMES) @ codes[0])
        wrong = classifier(decoded).argmax(1) != label
        step = int(wrong.int().argmax()) if wrong.any() else len(TIMES)
        if not wrong[0] and step < (len(TIMES) if best is None else best[0]):
            best = (step, homography, tau)
    return best


@torch.no_grad()
def show_walks(model: NeuralIsometry, classifier: nn.Module, images: Tensor, labels: Tensor, out: Path) -> None:
    """Walks that the classifier does not survive, and the true images along the same homographies."""
    rows, titles, colors, names, confirmed, tried = [], [], [], [], 0, 0
    for index in range(len(images)):
        if len(names) == 8:
            break
        digit, label = images[index : index + 1], int(labels[index])
        tried += 1
        walk = find_walk(model, classifier, digit, label, seed=index)
        if walk is None:
            continue
        _, homography, tau = walk
        decoded = model.decode(isometry_path(tau, TIMES) @ model.encode(digit[:, None])[0])[:, 0].clamp(0, 1)
        algebra = log_of(homography)
        path = torch.linalg.matrix_exp(torch.from_numpy(TIMES)[:, None, None] * algebra)
        true = warp_homographies(digit.expand(len(TIMES), -1, -1), path)
        for pictures, name in ((decoded, f"isometry,\ndigit {label}"), (true, "true\nhomography")):
            read = classifier(pictures).argmax(1)
            rows.append(pictures)
            titles += [f"t = {t:g}: {int(value)}" for t, value in zip(TIMES, read, strict=True)]
            colors += ["#009E73" if value == label else "#D55E00" for value in read]
            names.append(name)
        confirmed += int((read != label).any())
    print(f"walks: {len(names) // 2} digits misread along a walk, of {tried} tried")
    print(f"walks: {confirmed} of them misread along the true homographies, too")
    if rows:
        grid = plot_images(
            torch.cat(rows), rows=len(rows), titles=titles, title_colors=colors, row_labels=names, size=1.0
        )
        save(grid, out, "walk")


def log_of(homography: np.ndarray) -> Tensor:
    """The element of the Lie algebra whose exponential the homography is."""
    values, vectors = torch.linalg.eig(torch.from_numpy(homography))
    return (vectors @ torch.diag(values.log()) @ torch.linalg.inv(vectors)).real


def save(grid: np.ndarray, out: Path, name: str) -> None:
    grid[0, 0].figure.savefig(out / f"niso_{name}.png", dpi=120)
    plt.close(grid[0, 0].figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--steps", type=int, default=2000, help="training steps on homographies (default: 2000)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    show_torus(learn_torus(), args.out)

    images, labels = (torch.as_tensor(part) for part in load_mnist("train"))
    test_images, test_labels = (torch.as_tensor(part) for part in load_mnist("test"))
    model = learn_homographies(images, args.steps)
    show_transport(model, test_images, args.out)
    classifier = train_classifier(images, labels.long(), epochs=1)
    show_walks(model, classifier, test_images, test_labels, args.out)


if __name__ == "__main__":
    main()
