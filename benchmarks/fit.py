"""What a fit and an extension cost: ours beside scipy in forty lines, scikit-learn and other libraries, in one run.

    python benchmarks/fit.py --out benchmarks/fit.md --figure docs/images/growth.png

A Swiss roll in 3 dimensions with noise 0.05, 16 eigenpairs, one thread, each measurement in a process of its own;
libraries take turns, and medians are shown. *R2*: share of the two slowest Neumann modes of the sheet, cosines in arc
length and in height, that a linear fit on the eigenvectors explains: 1 is right. Libraries that are not installed
(graphtools, pydiffmap) are left out, and said to be. datafold pins versions of numpy and scikit-learn that exclude
ours: `--datafold` names the Python of an environment of its own (`pip install datafold`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

Rows = dict[tuple[int, str], list[dict[str, float]]]

N_PAIRS = 16
K = 64
N_NEW = 10_000
GROWTH_FROM = 10_000
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Sizes, how often each is run, and who runs.
PLAN = {
    2_000: (5, ("ours", "sparse", "yardstick", "scikit-learn", "graphtools", "pydiffmap", "datafold", "roseland")),
    10_000: (3, ("ours", "yardstick", "scikit-learn", "graphtools", "pydiffmap", "datafold", "roseland")),
    50_000: (3, ("ours", "yardstick", "scikit-learn", "graphtools", "roseland")),
    100_000: (3, ("ours", "yardstick")),
    1_000_000: (1, ("ours", "landmarks")),
}
TITLES = {
    "ours": "manifoldkit",
    "sparse": "manifoldkit, 64 kernel neighbours",
    "landmarks": "manifoldkit on 10,000 landmarks, the others by `transform`",
    "yardstick": "scipy: k-d tree, 64 neighbours, `eigsh`",
    "scikit-learn": "`SpectralEmbedding`, 32 neighbours, arpack",
    "graphtools": "graphtools, 32 neighbours, `eigsh`",
    "pydiffmap": "pydiffmap, 64 neighbours",
    "datafold": "datafold, its own scale and cut-off",
    "roseland": "datafold, Roseland with 500 landmarks",
}

LABELS = {
    "ours": "manifoldkit",
    "landmarks": "manifoldkit, 10,000 landmarks",
    "yardstick": "scipy, forty lines",
    "roseland": "datafold, Roseland",
}


def roll(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and the two slowest modes at them."""
    rng = np.random.default_rng(seed)
    t, height = 1.5 * np.pi * (1 + 2 * rng.random(n)), 21 * rng.random(n)
    points = np.column_stack([t * np.cos(t), height, t * np.sin(t)]) + 0.05 * rng.standard_normal((n, 3))
    ends = np.array([1.5, 4.5]) * np.pi
    arc, (first, last) = ((v * np.sqrt(1 + v**2) + np.arcsinh(v)) / 2 for v in (t, ends))
    return points, np.cos(np.pi * np.column_stack([(arc - first) / (last - first), height / 21]))


def explained(vectors: np.ndarray, modes: np.ndarray) -> float:
    design = np.column_stack([np.ones(len(vectors)), vectors])
    rest = modes - design @ np.linalg.lstsq(design, modes, rcond=None)[0]
    return float(np.mean(1 - (rest**2).sum(axis=0) / ((modes - modes.mean(axis=0)) ** 2).sum(axis=0)))


def ours(points):
    from manifoldkit import DiffusionManifold

    manifold = DiffusionManifold(N_PAIRS).fit(points)
    return manifold.eigenfunctions_[:, 1:], lambda new: manifold.transform(new)[:, 1:]


def sparse(points):
    """The kernel that larger sets have, and the yardstick."""
    from manifoldkit import DiffusionManifold

    manifold = DiffusionManifold(N_PAIRS, n_kernel_neighbors=K).fit(points)
    return manifold.eigenfunctions_[:, 1:], lambda new: manifold.transform(new)[:, 1:]


def landmarks(points):
    from manifoldkit import DiffusionManifold

    chosen = np.random.default_rng(0).choice(len(points), 10_000, replace=False)
    manifold = DiffusionManifold(N_PAIRS).fit(points[chosen])
    return manifold.transform(points)[:, 1:], lambda new: manifold.transform(new)[:, 1:]


