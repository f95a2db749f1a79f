"""The fit of 60,000 MNIST images against the search for their neighbours alone, in turn, each in a process of its own.

    python benchmarks/fit_images.py --out benchmarks/fit_images.md

One thread; CPU seconds, median (least - most), 16 eigenpairs, default parameters. The search is that of the fit: all
neighbours of all images, exact, 784 dimensions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
N_PAIRS = 16
LENGTH = 65  # of the lists, the image itself included


def measure(job: str) -> dict[str, float]:
    import numpy as np
    import torch

    from manifoldkit import DiffusionManifold
    from manifoldkit.datasets import load_mnist
    from manifoldkit.geometry.neighbors import neighbor_search

    torch.set_num_threads(1)
    images = load_mnist("train")[0].reshape(60_000, -1).astype(np.float64)
    cpu, wall = time.process_time(), time.perf_counter()
    row = {}
    if job == "search":
        images -= images.mean(axis=0)
        neighbor_search(images).kneighbors(images, LENGTH)
    else:
        row["pieces"] = DiffusionManifold(N_PAIRS).fit(images).n_connected_components_
    row |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return row | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def child(job: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--one", job]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=("search", "fit"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    rows: dict[str, list[dict[str, float]]] = {"search": [], "fit": []}
    for _ in range(arguments.repeats):
        for job, found in rows.items():
            found.append(child(job))
            print(job, found[-1], file=sys.stderr, flush=True)
    ratio = median(fit["cpu"] / search["cpu"] for fit, search in zip(rows["fit"], rows["search"], strict=True))
    lines = [
        "# Fit of 60,000 MNIST images",
        "",
        f"`python benchmarks/fit_images.py --repeats {arguments.repeats} --out benchmarks/fit_images.md`, "
        f"{platform.machine()}, one thread, load {os.getloadavg()[0]:.0f} at the end.",
        "",
        "| job | CPU s (least - most) | wall s | peak GiB |",
        "|---|---|---|---|",
    ]
    for job, found in rows.items():
        seconds = [row["cpu"] for row in found]
        lines.append(
            f"| {job} | {median(seconds):.1f} ({min(seconds):.1f} - {max(seconds):.1f}) | "
            f"{median(row['wall'] for row in found):.0f} | {max(row['peak'] for row in found):.1f} |"
        )
    pieces = rows["fit"][0]["pieces"]
    lines += ["", f"Fit over search: {ratio:.2f} (target 1.3). The kernel has {pieces} connected piece(s)."]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
