"""
Adversaries in degrees: vehicles on a turntable
===============================================

Seven vehicles are rendered from all sides (this needs pyvista: ``pip install "manifoldkit[render]"``). A small network
learns to tell them apart, all in one grey paint, seen from 10 to 30 degrees above the horizon. The demo

1. draws a contact sheet of the vehicles before three kinds of background,
2. maps what the network takes one of them for over azimuth and elevation, far beyond where it was trained,
3. learns the surface of views around places near the border of an error, and walks along it from a view that the
   network reads rightly, until it is misread by more than renderings differ from the surface,
4. reads azimuth and elevation off the adversary, renders the vehicle there, and asks the network again.

Look at the table: of the walks that broke the network, most explanations hold, for the rendered view is misread too.
Look at the map: the walk leads from the white region, where the vehicle is seen for what it is, into a coloured one;
its steps are listed below the table.
`benchmarks/turntable.md` has the figures of hundreds of such walks, beside those of other ways to find such views.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm
from turntable_window import PAINT, Window, classify, draw_walk, first_step, two_layer_cnn

from manifoldkit.attacks import adversarial_training
from manifoldkit.datasets import VEHICLE_NAMES, make_turntable

SIZE, HALF, MIDDLE = 32, 12, 32
SHEET = ((0, 12), (35, 12), (70, 20), (110, 12), (150, 25), (200, 30), (250, 5), (325, 40))


def contact_sheet(size: int = 64) -> Figure:
    """Every vehicle from eight sides: in its own paint, and in grey before random colours and before scenes."""
    azimuth, elevation = np.array(SHEET).T
    kinds = {"flat": None, "random": PAINT, "scenes": None}
    figure, axes = plt.subplots(len(VEHICLE_NAMES), 1, figsize=(11, 7.0), layout="constrained")
    sheets = []
    for column, (kind, paint) in enumerate(kinds.items()):
        count = len(SHEET) if column == 0 else 2
        views = make_turntable(
            VEHICLE_NAMES, azimuth[-count:], elevation[-count:], size, kind, 0, lattice=False, paint=paint
        )
        sheets.append(views.images.reshape(len(VEHICLE_NAMES), count, 3, size, size))
    for name, row, ax in zip(VEHICLE_NAMES, np.concatenate(sheets, axis=1), axes, strict=True):
        ax.imshow(np.concatenate(row.transpose(0, 2, 3, 1), axis=1))
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
        ax.set_xticks([])
        ax.set_yticks([])
    axes[-1].set_xticks([size * (i + 0.5) for i in range(12)], [f"{a}°, {e}°" for a, e in [*SHEET, *SHEET[-2:] * 2]])
    axes[-1].tick_params(length=0)
    figure.suptitle("azimuth and elevation below; right: in grey before random colours, and before scenes")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--vehicle", choices=VEHICLE_NAMES, default="pickup")
    parser.add_argument("--starts", type=int, default=6, help="walks in each of the three windows")
    parser.add_argument("--sheet-only", action="store_true", help="draw the contact sheet and stop")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    save(contact_sheet(), args.out / "turntable_sheet.png")
    if args.sheet_only:
        return

    views = make_turntable(VEHICLE_NAMES, range(0, 360, 5), range(10, 31, 5), SIZE, paint=PAINT, progress=True)
    net = two_layer_cnn(SIZE)
    adversarial_training(
        net, views.images, views.labels, epochs=12, generator=torch.Generator().manual_seed(0), progress=True
    )
    label = VEHICLE_NAMES.index(args.vehicle)
    azimuth, elevation = np.arange(0, 360, 3), np.arange(1, 46, 2)
    around = make_turntable([args.vehicle], azimuth, elevation, SIZE, paint=PAINT, progress=True)
    right = (classify(net, around.images) == label).reshape(len(azimuth), len(elevation))
    print(f"the {args.vehicle} is read rightly in {right.mean():.0%} of all views")

    print("azimuth  elevation  steps  taken for    read as          rendered there  confirmed")
    broken, confirmed, best = 0, 0, None
    for middle in tqdm(mixed_windows(right, azimuth, elevation), desc="windows", disable=None):
        window = Window.render(label, (middle, MIDDLE), HALF, SIZE).learn().look(net)
        low, high = window.angles.min(axis=0) + 2, window.angles.max(axis=0) - 2
        poses = np.random.default_rng(middle).uniform(low, high, (60, 2))
        images = window.views(poses)
        good = np.flatnonzero(classify(net, images) == label)[: args.starts]
        if len(good) == 0:
            continue
        walks = window.walks(net, images[good], 40)
        held = torch.from_numpy(np.delete(images.numpy(), good, axis=0))
        allowance = window.allowance(net, held)
        stops = first_step((walks.seen != label) & (walks.lead > allowance))
        ends = walks.angles[stops, np.arange(len(good))]
        again = window.views(ends)
        verdict = classify(net, again)
        for i in np.flatnonzero(stops > 0):
            holds, stop, start = verdict[i] != label, stops[i], poses[good[i]]
            broken, confirmed = broken + 1, confirmed + holds
            seen, told, (a, e) = VEHICLE_NAMES[walks.seen[stop, i]], VEHICLE_NAMES[verdict[i]], ends[i]
            tqdm.write(
                f"{start[0] % 360:7.1f}  {start[1]:9.1f}  {stop:5d}  {seen:<11}  {a % 360:5.1f}°, {e:4.1f}°    "
                f"{told:<14}  {'yes' if holds else 'no'}"
            )
            path = walks.angles[: stop + 1, i]
            within = path[:, 0].min() >= 0 and path[:, 0].max() < 360
            if holds and within and (best is None or len(path) > len(best[0])):
                strip = torch.stack([images[good[i]], walks.images[stop, i], again[i]])
                best = path, strip, walks.seen[: stop + 1, i], walks.lead[: stop + 1, i]
    print(f"{broken} walks broke the network, {confirmed} of their explanations are confirmed by rendering")
    if best is not None:
        path, strip, seen, lead = best
        print(
            "the longest of these:\n step  azimuth  elevation  taken for    lead of the wrong class in the views there"
        )
        for step, ((a, e), index, ahead) in enumerate(zip(path, seen, lead, strict=True)):
            print(f"{step:5d}  {a % 360:7.1f}  {e:9.1f}  {VEHICLE_NAMES[index]:<11}  {ahead:+.2f}")
        save(draw_walk(net, around, label, path, strip, classify(net, strip)), args.out / "turntable_map.png")


def mixed_windows(right: np.ndarray, azimuth: np.ndarray, elevation: np.ndarray, count: int = 3) -> list[int]:
    """Middles of the windows, no two overlapping, in which right and wrong views are best mixed."""
    inside = np.abs(elevation - MIDDLE) <= HALF
    share = np.array([right[np.ix_(np.abs(azimuth - a) <= HALF, inside)].mean() for a in azimuth])
    share[(azimuth < HALF) | (azimuth > 359 - HALF)] = 1.0  # those at the seam would be drawn in two parts
    chosen: list[int] = []
    for a in azimuth[np.argsort(np.abs(share - 0.6))]:
        if len(chosen) < count and all(abs(int(a) - b) > 2 * HALF for b in chosen):
            chosen.append(int(a))
    return chosen


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