def yardstick(points):
    """The kernel of conformally invariant diffusion maps on lists of 64 neighbours, solved by Lanczos."""
    from scipy.sparse import csr_array, diags_array
    from scipy.sparse.linalg import eigsh
    from scipy.spatial import cKDTree

    n, k = len(points), int(np.ceil(np.log(len(points))))
    tree = cKDTree(points)
    distances, indices = tree.query(points, K)
    rho = distances[:, 1:k].mean(axis=1)
    delta = distances**2 / (rho[:, None] * rho[indices])
    scale = 2 * delta[:, 1:k].mean()
    kernel = csr_array((np.exp(-delta / scale).ravel(), indices.ravel(), np.arange(0, n * K + 1, K)), shape=(n, n))
    kernel = (kernel + kernel.T) / 2
    degree = kernel.sum(axis=1)
    root = diags_array(degree**-0.5)
    values, vectors = eigsh(root @ kernel @ root, k=N_PAIRS, which="LA", v0=np.sqrt(degree), tol=1e-6)
    functions, values = (root @ vectors)[:, -2::-1], values[-2::-1]

    def transform(new):
        far, near = tree.query(new, K)
        weights = np.exp(-(far**2) / (far[:, 1:k].mean(axis=1)[:, None] * rho[near]) / scale)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("bk,bkl->bl", weights, functions[near]) / values

    return functions, transform


def scikit_learn(points):
    from sklearn.manifold import SpectralEmbedding

    model = SpectralEmbedding(
        N_PAIRS - 1, affinity="nearest_neighbors", n_neighbors=K // 2, eigen_solver="arpack", random_state=0
    )
    return model.fit_transform(points), None


