"""Meshes of the user as triangles: files that pyvista or trimesh reads, and the meshes of both."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._stage import import_pyvista
from ._validation import check_numbers
from ._vehicles import Part

__all__ = ["PLAIN", "is_mesh", "read_mesh"]

#: What a surface of a user's mesh looks like.
PLAIN = (0.6, 0.6, 0.62)
#: Area in squares of the mesh's extent below which it is a line: nothing of it would show.
THIN = 1e-6


def is_mesh(entry: Any) -> bool:
    """Whether this has what meshes and scenes of pyvista and trimesh have."""
    scene = hasattr(entry, "geometry") and hasattr(entry, "to_geometry")
    surface = hasattr(entry, "vertices") and hasattr(entry, "faces")
    return scene or surface or hasattr(entry, "points") or hasattr(entry, "combine")


def read_mesh(mesh: Any, colour: tuple[float, float, float] | None = None) -> list[Part]:
    """Surface triangles of a file, or of a mesh or scene of pyvista or trimesh, within [-1, 1]^3; of colours only ours.

    Raises
    ------
    OSError
        If neither pyvista nor trimesh can read the file.
    TypeError, ValueError
        If the mesh has no surface, or faces of corners that it has not.
    """
    pyvista = import_pyvista()
    name = str(mesh) if isinstance(mesh, Path) else f"the {type(mesh).__name__}"
    data = _read_file(pyvista, mesh) if isinstance(mesh, Path) else mesh
    points, faces = _triangles(pyvista, data, name) if isinstance(data, pyvista.DataObject) else _arrays(data, name)
    corners = points[faces]
    if len(corners) == 0:
        raise ValueError(f"{name} holds no triangles, or is damaged: give a mesh with a surface")
    if not np.isfinite(corners).all():
        wrong = int((~np.isfinite(corners)).any(axis=(1, 2)).sum())
        raise ValueError(f"{name} has NaN or infinite corners in {wrong} of {len(corners)} triangles: drop them")
    # Scaled before anything is squared or subtracted, so that no unit of length is too large or too small.
    corners = corners / max(np.abs(corners).max(), np.finfo(float).tiny)
    extent = np.ptp(corners.reshape(-1, 3), axis=0).max()
    sides = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2
    if not area > THIN * extent**2:
        raise ValueError(
            f"{name} holds {len(corners)} triangles without area, for their corners lie on a line or coincide: give a "
            "mesh with a surface"
        )
    return [Part(corners, PLAIN if colour is None else colour, "paint")]


def _triangles(pyvista: ModuleType, data: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points and triangles of the surface of a data set of pyvista."""
    if isinstance(data, pyvista.MultiBlock):
        for block in data.recursive_iterator(skip_none=True):
            _check_connectivity(pyvista, block, name)
        data = data.combine()
    if not isinstance(data, pyvista.DataSet):
        raise TypeError(f"{name} is no mesh: give a mesh with a surface")
    _check_connectivity(pyvista, data, name)
    surface = data.extract_surface(algorithm="dataset_surface").triangulate()
    return np.asarray(surface.points, dtype=np.float64), np.asarray(surface.faces).reshape(-1, 4)[:, 1:]


def _check_connectivity(pyvista: ModuleType, data: Any, name: str) -> None:
    """VTK reads beyond its arrays where a cell names a point that does not exist."""
    if isinstance(data, pyvista.PolyData):
        cells = [data.GetVerts(), data.GetLines(), data.GetPolys(), data.GetStrips()]
    elif isinstance(data, pyvista.UnstructuredGrid):
        cells = [data.GetCells()]
    else:
        return
    for array in cells:
        _check_faces(np.asarray(pyvista.convert_array(array.GetConnectivityArray())), data.n_points, name)


def _check_faces(faces: NDArray[Any], count: int, name: str) -> None:
    if faces.size and (faces.min() < 0 or faces.max() >= count):
        wrong = faces.max() if faces.max() >= count else faces.min()
        raise ValueError(f"{name} has {count} points, but a face with point {wrong}: faces count points from 0")


def _arrays(mesh: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points and triangles of what has vertices and faces, or of a scene of such."""
    if not hasattr(mesh, "vertices"):
        mesh = mesh.to_geometry()
    if not hasattr(mesh, "vertices") or not hasattr(mesh, "faces"):
        raise TypeError(f"{name} is a {type(mesh).__name__}, which has no vertices and faces: give a mesh")
    points, faces = check_numbers(mesh.vertices, f"vertices of {name}"), np.asarray(mesh.faces)
    if points.size == 0 or faces.size == 0:
        raise ValueError(f"{name} holds no triangles: give a mesh with a surface")
    if (
        points.ndim != 2
        or points.shape[1] != 3
        or faces.ndim != 2
        or faces.shape[1] != 3
        or faces.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"{name} must have vertices (n, 3) and faces (m, 3) of whole numbers, got shapes {points.shape} and "
            f"{faces.shape}, faces of dtype {faces.dtype}"
        )
    _check_faces(faces, len(points), name)
    return points, faces.astype(np.int64)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what pyvista tells the root logger of a damaged file: the error says it."""

    def foreign(record: logging.LogRecord) -> bool:
        return "pyvista" not in Path(record.pathname).parts

    root = logging.getLogger()
    root.addFilter(foreign)
    try:
        yield
    finally:
        root.removeFilter(foreign)


def _read_file(pyvista: ModuleType, path: Path) -> Any:
    """What pyvista reads, or else trimesh, which knows other formats."""
    try:
        with pyvista.vtk_verbosity("off"), _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a damaged file is refused later, for it holds no triangles
            return pyvista.read(str(path))
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        refusal = f"{path} cannot be read as a mesh by pyvista ({' '.join(str(error).split())})"
        cause = error
    try:
        trimesh = importlib.import_module("trimesh")
    except ImportError:
        raise OSError(
            f"{refusal}, and trimesh, which reads other formats, is not installed: pip install trimesh, or give a PLY, "
            "STL, OBJ, GLB or VTK file"
        ) from cause
    try:
        return trimesh.load(str(path), force="mesh")
    except Exception as error:  # each of its many readers has errors of its own
        raise OSError(f"{refusal}, nor by trimesh ({error}): give a PLY, STL, OBJ, GLB or VTK file") from error
