"""Robust accuracy of a network under many attacks and budgets, in a run that can be interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from manifoldkit.attacks._input import as_numpy, read_radius
from manifoldkit.attacks._record import Record, digest_of, fingerprint_of
from manifoldkit.attacks.base import Attack

__all__ = ["Evaluation", "evaluate"]

#: What is kept of each sample, in the order of the file's columns.
FIGURES = ("success", "steps", "l2", "linf", "distance", "tangent_share", "p_value")


@dataclass
class Evaluation:
    """Figures of every sample under every attack and budget.

    Attributes
    ----------
    labels, predictions : int array of shape (n,)
        True classes, and those that the network gives the images.
    samples : dict of (attack, eps) to dict of arrays of shape (n,)
        `success`, `steps`, `l2`, `linf`, and where the attack has a manifold `distance` (to it) and `tangent_share`,
        where a calibration was given `p_value`; NaN elsewhere. eps is None for an attack run as it is.
    """

    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    predictions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    samples: dict[tuple[str, float | None], dict[str, NDArray[np.float64]]] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        """One row for each attack and budget, tidy: `pandas.DataFrame(evaluation.table())` is a data frame.

        Columns: `attack`, `eps`, `samples`, `clean_accuracy`, `robust_accuracy` (right before and not broken); means
        over the samples that are right before and broken: `steps`, `l2`, `linf`, `distance`, `tangent_share`; and
        `p_value_median`, `on_manifold` (share of them with a p-value above 0.05). None where there is nothing to
        average.
        """
        right = self.predictions == self.labels
        rows = []
        for (attack, eps), figures in self.samples.items():
            broken = right & (figures["success"] > 0)
            row: dict[str, Any] = {
                "attack": attack,
                "eps": eps,
                "samples": len(right),
                "clean_accuracy": float(right.mean()),
                "robust_accuracy": float((right & (figures["success"] == 0)).mean()),
            }
            for name in FIGURES[1:-1]:
                values = figures[name][broken]
                row[name] = float(values.mean()) if len(values) and not np.isnan(values).any() else None
            p = figures["p_value"][broken]
            known = len(p) > 0 and not np.isnan(p).any()
            row["p_value_median"] = float(np.median(p)) if known else None
            row["on_manifold"] = float((p > 0.05).mean()) if known else None
            rows.append(row)
        return rows

    def curves(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """For each attack with a list of budgets: eps, from 0 (no attack) on, and robust accuracy."""
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self.table():
            if row["eps"] is not None:
                start = [(0.0, row["clean_accuracy"])]
                found.setdefault(row["attack"], start).append((row["eps"], row["robust_accuracy"]))
        arrays = {name: np.array(sorted(points)) for name, points in found.items()}
        return {name: (points[:, 0], points[:, 1]) for name, points in arrays.items()}

    def to_markdown(self) -> str:
        """The table as Markdown."""
        rows = self.table()
        if not rows:
            return ""
        names = list(rows[0])

        def cell(value: Any) -> str:
            return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

        lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def evaluate(
    model: torch.nn.Module,
    loader: Iterable[tuple[Any, Any]],
    attacks: Mapping[str, Attack],
    *,
    eps: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    calibration: Any = None,
    path: str | os.PathLike[str] | None = None,
    random_state: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Run attacks on the batches of a loader and collect a tidy table and robust-accuracy curves.

    Budgets are run from small to large, and a sample that one budget breaks is not attacked again with a larger one,
    where its adversary is allowed, too: curves fall, and cost little more than their last point.

    Parameters
    ----------
    model : torch.nn.Module
        The network to attack, whatever network the attacks were made with.
    loader : iterable of (images, labels)
        A `DataLoader` that does not shuffle, or a list of batches. Read once; empty batches are skipped.
    attacks : dict of str to Attack
        None of them targeted. An `eps` or `alpha` with a number for each sample has them in the order of the loader.
    eps : sequence of float, or dict of str to sequence of float, optional
        Budgets in place of the attacks' own: for all that have one, whatever its norm and unit, or for each by its
        name. An attack that the dict leaves out is run as it is, and so is each by default, and always those of
        patches, which only their mask limits. The figures of a budget are those of the adversaries found with it or
        with a smaller one; without an attack (eps = 0) there is the clean accuracy.
    calibration : OnManifoldTest, optional
        Fitted on held-out images; gives every adversary its `p_value`.
    path : path, optional
        File (JSON lines) that keeps what is done, batch by batch: the same call goes on where it was interrupted,
        with the same result as a run without interruption. A file of another run is refused; a damaged line is done
        again. Losses of the attacks must be functions with a name of their own.
    random_state : int, default=0
        Seeds the random numbers of each attack, budget and batch, in place of the generators of the attacks.
    progress : bool, default=False

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If there are no attacks or no batches, an attack is targeted, budgets are not positive, an attack has numbers
        for more or fewer samples than the loader, the file belongs to another run, or something cannot be hashed to
        tell one run from another.

    Examples
    --------
    >>> from manifoldkit.attacks import FGSM, PGD
    >>> model = torch.nn.Linear(2, 2)
    >>> _ = model.weight.data.copy_(2 * torch.eye(2)), model.bias.data.zero_()
    >>> x = torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    >>> result = evaluate(model, [(x, torch.tensor([0, 0]))], {"FGSM": FGSM(model, 0.1)}, eps=[0.3, 0.6])
    >>> [round(row["robust_accuracy"], 2) for row in result.table()]
    [0.5, 0.0]
    >>> result.curves()["FGSM"][1]
    array([1. , 0.5, 0. ])
    """
    if not isinstance(attacks, Mapping) or not attacks:
        raise ValueError("attacks must be a dict of names and attacks, with one entry at the least")
    for name, attack in attacks.items():
        if not isinstance(attack, Attack):
            raise TypeError(f"attacks[{name!r}] must be an Attack, got {type(attack).__name__}")
        if attack.targeted:
            raise ValueError(
                f"attacks[{name!r}] is targeted and would take the true classes for its goals: evaluate untargeted ones"
            )
    if calibration is not None and not hasattr(calibration, "test"):
        raise TypeError(f"calibration must be a fitted OnManifoldTest or None, got {type(calibration).__name__}")
    plan = _plan(attacks, eps)
    record = (
        None if path is None else Record(Path(path), fingerprint_of(model, attacks, plan, calibration, random_state))
    )
    batches: list[dict[str, Any]] = []
    first = 0
    for number, batch in enumerate(tqdm(loader, desc="evaluation", disable=not progress)):
        if not isinstance(batch, Sequence) or len(batch) != 2:
            raise TypeError(f"the loader must give pairs (images, labels), got {type(batch).__name__}")
        images, labels = batch
        if not len(labels):
            continue
        done = None if record is None else record.read(number, digest_of(images, labels))
        if done is None:
            done = _batch(model, images, labels, attacks, plan, calibration, random_state, number, first)
            if record is not None:
                record.write(number, digest_of(images, labels), done)
        batches.append(done)
        first += len(labels)
    if not batches:
        raise ValueError("the loader is empty: give at least one batch (images, labels)")
    for label, e in plan:
        for kind, values in _of_each(attacks[label], e).items():
            if len(values) != first:
                raise ValueError(_misfit(label, kind, values, f"{first}"))
    result = Evaluation(
        labels=np.concatenate([b["labels"] for b in batches]),
        predictions=np.concatenate([b["predictions"] for b in batches]),
    )
    for position, key in enumerate(plan):
        columns = np.concatenate([np.array(b["figures"][position], dtype=np.float64) for b in batches], axis=1)
        result.samples[key] = dict(zip(FIGURES, columns, strict=True))
    return result


