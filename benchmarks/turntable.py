"""Adversaries explained in angles: vehicles on a turntable, found, read in degrees, rendered again, learned from.

    python benchmarks/turntable.py --work out/turntable --out benchmarks/turntable.md

Experiment A has one grey background, B a random one for each view and adversarial training. Every network and every
window is kept in the folder --work, so that an interrupted run goes on; --minutes ends a run in good order. A study is
named experiment:network or experiment:network:seed. `--full` has views one degree apart at 64 pixels, more windows.
"""

# ruff: noqa: E402 (threads are set before numpy starts them)
from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demos"))

import numpy as np
import torch
from torch import Tensor, nn
from turntable_report import report
from turntable_window import PAINT, Window, classify, first_step, two_layer_cnn

from manifoldkit.attacks import PGD, OnManifoldPGD, RandomTangentWalk, adversarial_training
from manifoldkit.datasets import VEHICLE_NAMES, make_turntable, turntable_background
from manifoldkit.risk import OnManifoldTest

HALF, MIDDLE = 20, 24  # a window is 40 x 40 degrees, elevations 4 to 44
NEAR = 10.0  # degrees from a start to the nearest misread view of the lattice
CANDIDATES = 120  # poses in a window, of which starts are taken; the others are held out
EPS = 0.02  # L_inf radius of adversarial training
TANGENTS = ("smoothed", "sec")
DEEPER = 6  # steps of half a degree past the boundary
LEVEL = 0.9  # of held-out views, the share that loses no more than the allowance
CONTROLS = ("as before", "anywhere")
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
    "A:cnn": {"epochs": 6, "windows": 17, "starts": 20, "again": 3, "controls": CONTROLS},
    "B:cnn": {"epochs": 6, "windows": 16, "starts": 20, "again": 3, "controls": CONTROLS},
    "A:vgg11": {"epochs": 2, "windows": 34, "starts": 10, "again": 0, "controls": CONTROLS},
    "B:vgg11": {"epochs": 2, "windows": 9, "starts": 10, "again": 0, "controls": CONTROLS},
}


STUDIES = ("A:cnn", "A:cnn:1", "A:cnn:2", "B:cnn", "B:cnn:1", "B:cnn:2", "A:vgg11")


