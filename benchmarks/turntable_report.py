"""Tables and pictures of `turntable.py`, from the records that it keeps."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from turntable_window import PAINT, classify, draw_walk

from manifoldkit.attacks import OnManifoldPGD
from manifoldkit.datasets import VEHICLE_NAMES, make_turntable

METHODS = {
    "smoothed": "on-manifold PGD, filtered tangents",
    "sec": "on-manifold PGD, first SEC fields",
    "nearest view": "the first, pose of the nearest training view",
    "smoothed, deeper": "filtered tangents, six steps on",
    "sec, deeper": "first SEC fields, six steps on",
    "nearest view, deeper": "filtered, six steps on, nearest view",
    "random walk": "control: random walk on the surface",
    "pixels, projected": "pixel PGD, projected afterwards",
    "pixels, nearest view": "pixel PGD, nearest training view",
}
NETS = {"base": "before", "failures": "views at the failures", "as before": "as many views of the old elevations", "anywhere": "as many views of all elevations"}  # fmt: skip  # noqa: E501


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Ends of Wilson's 95 % interval of a share."""
    if total == 0:
        return 0.0, 1.0
    z, p = 1.959964, hits / total
    middle, spread = p + z * z / (2 * total), z * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    return float((middle - spread) / (1 + z * z / total)), float((middle + spread) / (1 + z * z / total))


