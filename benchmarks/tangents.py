"""# Tangent spaces: `method="auto"` against fields (SEC) and local components of every size, on known manifolds.

    OMP_NUM_THREADS=1 python benchmarks/tangents.py > benchmarks/tangents.md

The reference of a row is the better of SEC, with the sizes of the row, and local principal components with the best
number of neighbours from 10 to 200, chosen with the truth. The error at a point is the largest principal angle, in
degrees, to the tangent space at the nearest point of the manifold; "auto" sees the samples only.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from manifoldkit.datasets import make_circle, make_noisy_circle, make_sphere, make_swiss_roll, make_torus
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import DiffusionManifold, ExteriorCalculus, FlatTorus, Sphere

NEIGHBORS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 140, 160, 180, 200)
#: The rule was chosen on some of the second range; the first was run once, at the end.
SEEDS = {"fresh seeds": range(100, 110), "seeds that the rule was chosen on": range(5)}


def foot_on_curve(sample):
    if not np.any(sample.noise_scale):
        return sample.tangents
    fine = make_circle(7200, grid=True, ambient_dimension=sample.points.shape[1])
    return fine.tangents[cKDTree(fine.clean).query(sample.points)[1]]


def foot_on_roll(sample):
    if not np.any(sample.noise_scale):
        return sample.tangents
    fine = make_swiss_roll(grid=(9000, 1))  # the spiral: heights do not matter
    plane = [0, 2]
    return fine.tangents[cKDTree(fine.clean[:, plane]).query(sample.points[:, plane])[1]]


def everywhere(sample):
    return {"": np.ones(len(sample.points), dtype=bool)}


def noise_halves(sample):
    noisy = sample.noise_scale >= np.median(sample.noise_scale)
    return {"": np.ones_like(noisy), ", noisier half": noisy}


def distances_from_edge(sample):
    s, y = sample.parameters.T
    inside = np.minimum(np.minimum(s, 89.41 - s), np.minimum(y, 21 - y))
    return {", > 3 from the edge": inside > 3, ", > 1 from the edge": inside > 1, ", within 1 of the edge": inside < 1}


@dataclass(frozen=True)
class Row:
    """A data set; the sizes of its fit and of SEC are those of the specification."""

    make: Callable
    foot: Callable
    n_neighbors: int
    n_components: int
    dimension: int
    n_functions: int
    n_fields: int
    parts: Callable = everywhere

    def load(self, seed: int):
        """Samples, tangents at their feet, fitted manifold, and the parts that are reported."""
        sample = self.make(random_state=seed)
        manifold = DiffusionManifold(
            self.n_components,
            self.n_neighbors,
            dimension=self.dimension,
            eigen_solver="arpack" if len(sample.points) > 1500 else "auto",
        ).fit(sample.points)
        return sample, self.foot(sample), manifold, self.parts(sample)


def _circle(n_samples=1000, **options):
    return lambda random_state: make_circle(n_samples, random_state=random_state, **options)


def _surface(make, foot, n_functions, n_fields, **options):
    return Row(
        lambda random_state: make(2500, random_state=random_state, **options), foot, 20, 81, 2, n_functions, n_fields
    )


def _rolled(noise):
    make = lambda random_state: make_swiss_roll(2500, noise=noise, random_state=random_state)  # noqa: E731
    return Row(make, foot_on_roll, 8, 81, 2, 21, 8, distances_from_edge)


def _noisy_circle(ambient_dimension):
    return Row(
        lambda random_state: make_noisy_circle(1000, ambient_dimension=ambient_dimension, random_state=random_state),
        *(foot_on_curve, 40, 21, 1, 9, 3, noise_halves),
    )


_CURVE = (foot_on_curve, 40, 21, 1, 9, 3)
ROWS = {
    "Fig. 3 circle in R^2": _noisy_circle(2),
    "Fig. 3 circle in R^4": _noisy_circle(4),
    "circle": Row(_circle(), *_CURVE),
    "circle, density 1 + 0.8 cos": Row(_circle(density=0.8), *_CURVE),
    "circle in R^4": Row(_circle(ambient_dimension=4), *_CURVE),
    "flat torus": _surface(make_torus, lambda s: FlatTorus().tangent_basis(s.points), 21, 8),
    "flat torus, sd 0.1": _surface(make_torus, lambda s: FlatTorus().tangent_basis(s.points), 21, 8, noise=0.1),
    "sphere": _surface(make_sphere, lambda s: Sphere(2).tangent_basis(s.points), 16, 6),
    "sphere, sd 0.1": _surface(make_sphere, lambda s: Sphere(2).tangent_basis(s.points), 16, 6, noise=0.1),
    "Swiss roll": _rolled(0.0),
    "Swiss roll, sd 0.4": _rolled(0.4),
}


def angles(basis, truth):
    """Largest principal angles in degrees, (B, D, d) each."""
    cosines = np.linalg.svd(np.einsum("bik,bil->bkl", basis, truth), compute_uv=False)[:, -1]
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


def sec(row: Row, manifold: DiffusionManifold, points):
    exterior = ExteriorCalculus(manifold, row.n_functions, row.n_components, row.n_components).fit()
    fields = exterior.fields(points, row.n_fields)
    return np.linalg.svd(fields, full_matrices=False)[2][:, : row.dimension].transpose(0, 2, 1)


def components(points, dimension: int) -> dict:
    """Local principal components of each number of neighbours, as method="pca" has them, from one search."""
    offsets = torch.from_numpy(points[cKDTree(points).query(points, k=NEIGHBORS[-1])[1]] - points[:, None])
    found = {}
    for k in NEIGHBORS:
        centred = offsets[:, :k] - offsets[:, :k].mean(dim=1, keepdim=True)
        found[k] = torch.linalg.eigh(centred.mT @ centred)[1][:, :, -dimension:].numpy()
    return found


def measure(name: str, seed: int) -> Iterator[tuple[str, dict]]:
    """Mean angles of each part of a row: {"sec": ..., "pca": {k: ...}, "auto": ...}."""
    row = ROWS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ManifoldWarning)
        sample, truth, manifold, parts = row.load(seed)
        found = {
            "sec": angles(sec(row, manifold, sample.points), truth),
            "pca": {k: angles(basis, truth) for k, basis in components(sample.points, row.dimension).items()},
            "auto": angles(manifold.tangent_basis(sample.points, method="auto"), truth),
        }
    for part, inside in parts.items():
        yield (
            name + part,
            {
                method: {k: e[inside].mean() for k, e in error.items()} if method == "pca" else error[inside].mean()
                for method, error in found.items()
            },
        )


def reference(runs: list[dict]) -> tuple[float, int]:
    """Best mean angle over runs of SEC and of local components, and the best number of neighbours."""
    means = {k: np.mean([run["pca"][k] for run in runs]) for k in NEIGHBORS}
    best = min(means, key=means.__getitem__)
    return float(min(means[best], np.mean([run["sec"] for run in runs]))), best


def table(title: str, seeds: range) -> None:
    collected: dict[str, list[dict]] = {}
    for name in ROWS:
        for seed in seeds:
            start = time.process_time()
            for part, run in measure(name, seed):
                collected.setdefault(part, []).append(run)
            print(f"{name}, seed {seed}: {time.process_time() - start:.1f} CPU s", file=sys.stderr, flush=True)
    print(f"\n## {title.capitalize()}: {seeds.start} to {seeds.stop - 1}\n")
    print("| data | SEC | best PCA (k) | auto | auto / best | worst seed |")
    print("|---|---|---|---|---|---|")
    for part, runs in collected.items():
        best, k = reference(runs)
        pca, fields, auto = (
            np.array([run["pca"][k] if m == "pca" else run[m] for run in runs]) for m in ("pca", "sec", "auto")
        )
        worst = max(run["auto"] / min(run["sec"], *run["pca"].values()) for run in runs)
        cells = [f"{v.mean():.3g} ± {v.std(ddof=1):.2g}" for v in (fields, pca, auto)]
        cells[1] += f" ({k})"
        print(f"| {part} | {' | '.join(cells)} | {auto.mean() / best:.2f} | {worst:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "STOP"), help="one range instead of both")
    arguments = parser.parse_args()
    print(__doc__)
    print(
        "Mean angles over the points, then mean ± standard deviation over seeds. *auto / best*: ratio of the means,\n"
        "the number of neighbours chosen once for a row. *worst seed*: largest ratio, that number chosen for each seed."
    )
    ranges = {"seeds": range(*arguments.seeds)} if arguments.seeds else SEEDS
    for title, seeds in ranges.items():
        table(title, seeds)


if __name__ == "__main__":
    main()
