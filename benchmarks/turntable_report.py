"""Tables and pictures of `turntable.py`, from the records that it keeps."""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from turntable_window import PAINT, classify, draw_walk

from manifoldkit.datasets import VEHICLE_NAMES, make_turntable

METHODS = {
    "smoothed": "filtered tangents, at the boundary",
    "smoothed, settled": "filtered tangents, **settled**",
    "smoothed, deeper": "filtered tangents, six steps on",
    "sec": "first SEC fields, at the boundary",
    "sec, settled": "first SEC fields, **settled**",
    "sec, deeper": "first SEC fields, six steps on",
    "nearest view": "filtered, at the boundary, nearest view of the window's lattice",
    "nearest view, settled": "filtered, settled, nearest view of the window's lattice",
    "random walk": "control: random walk on the surface, at the boundary",
    "random walk, settled": "control: random walk on the surface, settled",
    "look-up": "look-up: nearest pose whose lead, interpolated, exceeds the allowance",
    "random pose": "control: random pose as far away as the settled filtered walk",
    "pixels, projected": "pixel PGD (0.05), projected afterwards",
    "strong pixels, projected": "pixel PGD (0.2, all 60 steps), projected afterwards",
    "pixels, nearest view": "pixel PGD (0.05), nearest view of the window's lattice",
    "strong pixels, nearest view": "pixel PGD (0.2, all 60 steps), nearest view of the window's lattice",
}
NETS = {
    "base": "before",
    "failures": "views at the failures",
    "in the windows": "as many random views within the searched windows",
    "as before": "as many views of the old elevations",
    "anywhere": "as many views of all elevations",
}
KINDS = ("clean", "robust", "confirmed robust")

FIRST_NEW = 1000  # windows from this number on were not searched

Record = dict[str, Any]


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Ends of Wilson's 95 % interval of a share."""
    if total == 0:
        return 0.0, 1.0
    z, p = 1.959964, hits / total
    middle, spread = p + z * z / (2 * total), z * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    ends = (middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total)
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))


def share(hits: int, total: int) -> str:
    if total == 0:
        return "-"
    low, high = wilson(hits, total)
    return f"{hits}/{total} = {100 * hits / total:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def turn(first: float, second: float) -> float:
    """Degrees from one azimuth to another, the shorter way round."""
    return abs((first - second + 180) % 360 - 180)


def apart(records: list[Record]) -> list[list[Record]]:
    """Windows that overlap, of one network and vehicle and less than 40 degrees apart, in one group; so do chains."""
    groups: list[list[Record]] = []
    for record in records:
        near, far = [], []
        for group in groups:
            meets = any(
                (other["network"], other["label"]) == (record["network"], record["label"])
                and turn(other["azimuth"], record["azimuth"]) < 40
                for other in group
            )
            (near if meets else far).append(group)
        groups = [*far, [*itertools.chain(*near), record]]
    return groups


def by_windows(
    records: list[Record], values: Callable[[Record], list[float]], statistic: Any = np.median, digits: int = 2
) -> str:
    """A statistic of all values, and its 95 % interval when whole windows are drawn with replacement, 1,000 times.

    Windows that overlap are drawn together. Of fewer than five such groups there is no interval.
    """
    groups = [[value for record in group for value in values(record)] for group in apart(records)]
    parts = [np.array(group) for group in groups if group]
    if not parts:
        return "-"
    if len(parts) < 5:
        return f"{statistic(np.concatenate(parts)):.{digits}f}"
    rng = np.random.default_rng(0)
    drawn = [statistic(np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))])) for _ in range(1000)]  # fmt: skip  # noqa: E501
    ends = (statistic(np.concatenate(parts)), *np.percentile(drawn, [2.5, 97.5]))
    middle, low, high = (f"{round(float(end), digits) + 0.0:.{digits}f}" for end in ends)  # + 0.0: no "-0"
    return f"{middle} ({low} to {high})"


def won(record: Record, name: str, value: Callable[[Record, Record], float]) -> list[float]:
    """A figure of every success of a method in a window, from the start and what the method found."""
    pairs = ((start, start["methods"][name]) for start in record["starts"])
    return [value(start, row) for start, row in pairs if row["success"]]


