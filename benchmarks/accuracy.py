"""Accuracy with automatic parameters: against the hand-tuned tables, other dimension estimates, and theory.

    python benchmarks/accuracy.py            # prints benchmarks/accuracy.md and draws docs/images/convergence.png

Seeds 100 to 104, on which nothing was chosen (the rules were chosen on seeds 0 to 4). The package scikit-dimension
is compared if it can be imported; it is not a dependency.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import cKDTree

from manifoldkit.datasets import make_circle, make_noisy_circle, make_sphere, make_swiss_roll, make_torus
from manifoldkit.exceptions import ManifoldWarning
from manifoldkit.geometry import Circle, DiffusionManifold, ExteriorCalculus, FlatTorus, Sphere

SEEDS = (100, 101, 102, 103, 104)
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "convergence.png"
#: Colours of Okabe and Ito, told apart by all.
COLOURS = {"circle": "#0072B2", "sphere": "#D55E00", "torus": "#009E73"}


@dataclass(frozen=True)
class Case:
    """A data set, and what its hand-tuned row of the tables says: eigenvalues, Hodge, SEC degrees, projection."""

    make: Any
    dimension: int
    truth: Any = None
    table: tuple[float | None, float | None, float | None, float | None] = (None,) * 4
    options: dict[str, Any] | None = None
    n: int = 2500

    def sample(self, seed: int, n: int | None = None) -> Any:
        return self.make(n or self.n, random_state=seed, **(self.options or {}))


SPACE = {"ambient_dimension": 4}
CASES = {
    "circle": Case(make_circle, 1, Circle(), (0.024, 0.021, 1.4, None), n=1000),
    "circle, sd 0.05": Case(make_circle, 1, None, (None, None, None, 0.006), {"noise": 0.05}, 1000),
    "circle, density 1 + 0.8 cos": Case(make_circle, 1, None, (None, None, 3.0, None), {"density": 0.8}, 1000),
    "the same, sd 0.05": Case(make_circle, 1, None, (None, None, None, 0.006), {"density": 0.8, "noise": 0.05}, 1000),
    "Fig. 3 circle, plane": Case(make_noisy_circle, 1, None, (None, None, 3.1, 0.008), n=1000),
    "circle, space of 4": Case(make_circle, 1, Circle(), (0.024, 0.021, 2.1, None), SPACE, 1000),
    "Fig. 3 circle, space of 4": Case(make_noisy_circle, 1, None, (None, None, 5.7, None), SPACE, 1000),
    "torus": Case(make_torus, 2, FlatTorus(), (0.032, 0.047, 3.9, None)),
    "torus, sd 0.1": Case(make_torus, 2, None, (None, None, 7.8, None), {"noise": 0.1}),
    "sphere": Case(make_sphere, 2, Sphere(2), (0.035, 0.038, 2.8, None)),
    "sphere, sd 0.1": Case(make_sphere, 2, None, (None, None, 8.1, None), {"noise": 0.1}),
    "Swiss roll": Case(make_swiss_roll, 2, None, (None, None, 3.0, None)),
    "Swiss roll, sd 0.4": Case(make_swiss_roll, 2, None, (None, None, 4.0, None), {"noise": 0.4}),
}


def strip_eigenvalues(count: int) -> np.ndarray:
    """Neumann eigenvalues of the unrolled Swiss roll."""
    values = [(np.pi * i / 89.4045) ** 2 + (np.pi * j / 21.0) ** 2 for i in range(40) for j in range(12)]
    return np.sort(values)[:count]


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean relative error of eigenvalues whose truth is not zero."""
    truth = np.asarray(truth)
    return float(np.abs(found[: len(truth)][truth > 0] / truth[truth > 0] - 1).mean())