def graphtools(points):
    import graphtools
    from scipy.sparse.linalg import eigsh

    graph = graphtools.Graph(points, n_pca=None, knn=K // 2, decay=40, thresh=1e-4, anisotropy=1, verbose=False)
    values, vectors = eigsh(graph.diff_aff, k=N_PAIRS, which="LA")
    functions = vectors[:, -2::-1] / vectors[:, -1:]
    return functions, lambda new: graph.extend_to_data(new) @ (functions / values[-2::-1])


def pydiffmap(points):
    from pydiffmap import diffusion_map

    model = diffusion_map.DiffusionMap.from_sklearn(n_evecs=N_PAIRS - 1, k=K, epsilon="bgh", alpha=1.0)
    return model.fit_transform(points), model.transform


def datafold(points):
    """Scale and cut-off are optimised by the library itself, as its tutorials do."""
    from datafold.dynfold import DiffusionMaps
    from datafold.pcfold import GaussianKernel, PCManifold

    cloud = PCManifold(points)
    cloud.optimize_parameters(random_state=1)
    kernel = GaussianKernel(epsilon=cloud.kernel.epsilon, distance={"cut_off": cloud.cut_off})
    model = DiffusionMaps(kernel, n_eigenpairs=N_PAIRS).fit(cloud)
    return model.eigenvectors_[:, 1:], model.transform


def roseland(points):
    from datafold.dynfold import Roseland
    from datafold.pcfold import GaussianKernel

    model = Roseland(GaussianKernel(epsilon=2.0), n_svdtriplet=N_PAIRS, landmarks=500, random_state=0)
    model.fit(points)
    return model.svdvec_left_[:, 1:], model.transform


def measure(name: str, n: int) -> dict[str, float]:
    """Run one library once; the first call, on 500 points, pays for imports."""
    fit = {"scikit-learn": scikit_learn}.get(name) or globals()[name]
    {"landmarks": ours, "roseland": datafold}.get(name, fit)(roll(500, 2)[0])
    points, modes = roll(n, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    vectors, transform = fit(points)
    row = {"fit": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    row["r2"] = explained(np.real(vectors), modes)
    if transform is not None:
        new, modes = roll(N_NEW, 1)
        cpu = time.process_time()
        found = transform(new)
        row["extend"] = time.process_time() - cpu
        row["extend r2"] = explained(np.real(found), modes)
    return row


def child(name: str, n: int, python: str) -> dict[str, float]:
    command = [python, "-W", "ignore", __file__, "--one", name, str(n)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(out.splitlines()[-1])


def run(sizes: list[int], datafold: str | None) -> tuple[Rows, list[str]]:
    rows: Rows = defaultdict(list)
    missing = [name for name in ("graphtools", "pydiffmap") if importlib.util.find_spec(name) is None]
    pythons = {} if datafold is None else {"datafold": datafold, "roseland": datafold}
    missing += [] if datafold else ["datafold", "roseland"]
    for n in sizes:
        repeats, names = PLAN[n]
        for turn in range(repeats):
            for name in names:
                if name not in missing:
                    rows[n, name].append(child(name, n, pythons.get(name, sys.executable)))
                    print(n, name, turn, rows[n, name][-1], file=sys.stderr, flush=True)
    return rows, missing


def table(rows: Rows) -> list[str]:
    lines = [
        "| n | library | fit, CPU s (least - most) | x ours | wall s | peak MiB | R2 | 10,000 new, CPU s | R2 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (n, name), runs in rows.items():
        fits = [row["fit"] for row in runs]
        unit = median(row["fit"] for row in rows[n, "ours"])
        extend = (
            f"{median(row['extend'] for row in runs):.2f} | {runs[0]['extend r2']:.4f}"
            if "extend" in runs[0]
            else "- | -"
        )
        lines.append(
            f"| {n:,} | {TITLES[name]} | {median(fits):.2f} ({min(fits):.2f} - {max(fits):.2f}) | "
            f"{median(fits) / unit:.2f} | {median(row['wall'] for row in runs):.1f} | "
            f"{median(row['peak'] for row in runs):.0f} | {runs[0]['r2']:.4f} | {extend} |"
        )
    own = medians(rows, "ours", GROWTH_FROM)
    if len(own) > 1:
        lines += [
            "",
            f"Growth of our fit from {min(own):,} to {max(own):,}: CPU seconds go as n to the {slope(own):.2f}.",
        ]
    return lines


def medians(rows: Rows, name: str, least: int = 0) -> dict[int, float]:
    """CPU seconds of a library's fit by n."""
    return {n: median(row["fit"] for row in runs) for (n, who), runs in rows.items() if who == name and n >= least}


def slope(seconds: dict[int, float]) -> float:
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def draw(rows: Rows, path: Path) -> None:
    """CPU seconds against n in double logarithmic scale, with the power law fitted to ours."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.6), constrained_layout=True)
    marks = {
        "ours": "o-",
        "landmarks": "*",
        "yardstick": "s--",
        "scikit-learn": "^:",
        "graphtools": "v-.",
        "pydiffmap": "D:",
        "datafold": "x:",
        "roseland": "+:",
    }
    for (name, mark), color in zip(marks.items(), plt.get_cmap("tab10")((0, 0, 1, 7, 4, 5, 8, 9)), strict=True):
        if found := medians(rows, name):
            axis.plot(list(found), list(found.values()), mark, color=color, label=LABELS.get(name, name))
    own = medians(rows, "ours", GROWTH_FROM)
    if len(own) > 1:
        power, ends = slope(own), np.array([min(own), max(own)])
        level = np.exp(np.mean(np.log(list(own.values()))) - power * np.mean(np.log(list(own))))
        axis.plot(ends, level * ends**power, "k-", lw=1, alpha=0.6, label=f"ours, fitted: n to the {power:.2f}")
    axis.set(xscale="log", yscale="log", xlabel="samples n", ylabel="CPU seconds of a fit, 16 pairs")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path, help="picture of CPU seconds against n")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(PLAN))
    parser.add_argument("--datafold", metavar="PYTHON", help="Python of an environment that has datafold")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    rows, missing = run(arguments.sizes, arguments.datafold)
    load = os.getloadavg()[0]
    text = [
        "# Fit and extension",
        "",
        "`python benchmarks/fit.py --out benchmarks/fit.md --figure docs/images/growth.png --datafold PYTHON`, "
        f"{platform.machine()}, "
        f"one thread, load {load:.0f} at the end; CPU seconds are the figure to compare.",
        f"Not installed: {', '.join(missing)}." if missing else "",
        "",
        *table(rows),
    ]
    print("\n".join(text))
    if arguments.out:
        arguments.out.write_text("\n".join(text) + "\n")
    if arguments.figure:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
