"""What the neighbour engines cost: CPU seconds, wall seconds, peak memory and recall, side by side with peers.

    python benchmarks/knn.py --out benchmarks/knn.md

Each measurement runs in a process of its own with one thread; the engines take turns, and medians are shown. Set
down are the k nearest neighbours of all training points (what a fit asks for) and those of 2,000 new points, with the
time to build the index and, apart, that of a first call on a few points (imports and compilation).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

K = 32
N_NEW = 2000
#: Data, engines, and how often each is run.
PLAN = {
    "rank 10": (
        10_000,
        "brute",
        "bare faiss",
        "faiss",
        "torch",
        "scikit-learn",
        "faiss-ivf",
        "faiss-hnsw",
        "pynndescent",
    ),
    "mnist": (60_000, "brute", "bare faiss", "faiss-ivf"),
    "roll": (50_000, "tree", "bare faiss", "scikit-learn", "faiss-ivf"),
}
TITLES = {
    "roll": "Swiss roll in 3 dimensions, noise 0.05",
    "rank 10": "Gaussian of rank 10 in 784 dimensions, noise 0.05",
    "mnist": "MNIST, 784 dimensions",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
ONCE = {"pynndescent", "faiss-hnsw", "faiss-ivf"}  # approximate, hence not close to any other, and one compiles long
PEERS = {
    "bare faiss": "faiss `IndexFlatL2`, single precision, distances as it gives them",
    "torch": "torch `cdist` and `topk` in chunks of 2,048 queries, single precision",
    "scikit-learn": "`NearestNeighbors`, k-d tree in 3 dimensions and brute force in 784",
}


def data(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Training points and new ones, float64."""
    rng = np.random.default_rng(0)
    if name == "roll":
        t, height = 1.5 * np.pi * (1 + 2 * rng.random(n + N_NEW)), 21 * rng.random(n + N_NEW)
        points = np.column_stack([t * np.cos(t), height, t * np.sin(t)])
        points += 0.05 * rng.standard_normal(points.shape)
    elif name == "rank 10":
        basis = np.linalg.qr(rng.standard_normal((784, 10)))[0]
        points = rng.standard_normal((n + N_NEW, 10)) @ basis.T
        points += 0.05 / 28 * rng.standard_normal(points.shape)
    else:
        from manifoldkit.datasets import load_mnist

        train, new = (load_mnist(split, download=False).images for split in ("train", "test"))
        points = np.concatenate([train[:n], new[:N_NEW]]).reshape(-1, 784).astype(np.float64)
    points -= points[:n].mean(axis=0)
    return points[:n].copy(), points[n:].copy()


def make(engine: str, points: np.ndarray):
    """A function (queries, k) -> distances and indices."""
    if engine == "bare faiss":
        import faiss

        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points.astype(np.float32))
        return lambda queries, k: index.search(queries.astype(np.float32), k)
    if engine == "scikit-learn":
        from sklearn.neighbors import NearestNeighbors

        algorithm = "kd_tree" if points.shape[1] == 3 else "brute"
        return NearestNeighbors(algorithm=algorithm).fit(points).kneighbors
    if engine == "torch":
        import torch

        table = torch.from_numpy(points.astype(np.float32))

        def search(queries, k):
            asked = torch.from_numpy(queries.astype(np.float32))
            parts = [
                torch.cdist(part, table, compute_mode="use_mm_for_euclid_dist").topk(k, largest=False)
                for part in asked.split(2048)
            ]
            return tuple(torch.cat([part[i] for part in parts]).numpy() for i in (0, 1))

        return search
    from manifoldkit.geometry.neighbors import neighbor_search

    return neighbor_search(points, engine).kneighbors


