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
from manifoldkit.attacks import OnManifoldPGD, explain
from manifoldkit.attacks.losses import margin
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


@torch.no_grad()
def lead(net: nn.Module, images: Tensor, label: int) -> np.ndarray:
    """How far the best other class leads over `label`, in logits, (n,): positive where an image is misread."""
    return torch.cat([margin(net(part), torch.full((len(part),), label)) for part in images.split(500)]).numpy()


def first_step(wanted: np.ndarray) -> np.ndarray:
    """First step (B,) at which each of B walks, (T, B) bool, has what is wanted; -1 for never."""
    return np.where(wanted.any(axis=0), wanted.argmax(axis=0), -1)


@dataclass(frozen=True, eq=False)
class Walks:
    """B walks of T - 1 steps over a surface, and what is read at each point.

    Attributes
    ----------
    images : Tensor (T, B, 3, size, size)
    seen : (T, B) array
        What the network takes the image for.
    angles : (T, B, 2) array
        Azimuth and elevation, read off the surface.
    lead : (T, B) array
        How far, in logits, another class leads in the window's views there: read off like the angles.
    """

    images: Tensor
    seen: np.ndarray
    angles: np.ndarray
    lead: np.ndarray

    def at(self, steps: np.ndarray) -> Tensor:
        """One image of each walk, (B, ...); steps of -1 give the last."""
        return self.images[torch.as_tensor(steps), torch.arange(len(steps))]


@dataclass
class Window:
    """Views of one vehicle at all whole degrees around a middle, and the surface learned from them.

    Attributes
    ----------
    label : int
        Index in `VEHICLE_NAMES`.
    images : Tensor (n, 3, size, size)
    angles : (n, 2) array
    background : what `make_turntable` takes
    manifold : DiffusionManifold, after :meth:`learn`
    leads : (n,) array, after :meth:`look`
        :func:`lead` of each view.
    """

    label: int
    images: Tensor
    angles: np.ndarray
    background: Any
    manifold: DiffusionManifold | None = None
    leads: np.ndarray | None = None

    @classmethod
    def render(
        cls, label: int, middle: tuple[int, int], half: int, size: int, background: Any = "flat", step: int = 1
    ) -> Window:
        azimuth, elevation = (np.arange(value - half, value + half + 1, step) for value in middle)
        turn = 360 if azimuth[-1] > 360 else 0  # across the seam the angles of the window go on, beyond 360
        views = make_turntable([VEHICLE_NAMES[label]], azimuth - turn, elevation, size, background, paint=PAINT)
        return cls(label, torch.from_numpy(views.images), views.angles + np.array([turn, 0]), background)

    @property
    def degree(self) -> float:
        """Median distance of views next to each other in azimuth: what a degree of it is in the space of images."""
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

    def look(self, net: nn.Module) -> Window:
        self.leads = lead(net, self.images, self.label)
        return self

    def walks(
        self, net: nn.Module, images: Tensor, steps: int, kind: type[OnManifoldPGD] = OnManifoldPGD, **options: Any
    ) -> Walks:
        """On-manifold PGD, by half a degree of azimuth a step, that walks on when it has crossed the boundary."""
        attack = kind(net, self.manifold, self.degree / 2, steps, early_stop=False, record_path=True, **options)
        result = attack.run(images, torch.full((len(images),), self.label))
        azimuth, elevation = self.angles.T
        labels = {"azimuth": azimuth, "elevation": elevation, "lead": self.leads}
        told = explain(result, labels, self.manifold, periods={"azimuth": 360.0})
        angles = np.stack([self._unwrap(told["azimuth"].values), told["elevation"].values], axis=-1)
        return Walks(result.path, result.path_predictions.numpy(), angles, told["lead"].values)

    def allowance(self, net: nn.Module, held: Tensor, level: float = 0.9) -> float:
        """How much of the lead that is read off the surface may be lost when a view is rendered.

        The conformal quantile of what it is too large by for views that were held out: of new ones like them, the
        share `level` loses no more.
        """
        assert self.manifold is not None
        assert self.leads is not None
        told = self.manifold.extend(self.leads[:, None], held.double()).numpy()[:, 0]
        lost = np.sort(told - lead(net, held, self.label))
        return float(lost[min(int(np.ceil((len(lost) + 1) * level)), len(lost)) - 1])

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
