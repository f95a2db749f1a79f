"""Adversaries explained in angles: vehicles on a turntable, found, read in degrees, rendered again, learned from.

    python benchmarks/turntable.py --work out/turntable --out benchmarks/turntable.md

Experiment A has one grey background; B has a random one behind each training view, one picture behind all views of a
window, and adversarial training. Every network and every window is kept in the folder --work, so that an interrupted
run goes on; --minutes ends a run in good order. A study is named experiment:network or experiment:network:seed, and its
network, windows, poses and backgrounds are those of its seed. A folder remembers the settings of its study, and takes
no others; of changes of the code it knows nothing: give another then.

`--full` has views one degree apart at 64 pixels, about 22 CPU hours for all studies, so `make reproduce` runs the plain
one (32 pixels, 3 degrees), which took 1.7. The 22 are an estimate from what was measured at 64 pixels: an epoch of the
small network 0.0037 CPU s a view (0.0125 against PGD), of VGG11 0.053; a window with a boundary 60 to 80 CPU s on a
loaded machine (13 to render, 5.5 to learn, the rest for three kinds of walks and for pixels). That is about 2.2 hours
for each seed of A:cnn, 4.3 of B:cnn, most of it for training five networks, and 3 for A:vgg11.
"""

# ruff: noqa: E402 (threads are set before numpy starts them)
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demos"))

import numpy as np
import torch
from torch import nn
from turntable_report import FIRST_NEW, report, turn
from turntable_walks import attack, stops
from turntable_window import PAINT, Window, classify, two_layer_cnn

from manifoldkit.attacks import PGD, adversarial_training
from manifoldkit.datasets import VEHICLE_NAMES, make_turntable, turntable_background
from manifoldkit.risk import OnManifoldTest

HALF, MIDDLE = 20, 24  # a window is 40 x 40 degrees, elevations 4 to 44
NEAR = 10.0  # degrees from a start to the nearest misread view of the lattice
APART = 2 * HALF + 10  # degrees between the middles of searched windows and new ones of one vehicle
CANDIDATES = 120  # poses in a window, of which starts are taken; the others are held out
HELD = 60  # poses in a window of the second stage that are held out
EPS = 0.02  # L_inf radius of adversarial training
LEVEL = 0.9  # of held-out views, the share that loses no more than the allowance
CONTROLS = ("as before", "anywhere", "in the windows")
EXPERIMENTS = {"A": ("flat", (10, 30)), "B": ("random", (20, 30))}


