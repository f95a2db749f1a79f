"""Tables of `gridvae.py`."""

from __future__ import annotations

import platform
from math import comb
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from manifoldkit.datasets import FACE_ATTRIBUTES

RUNS = 4  # a group, of which the loss chooses one
TRIALS = 3  # a group of the published trial
HIDDEN = ("male", "smiling")  # attributes that partially guided training does not see

Result = dict[str, Any]
Settings = dict[str, dict[str, Any]]


def spread(values: list[float], digits: int = 2) -> str:
    """Mean, least and largest."""
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def best_of(runs: list[Result], k: int) -> str:
    """Axis accuracy of the run of the least loss among k, expected over all choices of k of the runs."""
    ordered = [run["axis"] for run in sorted(runs, key=lambda run: run["loss"])]
    n = len(ordered)
    chances = [comb(n - place - 1, k - 1) / comb(n, k) for place in range(n)]
    rank = spearmanr([run["loss"] for run in runs], [run["axis"] for run in runs]).statistic
    return (
        f"{float(np.dot(chances, ordered)):.2f} expected of the least loss of {k}, {ordered[0]:.2f} of that of all {n} "
        f"(rank correlation of the loss with the axis accuracy {rank:.2f})"
    )


def table_of_digits(results: dict[str, list[Result]], settings: Settings) -> list[str]:
    lines = [
        "## Two digits", "",
        "| training | runs | axis accuracy | cell accuracy | topographic similarity | training loss | CPU s a run |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    alone = ["aggregate", "conditional", "nearest", "VAE"]
    alone += [f"short, {name}" for name in alone]
    started = [name for name in results if name.startswith("aggregate, ")]
    for name in ("guided", *alone[:4], *started, "k-means of each half", *alone[4:]):
        runs = results.get(name, [])
        if runs:
            columns = [spread([run[key] for run in runs]) for key in ("axis", "cell", "topographic")]
            columns.append("-" if name.startswith("k-means") else spread([run["loss"] for run in runs]))
            columns.append(spread([run["seconds"] for run in runs]))
            lines.append(f"| {name} | {len(runs)} | " + " | ".join(columns) + " |")
    lines += ["", "Mean (least to largest). Losses of different trainings cannot be compared. k-means is told where "
              "the halves are.", ""]  # fmt: skip
    for name in alone:
        runs = results.get(name, [])
        if len(runs) >= 2 * RUNS:
            each = ", ".join(f"{axis:.2f}" for axis in sorted(run["axis"] for run in runs))
            lines.append(f"- {name}: axis accuracies {each}; {best_of(runs, RUNS)}.")
    for name in started:
        runs = results[name]
        if runs:
            each = ", ".join(f"{run['axis']:.2f} (loss {run['loss']:.2f})" for run in runs)
            lines.append(f"- {name}, seed by seed: {each}.")
    if any(results[name] for name in started):
        steps = settings["starts"]["init_steps"]
        lines += [
            "",
            f"Short starts are of {steps} steps, rounded up to whole epochs as all trainings are; that of the least "
            "loss is then trained as the others are, from its weights. CPU s are those of a busier machine.",
        ]
    half = results.get("half guided", [])
    if half:
        first, second = (spread([run[key] for run in half]) for key in ("first", "second"))
        lines += ["", f"Guided on the first axis only ({len(half)} seeds): axis 1 {first}, axis 2 {second}."]
    return [*lines, ""]


def table_of_runs_again(results: dict[str, list[Result]]) -> list[str]:
    rows = [(name.removeprefix("again: "), runs) for name, runs in results.items() if name.startswith("again: ")]
    rows = [(name, runs) for name, runs in rows if runs]
    if not rows:
        return []
    lines = [
        "## Run again", "",
        "The runs of the conditional and aggregate divergences above were made when these were rounded otherwise (they "
        "have been made faster since; short starts and costs are of the present ones). The same seeds now:", "",
        "| training | axis accuracy then | now | training loss then | now |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, runs in rows:
        cells = [
            ", ".join(f"{run[key]:.2f}" for run in group)
            for key in ("axis", "loss")
            for group in (results[name][: len(runs)], runs)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def table_of_tries(results: dict[str, list[Result]], settings: Settings) -> list[str]:
    rows = [(arm.removeprefix("tried: "), runs) for arm, runs in results.items() if arm.startswith("tried: ") and runs]
    if not rows:
        return []
    lines = [
        "## Tried without labels, scored on pairs of training digits", "",
        f"Sigma 1/4, {settings['little']}, seeds from 100 on; longer and wider: {settings['longer']}.", "",
        "| training | axis accuracy, seed by seed | cell accuracy | training loss |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for name, runs in rows:
        columns = [", ".join(f"{run[key]:.2f}" for run in runs) for key in ("axis", "cell", "loss")]
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    return [*lines, ""]


def table_of_small_digits(results: dict[str, list[Result]], trial: dict[str, Any]) -> list[str]:
    rows = [(arm.removeprefix("8 x 8, "), runs) for arm, runs in results.items() if arm.startswith("8 x 8") and runs]
    plain = results["8 x 8, VAE"]
    if not rows:
        return []
    lines = [
        "## Two digits of 8 x 8", "",
        f"Pairs of scikit-learn's digits 0 to 5, {trial}, sigma 1/4, perceptrons of 256, 256.", "",
        "| training | runs | axis accuracy, seed by seed | cell accuracy | training loss | CPU s a run |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, runs in rows:
        each = ", ".join(f"{run['axis']:.2f}" for run in runs)
        cells = ", ".join(f"{run['cell']:.2f}" for run in runs)
        losses = "-" if name.startswith("k-means") else ", ".join(f"{run['loss']:.2f}" for run in runs)
        lines.append(f"| {name} | {len(runs)} | {each} | {cells} | {losses} | {spread([r['seconds'] for r in runs])} |")
    lines.append("")
    if plain:
        each = ", ".join(f"{run['axis, cells of the grid']:.2f}" for run in plain)
        lines += [f"The codes of the VAE are cut into cells of equal probability. In the cells of the grid, as the "
                  f"trial read them: {each}.", ""]  # fmt: skip
        best = min(plain, key=lambda run: run["loss"])
        lines += [f"VAE, best loss of {len(plain)}: {best['axis']:.2f}, in the cells of the grid "
                  f"{best['axis, cells of the grid']:.2f}.", ""]  # fmt: skip
    alone = results["8 x 8, conditional"]
    if len(alone) >= TRIALS:
        groups = [alone[k : k + TRIALS] for k in range(0, len(alone) - TRIALS + 1, TRIALS)]
        best = ", ".join(f"{min(group, key=lambda run: run['loss'])['axis']:.2f}" for group in groups)
        lines += [f"Conditional, best loss of {TRIALS}, group by group: {best}; {best_of(alone, TRIALS)}.", ""]
    half = results["8 x 8, guided on one axis"]
    if half:
        first, second = (spread([run[key] for run in half]) for key in ("first", "second"))
        lines += [f"Guided on one axis: that axis {first}, the other {second}.", ""]
    return lines


def table_of_faces(results: dict[str, list[Result]]) -> list[str]:
    arms = [arm for arm in ("faces", "faces, two hidden") if results.get(arm)]
    if not arms:
        return []
    lines = [
        "## Drawn faces", "",
        "| training | attribute | read correctly | share of the edit | cosine | cosine, impossible face |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for arm in arms:
        for name in FACE_ATTRIBUTES:
            runs = results[arm]
            edit = [run["edit"][name] for run in runs]
            hidden = arm != "faces" and name in HIDDEN
            away = [entry["cosine impossible"] for entry in edit]
            cells = [spread([run["read"][name] for run in runs])]
            cells += [spread([entry[key] for entry in edit]) for key in ("share", "cosine")]
            cells.append("-" if np.isnan(away).any() else spread(away))
            lines.append(f"| {arm} | {name}{' (hidden)' if hidden else ''} | " + " | ".join(cells) + " |")
    lines += [""]
    for arm in arms:
        parts = [spread([run[key] for run in results[arm]], 3) for key in ("possible", "impossible")]
        lines += [f"{arm}: root mean square error of decoded cells against the drawn face, possible combinations "
                  f"{parts[0]}, impossible ones {parts[1]}.", ""]  # fmt: skip
    return lines


def table_of_costs(results: dict[str, list[Result]]) -> list[str]:
    lines: list[str] = []
    runs = results.get("cost of the prior", [])
    if runs:
        cells = [tuple(map(int, name.split(" x "))) for name in runs[0]["seconds"]]
        axes, levels = sorted({n for n, _ in cells}), sorted({count for _, count in cells})

        def seconds(n: int, count: int) -> float:
            return float(np.median([run["seconds"][f"{n} x {count}"] for run in runs]))

        def power(along: list[tuple[int, int]]) -> str:
            """Slope of the logarithm of the time against that of n L."""
            sizes = [np.log(n * count) for n, count in along]
            return f"{np.polyfit(sizes, [np.log(seconds(*cell)) for cell in along], 1)[0]:.2f}"

        lines += [
            "## Cost", "",
            "`GridPrior.log_prob` of 256 codes in single precision, one thread: CPU milliseconds, medians of "
            f"{len(runs)} seeds", "",
            "| axes | " + " | ".join(f"{count} levels" for count in levels) + " |", "|---" * (len(levels) + 1) + "|",
        ]  # fmt: skip
        for n in axes:
            lines.append(f"| {n} | " + " | ".join(f"{1000 * seconds(n, count):.3g}" for count in levels) + " |")
        most = axes[-1]
        along_n = ", ".join(f"{power([(n, c) for n in axes if n >= 100])} for L = {c}" for c in levels)
        along_l = ", ".join(f"{power([(n, c) for c in levels if c >= 6])} for n = {n}" for n in axes if n >= 100)
        lines += ["", f"Fitted power of n, from 100 to {most} axes: {along_n}. Of L, from 6 to {levels[-1]} levels: "
                  f"{along_l}. 1 is linear; below it, what a call costs by itself still counts.", ""]  # fmt: skip
    runs = results.get("cost of a step", [])
    if runs:
        ratios = runs[0]["ratios"]
        names = [name.removeprefix("step, ") for name in ratios if name.startswith("step")]
        pairs = len(next(iter(ratios.values())))
        lines += [
            "CPU time of ten steps over that of ten steps of a plain VAE written down by hand (392-256-256-4, batches "
            f"of 256), run just before: median (quartiles) of {pairs} pairs", "",
            "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|",
        ]  # fmt: skip
        for where, title in (("step", "steps alone"), ("fit", "within `GridVAE.fit`")):
            quartiles = [np.percentile(ratios[f"{where}, {name}"], [50, 25, 75]) for name in names]
            lines.append(f"| {title} | " + " | ".join("{:.2f} ({:.2f} to {:.2f})".format(*q) for q in quartiles) + " |")
        lines.append("")
    return lines


def report(results: dict[str, list[Result]], settings: Settings) -> str:
    """The page of all tables."""
    text = [
        "# GridVAE", "",
        "`python benchmarks/gridvae.py --out benchmarks/gridvae.md`; seeds 0, 1, ..., all that were run; one thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}.", "",
        f"Settings: guided {settings['guided']}, 14 x 28 pixels; without labels {settings['alone']}, sigma 1/4, "
        f"7 x 14 pixels; short {settings['short']}, sigma 1/3; guided on one axis {settings['half']}, 7 x 14 pixels; "
        f"faces {settings['faces']}, 20 x 20 pixels (obs_sigma raised from 0.15, with which guidance was not "
        "followed).", "",
        *table_of_digits(results, settings), *table_of_small_digits(results, settings["trial"]),
        *table_of_runs_again(results), *table_of_tries(results, settings), *table_of_faces(results),
        *table_of_costs(results),
    ]  # fmt: skip
    return "\n".join(text).rstrip() + "\n"
