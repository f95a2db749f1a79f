"""
An adversary in degrees: one digit under rotation and scale
===========================================================

All renderings of one digit under rotation and scale form a surface in image space, and every point of it has a
meaning: an angle and a scale. The demo learns that surface for each of ten digits from a grid of renderings,
attacks a network along it, and reads angle and scale along the walk off the manifold (`explain`: cos, sin and scale
are extended as sampled functions; how far the neighbours disagree is the uncertainty). Then it checks the explanation:
it renders the digit at the angle and scale that were read, and asks the network again.

Look at the maps: the walk climbs the loss from the true digit to the dashed line, where the network begins to be wrong.
In the map of classes it starts in the white region and ends where the colours begin. The cross is the read-out of the
adversary, its bars the uncertainty.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from mnist_classifier import predict, train_classifier
from torch import Tensor, nn
from tqdm.auto import tqdm

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import AttackResult, Explanation, OnManifoldPGD, explain
from manifoldkit.datasets import load_mnist, make_rotated_digit, render_digit
from manifoldkit.plotting import plot_decision_map, plot_images, plot_loss_map

ANGLES = np.arange(-80.0, 80.1, 2.0)
SCALES = np.arange(0.7, 1.201, 0.02)


@dataclass
class Surface:
    """The learned surface of one digit, and what its points mean."""

    digit: Tensor
    manifold: DiffusionManifold
    labels: dict[str, np.ndarray]  # angle in degrees and scale of each training image

    def read(self, result: AttackResult, images: Tensor | None = None) -> Explanation:
        """Angles and scales along a walk; without a recorded path, at the images and at its end."""
        return explain(result, self.labels, self.manifold, images=images, periods={"angle": 360})


def learn_surface(digit: Tensor) -> Surface:
    rendered = make_rotated_digit(digit.numpy(), angles=ANGLES, scales=SCALES)
    labels = dict(zip(("angle", "scale"), rendered.parameters.T, strict=True))
    # Images turn fast: the grid must be fine and the series long to follow them. Without noise, local principal
    # components are the best tangents.
    manifold = DiffusionManifold(300, n_neighbors=8, dimension=2, n_projection_components=260, tangent_method="pca")
    return Surface(digit, manifold.fit(rendered.images), labels)


def attack(model: nn.Module, surface: Surface, label: int) -> AttackResult:
    walk = OnManifoldPGD(model, surface.manifold, alpha=0.5, steps=150, projection="full", record_path=True)
    return walk.run(surface.digit[None], torch.tensor([label]))


def readout_error(model: nn.Module, surface: Surface, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Median errors and uncertainties of angle (degrees) and scale on 200 renderings between those of the grid."""
    fresh = make_rotated_digit(
        surface.digit.numpy(), angles=(-75, 75), scales=(0.75, 1.15), n_samples=200, random_state=seed
    )
    images = torch.as_tensor(fresh.images)
    still = OnManifoldPGD(model, surface.manifold, steps=0).run(images, torch.zeros(len(images), dtype=torch.long))
    found = surface.read(still, images)
    values, spreads = (
        np.column_stack([getattr(found[name], what)[0] for name in surface.labels]) for what in ("values", "spread")
    )
    return np.median(np.abs(values - fresh.parameters), axis=0), np.median(spreads, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--rank", type=int, default=0, help="which of the test images of each digit to turn")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    images, labels = load_mnist("train")
    model = train_classifier(torch.as_tensor(images), torch.as_tensor(labels).long())
    test_images, test_labels = (torch.as_tensor(part) for part in load_mnist("test"))
    right = predict(model, test_images) == test_labels.long()

    print("digit  read as  steps          angle        scale  rendered there  confirmed   error (and spread), median")
    strip, titles, confirmed, broken, example = [], [], 0, 0, None
    for label in tqdm(range(10), desc="digits"):
        digit = test_images[right & (test_labels == label)][args.rank]
        surface = learn_surface(digit)
        result = attack(model, surface, label)
        found = surface.read(result)
        (angle, angle_spread), (scale, scale_spread) = (
            (found[name].values[-1, 0], found[name].spread[-1, 0]) for name in surface.labels
        )
        again = torch.as_tensor(render_digit(digit.numpy(), angle, scale))
        verdict = int(predict(model, again[None])[0])
        error, spread = readout_error(model, surface)
        after, success = int(result.prediction_after[0]), bool(result.success[0])
        holds = success and verdict != label
        broken, confirmed = broken + success, confirmed + holds
        tqdm.write(
            f"{label:5d}  {after if success else '-':>7}  {int(result.steps_taken[0]):5d}  "
            f"{angle:6.1f} ± {angle_spread:3.1f}  {scale:5.2f} ± {scale_spread:.2f}  "
            f"{verdict:14d}  {'yes' if holds else 'no' if success else '-':>9}   "
            f"{error[0]:.2f} ({spread[0]:.1f}) deg, {error[1]:.4f} ({spread[1]:.3f})"
        )
        strip += [digit, result.adversarial[0], again]
        titles += [f"{label}", f"read as {after}", f"{angle:.0f}°, x{scale:.2f}: {verdict}"]
        if success and (example is None or result.steps_taken[0] > example[1].steps_taken[0]):
            example = surface, result, label
    print(f"{broken} of 10 broken, {confirmed} explanations confirmed by rendering")

    order = [3 * i + row for row in range(3) for i in range(10)]
    names = ("digit", "adversary", "rendered at\nits read-out")
    axes = plot_images(
        torch.stack(strip)[order], rows=3, titles=[titles[i] for i in order], row_labels=names, size=1.15
    )
    save(axes, args.out / "rotated_digits.png")
    if example is not None:
        save(draw_maps(model, *example), args.out / "rotated_digit_map.png")


def draw_maps(model: nn.Module, surface: Surface, result: AttackResult, label: int):
    """Loss and class over angle and scale, with the walk as it was read off the manifold."""
    angles, scales = np.linspace(-80, 80, 107), np.linspace(0.7, 1.2, 51)
    rendered = make_rotated_digit(surface.digit.numpy(), angles=angles, scales=scales)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.as_tensor(rendered.images).split(1000)])
    places = np.searchsorted(scales, rendered.parameters[:, 1]), np.searchsorted(angles, rendered.parameters[:, 0])
    classes, loss = np.empty((51, 107), dtype=int), np.empty((51, 107))
    classes[places] = logits.argmax(1)
    loss[places] = nn.functional.cross_entropy(logits, torch.full((len(logits),), label), reduction="none")
    found = surface.read(result)
    path = found.path("angle", "scale", 0)
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    names = {"path": path, "xlabel": "angle (degrees)", "ylabel": "scale"}
    plot_loss_map(loss, angles, scales, boundary=classes == label, ax=axes[0], **names)
    plot_decision_map(classes, angles, scales, true_class=label, ax=axes[1], **names)
    spread = [found[name].spread[-1, 0] for name in surface.labels]
    for ax, color in zip(axes, ("white", "black"), strict=True):
        ax.errorbar(*path[-1], xerr=spread[0], yerr=spread[1], color=color, capsize=3, linewidth=1.5)
    figure.suptitle(f"one {label}, turned and scaled: the loss that the attack climbs, and what the network sees")
    return axes


def save(axes, path: Path) -> None:
    figure = np.ravel(axes)[0].figure
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