def peak() -> float:
    """Peak resident memory in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(engine: str, name: str, n: int) -> dict[str, float]:
    """One measurement, in this process."""
    import torch

    torch.set_num_threads(1)
    record: dict[str, float] = {}

    def timed(what, function):
        cpu, wall = time.process_time(), time.perf_counter()
        result = function()
        record[what], record[what + " wall"] = time.process_time() - cpu, time.perf_counter() - wall
        return result

    points, new = data(name, n)
    few = points[:2100].copy()
    timed("first", lambda: (lambda search: (search(few, K), search(new[:100], K)))(make(engine, few)))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the data (Linux)
    record["before"] = peak()
    search = timed("build", lambda: make(engine, points))
    found = timed("points", lambda: search(points, K))[1]
    found_new = timed("new", lambda: search(new, K))[1]
    record["peak"] = peak()
    chosen = np.random.default_rng(1).choice(n, 300, replace=False)
    queries, found = np.concatenate([points[chosen], new[:200]]), np.concatenate([found[chosen], found_new[:200]])
    hits = []
    scores = np.square(points).sum(axis=1) - 2 * (queries @ points.T)  # in double precision
    for query, row, score in zip(queries, found, scores, strict=True):
        close = np.argpartition(score, 2 * K)[: 2 * K]
        nearest = close[np.argsort(np.square(points[close] - query).sum(axis=1))[:K]]
        hits.append(len(set(row.tolist()) & set(nearest.tolist())) / K)
    record["recall"] = float(np.mean(hits))
    return record


def table(name: str, n: int, records: dict[str, list[dict[str, float]]]) -> str:
    """The measurements on one data set, as a table in Markdown."""
    lines = [
        f"## {TITLES[name]}, n = {n:,}, k = {K}",
        "",
        f"| engine | runs | first call | build | all points: CPU s | least-most | wall s "
        f"| {N_NEW:,} new: CPU s | recall | peak MiB | of which data and imports |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for engine, runs in records.items():
        mid = {key: median(run[key] for run in runs) for key in runs[0]}
        low, high = min(run["points"] for run in runs), max(run["points"] for run in runs)
        lines.append(
            f"| {engine} | {len(runs)} | {mid['first']:.1f} | {mid['build']:.2f} | {mid['points']:.2f} "
            f"| {low:.2f}-{high:.2f} | {mid['points wall']:.2f} | {mid['new']:.2f} | {mid['recall']:.4f} "
            f"| {mid['peak']:.0f} | {mid['before']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, metavar=("ENGINE", "DATA", "N"), help="one measurement, as JSON")
    parser.add_argument("--data", nargs="*", choices=PLAN, default=list(PLAN))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mnist-runs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.child:
        engine, name, n = options.child
        print(json.dumps(measure(engine, name, int(n))))
        return
    environment = os.environ | dict.fromkeys(THREADS, "1")
    jobs = [
        (name, run, engine)
        for name in options.data
        for run in range(options.mnist_runs if name == "mnist" else options.runs)
        for engine in PLAN[name][1:]
        if not (run and engine in ONCE)
    ]
    jobs.sort(key=lambda job: job[2] in ONCE)  # these come last
    started, loads = time.perf_counter(), []
    records: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for name, _, engine in jobs:
        command = [sys.executable, __file__, "--child", engine, name, str(PLAN[name][0])]
        answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        records[name][engine].append(json.loads(answer.stdout.splitlines()[-1]))
        loads.append(os.getloadavg()[0])
        print(name, engine, records[name][engine][-1], file=sys.stderr, flush=True)
        if options.out:
            options.out.write_text(report(records, loads, time.perf_counter() - started))
    if not options.out:
        print(report(records, loads, time.perf_counter() - started))


def report(records: dict[str, dict[str, list[dict[str, float]]]], loads: list[float], seconds: float) -> str:
    """The page."""
    head = [
        "# Nearest neighbours: what the engines cost",
        "",
        f"    python benchmarks/knn.py {' '.join(sys.argv[1:])}",
        "",
        f"One thread of {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy "
        f"{np.__version__}; load of the machine {min(loads):.0f} to {max(loads):.0f}, so that wall seconds say little "
        f"where it is above the number of cores; {seconds / 60:.0f} minutes in all. Medians over runs in which the "
        "engines took turns. Recall is the share of the true neighbours found, on 300 training and 200 new points, "
        "by distances in double precision.",
        "",
        "Engines of manifoldkit measure what they found in double precision. Peers:",
        "",
        *(f"- *{peer}*: {text}" for peer, text in PEERS.items()),
        "",
    ]
    return (
        "\n".join(head) + "\n" + "\n\n".join(table(name, PLAN[name][0], runs) for name, runs in records.items()) + "\n"
    )


if __name__ == "__main__":
    main()