class Study:
    """One experiment with one network: its files, its settings, and what is done so far."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.experiment, self.network, *seed = name.split(":")
        self.seed = int(seed[0]) if seed else 0
        given = {key: value for key, value in vars(args).items() if value is not None}
        self.args = argparse.Namespace(**SETTINGS[f"{self.experiment}:{self.network}"] | given)
        self.background, self.elevations = EXPERIMENTS[self.experiment]
        self.folder = args.work / f"{self.experiment}_{self.network}_{args.size}_{args.step}_{self.seed}"
        self.folder.mkdir(parents=True, exist_ok=True)

    # --- training -----------------------------------------------------------------------------------------------
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.elevations
        azimuth, elevation = range(0, 360, self.args.step), range(low, high + 1, self.args.step)
        views = make_turntable(VEHICLE_NAMES, azimuth, elevation, self.args.size, self.background, 0, paint=PAINT)
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
            more = make_turntable(
                [VEHICLE_NAMES[label]], pose[:, 0] % 360, pose[:, 1].clip(1, 45), self.args.size, self.background, 1,
                lattice=False, paint=PAINT,
            )  # fmt: skip
            images, labels = np.concatenate([images, more.images]), np.concatenate([labels, more.labels + label])
        options: dict[str, Any] = {"generator": torch.Generator().manual_seed(self.seed)}
        history = adversarial_training(net, images, labels, epochs=self.args.epochs, **options)
        accuracy = history.clean_accuracy[-1]
        if self.experiment == "B":
            attack = PGD(net, EPS, EPS / 2, 5, random_start=True, early_stop=False, generator=torch.Generator().manual_seed(self.seed))  # fmt: skip  # noqa: E501
            history = adversarial_training(net, images, labels, attack, epochs=self.args.epochs, **options)
            accuracy = history.attacked_accuracy[-1]
        print(f"{self.folder.name} {name}: {len(images)} views, accuracy {accuracy:.3f} in training, {time.process_time() - start:.0f} CPU s", flush=True)  # fmt: skip  # noqa: E501
        torch.save(net.state_dict(), file)
        return net.eval()

    # --- windows ------------------------------------------------------------------------------------------------
    def place(self, seed: int) -> tuple[int, int, Any]:
        """Class, middle azimuth and background of window number `seed`: classes in turn, the others drawn."""
        rng = np.random.default_rng([seed, 17])
        azimuth = int(rng.integers(2, 35)) * 10
        flat = self.background == "flat"
        picture = "flat" if flat else turntable_background(self.background, self.args.size, MIDDLE, rng)
        return seed % len(VEHICLE_NAMES), azimuth, picture

    def window(self, seed: int, step: int = 1) -> Window:
        label, azimuth, picture = self.place(seed)
        return Window.render(label, (azimuth, MIDDLE), HALF, self.args.size, picture, step)

    def poses(self, window: Window, count: int, seed: int) -> np.ndarray:
        """Poses within a window, three degrees from its rim."""
        low, high = window.angles.min(axis=0) + 3, window.angles.max(axis=0) - 3
        return np.random.default_rng([seed, 23]).uniform(low, high, (count, 2))

    def share_right(self, net: nn.Module, seed: int) -> float:
        """Share of a window's views, five degrees apart, that are read rightly."""
        coarse = self.window(seed, step=5)
        return float((classify(net, coarse.images) == coarse.label).mean())

    def first_stage(self, net: nn.Module, seed: int) -> dict[str, Any]:
        """Starts near the boundary of one window, attacked; every adversary read, rendered again, classified."""
        label, azimuth, _ = self.place(seed)
        right = self.share_right(net, seed)
        record: dict[str, Any] = {"seed": seed, "label": label, "azimuth": azimuth, "right": right, "starts": []}
        if not mixed(right):
            return record
        window = self.window(seed).look(net)
        assert window.leads is not None
        candidates = self.poses(window, CANDIDATES, seed)
        wrong = window.angles[window.leads > 0]
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
        found, paths = attack(net, window, images[chosen], test, record["allowance"], self.args.walk)
        for i, pose in enumerate(candidates[chosen]):
            methods = {name: {key: value[i] for key, value in rows.items()} for name, rows in found.items()}
            record["starts"].append({"pose": pose.tolist(), "gap": float(gap[chosen][i]), "methods": methods, "path": paths[i]})  # fmt: skip  # noqa: E501
        return record

    def second_stage(self, nets: dict[str, nn.Module], seed: int) -> dict[str, Any]:
        """Starts anywhere in one window: which networks are right there, and which stay right under attack."""
        window = self.window(seed).learn()
        poses = self.poses(window, self.args.starts, seed + 10_000)
        images, labels = window.views(poses), torch.full((self.args.starts,), window.label)
        record: dict[str, Any] = {"seed": seed, "label": window.label}
        for name, net in nets.items():
            walk = OnManifoldPGD(net, window.manifold, window.degree / 2, self.args.walk)
            good = classify(net, images) == window.label
            robust = good & ~walk.run(images, labels).success.numpy()
            record[name] = {"clean": good.tolist(), "robust": robust.tolist()}
        return record

    # --- the whole ----------------------------------------------------------------------------------------------
    def run(self, deadline: float) -> bool:
        """Do what is left; False if time ran out before."""
        base = self.net("base")
        seeds = range(self.args.windows)
        done = self.each("first", seeds, lambda seed: self.first_stage(base, seed), deadline)
        if len(done) < len(seeds):
            return False
        extra = self.extra(done)
        if not extra["failures"] or not self.args.again:
            return True
        nets = {"base": base, **{name: self.net(name, poses) for name, poses in extra.items()}}
        old = (record["seed"] for record in done if record["starts"])
        new = (seed for seed in itertools.count(1000) if mixed(self.share_right(base, seed)))
        late = [*itertools.islice(old, self.args.again), *itertools.islice(new, self.args.again)]
        return len(self.each("second", late, lambda seed: self.second_stage(nets, seed), deadline)) == len(late)

    def each(self, stage: str, seeds: Any, work: Any, deadline: float) -> list[dict[str, Any]]:
        """Records of a stage, those missing made and kept one by one until the deadline."""
        file = self.folder / f"{stage}.jsonl"
        known = {r["seed"]: r for r in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
        for seed in seeds:
            if seed in known:
                continue
            if time.process_time() > deadline:
                break
            start = time.process_time()
            known[seed] = {**work(seed), "seconds": 0.0}
            known[seed]["seconds"] = time.process_time() - start
            with file.open("a") as out:
                out.write(json.dumps(known[seed]) + "\n")
            print(f"{self.folder.name} {stage} {seed}: {known[seed]['seconds']:.0f} CPU s", flush=True)
        return [known[seed] for seed in seeds if seed in known]

    def extra(self, records: list[dict[str, Any]]) -> dict[str, list[tuple[int, float, float]]]:
        """New training poses: around the confirmed failures; and as many drawn as before, or over all elevations."""
        rng = np.random.default_rng(5)
        poses = []
        for record in records:
            for start in record["starts"]:
                row = start["methods"]["smoothed, settled"]
                if row["confirmed"]:
                    jitter = rng.normal(0.0, 2.0, (self.args.copies, 2))
                    poses += [(record["label"], *(np.array(row["pose"]) + move)) for move in jitter]
        controls = {}
        for name, (low, high) in zip(CONTROLS, (self.elevations, (1, 45)), strict=True):
            angles = np.column_stack([rng.uniform(0, 360, len(poses)), rng.uniform(low, high, len(poses))])
            controls[name] = [(pose[0], *angle) for pose, angle in zip(poses, angles, strict=True)]
        return {"failures": poses, **{name: controls[name] for name in self.args.controls}}


def mixed(right: float) -> bool:
    """Whether there is something to find, and something to start from."""
    return 0.1 < right < 1.0


def by_label(extra: list[tuple[int, float, float]]) -> list[tuple[int, np.ndarray]]:
    labels = sorted({entry[0] for entry in extra})
    return [(label, np.array([entry[1:] for entry in extra if entry[0] == label])) for label in labels]


def attack(
    net: nn.Module, window: Window, images: Tensor, test: OnManifoldTest, allowance: float, steps: int
) -> tuple[dict[str, dict[str, list[Any]]], list[list[Any]]]:
    """Figures of each method, one entry for each start; and what is read at every step of the filtered walks."""
    labels = torch.full((len(images),), window.label)
    alpha, manifold = window.degree / 2, window.manifold
    assert manifold is not None
    found: dict[str, tuple[Tensor, np.ndarray, bool]] = {}  # adversaries, success, whether to read the nearest view
    paths: list[list[Any]] = []
    for tangents in TANGENTS:
        manifold.set_params(tangent_method=tangents)
        walks = window.walks(net, images, steps + DEEPER)
        wrong, last = walks.seen != window.label, len(walks.seen) - 1
        crossed = first_step(wrong[: steps + 1])
        settled = first_step((wrong & (walks.lead > allowance))[: steps + 1])
        deeper = np.where(crossed < 0, -1, np.minimum(crossed + DEEPER, last))
        deeper[~wrong[deeper, np.arange(len(images))]] = -1
        for name, stop in (("", crossed), (", settled", settled), (", deeper", deeper)):
            found[tangents + name] = walks.at(stop), stop >= 0, False
        if not paths:
            for i, stop in enumerate(np.where(settled < 0, last, settled)):
                rows = zip(walks.seen[: stop + 1, i], walks.angles[: stop + 1, i], walks.lead[: stop + 1, i], strict=True)  # fmt: skip  # noqa: E501
                paths.append([[int(seen), *(round(float(value), 3) for value in (*pose, lead))] for seen, pose, lead in rows])  # fmt: skip  # noqa: E501
    first = TANGENTS[0]
    manifold.set_params(tangent_method=first)
    for name in ("", ", settled"):
        found["nearest view" + name] = *found[first + name][:2], True
    walk = RandomTangentWalk(net, manifold, alpha, steps, generator=torch.Generator().manual_seed(0))
    result = walk.run(images, labels)
    found["random walk"] = result.adversarial, result.success.numpy(), False
    pixels = PGD(net, 0.05, 0.005, 20, generator=torch.Generator().manual_seed(0)).run(images, labels)
    good = pixels.success.numpy()
    found["pixels, nearest view"] = pixels.adversarial, good, True
    found["pixels, projected"] = manifold.project(pixels.adversarial).clamp(0, 1), good, False
    poses = [window.nearest(x) if near else window.read(x) for x, _, near in found.values()]
    again = window.views(np.concatenate(poses)).split(len(images))
    rows = zip(found.items(), poses, again, strict=True)
    return {name: figures(net, window, images, *what[:2], pose, view, test) for (name, what), pose, view in rows}, paths


def figures(
    net: nn.Module, window: Window, images: Tensor, adversarial: Tensor, good: np.ndarray, pose: np.ndarray,
    again: Tensor, test: OnManifoldTest,
) -> dict[str, list[Any]]:  # fmt: skip
    """Confirmed is an adversary whose pose, rendered, is misread; same, if it is misread as the same class."""
    seen, told = classify(net, adversarial), classify(net, again)
    report = test.test(adversarial, images)
    return {
        "success": good.tolist(),
        "seen": seen.tolist(),
        "confirmed": (good & (told != window.label)).tolist(),
        "same": (good & (told == seen) & (told != window.label)).tolist(),
        "pose": pose.tolist(),
        "distance_p": report.distance_p.tolist(),
        "from rendering": ((again - adversarial).flatten(1).norm(dim=1) / window.degree).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("out/turntable"))
    parser.add_argument("--out", type=Path, help="where to write the tables")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each study")
    parser.add_argument("--studies", nargs="*", default=list(STUDIES), help="experiment:network:seed")
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--step", type=int, default=3, help="degrees between training views")
    parser.add_argument("--epochs", type=int, help="of this and the next four the defaults are in SETTINGS")
    parser.add_argument("--windows", type=int)
    parser.add_argument("--again", type=int, help="windows of the second stage, old and as many new")
    parser.add_argument("--starts", type=int, help="starts in a window")
    parser.add_argument("--controls", nargs="*", choices=CONTROLS, help="other views to add")
    parser.add_argument("--walk", type=int, default=40, help="steps of an attack")
    parser.add_argument("--copies", type=int, default=10, help="new views around each confirmed failure")
    parser.add_argument("--minutes", type=float, default=1e9, help="CPU minutes after which to stop")
    parser.add_argument("--full", action="store_true", help="64 pixels, training views one degree apart, 140 windows")
    args = parser.parse_args()
    if args.full:
        args.size, args.step, args.epochs, args.windows, args.starts, args.again = 64, 1, 6, 140, 20, 35
    deadline = time.process_time() + 60 * args.minutes
    studies = [Study(name, args) for name in args.studies]
    for study in studies:
        if not study.run(deadline):
            print("out of time: the same command goes on", flush=True)
            return
    given = [f"--{key} {value}" for key, value in vars(args).items() if key in ("size", "step", "epochs", "windows", "starts", "again") and value is not None]  # fmt: skip  # noqa: E501
    command = " ".join(["python benchmarks/turntable.py --studies", *args.studies, *given])
    command = f"{command} --work out/turntable --out benchmarks/turntable.md"
    text = report(studies, args, command, [name for name in STUDIES if name not in args.studies])
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
