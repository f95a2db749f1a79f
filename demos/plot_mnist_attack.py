"""
On-manifold attack on an MNIST classifier
=========================================

A network that is right on 99 % of the test digits is attacked along the manifold of each digit class. The demo

1. trains a small convolutional network on all 60,000 training images,
2. learns the manifold of each class from 3,000 of its images,
3. attacks 1,000 test images that the network gets right, with FGSM, PGD, and on-manifold PGD, and
4. compares the adversaries: how far they are from the image, how far from the manifold, and whether a 5-nearest-
   neighbour rule on real images still sees the digit in them.

Two controls tell what the success is due to: the projection alone (a blur), and random walks along the same
tangent directions. The step size of the on-manifold attack is searched on images that are not attacked later, by the
criteria of the table.

Look at the column "distance quantile": it is the share of real images, held out, that are nearer to the manifold.
FGSM leaves the manifold, PGD moves off by less since it stops at the first success; the adversaries of the
on-manifold attack stay about as near as real images (with residual "drop" they are on the manifold by construction,
so that 0 says nothing there). "p > 0.05" is the share of adversaries that a test with p-values does not tell from
real data, by their distance to the manifold and by the tangent share of the change. "To nearest real" is the distance
to the nearest of the 60,000 training images. Then look at the pictures: some adversaries have become another digit,
which "5-NN keeps class" counts, and some are superpositions of strokes that nobody would write. A distance does not
see everything.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from mnist_classifier import predict, train_classifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from tqdm.auto import tqdm

from manifoldkit import DiffusionManifold, ManifoldAtlas
from manifoldkit.attacks import FGSM, PGD, Attack, AttackResult, OnManifoldPGD, RandomTangentWalk
from manifoldkit.datasets import load_mnist
from manifoldkit.plotting import plot_attack_rows, plot_embedding, plot_success_curve, plot_tangent_images
from manifoldkit.risk import DistanceCalibration, OnManifoldTest

EPS = 0.2  # radius of FGSM and PGD in the maximum norm
STEPS = 40
STEP_SIZES = (0.5, 1.0, 2.0)


@dataclass
class Images:
    """Test images that the network gets right, by purpose."""

    attacked: Tensor
    labels: Tensor
    search: Tensor
    search_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor


class Clock:
    """Wall time of each stage, for the last lines of the output."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> float:
        now = time.perf_counter()
        self.stages[stage] = now - self._last
        self._last = now
        return self.stages[stage]


def class_manifolds(images: np.ndarray, labels: np.ndarray) -> ManifoldAtlas:
    """One manifold a class. In 784 dimensions the kernel must be kept local, see `n_kernel_neighbors`."""
    prototype = DiffusionManifold(
        n_components=200,
        n_neighbors=10,
        dimension=12,
        n_projection_components=200,
        n_kernel_neighbors=128,
        n_tangent_neighbors=64,
        tangent_method="smoothed",
    )
    return ManifoldAtlas(prototype, progress=True).fit(images, labels)


def split_test_images(model: nn.Module, images: Tensor, labels: Tensor, n_attacked: int, skip: int) -> Images:
    """Correctly classified images: an equal number a class to attack and to search on, the others held out."""
    right = predict(model, images) == labels
    attacked, search, held_out = [], [], []
    for digit in range(10):
        chosen = torch.nonzero(right & (labels == digit))[skip:, 0]
        n = n_attacked // 10
        attacked.append(chosen[:n])
        search.append(chosen[n : n + 10])
        held_out.append(chosen[n + 10 :])
    a, s, h = (torch.cat(part) for part in (attacked, search, held_out))
    return Images(images[a], labels[a], images[s], labels[s], images[h], labels[h])