def feet(name: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of points to the clean manifold, and its tangents at their feet."""
    if name.startswith(("torus", "sphere")):
        exact: Any = FlatTorus() if name.startswith("torus") else Sphere(2)
        return np.linalg.norm(points - exact.project(points), axis=1), exact.tangent_basis(points)
    if name.startswith("Swiss"):
        fine = make_swiss_roll(grid=(1200, 280))
    else:
        fine = make_circle(7200, grid=True, ambient_dimension=points.shape[1])
    distances, nearest = cKDTree(fine.clean).query(points)
    return distances, fine.tangents[nearest]


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest principal angles in degrees."""
    cosines = np.linalg.svd(np.einsum("bik,bil->bkl", first, second), compute_uv=False)[:, -1]
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


def measure(name: str, case: Case, seed: int) -> dict[str, float]:
    """All figures of one fit with automatic parameters; the SEC of surfaces needs 81 components instead of 64."""
    sample = case.sample(seed)
    manifold = DiffusionManifold(81 if case.dimension == 2 else 64, random_state=0).fit(sample.points)
    row = {"k": manifold.n_neighbors_, "dimension": manifold.dimension_, "L": manifold.n_projection_components_}
    truth = strip_eigenvalues(13) if name.startswith("Swiss") else None
    if case.truth is not None:
        truth = case.truth.eigenvalues(13 if name == "torus" else 16 if name == "sphere" else 11)
    row["eigenvalues"] = np.nan if truth is None else relative_error(manifold.eigenvalues_, truth)
    exterior = ExteriorCalculus(manifold).fit()
    count = 18 if name == "torus" else 16 if name == "sphere" else 9
    hodge = None if case.truth is None else case.truth.hodge_eigenvalues(count)
    row["hodge"] = np.nan if hodge is None else relative_error(exterior.eigenvalues_, hodge)
    points = sample.points[::3]
    if name.startswith("Swiss"):  # the interior
        s, y = sample.parameters[::3].T
        points = points[(s > 2) & (s < 87.4) & (y > 2) & (y < 19)]
    row["sec"] = np.nan
    if manifold.tangent_dimension_ == case.dimension:
        row["sec"] = float(angles(manifold.tangent_basis(points, method="sec"), feet(name, points)[1]).mean())
    fresh = case.sample(seed + 1000).points[::3]
    row["projection"] = float(feet(name, manifold.inverse_transform(manifold.transform(fresh)))[0].mean())
    row["M"], row["N0"] = exterior.n_functions_, exterior.n_products_
    return row


def accuracy_table() -> None:
    """One row a data set: mean over seeds, worst seed of the dimension, and the table's figure in brackets."""
    print(
        "| data | k | M, N0 | L | eigenvalues | Hodge | SEC degrees | projection |\n|---|---|---|---|---|---|---|---|"
    )
    for name, case in CASES.items():
        rows = [measure(name, case, seed) for seed in SEEDS]
        cells = []
        for key, digits, table in zip(
            ("eigenvalues", "hodge", "sec", "projection"), (3, 3, 1, 4), case.table, strict=True
        ):
            values = np.array([row[key] for row in rows])
            text = "–" if np.isnan(values).all() else f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"
            cells.append(text + ("" if table is None else f" ({table})"))
        spans = [sorted({int(row[key]) for row in rows}) for key in ("k", "M", "N0", "L")]
        k, m, n0, length = (f"{s[0]}" if len(s) == 1 else f"{s[0]}–{s[-1]}" for s in spans)
        print(f"| {name} | {k} | {m}, {n0} | {length} | " + " | ".join(cells) + " |", flush=True)


def hand_table() -> None:
    """What the parameters of the tables themselves give on these seeds: single seeds differ by more than rules do."""
    print(
        "| data | k, M, N0 by hand | eigenvalues: by hand, automatic | Hodge: by hand, automatic |\n|---|---|---|---|"
    )
    sizes = {"circle": (40, 9, 21), "circle, space of 4": (40, 9, 21), "torus": (20, 21, 81), "sphere": (20, 16, 49)}
    for name, (k, m, n0) in sizes.items():
        case, rows = CASES[name], []
        truth = case.truth.eigenvalues({"torus": 13, "sphere": 16}.get(name, 11))
        hodge = case.truth.hodge_eigenvalues({"torus": 18, "sphere": 16}.get(name, 9))
        for seed in SEEDS:
            manifold = DiffusionManifold(81, k, dimension=case.dimension).fit(case.sample(seed).points)
            exterior = ExteriorCalculus(manifold, m, n0).fit()
            automatic = measure(name, case, seed)
            rows.append(
                [
                    relative_error(manifold.eigenvalues_, truth),
                    automatic["eigenvalues"],
                    relative_error(exterior.eigenvalues_, hodge),
                    automatic["hodge"],
                ]
            )
        a, b, c, d = np.mean(rows, axis=0)
        print(f"| {name} | {k}, {m}, {n0} | {a:.4f}, {b:.4f} | {c:.4f}, {d:.4f} |", flush=True)


def dimension_table() -> None:
    """Estimates of the dimension, ours and those of scikit-dimension, by their defaults."""
    try:
        import skdim
    except ImportError:
        skdim = None
        print("scikit-dimension is not installed: ours alone")
    others = {} if skdim is None else {"lPCA": skdim.id.lPCA, "MLE": skdim.id.MLE, "TwoNN": skdim.id.TwoNN}
    print(
        "| data | truth | ours: mean, furthest seed | " + " | ".join(others) + " |\n" + "|---" * (3 + len(others)) + "|"
    )
    for name, case in CASES.items():
        samples = [case.sample(seed).points for seed in SEEDS]
        ours = np.array([DiffusionManifold().fit(points).dimension_ for points in samples])
        furthest = ours[np.abs(ours - case.dimension).argmax()]
        cells = [f"{np.mean([other().fit(points).dimension_ for points in samples]):.2f}" for other in others.values()]
        print(
            f"| {name} | {case.dimension} | {ours.mean():.2f}, {furthest:.2f} | " + " | ".join(cells) + " |", flush=True
        )


def convergence(sizes: list[int]) -> None:
    """Errors of eigenvalues and of the projection against n, with fitted slopes, as a table and a figure."""
    figure, axes = plt.subplots(1, 2, figsize=(11.0, 5.4), constrained_layout=True)
    print(
        "| data | error | " + " | ".join(f"n = {n}" for n in sizes) + " | slope |\n" + "|---" * (3 + len(sizes)) + "|"
    )
    for name in ("circle", "sphere", "torus"):
        case, found = CASES[name], np.empty((2, len(sizes), len(SEEDS)))
        truth = case.truth.eigenvalues({"circle": 11, "sphere": 9, "torus": 9}[name])
        for i, n in enumerate(sizes):
            for j, seed in enumerate(SEEDS):
                manifold = DiffusionManifold(21, random_state=0).fit(case.sample(seed, n).points)
                found[0, i, j] = relative_error(manifold.eigenvalues_, truth)
                points = case.sample(seed + 1000, 300).points
                found[1, i, j] = feet(name, manifold.inverse_transform(manifold.transform(points)))[0].mean()
        for axis, errors, what in zip(axes, found, ("eigenvalues", "projection"), strict=True):
            means, spread = errors.mean(axis=1), errors.std(axis=1)
            slope = np.polyfit(np.log(sizes), np.log(means), 1)[0]
            axis.errorbar(
                sizes,
                means,
                spread,
                marker="osD"[list(COLOURS).index(name)],
                color=COLOURS[name],
                capsize=3,
                label=f"{name}: {slope:.2f}".replace("-", "−"),
            )
            cells = " | ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True))
            print(f"| {name} | {what} | {cells} | {slope:.2f} |", flush=True)
    for axis, title in zip(
        axes, ("mean relative error of eigenvalues", "distance of projections to the truth"), strict=True
    ):
        top = axis.get_ylim()[1]
        ratio = np.array(sizes) / sizes[0]
        axis.plot(sizes, 0.9 * top * ratio**-0.5, "k--", lw=1, label="sampling, theory: −0.50")
        axis.plot(sizes, 0.9 * top * ratio**-1.0, "k:", lw=1, label="bias, theory: −1")
        axis.set(xscale="log", yscale="log", xlabel="samples n", title=title)
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, title="slopes")
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="accuracy,hand,dimension,convergence")
    parser.add_argument("--sizes", default="250,500,1000,2000,3000")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ManifoldWarning)
    if "accuracy" in arguments.parts:
        accuracy_table()
    if "hand" in arguments.parts:
        hand_table()
    if "dimension" in arguments.parts:
        dimension_table()
    if "convergence" in arguments.parts:
        convergence([int(n) for n in arguments.sizes.split(",")])