def vgg11(size: int, seed: int = 0) -> nn.Sequential:
    """VGG11 with batch norm, its head reduced to one linear layer, for pictures of 32 pixels or more."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        width = 3
        for entry in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
            if entry == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, entry, 3, padding=1, bias=False), nn.BatchNorm2d(entry), nn.ReLU()]
            width = entry
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * (size // 32) ** 2, len(VEHICLE_NAMES)))


NETWORKS = {"cnn": two_layer_cnn, "vgg11": vgg11}
#: What is done where no flag says otherwise. A step of VGG11 costs a hundred times one of the small network: it has
#: fewer starts, and is not trained again.
SETTINGS: dict[str, dict[str, Any]] = {
    "A:cnn": {"epochs": 6, "windows": 17, "starts": 20, "again": 8, "controls": CONTROLS},
    "B:cnn": {"epochs": 6, "windows": 16, "starts": 20, "again": 8, "controls": CONTROLS},
    "A:vgg11": {"epochs": 2, "windows": 34, "starts": 10, "again": 0, "controls": CONTROLS},
    "B:vgg11": {"epochs": 2, "windows": 9, "starts": 10, "again": 0, "controls": CONTROLS},
}
STUDIES = ("A:cnn", "A:cnn:1", "A:cnn:2", "B:cnn", "B:cnn:1", "B:cnn:2", "A:vgg11")

Record = dict[str, Any]


class Study:
    """One experiment with one network: its files, its settings, and what is done so far."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.experiment, self.network, *seed = name.split(":")
        self.seed = int(seed[0]) if seed else 0
        given = {key: value for key, value in vars(args).items() if value is not None}
        self.args = argparse.Namespace(**SETTINGS[f"{self.experiment}:{self.network}"] | given)
        self.background, self.elevations = EXPERIMENTS[self.experiment]
        self.records: dict[str, list[Record]] = {"first": [], "second": []}
        self.folder = args.work / f"{self.experiment}_{self.network}_{args.size}_{args.step}_{self.seed}"
        kept = ("size", "step", "epochs", "windows", "starts", "controls", "walk", "copies")
        constants = {
            "half": HALF,
            "middle": MIDDLE,
            "near": NEAR,
            "candidates": CANDIDATES,
            "held": HELD,
            "level": LEVEL,
        }
        claim(self.folder, {key: getattr(self.args, key) for key in kept} | constants)

    # --- training -----------------------------------------------------------------------------------------------
    def lattice(self) -> tuple[np.ndarray, np.ndarray]:
        """Azimuths and elevations of training views: about `step` degrees apart, both ends of the elevations in."""
        low, high = self.elevations
        count = round((high - low) / self.args.step) + 1
        return np.linspace(0, 360, round(360 / self.args.step), endpoint=False), np.linspace(low, high, count)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        views = make_turntable(VEHICLE_NAMES, *self.lattice(), self.args.size, self.background, self.seed, paint=PAINT)
        return views.images, views.labels

    def net(self, name: str, extra: list[tuple[int, float, float]] | None = None) -> nn.Module:
        """The network trained on the views, and on extra (label, azimuth, elevation); from the folder if there."""
        net, file = NETWORKS[self.network](self.args.size, self.seed), self.folder / f"{name}.pt"
        if file.exists():
            net.load_state_dict(torch.load(file, weights_only=True))
            return net.eval()
        start = time.process_time()
        images, labels = self.data()
        for label, pose in by_label(extra or []):
            rng = np.random.default_rng([self.seed, 31, label])
            more = make_turntable(
                [VEHICLE_NAMES[label]], pose[:, 0] % 360, pose[:, 1].clip(1, 45), self.args.size, self.background, rng,
                lattice=False, paint=PAINT,
            )  # fmt: skip
            images, labels = np.concatenate([images, more.images]), np.concatenate([labels, more.labels + label])
        options: dict[str, Any] = {"generator": torch.Generator().manual_seed(self.seed)}
        history = adversarial_training(net, images, labels, epochs=self.args.epochs, **options)
        accuracy = history.clean_accuracy[-1]
        if self.experiment == "B":
            generator = torch.Generator().manual_seed(self.seed)
            pgd = PGD(net, EPS, EPS / 2, 5, random_start=True, early_stop=False, generator=generator)
            history = adversarial_training(net, images, labels, pgd, epochs=self.args.epochs, **options)
            accuracy = history.attacked_accuracy[-1]
        print(f"{self.folder.name} {name}: {len(images)} views, accuracy {accuracy:.3f} in training, {time.process_time() - start:.0f} CPU s", flush=True)  # fmt: skip  # noqa: E501
        partial = file.with_suffix(".partial")
        torch.save(net.state_dict(), partial)
        os.replace(partial, file)
        return net.eval()

    # --- windows ------------------------------------------------------------------------------------------------
    def where(self, number: int, rng: np.random.Generator | None = None) -> tuple[int, int]:
        """Class and middle azimuth of a window: classes in turn, azimuths drawn for the study's seed.

        Middles are whole tens of degrees, and as much on as the seed is: no two of ten seeds have a window in common.
        Of one seed they may have: `by_windows` takes those that overlap for one.
        """
        rng = np.random.default_rng([number, 17, self.seed]) if rng is None else rng
        return number % len(VEHICLE_NAMES), int(rng.integers(2, 35)) * 10 + self.seed % 10

    def place(self, number: int) -> tuple[int, int, Any]:
        """Class, middle azimuth and background of a window."""
        rng = np.random.default_rng([number, 17, self.seed])
        label, azimuth = self.where(number, rng)
        flat = self.background == "flat"
        picture = "flat" if flat else turntable_background(self.background, self.args.size, MIDDLE, rng)
        return label, azimuth, picture

    def unseen(self) -> list[int]:
        """The first windows from FIRST_NEW on that are apart from all searched ones of their vehicle, and each other.

        So far apart that no view that is added around a failure lies in them.
        """
        taken, found = [self.where(number) for number in range(self.args.windows)], []
        for number in range(FIRST_NEW, FIRST_NEW + 1000):
            label, azimuth = self.where(number)
            if len(found) < self.args.again and all(
                label != other or turn(azimuth, middle) >= APART for other, middle in taken
            ):
                found.append(number)
                taken.append((label, azimuth))
        if len(found) < self.args.again:
            raise SystemExit(
                f"{self.args.windows} searched windows leave room for {len(found)} new ones {APART} degrees from them, "
                f"not for --again {self.args.again}: give fewer --windows or a smaller --again"
            )
        return found

    def window(self, number: int, step: int = 1) -> Window:
        label, azimuth, picture = self.place(number)
        return Window.render(label, (azimuth, MIDDLE), HALF, self.args.size, picture, step)

    def poses(self, window: Window, count: int, number: int) -> np.ndarray:
        """Poses within a window, three degrees from its rim."""
        low, high = window.angles.min(axis=0) + 3, window.angles.max(axis=0) - 3
        return np.random.default_rng([number, 23, self.seed]).uniform(low, high, (count, 2))

    def first_stage(self, net: nn.Module, number: int) -> Record:
        """Starts near the boundary of one window, attacked; every adversary read, rendered again, classified."""
        label, azimuth, _ = self.place(number)
        coarse = self.window(number, step=5)
        right = float((classify(net, coarse.images) == label).mean())
        record: Record = {"seed": number, "label": label, "azimuth": azimuth, "right": right, "starts": []}
        if not 0.1 < right < 1.0:  # nothing to find, or nothing to start from
            return record
        window = self.window(number).look(net)
        assert window.leads is not None
        wrong = window.angles[window.leads > 0]
        if len(wrong) == 0:
            return record
        candidates = self.poses(window, CANDIDATES, number)
        gap = np.sqrt(np.square(candidates[:, None] - wrong).sum(axis=2)).min(axis=1)
        images = window.views(candidates)
        usable = (gap <= NEAR) & (classify(net, images) == window.label)
        chosen = np.flatnonzero(usable)[: self.args.starts]
        if len(chosen) == 0:
            return record
        window.learn()
        assert window.manifold is not None
        held = np.flatnonzero(~np.isin(np.arange(CANDIDATES), chosen))
        record["readout"] = np.abs(window.read(images[held]) - candidates[held]).tolist()
        lost = (window.manifold.project(images[held]) - images[held]).flatten(1).norm(dim=1) / window.degree
        record["detail"] = lost.tolist()
        record["allowance"] = window.allowance(net, images[held], LEVEL)
        test = OnManifoldTest(window.manifold).fit(images[held])
        rng = np.random.default_rng([number, 29, self.seed])
        found, paths = attack(
            net, window, images[chosen], candidates[chosen], test, record["allowance"], self.args.walk, rng
        )
        for i, pose in enumerate(candidates[chosen]):
            methods = {name: {key: value[i] for key, value in rows.items()} for name, rows in found.items()}
            start = {"pose": pose.tolist(), "gap": float(gap[chosen][i]), "methods": methods, "path": paths[i]}
            record["starts"].append(start)
        return record

    def second_stage(self, nets: dict[str, nn.Module], number: int) -> Record:
        """Starts anywhere in one window: which networks are right there, and which stay right under attack.

        Robust is a start that is read rightly, with no misread point on its walk; confirmed robust, if no settled walk
        from it ends where the rendering is misread.
        """
        window = self.window(number).learn()
        poses = self.poses(window, self.args.starts + HELD, number + 10_000)
        images, held = window.views(poses).split([self.args.starts, HELD])
        record: Record = {"seed": number, "label": window.label}
        for name, net in nets.items():
            allowance = window.look(net).allowance(net, held, LEVEL)
            walks = window.walks(net, images, self.args.walk)
            ends = stops(walks, window.label, allowance, self.args.walk)
            good = classify(net, images) == window.label
            last, settled = ends[", settled"]
            broken = settled & (classify(net, window.views(window.read(walks.at(last)))) != window.label)
            record[name] = {
                "clean": good.tolist(),
                "robust": (good & ~ends[""][1]).tolist(),
                "confirmed robust": (good & ~broken).tolist(),
            }
        return record

    # --- the whole ----------------------------------------------------------------------------------------------
    def run(self, deadline: float) -> bool:
        """Do what is left; False if time ran out before."""
        base, numbers = self.net("base"), range(self.args.windows)
        done = self.each("first", numbers, lambda number: self.first_stage(base, number), deadline)
        if len(done) < len(numbers):
            return False
        extra = self.extra(done)
        if not extra["failures"] or not self.args.again:
            return True
        nets = {"base": base, **{name: self.net(name, poses) for name, poses in extra.items()}}
        old = [record["seed"] for record in done if record["starts"]][: self.args.again]
        late = [*old, *self.unseen()]  # new ones as they come, whatever any network makes of them
        return len(self.each("second", late, lambda number: self.second_stage(nets, number), deadline)) == len(late)

    def each(self, stage: str, numbers: Any, work: Any, deadline: float) -> list[Record]:
        """Records of a stage, those missing made and kept one by one until the deadline."""
        file = self.folder / f"{stage}.jsonl"
        known = {r["seed"]: r for r in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
        for number in numbers:
            if number in known:
                continue
            if time.process_time() > deadline:
                break
            start = time.process_time()
            record = work(number)
            known[number] = {**record, "seconds": time.process_time() - start}
            write(file, "".join(json.dumps(entry) + "\n" for entry in known.values()))
            print(f"{self.folder.name} {stage} {number}: {known[number]['seconds']:.0f} CPU s", flush=True)
        self.records[stage] = [
            {**known[number], "network": self.seed, **dict(zip(("label", "azimuth"), self.where(number), strict=True))}
            for number in numbers
            if number in known
        ]
        return self.records[stage]

    def extra(self, records: list[Record]) -> dict[str, list[tuple[int, float, float]]]:
        """New training poses: around the confirmed failures; and for each a random one of the same vehicle elsewhere.

        Elsewhere is at the elevations trained on, at all elevations, or within the window of the failure.
        """
        rng = np.random.default_rng(5)
        poses, middles = [], []
        for record in records:
            for start in record["starts"]:
                row = start["methods"]["smoothed, settled"]
                if row["confirmed"]:
                    jitter = rng.normal(0.0, 2.0, (self.args.copies, 2))
                    poses += [(record["label"], *(np.array(row["pose"]) + move)) for move in jitter]
                    middles += self.args.copies * [record["azimuth"]]
        count, middle = len(poses), np.array(middles)
        azimuths = {name: rng.uniform(0, 360, count) for name in CONTROLS[:2]}
        azimuths["in the windows"] = middle + rng.uniform(-HALF, HALF, count)
        ranges = (self.elevations, (1, 45), (MIDDLE - HALF, MIDDLE + HALF))
        drawn = {name: rng.uniform(*ends, count) for name, ends in zip(CONTROLS, ranges, strict=True)}
        labels = [pose[0] for pose in poses]
        controls = {name: list(zip(labels, azimuths[name], drawn[name], strict=True)) for name in self.args.controls}
        return {"failures": poses, **controls}


def by_label(extra: list[tuple[int, float, float]]) -> list[tuple[int, np.ndarray]]:
    labels = sorted({entry[0] for entry in extra})
    return [(label, np.array([entry[1:] for entry in extra if entry[0] == label])) for label in labels]


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Note in a new folder by what settings its files are made; refuse one of others."""
    folder.mkdir(parents=True, exist_ok=True)
    file, wanted = folder / "settings.json", json.loads(json.dumps(settings))
    if not file.exists():
        if any(folder.iterdir()):
            raise SystemExit(f"{folder} holds files, but no settings.json that tells how they were made: give another --work")  # fmt: skip  # noqa: E501
        write(file, json.dumps(wanted, indent=1) + "\n")
        return
    kept = json.loads(file.read_text())
    other = [f"{key} {kept.get(key)}, not {wanted.get(key)}" for key in kept | wanted if kept.get(key) != wanted.get(key)]  # fmt: skip  # noqa: E501
    if other:
        raise SystemExit(f"{folder} was made with {'; '.join(other)}: give the same flags, or another --work")


def write(file: Path, text: str) -> None:
    """All of a file or nothing."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, file)


def command_line(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The flags that decide the figures."""
    words = ["python benchmarks/turntable.py"]
    for key, value in vars(args).items():
        if key in ("work", "out", "pictures", "minutes") or value is None or value == parser.get_default(key):
            continue
        words += [f"--{key}", *map(str, [] if value is True else value if isinstance(value, list) else [value])]
    words += ["--work out/turntable --out benchmarks/turntable.md", *["--pictures docs/images"] * bool(args.pictures)]
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("out/turntable"))
    parser.add_argument("--out", type=Path, help="where to write the tables")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each experiment and network")
    parser.add_argument("--studies", nargs="*", default=list(STUDIES), help="experiment:network:seed")
    parser.add_argument("--size", type=int, help="pixels, 32 if not said, 64 with --full")
    parser.add_argument("--step", type=int, help="degrees between training views, 3 if not said, 1 with --full")
    parser.add_argument("--epochs", type=int, help="of this and the next four the defaults are in SETTINGS")
    parser.add_argument("--windows", type=int)
    parser.add_argument("--again", type=int, help="windows of the second stage, old and as many new")
    parser.add_argument("--starts", type=int, help="starts in a window")
    parser.add_argument("--controls", nargs="*", choices=CONTROLS, help="other views to add")
    parser.add_argument("--walk", type=int, default=40, help="steps of an attack")
    parser.add_argument("--copies", type=int, default=10, help="new views around each confirmed failure")
    parser.add_argument("--minutes", type=float, default=1e9, help="CPU minutes after which to stop")
    parser.add_argument("--full", action="store_true", help="64 pixels and training views one degree apart")
    args = parser.parse_args()
    command = command_line(args, parser)
    args.size = args.size or (64 if args.full else 32)
    args.step = args.step or (1 if args.full else 3)
    deadline = time.process_time() + 60 * args.minutes
    studies = [Study(name, args) for name in args.studies]
    for study in studies:
        if not study.run(deadline):
            print("out of time: the same command goes on", flush=True)
            return
    text = report(studies, args, command, [name for name in STUDIES if name not in args.studies])
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
