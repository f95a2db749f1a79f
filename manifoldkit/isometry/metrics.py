"""How well a map keeps distances: per class and level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .._distances import condensed_distances
from .._modules import evaluating
from ._input import cell_ids, finite_samples, level_ids
from .layers import LocallyIsometricNet

__all__ = ["IsometryReport"]


@dataclass(frozen=True)
class IsometryReport:
    r"""Distances within cells before and after a map, in five figures; for all pairs together and for each class.

    Attributes
    ----------
    n_pairs : int
        Pairs i < j within a cell.
    stress : float
        Relative stress :math:`\sqrt{\sum (d - d')^2 / \sum d^2}`; 0 for an isometry.
    distance_correlation : float
        Pearson's correlation of d and d'; 1 for an isometry up to scale.
    lipschitz : float
        Largest d'/d, an empirical Lipschitz constant; 1 for an isometry, infinity if coincident samples are separated.
    lower_lipschitz : float
        Smallest d'/d. Coincident samples that stay so count in neither.
    per_class : dict
        From class to the report of its pairs alone.

    Figures that have no meaning (no pairs; no variation of the distances) are NaN, and say so in print.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [3.0, 2.0], [4.0, 0.0]])
    >>> report = IsometryReport.measure(x, 2 * x, [0, 0, 1, 1, 1])
    >>> print(report)
    class      pairs   stress  correlation  lipschitz    lower
    all            4   1.0000       1.0000     2.0000   2.0000
    0              1   1.0000          nan     2.0000   2.0000
    1              3   1.0000       1.0000     2.0000   2.0000
    """

    n_pairs: int
    stress: float
    distance_correlation: float
    lipschitz: float
    lower_lipschitz: float
    per_class: dict[int, IsometryReport] = field(default_factory=dict)

    @classmethod
    def measure(cls, x: Any, z: Any, y: Any = None) -> IsometryReport:
        """Compare the distances of samples `x` (n, ...) with those of their images `z` (n, ...).

        Parameters
        ----------
        x, z : tensors or arrays (n, ...)
            Compared in float64, by Euclidean distance; for another metric pass coordinates in which it is Euclidean.
            Memory is quadratic in the size of the largest class.
        y : ints (n,), optional
            Classes; all pairs are one class by default.

        Raises
        ------
        TypeError, ValueError
            If lengths differ, or entries are NaN.
        """
        x, z = finite_samples(x, "x").flatten(1).double(), finite_samples(z, "z").flatten(1).double()
        if len(x) != len(z):
            raise ValueError(f"x and z must hold the same samples, got {len(x)} and {len(z)}")
        ids = torch.zeros(len(x), dtype=torch.int64) if y is None else cell_ids(y, len(x), "y", torch.device("cpu"))
        parts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for label in ids.unique().tolist():
            rows = torch.nonzero(ids == label)[:, 0]
            parts[label] = condensed_distances(x[rows.to(x.device)]), condensed_distances(z[rows.to(z.device)]).to(x)
        whole = _figures(torch.cat([a for a, _ in parts.values()]), torch.cat([b for _, b in parts.values()]))
        each = {} if y is None else {label: cls(*_figures(*pair)) for label, pair in parts.items()}
        return cls(*whole, each)

    @classmethod
    @torch.no_grad()
    def of_network(cls, net: LocallyIsometricNet, x: Any, y: Any) -> list[IsometryReport]:
        """A report for every level of a network: the block's own input against its output, within its labels.

        Parameters
        ----------
        net : LocallyIsometricNet
            Evaluated in evaluation mode and put back into the mode it was in.
        x : tensor or array (n, ...)
        y : ints (n,), or a sequence of one such vector for each level
            As for :meth:`IsometricTrainer.fit`.
        """
        home = next(net.parameters())
        x = finite_samples(x).to(home)
        labels = level_ids(y, len(net.blocks), len(x))
        with evaluating(net):
            found = net.representations(x)
        inputs = [x, *found[:-1]]
        return [cls.measure(a, b, level) for a, b, level in zip(inputs, found, labels, strict=True)]

    def __str__(self) -> str:
        rows = [f"{'class':<8}{'pairs':>8}{'stress':>9}{'correlation':>13}{'lipschitz':>11}{'lower':>9}"]
        for name, report in [("all", self), *[(str(label), report) for label, report in self.per_class.items()]]:
            rows.append(
                f"{name:<8}{report.n_pairs:>8}{report.stress:>9.4f}{report.distance_correlation:>13.4f}"
                f"{report.lipschitz:>11.4f}{report.lower_lipschitz:>9.4f}"
            )
        return "\n".join(rows)


def _figures(before: torch.Tensor, after: torch.Tensor) -> tuple[int, float, float, float, float]:
    nan = float("nan")
    n = len(before)
    apart = (before > 0) | (after > 0)
    ratio = after[apart] / before[apart]  # infinite where coincident samples are separated
    bounds = (float(ratio.max()), float(ratio.min())) if len(ratio) else (nan, nan)
    if not before.any():
        return n, nan, nan, *bounds
    stress = float(((before - after).square().sum() / before.square().sum()).sqrt())
    a, b = before - before.mean(), after - after.mean()
    spread = float(a.norm() * b.norm())
    correlation = float(a @ b) / spread if spread > 1e-12 * float(before.norm() * after.norm()) else nan
    return n, stress, correlation, *bounds