def search_step_size(
    model: nn.Module, atlas: ManifoldAtlas, data: Images, calibration: DistanceCalibration, judge: KNeighborsClassifier
) -> float:
    """The smallest step that is as good as the best, within a standard error.

    Good is an image that is broken, nearer to its manifold than 5 % of real images, and of its class to `judge`.
    """
    print("\nstep size of the on-manifold attack, on 100 other images:")
    rates = {}
    for alpha in STEP_SIZES:
        attack = OnManifoldPGD(model, atlas, alpha=alpha, steps=STEPS, residual="carry")
        result = attack.run(data.search, data.search_labels)
        near = calibration.quantile(result.adversarial, data.search_labels) < 0.95
        kept = judge.predict(result.adversarial.flatten(1).numpy()) == data.search_labels.numpy()
        rates[alpha] = float((result.success.numpy() & near & kept).mean())
        share = float(result.success.float().mean())
        print(
            f"  alpha {alpha:<4g} breaks {share:.2f}, as near as real images and of the same class {rates[alpha]:.2f}"
        )
    best = max(rates.values())
    error = (best * (1 - best) / len(data.search)) ** 0.5
    return min(alpha for alpha, rate in rates.items() if rate >= best - error)


def run_attacks(model: nn.Module, atlas: ManifoldAtlas, data: Images, alpha: float, seed: int) -> dict[str, tuple]:
    """Each attack's result and seconds."""
    generator = torch.Generator().manual_seed(seed)
    walk = {"alpha": alpha, "steps": STEPS}
    attacks: dict[str, Attack] = {
        f"FGSM, eps {EPS}": FGSM(model, EPS),
        f"PGD L_inf, eps {EPS}": PGD(model, EPS, alpha=EPS / 10, steps=STEPS, random_start=True, generator=generator),
        "on-manifold PGD, carry": OnManifoldPGD(model, atlas, **walk, residual="carry", record_path=True),
        "on-manifold PGD, drop": OnManifoldPGD(model, atlas, **walk, residual="drop"),
        "control: projection alone": OnManifoldPGD(model, atlas, alpha=alpha, steps=0, residual="drop"),
        "control: random tangent walk": RandomTangentWalk(model, atlas, **walk, residual="carry", generator=generator),
    }
    results = {}
    for name, attack in tqdm(attacks.items(), desc="attacks"):
        start = time.perf_counter()
        results[name] = attack.run(data.attacked, data.labels), time.perf_counter() - start
    return results


