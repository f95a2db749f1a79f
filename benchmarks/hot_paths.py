"""What happens after the fit, against its units: new points, vector fields, projection, attack steps, memory, import.

    python benchmarks/hot_paths.py > benchmarks/hot_paths.md

CPU seconds of one core, medians of alternating repeats; what needs a memory figure runs in a process of its own.
Needs the MNIST files of `data/`.
"""

# ruff: noqa: E402 (threads are set before numpy starts them)
from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "demos"))

import numpy as np
import torch
from fit import N_NEW, N_PAIRS, roll
from mnist_classifier import SmallCNN

from manifoldkit import DiffusionManifold, ExteriorCalculus, ManifoldAtlas
from manifoldkit.attacks import PGD, OnManifoldPGD
from manifoldkit.datasets import load_mnist, make_torus

SECTIONS = ("transform", "sec", "project", "attack", "memory", "import", "growth")
EXTERIOR = {30: (75, 0.5, 0.3), 50: (125, 2, 0.5), 80: (200, 30, 1)}  # M: N0, CPU s, GB
BATCH = 256


def cpu(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def medians(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each job, run in turn."""
    for job in jobs.values():
        job()
    seconds = [{name: cpu(job) for name, job in jobs.items()} for _ in range(repeats)]
    return {name: statistics.median(row[name] for row in seconds) for name in jobs}


def table(title: str, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def memory_of(name: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most (VmHWM); `getrusage` would count that of the parent process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


# ------------------------------------------------------------ new points


def transform(repeats: int) -> None:
    rows = []
    for n in (20_000, 100_000):
        fitted, new = DiffusionManifold(N_PAIRS).fit(roll(n, 0)[0]), roll(N_NEW, 1)[0]
        search, length = fitted._sampling.search, fitted._row_options["support"].length
        moved = fitted._sampling.frame(new)
        jobs = {
            "query": lambda search=search, moved=moved, length=length: search.kneighbors(moved, length),
            "transform": lambda fitted=fitted, new=new: fitted.transform(new),
        }
        found = medians(jobs, repeats)
        rows.append((f"{n:,}", length, found["query"], found["transform"], found["transform"] / found["query"], 1.3))
    head = ("n", "neighbours", "their search, CPU s", "transform, CPU s", "ratio", "target")
    table(f"{N_NEW:,} new points of a Swiss roll in 3 dimensions, {N_PAIRS} pairs", head, rows)


# ------------------------------------------------------------ exterior calculus


def exterior_once(m: int, seed: int) -> None:
    """One measurement as a line of JSON; peak memory is that of the process, imports and fit included."""
    n_products = EXTERIOR[m][0]
    fitted = DiffusionManifold(n_products, 20, dimension=2).fit(make_torus(2000, random_state=seed).points)
    before = memory_of("VmRSS")
    seconds = cpu(lambda: ExteriorCalculus(fitted, m, n_products).fit())
    peak = memory_of("VmHWM")
    print(json.dumps({"seconds": seconds, "peak": peak / 1e9, "added": max(0, peak - before) / 1e9}))


def exterior(repeats: int) -> None:
    a = np.random.default_rng(0).normal(size=(1500, 1500))
    rate = 2 * 1500**3 / statistics.median(cpu(lambda: a @ a) for _ in range(5))
    rows = []
    for m, (n_products, seconds, memory) in EXTERIOR.items():
        command = [sys.executable, __file__, "--exterior", str(m)]
        lines = [
            json.loads(subprocess.run([*command, str(seed)], capture_output=True, text=True, check=True).stdout)
            for seed in range(repeats)
        ]
        size = m * (m - 1) // 2
        floor = (2 * m**4 * n_products + 4 / 3 * size**3) / rate
        figures = {key: statistics.median(line[key] for line in lines) for key in lines[0]}
        rows.append((m, n_products, figures["seconds"], seconds, floor, figures["peak"], figures["added"], memory))
    head = ("M", "N0", "CPU s", "target", "flops of G, E and tridiagonal form at GEMM rate, s")
    head += ("peak GB", "of it after the fit", "target")
    table("Vector fields (SEC) after the spectrum, torus, n = 2,000", head, rows)


# ------------------------------------------------------------ projection


def mnist_fits(n: int) -> dict[str, DiffusionManifold]:
    """The kernel for images, as in the demo, and a full kernel on the same images."""
    images = load_mnist("train", n_per_class=n // 10, random_state=0)[0].reshape(n, -1).astype(np.float64)
    local = {"n_components": 200, "n_projection_components": 200, "n_kernel_neighbors": 64}
    full = {"n_components": 60, "n_projection_components": 60, "epsilon": 0.6}
    common = {"n_neighbors": 10, "dimension": 12}
    return {"local kernel, L = 200": DiffusionManifold(**common, **local).fit(images),
            "full kernel, L = 60": DiffusionManifold(**common, **full).fit(images)}  # fmt: skip


def projection(fits: dict[str, DiffusionManifold], repeats: int) -> None:
    images = load_mnist("test", n_per_class=26, random_state=0)[0][:BATCH]
    x = torch.from_numpy(images.reshape(len(images), -1).astype(np.float64))
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = []
    for name, fitted in fits.items():
        layer = fitted.to_module()
        points = layer.row.points.clone()
        squares = points.square().sum(dim=1)

        def product(layer=layer):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(layer(leaf), leaf, g)

        jobs = {
            "unit": lambda points=points, squares=squares: torch.addmm(squares, x, points.T, alpha=-2),
            "vjp": product,
            "project": lambda fitted=fitted: fitted.project(x),
        }
        found = medians(jobs, repeats)
        ratios = (found["vjp"] / found["unit"], 3, found["project"] / found["unit"])
        rows.append((name, f"{len(x)} x {len(points)}", found["unit"], *ratios))
    head = ("fit", "size", "one distance GEMM, CPU s", "projection + vjp, units", "target", "project(), units")
    table("Projection of 784-d images, float64", head, rows)


# ------------------------------------------------------------ attack step


class Stubborn(torch.nn.Module):
    """A classifier that never changes its mind, so that no walk ends; the margin's gradient is the network's."""

    def __init__(self, network: torch.nn.Module, labels: torch.Tensor) -> None:
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + 1e3 * torch.nn.functional.one_hot(self.labels, 10)


def attack(repeats: int, per_class: int) -> None:
    images, labels = load_mnist("train", n_per_class=per_class, random_state=0)
    prototype = DiffusionManifold(
        200, 10, dimension=12, n_projection_components=200, n_kernel_neighbors=64, n_tangent_neighbors=64,
        tangent_method="smoothed",
    )  # fmt: skip
    atlas = ManifoldAtlas(prototype).fit(images, labels)
    images, labels = load_mnist("test", n_per_class=26, random_state=0)
    x, y = torch.from_numpy(images[:BATCH]).float(), torch.from_numpy(labels[:BATCH]).long()
    torch.manual_seed(0)
    model = Stubborn(SmallCNN(), y)
    makers = {"plain": lambda steps: PGD(model, eps=0.3, steps=steps, loss="margin")}
    for tangent in ("refresh", "fixed"):
        for projection in ("normal", "full"):
            options = {"tangent": tangent, "projection": projection, "alpha": 1, "loss": "margin"}
            makers[f"{tangent}, {projection}"] = lambda steps, o=options: OnManifoldPGD(model, atlas, steps=steps, **o)
    jobs = {(name, n): lambda m=m, n=n: m(n).run(x, y) for name, m in makers.items() for n in (1, 5)}
    found = medians(jobs, repeats)
    step = {name: (found[name, 5] - found[name, 1]) / 4 for name in makers}
    rows = [(name, value, value / step["plain"], "" if name == "plain" else 3) for name, value in step.items()]
    head = ("step (tangent, projection)", "CPU s", "plain steps", "target")
    table(f"Attack step, {BATCH} MNIST images, small CNN, class manifolds of {per_class} images", head, rows)


# ------------------------------------------------------------ memory and import


def memory(fits: dict[str, DiffusionManifold]) -> None:
    rows = []
    for name, fitted in fits.items():
        buffer = io.BytesIO()
        pickle.dump(fitted, buffer)
        n, d = fitted._sampling.points.shape
        parts = {"n D": 8 * n * d, "n N": 8 * n * fitted.n_components_}
        arrays = [] if (support := fitted._row_options["support"]) is None else vars(support).values()
        parts["reach"] = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        parts["L D"] = 8 * fitted.n_projection_components_ * d
        share = buffer.tell() / sum(parts.values())
        sizes = [f"{size / 2**20:.1f}" for size in parts.values()]
        rows.append((name, *sizes, f"{buffer.tell() / 2**20:.1f}", share))
    table("Memory of a fitted manifold (its pickle), MiB", ("fit", *parts, "pickle", "pickle / parts"), rows)


def imports(repeats: int) -> None:
    report = "import time; print(time.process_time())"
    codes = {"torch, sklearn": "import torch, sklearn", "manifoldkit": "import manifoldkit"}
    seconds = [{name: float(python(f"{code}; {report}")) for name, code in codes.items()} for _ in range(repeats)]
    found = {name: statistics.median(row[name] for row in seconds) for name in codes}
    rows = [(name, value, value / found["torch, sklearn"], 1.1) for name, value in found.items()]
    table("Import, fresh processes", ("import", "CPU s", "ratio", "target"), rows)


# ------------------------------------------------------------ growth with n


def growths(repeats: int) -> None:
    """Exponents of CPU seconds over a decade of n."""
    images = load_mnist("train", n_per_class=600, random_state=0)[0].reshape(6000, -1).astype(np.float64)
    new = torch.from_numpy(load_mnist("test", n_per_class=26, random_state=0)[0][:BATCH].reshape(BATCH, -1)).double()
    g = torch.randn(new.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def vjp(n: int, **options: object) -> Callable[[], object]:
        layer = (
            DiffusionManifold(60, 10, dimension=12, n_projection_components=60, **options).fit(images[:n]).to_module()
        )
        leaf = new.clone().requires_grad_()
        return lambda: torch.autograd.grad(layer(leaf), leaf, g)

    def rolled(n: int) -> Callable[[], object]:
        fitted, queries = DiffusionManifold(N_PAIRS).fit(roll(n, 0)[0]), roll(N_NEW, 1)[0]
        return lambda: fitted.transform(queries)

    def fields(n: int) -> Callable[[], object]:
        fitted = DiffusionManifold(75, 20, dimension=2).fit(make_torus(n, random_state=0).points)
        return lambda: ExteriorCalculus(fitted, 30, 75).fit()

    def tangents(n: int) -> Callable[[], object]:
        points = make_torus(n, random_state=0).points
        fitted = DiffusionManifold(30, 20, dimension=2).fit(points)
        fitted.tangent_basis(points[:2])
        return lambda: fitted.tangent_basis(points[:500])

    jobs = {
        "transform of 10,000 new points, Swiss roll": (rolled, 10_000, 100_000),
        "projection + vjp, 256 images, full kernel": (lambda n: vjp(n, epsilon=0.6), 600, 6_000),
        "projection + vjp, 256 images, local kernel": (lambda n: vjp(n, n_kernel_neighbors=64), 600, 6_000),
        "vector fields, M = 30, torus": (fields, 1_000, 10_000),
        "500 tangent spaces, torus, once the scales are chosen": (tangents, 1_000, 10_000),
    }
    rows = []
    for name, (make, few, many) in jobs.items():
        found = medians({"few": make(few), "many": make(many)}, repeats)
        exponent = np.log(found["many"] / found["few"]) / np.log(many / few)
        rows.append((name, f"{few:,}", found["few"], f"{many:,}", found["many"], float(exponent)))
    table("Growth with the number of samples", ("job", "n", "CPU s", "n", "CPU s", "exponent"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=6000, help="training images of the projection")
    parser.add_argument("--per-class", type=int, default=3000, help="training images of each class manifold")
    parser.add_argument("--exterior", type=int, nargs=2, metavar=("M", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.exterior:
        exterior_once(*args.exterior)
        return
    print(f"# After the fit\n\n`python benchmarks/hot_paths.py --repeats {args.repeats} --samples {args.samples} "
          f"--per-class {args.per_class}`: one core, CPU seconds, medians of alternating repeats.")  # fmt: skip
    fits = mnist_fits(args.samples) if {"project", "memory"} & set(args.only) else {}
    if "transform" in args.only:
        transform(args.repeats)
    if "sec" in args.only:
        exterior(min(args.repeats, 3))
    if "project" in args.only:
        projection(fits, args.repeats)
    if "attack" in args.only:
        attack(min(args.repeats, 3), args.per_class)
    if "memory" in args.only:
        memory(fits)
    if "import" in args.only:
        imports(args.repeats)
    if "growth" in args.only:
        growths(args.repeats)


if __name__ == "__main__":
    main()
