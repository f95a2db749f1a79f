"""Are samples of the training data the likeliest, and how long may the steps of a sampler be? (Extra: flows.)

    python benchmarks/likelihoods.py --out benchmarks/likelihoods.md

A small diffusion model learns the plane Swiss roll; points of the roll, a circle, two moons and an S are scored. Each
seed draws its own data, network and paths and is written to a file of its own in the folder of `--parts`, so that an
interrupted run goes on where it was. The roll is scikit-learn's with noise 0.5, coordinates 0 and 2, divided by 10;
the others have their natural size, and noise 0.05.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import zuko
from scipy.spatial import cKDTree
from sklearn.datasets import make_circles, make_moons, make_s_curve, make_swiss_roll
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity
from torch import Tensor, nn

from manifoldkit.datasets import load_mnist
from manifoldkit.exceptions import RankDeficientWarning
from manifoldkit.isometry.networks import MLP
from manifoldkit.priors import (
    FlowPyramid,
    NoiseMLP,
    NoiseSchedule,
    NoiseUNet,
    ddim_sample,
    ddpm_sample,
    diffusion_log_prob,
    rk4_sample,
    train_eps,
)

STRIDES = (2, 5, 10, 20)
#: Of samples of images (T = 200), number of these, and paths for each image that is scored.
IMAGE_STRIDES, N_IMAGES, IMAGE_ROUNDS = (5, 10, 20, 40), 24, 4


def plane_sets(n: int, seed: int) -> dict[str, Tensor]:
    """The four sets, (n, 2) each; the first is the one to learn."""
    found = {
        "roll": make_swiss_roll(n, noise=0.5, random_state=seed)[0][:, [0, 2]] / 10,
        "circle": make_circles((n, 0), noise=0.05, random_state=seed)[0],
        "moons": make_moons(n, noise=0.05, random_state=seed)[0],
        "S": make_s_curve(n, noise=0.05, random_state=seed)[0][:, [0, 2]],
    }
    return {name: torch.tensor(x, dtype=torch.float32) for name, x in found.items()}


@torch.no_grad()
def plane(seed: int, steps: int, rounds: int) -> dict[str, float]:
    """Figures of one seed, by name."""
    clock = time.process_time()
    g = torch.Generator().manual_seed(seed)
    schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    train = plane_sets(10_000, seed)["roll"]
    net = NoiseMLP(2, 100, generator=g)
    train_eps(net, train, schedule, steps=steps, generator=g)
    found = {}

    def note(name: str, value: float) -> None:
        found[name] = float(value)
        print(f"{seed} {name}: {value:.3f} ({time.process_time() - clock:.0f} CPU s)", flush=True)

    sets = plane_sets(1000, 10_000 + seed)
    settings = {
        "": (1, "beta"),
        "stride 2, ": (2, "beta"),
        "stride 10, ": (10, "beta"),
        "posterior, ": (1, "posterior"),
    }
    for prefix, (stride, variance) in settings.items():
        scores, bounds = {}, {}
        for name, x in sets.items():
            draws = diffusion_log_prob(
                net, x, schedule, stride=stride, n_rounds=rounds, variance=variance, reduce="none", generator=g
            ) / math.log(10)  # fmt: skip
            scores[name] = draws.mean(0)
            bounds[name] = (torch.logsumexp(draws * math.log(10), 0) - math.log(rounds)) / math.log(10)
            note(f"{prefix}mean log10 p, {name}", scores[name].mean())
            if not prefix:
                note(f"logmeanexp log10 p, {name}", bounds[name].mean())
                note(f"SD over rounds, {name}", draws.std(0).mean())
                assert (bounds[name] >= scores[name]).all()
        others = [name for name in sets if name != "roll"]
        note(f"{prefix}gap of the roll to the next", scores["roll"].mean() - max(scores[o].mean() for o in others))
        for other in others:
            truth = np.repeat([1, 0], [len(scores["roll"]), len(scores[other])])
            note(
                f"{prefix}AUROC roll against {other}", roc_auc_score(truth, torch.cat([scores["roll"], scores[other]]))
            )
    density = KernelDensity(bandwidth=0.03).fit(train)
    for name, x in sets.items():
        note(f"kernel density log10 p, {name}", density.score_samples(x).mean() / math.log(10))

    start = torch.randn(1000, 2, generator=g)
    tree = cKDTree(train)
    fine = {"DDIM": ddim_sample(net, start, schedule), "RK4": rk4_sample(net, start, schedule)}
    fine["RK4, noise midpoint"] = rk4_sample(net, start, schedule, midpoint="noise")
    for h in STRIDES:
        coarse = {
            "DDIM": ddim_sample(net, start, schedule, stride=h),
            "RK4": rk4_sample(net, start, schedule, stride=h),
        }
        coarse["RK4, noise midpoint"] = rk4_sample(net, start, schedule, stride=h, midpoint="noise")
        for name, x in coarse.items():
            note(f"{name} h = {h}: distance to its h = 1", (x - fine[name]).norm(dim=1).mean())
        coarse["DDPM"] = ddpm_sample(net, start, schedule, stride=h, generator=g)
        coarse["RK4-DDPM"] = rk4_sample(net, start, schedule, stride=h, transfer="ddpm", generator=g)
        for name, x in coarse.items():
            note(f"{name} h = {h}: distance to the data", tree.query(x)[0].mean())
    found["CPU s"] = time.process_time() - clock
    return found


def image_sets(x: Tensor, seed: int) -> dict[str, Tensor]:
    """Images (n, 1, 28, 28) in [0, 1], and five ways to make them unusual."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(784, generator=g)
    return {
        "MNIST": x,
        "halves swapped": torch.roll(x, 14, dims=3),
        "one row in two": torch.where((torch.arange(28) % 2 == 0)[:, None], x, torch.zeros(())),
        "inverted": 1 - x,
        "pixels scrambled": x.flatten(1)[:, order].reshape(x.shape),
        "noise": torch.rand(x.shape, generator=g),
    }