def moved(start: Record, row: Record) -> float:
    return float(np.linalg.norm(np.subtract(row["pose"], start["pose"])))


def first_table(records: list[Record]) -> list[str]:
    """What was found, method by method."""
    used = [r for r in records if r["starts"]]
    total = sum(len(r["starts"]) for r in used)
    if not total:
        return [f"None of {len(records)} windows had starts near a boundary."]
    azimuth, elevation = (by_windows(used, lambda r, i=i: [e[i] for e in r["readout"]]) for i in (0, 1))
    tails = np.percentile(np.array([e for r in used for e in r["readout"]]), 95, axis=0)
    right, poor = sum(r["right"] == 1.0 for r in records), sum(r["right"] <= 0.1 for r in records)
    early = sum(start["path"][0][0] != r["label"] for r in used for start in r["starts"])
    lines = [
        f"{len(records)} windows drawn. Left out: {right} without an error on a lattice of 5 degrees (smaller slivers "
        f"of "
        f"error are not searched), {poor} read rightly at a tenth of it at most, "
        f"{len(records) - len(used) - right - poor} "
        f"without starts near a misread view. The other {len(used)} have {total} starts. {early} of these are misread "
        f"as "
        "soon as they are projected, which counts as a success of the walks. Read-out of "
        f"{sum(len(r['readout']) for r in used)} clean views that are not in the windows' lattices: median error "
        f"{azimuth} degrees of azimuth, {elevation} of elevation; 95th percentile {tails[0]:.2f} and {tails[1]:.2f}. "
        f"Projected to the surface, clean views move by {by_windows(used, lambda r: r['detail'])} steps of a degree: "
        "detail that the surface has not.", "",
        "| method | success | confirmed, of the successes | the same, by windows | confirmed, of all starts | misread "
        "as the same class, of the successes | as near as clean views (p > 0.05) | near, and by a tangent change (p > "
        "0.05) | quantile of the distance | from its rendering, degrees | moved, degrees |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, text in METHODS.items():
        rows = [start["methods"][name] for r in used for start in r["starts"] if start["methods"][name]["success"]]
        cells = [text, share(len(rows), total), share(sum(row["confirmed"] for row in rows), len(rows))]
        cells += [by_windows(used, lambda r, n=name: won(r, n, lambda _, what: float(what["confirmed"])), np.mean)]
        cells += [share(sum(row["confirmed"] for row in rows), total)]
        if all("p" in row for row in rows):
            cells += [share(sum(row["same"] for row in rows), len(rows))]
            cells += [share(sum(row[p] > 0.05 for row in rows), len(rows)) for p in ("distance_p", "p")]
            for value in (lambda _, what: 1 - what["distance_p"], lambda _, what: what["from rendering"]):
                cells.append(by_windows(used, lambda r, n=name, v=value: won(r, n, v)))
        else:
            cells += 5 * ["-"]  # a pose, and no adversary
        cells.append(by_windows(used, lambda r, n=name: won(r, n, moved)))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def glance(studies: list[Any]) -> list[str]:
    """The main figures of each network, and of all seeds together, before the tables of all."""
    shown = ("smoothed", "nearest view", "pixels, projected", "strong pixels, projected", "smoothed, settled", "nearest view, settled", "look-up")  # fmt: skip  # noqa: E501
    found = [
        "Confirmed, of the successes; of all starts. The first four take whatever is misread, the last three only what "
        "leads by more than the allowance: compare within these groups.", "",
        "| | starts | " + " | ".join(METHODS[name] for name in shown) + " |", "|---" * (len(shown) + 2) + "|",
    ]  # fmt: skip
    gains = [
        "Gain in robust accuracy, in points, by training on views at the failures, and in brackets its 95 % interval "
        "when whole windows are drawn again. These are intervals for these networks: each was trained once, and what "
        "another training would have given is seen from row to row only.", "",
        "| | searched windows | beyond random views within them | new windows | beyond views of all elevations |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    compared = (("base", False), ("in the windows", False), ("base", True), ("anywhere", True))
    for key, group in itertools.groupby(studies, lambda study: (study.experiment, study.network)):
        members = list(group)
        parts = [(f"{' '.join(key)}, seed {study.seed}", [study]) for study in members]
        for text, part in [*parts, (f"**{' '.join(key)}, all**", members)] if len(members) > 1 else parts:
            first, second = ([r for study in part for r in study.records[stage]] for stage in ("first", "second"))
            starts = [start["methods"] for r in first for start in r["starts"]]
            cells = [text, str(len(starts))]
            for name in shown:
                rows = [methods[name] for methods in starts if methods[name]["success"]]
                sure = sum(row["confirmed"] for row in rows)
                cells.append(f"{share(sure, len(rows))}; {100 * sure / max(len(starts), 1):.0f} %")
            found.append(f"| {' | '.join(cells)} |")
            if second and all(name in second[0] for name, _ in compared):
                gains.append(f"| {text} | {' | '.join(gain(second, name, new) for name, new in compared)} |")
    return [*found, "", *gains] if len(gains) > 4 else found


def gain(records: list[Record], name: str, new: bool) -> str:
    """Robust accuracy after training on the failures less that of another network, from the same starts."""

    def values(record: Record) -> list[float]:
        pairs = zip(record["failures"]["robust"], record[name]["robust"], strict=True)
        return [100.0 * (after - before) for after, before in pairs] if (record["seed"] >= FIRST_NEW) == new else []

    return by_windows(records, values, np.mean, 0)


def second_table(records: list[Record]) -> list[str]:
    """Clean and robust accuracy of the networks, in windows searched before and in new ones."""
    groups = {
        "searched": [r for r in records if r["seed"] < FIRST_NEW],
        "new": [r for r in records if r["seed"] >= FIRST_NEW],
    }
    head = [f"{name} windows ({len(group)}): {kind}" for name, group in groups.items() for kind in KINDS]
    lines = [f"| trained on | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name, text in NETS.items():
        if name not in records[0]:
            continue
        cells = []
        for group in groups.values():
            for kind in KINDS:
                values = [value for r in group for value in r[name][kind]]
                rows = by_windows(group, lambda r, n=name, k=kind: [100.0 * value for value in r[n][k]], np.mean, 0)
                cells.append(f"{sum(values)}/{len(values)} = {rows}" if values else "-")
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return lines


def report(studies: list[Any], args: argparse.Namespace, command: str, missing: list[str]) -> str:
    """All tables as Markdown; `missing` are the default studies that were not run."""
    lines = [
        "# Adversaries explained in angles: vehicles on a turntable", "",
        f"    {command}", "",
        "Seven vehicles of `make_turntable` in one grey paint (but for the white box of the box truck), "
        f"{args.size} pixels, Adam; windows of 40 x 40 degrees with views one degree apart, at random azimuths, "
        "elevations 4 to 44, each window before one background. Network, windows, poses and backgrounds are those of "
        "the study's seed. Starts are views between those of the lattice, read rightly, at most 10 degrees from a "
        "misread one. On-manifold PGD takes steps that are in the space of images as long as half a degree of azimuth "
        f"(median of the window), at most {args.walk}. *Confirmed*: the network misreads the vehicle rendered afresh "
        "at the pose that was read off the adversary.", "",
        "Three rules say where a walk ends. *At the boundary*: at the first step that is misread. *Six steps on*: six "
        "steps later, if that step is misread as well. *Settled*: at the first misread step where the lead of the "
        "wrong class, known at the window's "
        "views and read off the surface like the angles, exceeds what renderings lose: the 90 % conformal quantile, in "
        "each window, of (lead read) - (lead of the view) over its clean held-out views, none of them a start (ends "
        "of walks "
        "are chosen, so it promises nothing for them; what holds is what the table shows). No pose "
        "of a walk is rendered to decide it, but it knows the network's verdicts at all views of the window, one "
        "degree apart. It trades successes for certainty: slivers of error where no view leads by so much do not "
        "count.", "",
        "History of the rule: that poses read at the boundary often fail was seen in the first run of experiment A "
        "(cnn, 32 pixels), on the windows of seed 0. The rule was then chosen among a dozen on two other windows of "
        "that network (5000 and 5002: 19 of 19 confirmed), and held on four more (5003, 5005 to 5007: 32 of 35); its "
        "90 % was set beforehand. Other seeds, experiment B and VGG11 had no part in the choice. They were run once "
        "more "
        "after their first figures were seen, with windows of their own for each seed and both ends of the elevations "
        "in "
        "the training views, the rule unchanged; of A, seeds 1 and 2 test it, and seed 0 does not.", "",
        "Who knows so much needs no walk: the *look-up* takes the nearest pose, on a grid of a quarter of a degree, "
        "whose lead, interpolated bilinearly between the window's views, exceeds the same allowance. It needs the "
        "window's verdicts, the pose of the start and, for the allowance, the surface; no gradient, no step; and it "
        "goes as far as it must, walks end after their steps. What a "
        "walk gives beyond it: an adversarial image, for a start whose pose is not known; a path of images to it, each "
        "with angles; and, at the boundary, an answer from the network's verdicts on that path alone. The *random "
        "pose* says how many poses so far from the starts are misread anyway.", "",
        "Pixel PGD counts as a success after projection if the projected image is misread, and with the nearest view "
        "if the adversary itself is (the nearest of the 1,681 views that the surface was learned from, not of the far "
        "sparser "
        "ones that the network was trained on): L_inf 0.05 with steps of 0.005 that end when misread (at most 20), or "
        "0.2 with "
        "all of 60 steps of 0.01. It has no settled row: compare it with walks at the boundary.", "",
        "*As near as clean views, quantile*: rank of the adversary's distance to the surface among those of the clean "
        "held-out views of the window (`OnManifoldTest`, its `distance_p`); 0.00 is nearer than all of them, 0.99 "
        "farther than all. Of points of the surface this says next to nothing: they lack the detail that every "
        "rendering has, so are nearer than these whatever they show. *Near, and by a tangent change*: the whole "
        "`p_value` of the test, of distance and of the change from the start. *From its rendering*: distance from the "
        "adversary to the view rendered at its read-out, in steps of a degree. Round brackets after shares: Wilson's "
        "95 % intervals. *By windows* and after medians: 95 % intervals when whole windows are drawn again (those that "
        "overlap as one), for starts of one window are not independent.", "",
        "The source has 128 pixels and views one degree apart. `--full` (`make turntable`) has 64 pixels and views one "
        "degree apart, an estimated 22 CPU hours; `make reproduce` runs it at 32 pixels and 3 degrees."
        + (f" Default studies that were not run for this table: {', '.join(missing)}." if missing else ""),
    ]  # fmt: skip
    lines += ["", "## At a glance", "", *glance(studies)]
    for key, group in itertools.groupby(studies, lambda study: (study.experiment, study.network)):
        members = list(group)
        first, second = ([r for study in members for r in study.records[stage]] for stage in ("first", "second"))
        head, flags = members[0], members[0].args
        azimuths, elevations = head.lattice()
        seconds = sum(r["seconds"] for r in first + second)
        lines += [
            "", f"## Experiment {key[0]}, {key[1]}", "",
            f"Background {head.background}, trained on {len(azimuths)} azimuths, {360 / len(azimuths):.3g} degrees "
            f"apart, and {len(elevations)} elevations from {elevations[0]:g} to {elevations[-1]:g}, for {flags.epochs} "
            "epochs"
            f"{' and as many against PGD in L_inf, eps 0.02 (half of the loss on clean views)' * (key[0] == 'B')}, "
            f"seeds "
            f"{', '.join(str(study.seed) for study in members)}, {flags.starts} starts a window at most; windows took "
            f"{seconds:.0f} CPU s.", "",
        ]  # fmt: skip
        lines += first_table(first)
        if second:
            lines += [
                "", "New views around the confirmed settled failures (and as many of the same vehicles elsewhere), "
                "training from the start; then walks from fresh starts anywhere in the windows. All confirmed failures "
                "were used, those of the searched windows too; new windows were drawn without asking any network, 50 "
                "degrees "
                "or more from all searched ones of their vehicle. "
                "*Robust*: read rightly, and no step of the walk, its projected start included, is misread. *Confirmed "
                "robust*: read rightly, and no settled walk ends where the rendering is misread; as each network has "
                "its "
                "own allowance, it says less between networks than *robust*. In per cent, and in brackets 95 % "
                "intervals when "
                "whole windows are drawn again:", "", *second_table(second),
            ]  # fmt: skip
        longest = longest_walk(head)
        if longest is not None:
            lines += ["", *step_table(head, *longest)]
            if args.pictures:
                file = picture(head, *longest, args.pictures)
                lines += ["", f"![The walk]({os.path.relpath(file, args.out.parent) if args.out else file})"]
    lines += [
        "", "## Rendering", "",
        "Mesa's llvmpipe, one thread; median and range of three times 240 views of the jeep, building its scene "
        "included:",
        "", *speed_table(),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def speed_table() -> list[str]:
    """How fast views are drawn here, and what they take."""
    lines = ["| pixels | views per CPU second | drawing 7 x 360 x 45 views, CPU minutes | kB a view in the cache | in memory |", "|---|---|---|---|---|"]  # fmt: skip  # noqa: E501
    for size in (32, 64, 128):
        turns = []
        for elevation in (10, 25, 40):
            start = time.process_time()
            make_turntable(["jeep"], np.arange(0, 360, 1.5), elevation, size, paint=PAINT, cache=False)
            turns.append(240 / (time.process_time() - start))
        rate = float(np.median(turns))
        lines.append(f"| {size} | {rate:.0f} ({min(turns):.0f} to {max(turns):.0f}) | {113_400 / rate / 60:.0f} | {4 * size**2 / 1000:.0f} | {16 * size**2 / 1000:.0f} |")  # fmt: skip  # noqa: E501
    return lines


def longest_walk(study: Any) -> tuple[Record, Record] | None:
    """The window and the start of the settled walk that led farthest, of those that a rendering confirms by class."""
    pairs = [(r, s) for r in study.records["first"] for s in r["starts"] if s["methods"]["smoothed, settled"]["same"]]  # fmt: skip  # noqa: E501
    return max(pairs, key=lambda pair: moved(pair[1], pair[1]["methods"]["smoothed, settled"]), default=None)


def step_table(study: Any, record: Record, start: Record) -> list[str]:
    """What is read at every step of one walk, and what a rendering there is taken for."""
    window = study.window(record["seed"], step=10)
    seen, *readings = (np.array(column) for column in zip(*start["path"], strict=True))
    again = classify(study.net("base"), window.views(np.column_stack(readings[:2])))
    lines = [
        f"The walk of seed {study.seed} that led farthest to where a rendering is taken for the same class (an "
        f"extreme, not "
        "a typical one), from a "
        f"{VEHICLE_NAMES[record['label']]} at {start['pose'][0] % 360:.1f} and {start['pose'][1]:.1f} degrees; "
        f"allowance {record['allowance']:.2f}:", "",
        "| step | taken for | azimuth | elevation | lead read off | rendered there |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for i, (azimuth, elevation, ahead) in enumerate(zip(*readings, strict=True)):
        lines.append(
            f"| {i} | {VEHICLE_NAMES[int(seen[i])]} | {azimuth % 360:.1f} | {elevation:.1f} | {ahead:.2f} | "
            f"{VEHICLE_NAMES[again[i]]} |"
        )
    return lines


def picture(study: Any, record: Record, start: Record, folder: Path) -> Path:
    """Loss and decisions over all angles, and one settled walk on them."""
    window, net = study.window(record["seed"]), study.net("base")
    window.learn().look(net)
    image = window.views(np.array([start["pose"]]))
    walks = window.walks(net, image, len(start["path"]) - 1)
    path = walks.angles[:, 0]
    azimuth, elevation = np.arange(0, 360, 4), np.arange(1, 46, 2)
    if path[:, 0].max() > azimuth[-1]:  # over the seam: the map begins at the back instead
        azimuth, path = azimuth - 180, path - [360, 0]
    views = make_turntable([VEHICLE_NAMES[window.label]], azimuth, elevation, study.args.size, window.background, paint=PAINT)  # fmt: skip  # noqa: E501
    strip = torch.cat([image, walks.images[-1], window.views(path[-1:])])
    figure = draw_walk(net, views, window.label, path, strip, classify(net, strip))
    file = folder / f"turntable_{study.experiment}_{study.network}.png"
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
