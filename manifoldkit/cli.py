"""Manifolds from a shell: fit, look at, project onto, and embed by files of numbers.

Examples
--------
Samples are read from ``.npy``, ``.csv`` or ``.txt`` files, one sample a row; manifolds are files of
:func:`manifoldkit.load`::

    manifoldkit fit samples.npy --out ring.safetensors --n-components 24 --dimension 1
    manifoldkit info ring.safetensors
    manifoldkit project ring.safetensors noisy.csv --out clean.csv
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import DiffusionManifold, ManifoldAtlas, __version__, load

__all__ = ["main"]

#: What a query does, and what stands in each row of the answer.
QUERIES = {
    "project": "the nearest points of the manifold, in the shape of the samples",
    "transform": "the eigenfunctions at the samples",
    "distance": "the distance of each sample to the manifold",
    "tangent_basis": "orthonormal tangent vectors at the samples, an array (B, D, d); only to .npy",
}
#: Parameters that are set from a shell, with how their text is read.
OPTIONS: dict[str, Any] = {
    "n_components": int,
    "n_neighbors": int,
    "epsilon": float,
    "dimension": int,
    "n_projection_components": int,
    "n_kernel_neighbors": int,
    "dense_limit": int,
    "distance_components": float,
    "tangent_method": str,
    "neighbors": str,
    "n_jobs": int,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by default that of the command line; the answer is the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional

    Returns
    -------
    int
        0, or 1 after an error, which is told on stderr.

    Examples
    --------
    >>> main(["info", "nothing.safetensors"])
    1
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        print(f"manifoldkit {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("manifoldkit", description="Manifolds from a shell.")
    parser.add_argument("--version", action="version", version=f"manifoldkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    fit = commands.add_parser("fit", help="learn the manifold of samples")
    fit.add_argument("samples", type=Path, help=".npy, .csv or .txt, one sample a row")
    fit.add_argument("--out", type=Path, required=True, help="file of the manifold, as .safetensors")
    fit.add_argument("--labels", type=Path, help="class of each sample: one manifold for each")
    defaults = inspect.signature(DiffusionManifold).parameters
    for name, kind in OPTIONS.items():
        fit.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"default: {defaults[name].default}")
    fit.set_defaults(run=_fit)

    info = commands.add_parser("info", help="what a manifold is like")
    info.add_argument("manifold", type=Path)
    info.set_defaults(run=_info)

    for name, what in QUERIES.items():
        query = commands.add_parser(name.replace("_", "-"), help=what)
        query.add_argument("manifold", type=Path)
        query.add_argument("samples", type=Path, help=".npy, .csv or .txt, one sample a row")
        query.add_argument("--out", type=Path, required=True, help=".npy, .csv or .txt")
        query.add_argument("--labels", type=Path, help="class of each sample, for manifolds of several classes")
        query.set_defaults(run=_query, name=name)
    return parser


def _fit(options: argparse.Namespace) -> None:
    samples = _read(options.samples)
    given = {name: getattr(options, name) for name in OPTIONS if getattr(options, name) is not None}
    if (share := given.get("distance_components")) is not None and share == int(share) and share > 1:
        given["distance_components"] = int(share)  # a number of components, not a share of the variance
    manifold: Any = DiffusionManifold(**given)
    if options.labels is None:
        manifold.fit(samples)
    else:
        manifold = ManifoldAtlas(manifold).fit(samples, _read_labels(options.labels, len(samples)))
    manifold.save(options.out)


def _info(options: argparse.Namespace) -> None:
    found = load(options.manifold)
    several = isinstance(found, ManifoldAtlas)
    for title, manifold in zip(found.classes_, found.manifolds_, strict=True) if several else [(None, found)]:
        values = " ".join(f"{value:.4g}" for value in manifold.eigenvalues_[:8])
        print(f"class {title}" if several else type(found).__name__)
        print(f"  samples        {len(manifold.bandwidth_)} of shape {manifold.sample_shape_}")
        print(f"  dimension      {manifold.dimension_:.2f}, tangent spaces of {manifold.tangent_dimension_}")
        print(f"  components     {manifold.n_components_}, {manifold.n_projection_components_} for projections")
        print(f"  neighbours     {manifold.n_neighbors_}, epsilon {manifold.epsilon_:.4g}")
        print(f"  pieces         {manifold.n_connected_components_}")
        print(f"  eigenvalues    {values}{' ...' if manifold.n_components_ > 8 else ''}")


def _query(options: argparse.Namespace) -> None:
    found, samples = load(options.manifold), _read(options.samples)
    if isinstance(found, ManifoldAtlas):
        if options.name == "transform":
            raise ValueError("eigenfunctions belong to one manifold, and this file has one for each class")
        if options.labels is None:
            raise ValueError("the manifold has several classes: pass the class of each sample with --labels")
        found = found.at(_read_labels(options.labels, len(samples)).astype(found.classes_.dtype))
    elif options.labels is not None:
        raise ValueError("the manifold has no classes: leave out --labels")
    _write(options.out, getattr(found, options.name)(samples))


def _read(path: Path) -> np.ndarray[Any, Any]:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix in (".csv", ".txt"):
        return np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
    raise ValueError(f"{path} must end in .npy, .csv or .txt")


def _read_labels(path: Path, count: int) -> np.ndarray[Any, Any]:
    labels = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, dtype=str, ndmin=1)
    if labels.shape != (count,):
        raise ValueError(f"{path} must hold one label for each of {count} samples, got shape {labels.shape}")
    return labels


def _write(path: Path, values: np.ndarray[Any, Any]) -> None:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix in (".csv", ".txt"):
        if values.ndim > 2:
            raise ValueError(f"an array of shape {values.shape} cannot be written as text: let {path} end in .npy")
        np.savetxt(path, values, delimiter="," if path.suffix == ".csv" else " ", fmt="%.17g")
    else:
        raise ValueError(f"{path} must end in .npy, .csv or .txt")


if __name__ == "__main__":
    sys.exit(main())