def share(hits: int, total: int) -> str:
    if total == 0:
        return "-"
    low, high = wilson(hits, total)
    return f"{hits}/{total} = {100 * hits / total:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def by_windows(records: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """95 % interval of the confirmed share when whole windows are drawn with replacement, 2,000 times."""
    counts = np.array([
        [sum(s["methods"][name][key] for s in r["starts"]) for key in ("confirmed", "success")] for r in records
    ])  # fmt: skip
    drawn = counts[np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))].sum(axis=1)
    low, high = np.nanpercentile(drawn[:, 0] / np.maximum(drawn[:, 1], 1), [2.5, 97.5])
    return float(low), float(high)


def first_table(records: list[dict[str, Any]]) -> list[str]:
    """What was found, method by method."""
    used = [r for r in records if r["starts"]]
    starts = [s for r in used for s in r["starts"]]
    if not starts:
        return [f"None of {len(records)} windows had starts near a boundary."]
    errors = np.array([e for r in used for e in r["readout"]])
    medians, tails = np.median(errors, axis=0), np.percentile(errors, 95, axis=0)
    low, high = by_windows(used, "smoothed, deeper")
    low1, high1 = by_windows(used, "smoothed")
    lines = [
        f"{len(records)} windows drawn, {len(used)} with a boundary and starts near it, {len(starts)} starts. Read-out "
        f"of {len(errors)} clean views that are not in the windows' lattices: median error {medians[0]:.3f} degrees of "
        f"azimuth and {medians[1]:.3f} of elevation, 95th percentile {tails[0]:.2f} and {tails[1]:.2f}.", "",
        "| method | success | confirmed by rendering, of the successes | misread as the same class | on the manifold "
        "(p > 0.05) | quantile of the distance, median | moved, median degrees |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, text in METHODS.items():
        rows = [(s, s["methods"][name]) for s in starts]
        won = [(s, row) for s, row in rows if row["success"]]
        p = np.array([row["p"] for _, row in won])
        far = np.array([1 - row["distance_p"] for _, row in won])
        moved = np.array([np.linalg.norm(np.subtract(row["pose"], s["pose"])) for s, row in won])
        lines.append(
            f"| {text} | {share(len(won), len(rows))} | {share(sum(row['confirmed'] for _, row in won), len(won))} | "
            f"{share(sum(row['same'] for _, row in won), len(won))} | {share(int((p > 0.05).sum()), len(won))} | "
            + (f"{np.median(far):.2f} | {np.median(moved):.1f} |" if len(won) else "- | - |")
        )
    lines += [
        "", "Starts of one window are not independent: with whole windows drawn again the interval of the share "
        f"confirmed is {100 * low1:.0f} to {100 * high1:.0f} % (filtered tangents) and {100 * low:.0f} to "
        f"{100 * high:.0f} % (six steps on).",
    ]  # fmt: skip
    return lines


def second_table(records: list[dict[str, Any]]) -> list[str]:
    """Clean and robust accuracy of the networks, in windows searched before and in new ones."""
    lines = ["| trained on | " + " | ".join(f"{w} windows: {k}" for w in ("searched", "new") for k in ("clean", "robust")) + " |", "|---|---|---|---|---|"]  # fmt: skip  # noqa: E501
    for name, text in NETS.items():
        if name not in records[0]:
            continue
        cells = []
        for group in ([r for r in records if r["seed"] < 1000], [r for r in records if r["seed"] >= 1000]):
            for kind in ("clean", "robust"):
                values = [value for r in group for value in r[name][kind]]
                cells.append(share(sum(values), len(values)))
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return lines


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def command(args: argparse.Namespace) -> str:
    """The flags that say what was run."""
    names = ("size", "step", "epochs", "windows", "starts", "again")
    flags = [f"--{name} {getattr(args, name)}" for name in names]
    return " ".join(["--studies", *args.studies, "--controls", *args.controls, *flags])


def report(studies: list[Any], args: argparse.Namespace) -> str:
    """All tables as Markdown."""
    lines = [
        "# Adversaries explained in angles: vehicles on a turntable", "",
        f"    python benchmarks/turntable.py {command(args)} --work out/turntable --out benchmarks/turntable.md", "",
        "Seven vehicles of `make_turntable` in one grey paint (but for the white box of the box truck), "
        f"{args.size} pixels, training views every {args.step} degrees, "
        f"{args.epochs} epochs by Adam, seed 0; windows of 40 x 40 degrees with views one degree apart, at "
        "random azimuths, elevations 4 to 44. Starts are views between those of the lattice, read rightly, at most 10 "
        "degrees from a misread one. A step is half a degree in the space of images (median of the window), at most "
        f"{args.walk} of them. *Confirmed*: the network misreads the vehicle rendered afresh at the pose that was read "
        "off the adversary. *Six steps on*: the walk goes on for six steps (about three degrees) after the boundary. "
        "*Quantile*: share of clean held-out views nearer to the surface. Brackets: Wilson's 95 % intervals. One seed. "
        "The number of steps past the boundary was chosen after three windows of a trial with a weaker network.", "",
        "Reduced against the source (128 pixels, views one degree apart, VGG11): see the flags above. `--full` is the "
        "larger setting, 64 pixels and training views one degree apart; `--studies A:cnn B:cnn A:vgg11` are all.",
    ]  # fmt: skip
    for study in studies:
        first, second = read(study.folder / "first.jsonl"), read(study.folder / "second.jsonl")
        low, high = study.elevations
        seconds = sum(r["seconds"] for r in first + second)
        lines += ["", f"## Experiment {study.experiment}, {study.network}", "",
                  f"Background {study.background}, trained on elevations {low} to {high}; windows took {seconds:.0f} CPU s.", ""]  # fmt: skip  # noqa: E501
        lines += first_table(first)
        if second:
            lines += ["", "New views around the confirmed failures of six steps on, training from the start, attacks on fresh starts anywhere in the windows. All confirmed failures were used, those of the searched windows too; few windows, so wide intervals:", "", *second_table(second)]  # fmt: skip  # noqa: E501
        if args.pictures and any(row["starts"] for row in first):
            lines += ["", f"![walk]({picture(study, first, args.pictures).name})"]
    return "\n".join(lines) + "\n"


def picture(study: Any, records: list[dict[str, Any]], folder: Path) -> Path:
    """Loss and decisions over all angles, and a confirmed walk on them: the longest one found."""
    found = [
        (np.linalg.norm(np.subtract(row["pose"], start["pose"])), record["seed"], start["pose"])
        for record in records
        for start in record["starts"]
        if (row := start["methods"]["smoothed, deeper"])["confirmed"]
    ]
    _, seed, pose = max(found)
    window, net = study.window(seed).learn(), study.net("base")
    image, label = window.views(np.array([pose])), torch.tensor([window.label])
    result = OnManifoldPGD(net, window.manifold, window.degree / 2, study.args.walk, record_path=True).run(image, label)
    path = window.walk(result, image)[: int(result.steps_taken[0]) + 1, 0]
    azimuth, elevation = np.arange(0, 360, 4), np.arange(1, 46, 2)
    views = make_turntable([VEHICLE_NAMES[window.label]], azimuth, elevation, study.args.size, window.background, paint=PAINT)  # fmt: skip  # noqa: E501
    again = window.views(path[-1:])
    strip = torch.cat([image, result.adversarial, again])
    figure = draw_walk(net, views, window.label, path, strip, classify(net, strip))
    file = folder / f"turntable_{study.experiment}_{study.network}.png"
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
