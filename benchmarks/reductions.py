"""What the engines of manifoldkit.reductions cost on a CPU: CPU seconds and memory, side by side.

    OMP_NUM_THREADS=1 python benchmarks/reductions.py --out benchmarks/reductions.md

Each measurement is a forked process of its own, which makes the data, calls the job for a few queries (KeOps compiles
then, or loads what it compiled), and then times it. Engines alternate within a round; the table has medians over the
rounds. Memory is what the peak of the process grows by during the timed part. "matrix" is the formula written down.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path

COMMAND = "OMP_NUM_THREADS=1 python benchmarks/reductions.py --out benchmarks/reductions.md"
ENGINES = ("matrix", "torch", "keops")
#: name: (kind, queries, training points, coordinates, columns, rounds)
JOBS = {
    "Nystrom row, 256 of 3-d on 6,000": ("row", 256, 6000, 3, 3, 3),
    "the same with vjp": ("row+vjp", 256, 6000, 3, 3, 3),
    "Nystrom row, 256 of 784-d on 6,000": ("row", 256, 6000, 784, 784, 1),
    "the same with vjp ": ("row+vjp", 256, 6000, 784, 784, 1),
    "kernel x vector, 3-d, n = 2,000": ("product", 2000, 2000, 3, 1, 3),
    "kernel x vector, 3-d, n = 6,000": ("product", 6000, 6000, 3, 1, 3),
    "kernel x vector, 3-d, n = 10,000": ("product", 10000, 10000, 3, 1, 3),
    "kernel x 16 vectors, 3-d, n = 2,000": ("product", 2000, 2000, 3, 16, 3),
    "kernel x 16 vectors, 3-d, n = 6,000": ("product", 6000, 6000, 3, 16, 3),
    "kernel x 16 vectors, 3-d, n = 10,000": ("product", 10000, 10000, 3, 16, 3),
    "8 neighbours, 256 of 3-d on 6,000": ("nearest", 256, 6000, 3, 8, 3),
    "8 neighbours, 256 of 784-d on 6,000": ("nearest", 256, 6000, 784, 8, 1),
    "fit, Swiss roll, 16 components, n = 2,000": ("fit", 2000, 2000, 3, 16, 1),
}


def job(kind: str, queries: int, n: int, size: int, columns: int, engine: str):
    """The job as a function without arguments."""
    import torch

    from manifoldkit import DiffusionManifold
    from manifoldkit.datasets import make_swiss_roll
    from manifoldkit.reductions import kernel_product, nearest, softmax_average

    if kind == "fit":
        points = make_swiss_roll(n, random_state=0).points
        reduction = {"matrix": "torch", "torch": "chunked", "keops": "keops"}[engine]
        return DiffusionManifold(columns, 20, dimension=2, dense_limit=n, reduction=reduction).fit, points
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, size, generator=generator, dtype=torch.float64)
    rho = 0.5 + torch.rand(n, generator=generator, dtype=torch.float64)
    values = torch.randn(n, columns, generator=generator, dtype=torch.float64)
    x, weights, scale = points[:queries] + 0.01, torch.zeros_like(rho), size / 3.0

    def sums(x):
        rho_x = rho[: len(x)]
        if kind == "nearest":
            if engine == "matrix":
                return torch.cdist(x, points).topk(columns, largest=False).values
            return nearest(x, points, columns, backend=engine)[0]
        if engine == "matrix":
            logits = torch.cdist(x, points).square() / (rho_x[:, None] * rho * -scale)
            return (torch.exp(logits) if kind == "product" else torch.softmax(logits + weights, dim=1)) @ values
        if kind == "product":
            return kernel_product(x, rho_x, points, rho, values, scale, backend=engine)
        return softmax_average(x, rho_x, points, rho, weights, values, scale, backend=engine)

    def with_gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(sums(x).square().sum(), x)

    return (with_gradient if kind == "row+vjp" else sums), x


def current_mebibytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(name: str, engine: str) -> dict[str, float]:
    *sizes, _ = JOBS[name]
    function, argument = job(*sizes, engine)
    warnings.simplefilter("ignore")
    function(argument[: 200 if sizes[0] == "fit" else 16])
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = current_mebibytes(), time.process_time()
    function(argument)
    seconds = time.process_time() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "mebibytes": int(peak.split()[1]) / 1024 - before}


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    head = "| job | " + " | ".join(f"{e}: CPU s | MiB" for e in ENGINES) + " | keops / torch |"
    lines = [head, "|---" * (2 * len(ENGINES) + 2) + "|"]
    for name, engines in results.items():
        cells, medians = [], {}
        for engine in ENGINES:
            seconds = sorted(run["seconds"] for run in engines[engine])
            medians[engine] = statistics.median(seconds)
            spread = f" ({seconds[0]:.3f}-{seconds[-1]:.3f})" if len(seconds) > 1 else " (once)"
            memory = statistics.median(run["mebibytes"] for run in engines[engine])
            cells += [f"{medians[engine]:.3f}{spread}", f"{memory:.0f}"]
        lines.append(f"| {name.strip()} | {' | '.join(cells)} | {medians['keops'] / medians['torch']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the table")
    parser.add_argument("--only", default="", help="jobs whose name contains this")
    arguments = parser.parse_args()
    import manifoldkit.datasets
    import manifoldkit.reductions  # noqa: F401  (once, before the forks)

    fork = multiprocessing.get_context("fork")
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in (name for name in JOBS if arguments.only in name):
        results[name] = {engine: [] for engine in ENGINES}
        for _ in range(JOBS[name][-1]):
            for engine in ENGINES:
                with fork.Pool(1) as worker:
                    results[name][engine].append(worker.apply(measure, (name, engine)))
                print(name, engine, results[name][engine][-1], file=sys.stderr, flush=True)
    import pykeops
    import torch

    text = (
        "# What the engines of `manifoldkit.reductions` cost on a CPU\n\n"
        f"`{COMMAND}`\n\n"
        f"float64, one thread, medians (least-most) of alternating runs; torch {torch.__version__}, pykeops "
        f"{pykeops.__version__}, Python {platform.python_version()}, {platform.machine()}. KeOps' compiler (some 10 "
        'CPU s for each formula, once) is not in the figures. "matrix" forms all of it; "torch" is '
        '`reduction="chunked"` in the fits.\n\n'
    )
    text += table(results) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