def _plan(attacks: Mapping[str, Attack], eps: Any) -> list[tuple[str, float | None]]:
    """Names of attacks with each of their budgets in rising order, None for the attack as it is."""
    given = dict(eps) if isinstance(eps, Mapping) else dict.fromkeys(attacks, eps)
    if unknown := sorted(set(given) - set(attacks), key=str):
        raise ValueError(f"eps has budgets for {unknown}, which are not among the attacks {sorted(attacks)}")
    plan: list[tuple[str, float | None]] = []
    for name, attack in attacks.items():
        budgets, limited = given.get(name), attack.eps is not None and attack.limited_by_eps
        if budgets is not None and not np.iterable(budgets):
            raise TypeError(
                f"eps must be a sequence of budgets, or a dict of such, got {budgets!r}: take [{budgets!r}]"
            )
        numbers = [] if budgets is None else sorted({float(read_radius(value, "every eps")) for value in budgets})
        if budgets is not None and not numbers:
            raise ValueError("eps must hold at least one budget, or be None")
        if isinstance(eps, Mapping) and numbers and not limited:
            raise ValueError(f"the attack {name!r} has no budget that eps could vary: leave it out of the dict")
        plan += [(name, e) for e in numbers] if numbers and limited else [(name, None)]
        for e in numbers if limited else ():
            try:
                attack.replaced(eps=e)
            except ValueError as error:
                raise ValueError(f"the attack {name!r} refuses a budget: {error}") from error
    return plan


