"""What changed on the way to an adversary, in the labels of the data the manifold was learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from manifoldkit._arrays import as_array
from manifoldkit.attacks._input import read_number
from manifoldkit.attacks.result import AttackResult

__all__ = ["Explanation", "Reading", "explain"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reading:
    """One label along the walks of B samples, at T + 1 points each (T = 1, start and end, without a recorded path).

    Attributes
    ----------
    kind : {"value", "angle", "class"}
    values : array of shape (T + 1, B)
        Numbers; angles between -period / 2 and period / 2; or classes.
    spread : array of shape (T + 1, B)
        How far the labels of the neighbours are apart, by their Nystrom weights: their standard deviation; for angles
        the circular one, infinite where they point nowhere; for classes the weight of the other classes.
    """

    kind: str
    values: NDArray[Any]
    spread: Floats


@dataclass(frozen=True, eq=False)
class Explanation:
    """Labels along the walks of an attack.

    Attributes
    ----------
    readings : dict of str to Reading
        By the names of the labels.
    steps_taken : int array of shape (B,)
        Where each walk ends in the readings; later points repeat the last.
    """

    readings: dict[str, Reading]
    steps_taken: NDArray[np.int64]

    def __getitem__(self, name: str) -> Reading:
        return self.readings[name]

    def path(self, x: str, y: str, sample: int) -> Floats:
        """Two numeric labels along the walk of one sample, (steps + 1, 2), for a map of decisions."""
        values = np.column_stack([np.asarray(self[name].values[:, sample], dtype=np.float64) for name in (x, y)])
        last = len(values) - 1 if len(values) == 2 else int(self.steps_taken[sample])
        return values[: last + 1]

    def summary(self, sample: int) -> str:
        """One line for each label: at the start, at the end, and how sure."""
        lines = []
        for name, reading in self.readings.items():
            ends = reading.values[[0, -1], sample].tolist()
            a, b = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in ends)
            c, d = (f"{value:.2g}" for value in reading.spread[[0, -1], sample])
            lines.append(f"{name}: {a} (spread {c}) -> {b} (spread {d})")
        return "\n".join(lines)


def explain(
    result: AttackResult,
    labels: Mapping[str, Any],
    manifold: Any,
    *,
    images: Any = None,
    periods: Mapping[str, float] | None = None,
    classes: str | tuple[str, ...] = (),
) -> Explanation:
    r"""Read the meaning of an attack's walk off the manifold.

    Labels are functions at the training samples, and are extended to the points of the walk by the manifold's Nystrom
    series, :math:`\tilde f(x) = \sum_j p_j(x) C_j^f`: numbers as they are, angles as pairs (cos, sin), classes as
    one-hot rows. The spread tells whether the neighbours agree, from plain means with the same weights,
    :math:`\bar f(x) = \sum_j p_j(x) f_j`: for numbers :math:`(\overline{f^2} - \bar f^2)^{1/2}`; for angles the
    circular standard deviation :math:`\sqrt{-2 \log R}` with R the length of the mean pair; for classes one minus the
    weight of the class read. (The series itself overshoots where a label jumps, and its squares with it.)

    Parameters
    ----------
    result : AttackResult
        With ``record_path=True`` labels are read all along; else at the end, and at the start if `images` are given.
    labels : dict of str to array of shape (n,)
        Of the n samples that the manifold was fitted to, in their order.
    manifold : DiffusionManifold
        Anything with ``extend(values, points)`` and ``local_average(values, points)``.
    images : array of shape (B, ...), optional
        The images attacked, needed if the result has no path.
    periods : dict of str to float, optional
        Labels that are angles, and their period: ``{"angle": 360}``.
    classes : str or tuple of str, default=()
        Labels that are classes.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        If labels and manifold do not fit together, or there is no path and no images.

    Examples
    --------
    >>> from manifoldkit import DiffusionManifold
    >>> from manifoldkit.attacks import OnManifoldPGD
    >>> t = np.arange(0, 360, 2)
    >>> ring = np.column_stack([np.cos(np.radians(t)), np.sin(np.radians(t))])
    >>> manifold = DiffusionManifold(n_components=15).fit(ring)
    >>> model = torch.nn.Linear(2, 2, bias=False)  # class 0 is x > y
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> attack = OnManifoldPGD(model, manifold, alpha=0.05, bounds=None, record_path=True)
    >>> result = attack.run(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    >>> reading = explain(result, {"angle": t}, manifold, periods={"angle": 360})["angle"]
    >>> abs(reading.values[0, 0]) < 1, 45 <= reading.values[-1, 0] < 49
    (np.True_, np.True_)
    """
    if not isinstance(result, AttackResult):
        raise TypeError(f"result must be an AttackResult, from run of an attack, got {type(result).__name__}")
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError("labels must be a dict of names and label arrays, with one entry at the least")
    if not (hasattr(manifold, "extend") and hasattr(manifold, "local_average")):
        raise TypeError(
            "manifold must have extend and local_average, as a fitted DiffusionManifold has (of an atlas, take the "
            f"member of the class), got {type(manifold).__name__}"
        )
    if periods is not None and not isinstance(periods, Mapping):
        raise TypeError(f"periods must be a dict of label names and periods, got {periods!r}")
    periods = {k: read_number(v, f"the period of {k!r}") for k, v in (periods or {}).items()}
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    for name in [*periods, *classes]:
        if name not in labels:
            raise ValueError(f"{name!r} is among periods or classes, but not among the labels {sorted(labels)}")
    points = _points(result, images)
    columns, slices, kinds = [], {}, {}
    width = 0
    for name, given in labels.items():
        kinds[name], block = _features(name, given, periods.get(name), name in classes)
        slices[name] = slice(width, width + block.shape[1])
        width += block.shape[1]
        columns.append(block)
    if len({len(block) for block in columns}) != 1:
        raise ValueError(f"labels must have one length, got {[len(block) for block in columns]}")
    flat, functions = points.reshape(-1, *points.shape[2:]), np.concatenate(columns, axis=1)
    try:
        extended, nearby = (
            as_array(read(functions, flat)).reshape(*points.shape[:2], width)
            for read in (manifold.extend, manifold.local_average)
        )
    except ValueError as error:
        raise ValueError(
            f"the manifold refuses the labels of its samples, or the points of the walk: {error}"
        ) from error
    readings = {}
    for name, kind in kinds.items():
        part = slices[name]
        values, spread = _read(kind, extended[..., part], nearby[..., part], labels[name], periods.get(name))
        readings[name] = Reading(kind, values, spread)
    return Explanation(readings, np.asarray(as_array(result.steps_taken)).astype(np.int64))


def _points(result: AttackResult, images: Any) -> torch.Tensor:
    """Points of the walks, (T + 1, B, ...), float64."""
    if result.path is not None:
        return torch.as_tensor(result.path).detach().cpu().double()
    if images is None:
        raise ValueError("the result has no path: run the attack with record_path=True, or pass the images")
    ends = [torch.as_tensor(part).detach().cpu().double() for part in (images, result.adversarial)]
    if ends[0].shape != ends[1].shape:
        raise ValueError(
            f"images must have shape {tuple(ends[1].shape)}, as the adversaries, got {tuple(ends[0].shape)}"
        )
    return torch.stack(ends)


def _features(name: str, given: Any, period: float | None, is_class: bool) -> tuple[str, Floats]:
    """Kind of a label, and the functions to extend, (n, q)."""
    if is_class:
        if period is not None:
            raise ValueError(f"{name!r} is both an angle and a class")
        values = np.asarray(given)
        if values.ndim != 1:
            raise ValueError(f"labels[{name!r}] must have shape (n,), got {values.shape}")
        return "class", (values[:, None] == np.unique(values)).astype(np.float64)
    numbers = as_array(given, f"labels[{name!r}]")
    if numbers.ndim != 1:
        raise ValueError(f"labels[{name!r}] must have shape (n,), got {numbers.shape}")
    if period is None:
        centred = numbers - numbers.mean()  # the variance is a difference of squares
        return "value", np.column_stack([centred, centred**2])
    if not period > 0:
        raise ValueError(f"the period of {name!r} must be positive, got {period!r}")
    phase = 2 * np.pi * numbers / period
    return "angle", np.column_stack([np.cos(phase), np.sin(phase)])


def _read(kind: str, extended: Floats, nearby: Floats, given: Any, period: float | None) -> tuple[NDArray[Any], Floats]:
    """Values and spreads (T + 1, B) from the series of functions and their means nearby, both (T + 1, B, q)."""
    if kind == "class":
        chosen = extended.argmax(axis=2)
        weight = np.take_along_axis(nearby, chosen[..., None], axis=2)[..., 0]
        return np.unique(np.asarray(given))[chosen], 1 - weight.clip(0, 1)
    if kind == "value":
        spread = np.sqrt(np.maximum(nearby[..., 1] - nearby[..., 0] ** 2, 0))
        return extended[..., 0] + as_array(given).mean(), spread
    assert period is not None
    unit = period / (2 * np.pi)
    with np.errstate(divide="ignore"):
        length = np.minimum(np.hypot(nearby[..., 0], nearby[..., 1]), 1)
        spread = np.sqrt(np.maximum(-2 * np.log(length), 0))
    return np.arctan2(extended[..., 1], extended[..., 0]) * unit, spread * unit