def note_ranking(found: dict[str, float], name: str, scores: dict[str, Tensor]) -> None:
    """Areas under the curve of the first set against each other one."""
    own, *others = scores
    for other in others:
        truth = np.repeat([1, 0], [len(scores[own]), len(scores[other])])
        values = torch.cat([scores[own], scores[other]]).nan_to_num(neginf=-1e30)
        found[f"{name}: AUROC {own} against {other}"] = float(roc_auc_score(truth, values))
        print(f"{name}, {other}: {found[f'{name}: AUROC {own} against {other}']:.3f}", flush=True)


def images(seed: int, steps: int, rounds: int) -> dict[str, float]:
    """Diffusion and flow pyramid on MNIST; a tenth of the updates of the plane, as each costs more."""
    clock, found = time.process_time(), {}
    g = torch.Generator().manual_seed(seed)
    train = torch.as_tensor(load_mnist("train", download=False).images).reshape(-1, 1, 28, 28)
    test = torch.as_tensor(load_mnist("test", n_per_class=10, random_state=seed, download=False).images)
    sets = image_sets(test.reshape(-1, 1, 28, 28), seed)
    schedule = NoiseSchedule.linear(200, 1e-4, 0.08)
    net = NoiseUNet(1, 200, generator=g)
    train_eps(net, 2 * train - 1, schedule, steps=steps // 10, batch_size=32, generator=g)
    net.requires_grad_(False)
    for stride in (5, 20):
        draws = {
            name: diffusion_log_prob(
                net, 2 * x - 1, schedule, stride=stride, n_rounds=IMAGE_ROUNDS, reduce="none", batch_size=100,
                generator=g,
            )
            for name, x in sets.items()
        }  # fmt: skip
        estimates = {
            "mean": {name: paths.mean(0) for name, paths in draws.items()},
            "logmeanexp": {name: paths.logsumexp(0) - math.log(IMAGE_ROUNDS) for name, paths in draws.items()},
        }
        for estimate, scores in estimates.items():
            for name, values in scores.items():
                bits = -float(values.mean()) / 784 / math.log(2)
                found[f"diffusion, stride {stride}, {estimate}: bits a pixel, {name}"] = bits
            note_ranking(found, f"diffusion, stride {stride}, {estimate}", scores)
        for name in sets:
            assert (estimates["logmeanexp"][name] >= estimates["mean"][name]).all()
            spread = float(draws[name].std(0).mean()) / 784 / math.log(2)
            found[f"diffusion, stride {stride}: SD over paths in bits a pixel, {name}"] = spread
    print(f"{time.process_time() - clock:.0f} CPU s", flush=True)
    found |= image_samples(net, schedule, 2 * train - 1, g)
    print(f"{time.process_time() - clock:.0f} CPU s", flush=True)
    pyramid = mnist_pyramid(seed)
    pyramid.train_autoencoders(train, steps=steps // 10, generator=g)
    pyramid.train_flows(train, steps=steps // 10, generator=g)
    for level in range(pyramid.n_levels):
        codes = {name: pyramid.latent_log_prob(x, level) for name, x in sets.items()}
        note_ranking(found, f"flow pyramid, codes of level {level}", codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankDeficientWarning)
        note_ranking(found, "flow pyramid, all levels and volumes", {n: pyramid.log_prob(x) for n, x in sets.items()})
    found["CPU s"] = time.process_time() - clock
    print(f"{found['CPU s']:.0f} CPU s", flush=True)
    return found


def image_samples(net: nn.Module, schedule: NoiseSchedule, train: Tensor, g: torch.Generator) -> dict[str, float]:
    """Images in [-1, 1] by every sampler with longer and longer steps, from the same starts.

    Distances are root mean squares over pixels in [0, 1]: to the image that the same sampler makes with h = 1, and to
    the nearest training image.
    """
    start = torch.randn(N_IMAGES, 1, 28, 28, generator=g)
    found = {}

    def note(name: str, x: Tensor, fine: Tensor | None) -> None:
        nearest = torch.cat([torch.cdist(part.flatten(1), train.flatten(1)).amin(1) for part in x.split(16)])
        found[f"{name}: distance to the data"] = float(nearest.mean()) / 2 / 28
        if fine is not None:
            found[f"{name}: distance to its h = 1"] = float((x - fine).flatten(1).norm(dim=1).mean()) / 2 / 28

    samplers = {"DDIM": ddim_sample, "RK4": rk4_sample}
    fine = {name: sampler(net, start, schedule) for name, sampler in samplers.items()}
    for name, x in fine.items():
        note(f"{name} h = 1", x, None)
    note("DDPM h = 1", ddpm_sample(net, start, schedule, generator=g), None)
    for h in IMAGE_STRIDES:
        for name, sampler in samplers.items():
            note(f"{name} h = {h}", sampler(net, start, schedule, stride=h), fine[name])
        note(f"DDPM h = {h}", ddpm_sample(net, start, schedule, stride=h, generator=g), None)
        x = rk4_sample(net, start, schedule, stride=h, transfer="ddpm", generator=g)
        note(f"RK4-DDPM h = {h}", x, None)
    for name, value in found.items():
        print(f"{name}: {value:.4f}", flush=True)
    return found


class ConditionedDecoder(nn.Module):
    """Codes and the coarser image, if there is one, to an image: a perceptron."""

    def __init__(self, n_codes: int, side: int, coarser: bool, g: torch.Generator) -> None:
        super().__init__()
        self.side = side
        self.net = MLP([n_codes + (side // 2) ** 2 * coarser, 256, side**2], nn.ReLU, generator=g)

    def forward(self, y: Tensor, coarser: Tensor | None = None) -> Tensor:
        y = y if coarser is None else torch.cat([y, coarser.flatten(1)], 1)
        return torch.sigmoid(self.net(y)).reshape(-1, 1, self.side, self.side)


def mnist_pyramid(seed: int) -> FlowPyramid:
    g = torch.Generator().manual_seed(seed)
    sides, sizes = (28, 14, 7), (16, 16, 12)
    encoders = [MLP([side**2, 256, n], nn.ELU, generator=g) for side, n in zip(sides, sizes, strict=True)]
    decoders = [ConditionedDecoder(n, side, side > 7, g) for side, n in zip(sides, sizes, strict=True)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # zuko draws its weights from the global generator
        flows = [
            zuko.flows.RealNVP(n, context=(side // 2) ** 2 if side > 7 else 0, transforms=4, hidden_features=(64, 64))
            for side, n in zip(sides, sizes, strict=True)
        ]
    return FlowPyramid(encoders, decoders, flows, (1, 28, 28))


PARTS = {"The plane Swiss roll": plane, "MNIST": images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8000, help="updates of the network, of 512 points")
    parser.add_argument("--rounds", type=int, default=8, help="paths for each point")
    parser.add_argument("--parts", type=Path, default=Path("out/likelihoods"), help="folder of finished seeds")
    names = [part.__name__ for part in PARTS.values()]
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="parts of the table")
    parser.add_argument(
        "--finished", action="store_true", help="compute nothing: the table of the files that are there"
    )
    args = parser.parse_args()
    args.parts.mkdir(parents=True, exist_ok=True)
    tables = []
    for title, part in PARTS.items():
        if part.__name__ not in args.only:
            continue
        results = []
        for seed in range(args.seeds):
            path = args.parts / f"{part.__name__}-{seed}-{args.steps}-{args.rounds}.json"
            if args.finished and not path.exists():
                continue
            if not path.exists():
                path.write_text(json.dumps(part(seed, args.steps, args.rounds), indent=1))
            results.append(json.loads(path.read_text()))
        if not results:
            continue
        tables += ["", f"## {title}", "", "| | mean ± SD | seed by seed |", "|---|---|---|"]
        for name in results[0]:
            values = np.array([result[name] for result in results])
            each = ", ".join(f"{value:.3g}" for value in values)
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            tables.append(f"| {name} | {values.mean():.3f}{spread} | {each} |")
    lines = [
        "# Likelihoods and samples of diffusion models, and the ranking of a flow pyramid", "",
        f"    python benchmarks/likelihoods.py --seeds {args.seeds} --out benchmarks/likelihoods.md", "",
        f"Seeds 0 to {args.seeds - 1} (fewer where a row has fewer numbers), {platform.machine()}, {os.cpu_count()} "
        "cores. Plane: "
        f"{args.steps} updates of 512 points; 1,000 fresh points of each set, {args.rounds} paths a point; variance "
        '"beta" and stride 1 where nothing else is said; densities of the plane, log10. A distance to h = 1 is that '
        "between the ends from the same start, mean over 1,000; RK4 calls the network four times a step (and once more "
        "for each half-integer time), so RK4 at h = 20 costs about as much as DDIM at h = 5. MNIST: pixels in [-1, 1] "
        f"for the diffusion (T = 200, NoiseUNet, {args.steps // 10} updates of 32 images, {IMAGE_ROUNDS} paths an "
        "image), in [0, 1] for the pyramid of zuko's RealNVP (28, 14, 7 pixels; level 0 is the finest); 100 test "
        f"images, and the same made unusual. Distances of {N_IMAGES} samples are root mean squares over pixels.",
        *tables,
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