def table(
    results: dict[str, tuple],
    data: Images,
    calibration: DistanceCalibration,
    test: OnManifoldTest,
    judge: KNeighborsClassifier,
) -> str:
    """Comparison in Markdown; sizes, quantiles, p-values and the 5-NN column are those of the broken images."""

    def realism(images: Tensor, rows: Tensor) -> list[str]:
        labels = data.labels[rows]
        quantile = np.median(calibration.quantile(images, labels))
        p_value = test.test(images, data.attacked[rows], labels).p_value
        flat = images.flatten(1).numpy()
        nearest = np.median(judge.kneighbors(flat, 1)[0])
        kept = (judge.predict(flat) == labels.numpy()).mean()
        return [f"{quantile:.2f}", f"{(p_value > 0.05).mean():.2f}", f"{nearest:.2f}", f"{kept:.2f}"]

    head = ("attack", "accuracy", "broken", "L2", "L_inf", "distance quantile", "p > 0.05", "to nearest real")
    head += ("5-NN keeps class", "steps", "seconds")
    everything = torch.ones(len(data.labels), dtype=torch.bool)
    rows = [("clean", "1.000", "0.000", "0.00", "0.00", *realism(data.attacked, everything), "", "")]
    for name, (result, seconds) in results.items():
        broken = result.success
        figures = ["-"] * 6
        if broken.any():
            figures = [f"{result.l2[broken].mean():.2f}", f"{result.linf[broken].mean():.2f}"]
            figures += realism(result.adversarial[broken], broken)
        rate = float(broken.float().mean())
        steps = f"{result.steps_taken.float().mean():.1f}"
        rows.append((name, f"{1 - rate:.3f}", f"{rate:.3f}", *figures, steps, f"{seconds:.1f}"))
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in [head, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def draw(model: nn.Module, atlas: ManifoldAtlas, data: Images, results: dict[str, tuple], out: Path) -> None:
    """The four pictures."""
    result: AttackResult = results["on-manifold PGD, carry"][0]
    broken = torch.nonzero(result.success & (result.steps_taken > 0))[:, 0]
    shown = torch.stack([b[0] for c in range(10) if len(b := broken[data.labels[broken] == c])])
    images, labels = data.attacked[shown], data.labels[shown]

    gradients = loss_gradient(model, images, labels)
    chart = atlas.at(labels)
    bases = chart.tangent_basis(chart.project(images))
    tangents = (bases @ (bases.mT @ gradients.flatten(1)[:, :, None])).reshape(images.shape)
    axes = plot_attack_rows(
        images,
        gradients,
        tangents,
        result.adversarial[shown],
        result.prediction_after[shown],
        labels,
        predictions_before=predict(model, images),
    )
    save(axes, out / "mnist_attack.png")

    axes = plot_tangent_images(images[0], bases[0, :, :6], (28, 28))
    save(axes, out / "mnist_tangents.png")

    _, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    curves = {name: r for name, (r, _) in results.items() if "alone" not in name}
    save(plot_success_curve(curves, ax=ax), out / "mnist_success.png")

    walks = {int(i): walk_on_manifold(atlas, data, result, int(i)) for i in shown}
    widest = max(walks, key=lambda i: np.ptp(walks[i][1][:, 1:3], axis=0).sum())
    digit = int(data.labels[widest])
    axes = plot_embedding(atlas.manifolds_[digit], path=walks[widest][0])
    axes.set_title(f"the manifold of the {digit}s and the walk of one,\nread as {result.prediction_after[widest]}")
    save(axes, out / "mnist_embedding.png")


def walk_on_manifold(atlas: ManifoldAtlas, data: Images, result: AttackResult, i: int) -> tuple[Tensor, np.ndarray]:
    """The walk of sample i without its carried residual, and its diffusion coordinates."""
    member = atlas.manifolds_[int(data.labels[i])]
    residual = data.attacked[i] - member.project(data.attacked[i][None])[0]
    path = result.path[: int(result.steps_taken[i]) + 1, i] - residual
    return path, member.transform(path).numpy()


def save(axes, path: Path) -> None:
    figure = np.ravel(axes)[0].figure
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for pictures and the table")
    parser.add_argument("--images", type=int, default=1000, help="how many images to attack")
    parser.add_argument("--skip", type=int, default=0, help="leave out that many test images of each class")
    parser.add_argument("--train", type=int, default=3000, help="training images of each class manifold")
    parser.add_argument("--seed", type=int, default=0, help="of the classifier, random starts and random walks")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    clock = Clock()

    train_images, train_labels = load_mnist("train")
    test_images, test_labels = (torch.as_tensor(part) for part in load_mnist("test"))
    test_labels = test_labels.long()
    clock.lap("load")

    model = train_classifier(torch.as_tensor(train_images), torch.as_tensor(train_labels).long(), seed=args.seed)
    accuracy = float((predict(model, test_images) == test_labels).float().mean())
    clock.lap("train the classifier")
    print(f"test accuracy {accuracy:.4f}")

    few = np.concatenate([np.flatnonzero(train_labels == digit)[: args.train] for digit in range(10)])
    atlas = class_manifolds(train_images[few], train_labels[few])
    clock.lap("learn the manifolds")

    data = split_test_images(model, test_images, test_labels, args.images, args.skip)
    calibration = DistanceCalibration(atlas).fit(data.held_out, data.held_out_labels)
    test = OnManifoldTest(atlas).fit(data.held_out[::4], data.held_out_labels[::4])
    clock.lap("calibrate")
    judge = KNeighborsClassifier(5).fit(train_images.reshape(len(train_images), -1), train_labels)
    alpha = search_step_size(model, atlas, data, calibration, judge)
    clock.lap("search the step size")
    results = run_attacks(model, atlas, data, alpha, args.seed)
    clock.lap("attack")
    text = table(results, data, calibration, test, judge)
    clock.lap("judge")
    draw(model, atlas, data, results, args.out)
    clock.lap("draw")

    (args.out / "mnist_attack.md").write_text(text + "\n")
    print(f"\n{len(data.attacked)} test images that the network gets right, step size {alpha:g}:\n\n{text}\n")
    print("seconds: " + ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in clock.stages.items()))
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