def _batch(
    model: torch.nn.Module,
    images: Any,
    labels: Any,
    attacks: Mapping[str, Attack],
    plan: list[tuple[str, float | None]],
    calibration: Any,
    random_state: int,
    number: int,
    first: int,
) -> dict[str, Any]:
    """Figures of a batch, whose samples are those from `first` on, for each entry of the plan, as nested lists."""
    figures: list[NDArray[np.float64]] = []
    predictions: Any = None
    for position, (name, e) in enumerate(plan):
        seed = int(np.random.SeedSequence([random_state, position, number]).generate_state(1)[0])
        changes: dict[str, Any] = {"model": model, "generator": torch.Generator().manual_seed(seed)}
        before = figures[-1] if position and e is not None and plan[position - 1][0] == name else None
        held = np.ones(len(labels), dtype=bool) if before is None else before[0] == 0
        now = np.full((len(FIGURES), len(labels)), np.nan) if before is None else before.copy()
        if held.any():
            keep = torch.from_numpy(held) if isinstance(images, torch.Tensor) else held
            goal = labels[torch.from_numpy(held)] if isinstance(labels, torch.Tensor) else np.asarray(labels)[held]
            rows = torch.from_numpy(first + np.flatnonzero(held))
            for key, values in _of_each(attacks[name], e).items():
                if len(values) < first + len(labels):
                    raise ValueError(_misfit(name, key, values, "more"))
                changes[key] = values[rows]
            if e is not None:
                changes["eps"] = e
            result = attacks[name].replaced(**changes).run(images[keep], goal)
            now[:, held] = _figures(result, images[keep], goal, calibration)
            if predictions is None:
                predictions = as_numpy(result.prediction_before).astype(int)
        figures.append(now)
    return {
        "labels": as_numpy(labels).astype(int).tolist(),
        "predictions": predictions.tolist(),
        "figures": [f.tolist() for f in figures],
    }


def _of_each(attack: Attack, e: float | None) -> dict[str, torch.Tensor]:
    """What an attack has for each sample; a budget `e` stands for all radii."""
    return {name: values for name, values in attack._of_each().items() if name != "eps" or e is None}


def _misfit(name: str, key: str, values: torch.Tensor, count: str) -> str:
    return (
        f"{key} of the attack {name!r} holds {len(values)} numbers and the loader {count} samples: give one for each, "
        "or a single number"
    )


def _figures(result: Any, images: Any, labels: Any, calibration: Any) -> NDArray[np.float64]:
    missing = np.full(len(result), np.nan)
    columns = (result.success, result.steps_taken, result.l2, result.linf)
    values = [as_numpy(column) for column in columns]
    values += [missing if c is None else as_numpy(c) for c in (result.distance_to_manifold, result.tangent_share)]
    values.append(missing if calibration is None else calibration.test(result.adversarial, images, labels).p_value)
    return np.array(values, dtype=np.float64)
