"""Ways of `turntable.py` to find a view that is misread near one that is not, and what is said of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor, nn
from turntable_window import Walks, Window, classify, first_step

from manifoldkit.attacks import PGD, RandomTangentWalk
from manifoldkit.risk import OnManifoldTest

TANGENTS = ("smoothed", "sec")
DEEPER = 6  # steps of half a degree past the boundary
FINE = 0.25  # degrees between the poses of the look-up
PIXELS = {"pixels": (0.05, 0.005, 20, True), "strong pixels": (0.2, 0.01, 60, False)}  # eps, step, steps, early stop


@dataclass(frozen=True, eq=False)
class Found:
    """What a method found from each of B starts.

    Attributes
    ----------
    images : Tensor (B, 3, size, size) or None
        Adversaries; None for a method that gives poses alone.
    good : (B,) bool array
        Whether it found any.
    poses : (B, 2) array
        The explanations: azimuth and elevation.
    """

    images: Tensor | None
    good: np.ndarray
    poses: np.ndarray


def attack(
    net: nn.Module, window: Window, images: Tensor, starts: np.ndarray, test: OnManifoldTest, allowance: float,
    steps: int, rng: np.random.Generator,
) -> tuple[dict[str, dict[str, list[Any]]], list[list[Any]]]:  # fmt: skip
    """Figures of each method, one entry for each start; and what is read at every step of the filtered walks."""
    manifold = window.manifold
    assert manifold is not None
    found: dict[str, Found] = {}
    paths: list[list[Any]] = []
    for tangents in TANGENTS:
        manifold.set_params(tangent_method=tangents)
        walks = window.walks(net, images, steps + DEEPER)
        for name, (stop, good) in stops(walks, window.label, allowance, steps).items():
            ends = walks.at(stop)
            found[tangents + name] = Found(ends, good, window.read(ends))
        if not paths:
            paths = readings(walks, stops(walks, window.label, allowance, steps)[", settled"][0])
    first = TANGENTS[0]
    manifold.set_params(tangent_method=first)
    for name in ("", ", settled"):
        walked = found[first + name]
        assert walked.images is not None
        found["nearest view" + name] = Found(walked.images, walked.good, window.nearest(walked.images))
    generator = torch.Generator().manual_seed(0)
    walks = window.walks(net, images, steps, RandomTangentWalk, generator=generator)
    for name, (stop, good) in stops(walks, window.label, allowance, steps).items():
        if name != ", deeper":
            found["random walk" + name] = Found(walks.at(stop), good, window.read(walks.at(stop)))
    found["look-up"] = look_up(window, starts, allowance)
    found["random pose"] = elsewhere(window, starts, found[first + ", settled"], rng)
    found |= pixel_attacks(net, window, images)
    again = window.views(np.concatenate([entry.poses for entry in found.values()])).split(len(images))
    rows = zip(found.items(), again, strict=True)
    return {name: figures(net, window, images, entry, view, test) for (name, entry), view in rows}, paths


def stops(walks: Walks, label: int, allowance: float, steps: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Step at which each walk ends by each rule, the last where it never does, and whether it does."""
    wrong, last = walks.seen != label, len(walks.seen) - 1
    crossed = first_step(wrong[: steps + 1])
    settled = first_step((wrong & (walks.lead > allowance))[: steps + 1])
    deeper = np.where(crossed < 0, -1, np.minimum(crossed + DEEPER, last))
    deeper[~wrong[deeper, np.arange(len(deeper))]] = -1
    rules = {"": crossed, ", settled": settled, ", deeper": deeper}
    return {name: (np.where(stop < 0, last, stop), stop >= 0) for name, stop in rules.items()}


def readings(walks: Walks, ends: np.ndarray) -> list[list[Any]]:
    """Class, azimuth, elevation and lead at each step of each walk up to its end."""
    columns = np.concatenate([walks.seen[..., None], walks.angles, walks.lead[..., None]], axis=-1)
    return [
        [[int(seen), *(round(float(value), 3) for value in told)] for seen, *told in columns[: end + 1, i]]
        for i, end in enumerate(ends)
    ]


def look_up(window: Window, starts: np.ndarray, allowance: float) -> Found:
    """The nearest pose at which the leads of the window's views, interpolated, exceed the allowance: nothing walks."""
    assert window.leads is not None
    axes = [np.unique(column) for column in window.angles.T]
    fine = [np.arange(axis[0], axis[-1] + FINE / 2, FINE) for axis in axes]
    poses = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1).reshape(-1, 2)
    leads = RegularGridInterpolator(axes, window.leads.reshape([len(axis) for axis in axes]))(poses)
    beyond = poses[leads > allowance]
    if len(beyond) == 0:
        return Found(None, np.zeros(len(starts), dtype=bool), starts.copy())
    nearest = np.square(starts[:, None] - beyond).sum(axis=2).argmin(axis=1)
    return Found(None, np.ones(len(starts), dtype=bool), beyond[nearest])


def elsewhere(window: Window, starts: np.ndarray, walked: Found, rng: np.random.Generator, tries: int = 500) -> Found:
    """A pose in a random direction, as far from the start as the walk led, within the window."""
    turn = rng.uniform(0, 2 * np.pi, (len(starts), tries, 1))
    length = np.linalg.norm(walked.poses - starts, axis=1)[:, None, None]
    tried = starts[:, None] + length * np.concatenate([np.cos(turn), np.sin(turn)], axis=2)
    inside = ((tried >= window.angles.min(axis=0)) & (tried <= window.angles.max(axis=0))).all(axis=2)
    poses = tried[np.arange(len(starts)), inside.argmax(axis=1)]
    return Found(None, walked.good & inside.any(axis=1), np.where(inside.any(axis=1)[:, None], poses, starts))


def pixel_attacks(net: nn.Module, window: Window, images: Tensor) -> dict[str, Found]:
    """PGD in pixels: projected onto the surface, a success if it is still misread there; or the nearest view."""
    labels, found = torch.full((len(images),), window.label), {}
    assert window.manifold is not None
    for name, (eps, step, steps, early) in PIXELS.items():
        generator = torch.Generator().manual_seed(0)
        result = PGD(net, eps, step, steps, early_stop=early, generator=generator).run(images, labels)
        projected = window.manifold.project(result.adversarial).clamp(0, 1)
        good = classify(net, projected) != window.label
        found[f"{name}, projected"] = Found(projected, good, window.read(projected))
        nearest = window.nearest(result.adversarial)
        found[f"{name}, nearest view"] = Found(result.adversarial, result.success.numpy(), nearest)
    return found


def figures(
    net: nn.Module, window: Window, images: Tensor, found: Found, again: Tensor, test: OnManifoldTest
) -> dict[str, list[Any]]:
    """Confirmed is a success whose pose, rendered (`again`), is misread; same, if it is misread as the same class."""
    told = classify(net, again)
    confirmed = found.good & (told != window.label)
    rows: dict[str, list[Any]] = {
        "success": found.good.tolist(), "confirmed": confirmed.tolist(), "pose": found.poses.tolist(),
    }  # fmt: skip
    if found.images is None:
        return rows
    seen, report = classify(net, found.images), test.test(found.images, images)
    return rows | {
        "seen": seen.tolist(),
        "same": (confirmed & (told == seen)).tolist(),
        "distance_p": report.distance_p.tolist(),
        "p": report.p_value.tolist(),
        "from rendering": ((again - found.images).flatten(1).norm(dim=1) / window.degree).tolist(),
    }
