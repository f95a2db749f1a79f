"""A window of views of one vehicle: its surface, learned, walked on, read in degrees and rendered again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import AttackResult, explain
from manifoldkit.datasets import VEHICLE_NAMES, TurntableViews, make_turntable
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.plotting import plot_decision_map, plot_loss_map

#: One paint for all, so that only their shapes tell the vehicles apart.
PAINT = (0.6, 0.6, 0.62)


def two_layer_cnn(size: int, seed: int = 0) -> nn.Sequential:
    """The small network of the source: 12 and 24 filters, 3x3, pooling, a linear read-out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(24 * (size // 4) ** 2, len(VEHICLE_NAMES)),
        )  # fmt: skip


@torch.no_grad()
def classify(net: nn.Module, images: Any) -> np.ndarray:
    """Classes (n,), in pieces of 500 images."""
    return torch.cat([net(part).argmax(dim=1) for part in torch.as_tensor(images).split(500)]).numpy()


@dataclass
class Window:
    """Views of one vehicle at all whole degrees around a middle, and the surface learned from them.

    Attributes
    ----------
    label : int
        Index in `VEHICLE_NAMES`.
    images : Tensor (n, 3, size, size)
    angles : (n, 2) array
    manifold : DiffusionManifold
    background : what `make_turntable` takes
    """

    label: int
    images: Tensor
    angles: np.ndarray
    background: Any
    manifold: DiffusionManifold | None = None

    @classmethod
    def render(
        cls, label: int, middle: tuple[int, int], half: int, size: int, background: Any = "flat", step: int = 1
    ) -> Window:
        azimuth, elevation = (np.arange(value - half, value + half + 1, step) for value in middle)
        views = make_turntable([VEHICLE_NAMES[label]], azimuth, elevation, size, background, paint=PAINT)
        return cls(label, torch.from_numpy(views.images), views.angles, background)

    @property
    def degree(self) -> float:
        """Median distance of neighbouring views: what a degree is in the space of images."""
        rows = len(np.unique(self.angles[:, 1]))
        steps = (self.images[rows:] - self.images[:-rows]).flatten(1).norm(dim=1)
        return float(steps.median())

    def learn(self) -> Window:
        # Views turn fast: the series must be long to follow them, and without noise it may be.
        count = min(300, len(self.images) // 3)
        manifold = DiffusionManifold(
            count, n_neighbors=8, dimension=2, n_projection_components=count - 10, distance_components=60,
            tangent_method="smoothed",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ManifoldWarning)  # the finest of so many functions may be cut
            self.manifold = manifold.fit(self.images)
        return self

    def views(self, angles: np.ndarray) -> Tensor:
        """Images of any pose, rendered afresh."""
        azimuth, elevation = angles[:, 0] % 360, angles[:, 1].clip(-10, 90)
        fresh = make_turntable(
            [VEHICLE_NAMES[self.label]], azimuth, elevation, self.images.shape[-1], self.background,
            lattice=False, paint=PAINT, cache=False,
        )  # fmt: skip
        return torch.from_numpy(fresh.images)

    def walk(self, result: AttackResult, images: Tensor) -> np.ndarray:
        """Azimuth and elevation at every step of walks, (T + 1, B, 2)."""
        azimuth, elevation = self.angles.T
        labels = {"azimuth": azimuth, "elevation": elevation}
        reading = explain(result, labels, self.manifold, images=images, periods={"azimuth": 360.0})
        return np.stack([self._unwrap(reading["azimuth"].values), reading["elevation"].values], axis=-1)

    def read(self, images: Tensor) -> np.ndarray:
        """Azimuth and elevation of images, (B, 2)."""
        azimuth, elevation = self.angles.T
        turn = np.radians(azimuth)
        assert self.manifold is not None
        cos, sin, height = self.manifold.extend(
            np.column_stack([np.cos(turn), np.sin(turn), elevation]), images.double()
        ).numpy().T  # fmt: skip
        return np.column_stack([self._unwrap(np.degrees(np.arctan2(sin, cos))), height])

    def nearest(self, images: Tensor) -> np.ndarray:
        """Pose of the nearest view of the window, (B, 2)."""
        return self.angles[torch.cdist(images.flatten(1), self.images.flatten(1)).argmin(dim=1).numpy()]

    def _unwrap(self, azimuth: np.ndarray) -> np.ndarray:
        middle = self.angles[:, 0].mean()
        return middle + (azimuth - middle + 180) % 360 - 180


def draw_walk(
    net: nn.Module, views: TurntableViews, label: int, path: np.ndarray, strip: Tensor, classes: np.ndarray
) -> Figure:
    """Loss and decisions over the angles of `views` (of one vehicle), the walk on both, and three pictures below.

    Parameters
    ----------
    path : (T, 2) array
        Azimuth and elevation along the walk.
    strip : Tensor (3, 3, size, size)
        Start, adversary, and the rendering at the pose that was read.
    classes : (3,) array
        What the network says of them.
    """
    azimuth, elevation = (np.unique(column) for column in views.angles.T)
    shape = (len(azimuth), len(elevation))
    images = torch.from_numpy(views.images)
    with torch.no_grad():
        logits = torch.cat([net(part) for part in images.split(500)])
    losses = nn.functional.cross_entropy(logits, torch.full((len(images),), label), reduction="none")
    decisions = logits.argmax(dim=1).numpy().reshape(shape).T
    figure = plt.figure(figsize=(11, 8.5), layout="constrained")
    grid = figure.add_gridspec(3, 3, height_ratios=(1, 1, 0.9))
    names = {"xlabel": "azimuth (degrees)", "ylabel": "elevation (degrees)"}
    above, below = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :])
    plot_loss_map(losses.numpy().reshape(shape).T, azimuth, elevation, path=path, boundary=decisions == label, ax=above, **names)  # fmt: skip  # noqa: E501
    above.set_title(f"loss of the {VEHICLE_NAMES[label]}; dashed: where it begins to be misread")
    plot_decision_map(decisions, azimuth, elevation, path=path, true_class=label, class_names=VEHICLE_NAMES, ax=below, **names)  # fmt: skip  # noqa: E501
    below.set_title("what it is taken for")
    ends = [path[0], path[-1], path[-1]]
    for column, (picture, name, seen, (a, e)) in enumerate(
        zip(strip, ("start", "adversary", "rendered at its read-out"), classes, ends, strict=True)
    ):
        ax = figure.add_subplot(grid[2, column])
        ax.imshow(picture.permute(1, 2, 0).numpy().clip(0, 1))
        ax.set_title(f"{name}\n{a % 360:.1f}°, {e:.1f}°: {VEHICLE_NAMES[seen]}", fontsize=10)
        ax.set_axis_off()
    return figure
