"""
An adversary in degrees: one digit under rotation and scale
===========================================================

All renderings of one digit under rotation and scale form a surface in image space, and every point of it has a
meaning: an angle and a scale. The demo learns that surface for each of ten digits from a grid of renderings,
attacks a network along it, and reads the adversary's angle and scale off the manifold (by extending cos, sin and
scale as sampled functions). Then it checks the explanation: it renders the digit at the angle and scale that were
read, and asks the network again.

Look at the map: the walk starts at the true digit, in the white region, and ends where the colours begin. The
star is the read-out of the adversary.
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
from manifoldkit.attacks import AttackResult, OnManifoldPGD
from manifoldkit.datasets import load_mnist, make_rotated_digit, render_digit
from manifoldkit.plotting import plot_decision_map, plot_images

ANGLES = np.arange(-80.0, 80.1, 2.0)
SCALES = np.arange(0.7, 1.201, 0.02)


@dataclass
class Surface:
    """The learned surface of one digit, and what its points mean."""

    digit: Tensor
    manifold: DiffusionManifold
    meanings: np.ndarray  # cos and sin of the angle, and the scale, of each training image

    def read(self, images: Tensor) -> np.ndarray:
        """Angles in degrees and scales (B, 2) of images on the surface."""
        cos, sin, scale = self.manifold.extend(self.meanings, images.double()).numpy().T
        return np.column_stack([np.degrees(np.arctan2(sin, cos)), scale])


def learn_surface(digit: Tensor) -> Surface:
    rendered = make_rotated_digit(digit.numpy(), angles=ANGLES, scales=SCALES)
    angle, scale = rendered.parameters.T
    meanings = np.column_stack([np.cos(np.radians(angle)), np.sin(np.radians(angle)), scale])
    # Images turn fast: the grid must be fine and the series long to follow them. Without noise, local principal
    # components are the best tangents.
    manifold = DiffusionManifold(300, n_neighbors=8, dimension=2, n_projection_components=260, tangent_method="pca")
    return Surface(digit, manifold.fit(rendered.images), meanings)


def attack(model: nn.Module, surface: Surface, label: int) -> AttackResult:
    walk = OnManifoldPGD(model, surface.manifold, alpha=0.5, steps=150, projection="full", record_path=True)
    return walk.run(surface.digit[None], torch.tensor([label]))


def readout_error(surface: Surface, seed: int = 0) -> np.ndarray:
    """Median errors of angle (degrees) and scale on 200 renderings between those of the grid."""
    fresh = make_rotated_digit(
        surface.digit.numpy(), angles=(-75, 75), scales=(0.75, 1.15), n_samples=200, random_state=seed
    )
    return np.median(np.abs(surface.read(torch.as_tensor(fresh.images)) - fresh.parameters), axis=0)


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

    print("digit  read as  steps   angle  scale  rendered there  confirmed   read-out error (median)")
    strip, titles, confirmed, broken, example = [], [], 0, 0, None
    for label in tqdm(range(10), desc="digits"):
        digit = test_images[right & (test_labels == label)][args.rank]
        surface = learn_surface(digit)
        result = attack(model, surface, label)
        angle, scale = surface.read(result.adversarial)[0]
        again = torch.as_tensor(render_digit(digit.numpy(), angle, scale))
        verdict = int(predict(model, again[None])[0])
        error = readout_error(surface)
        after, success = int(result.prediction_after[0]), bool(result.success[0])
        holds = success and verdict != label
        broken, confirmed = broken + success, confirmed + holds
        tqdm.write(
            f"{label:5d}  {after if success else '-':>7}  {int(result.steps_taken[0]):5d}  {angle:6.1f}  {scale:5.2f}  "
            f"{verdict:14d}  {'yes' if holds else 'no' if success else '-':>9}   {error[0]:.2f} deg, {error[1]:.4f}"
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
        save(draw_map(model, *example), args.out / "rotated_digit_map.png")


def draw_map(model: nn.Module, surface: Surface, result: AttackResult, label: int):
    angles, scales = np.linspace(-80, 80, 107), np.linspace(0.7, 1.2, 51)
    rendered = make_rotated_digit(surface.digit.numpy(), angles=angles, scales=scales)
    classes = predict(model, torch.as_tensor(rendered.images)).numpy()
    grid = np.empty((len(scales), len(angles)), dtype=int)
    columns = np.searchsorted(angles, rendered.parameters[:, 0])
    grid[np.searchsorted(scales, rendered.parameters[:, 1]), columns] = classes
    path = surface.read(result.path[: int(result.steps_taken[0]) + 1, 0])
    ax = plot_decision_map(grid, angles, scales, path=path, true_class=label, xlabel="angle (degrees)", ylabel="scale")
    ax.set_title(f"what the network sees in one {label}, turned and scaled")
    return ax


def save(axes, path: Path) -> None:
    figure = np.ravel(axes)[0].figure
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
