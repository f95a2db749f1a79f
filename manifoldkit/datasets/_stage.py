"""Draws coloured triangles as seen by a camera around a turntable, on the processor or a GPU, without a screen.

pyvista and VTK are optional, so they are imported when a stage is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._vehicles import Part

__all__ = ["SHINE", "SUPERSAMPLING", "Stage", "import_pyvista", "versions"]

Floats = NDArray[np.float64]

#: Pixels drawn along each side for one pixel of the picture: edges then move smoothly with the angles.
SUPERSAMPLING = 4
#: Distance of the camera in radii of the vehicle's bounding sphere, and the full opening angle of its view in degrees.
DISTANCE, OPENING = 5.4, 22.0
#: Specular share, its power (small is a wide highlight), ambient and diffuse share of each material.
SHINE = {
    "paint": (0.25, 12.0, 0.25, 0.48),
    "matte": (0.0, 1.0, 0.30, 0.48),
    "glass": (1.0, 9.0, 0.20, 0.30),
}


def import_pyvista() -> ModuleType:
    """Import pyvista and what it draws with, or say how to get what is missing."""
    try:
        pyvista = importlib.import_module("pyvista")
        importlib.import_module("vtkmodules.vtkRenderingOpenGL2")
        return pyvista
    except ModuleNotFoundError as error:
        raise ImportError(
            f'drawing vehicles needs pyvista, which cannot be imported ({error}): pip install "manifoldkit[render]"'
        ) from error
    except (ImportError, OSError) as error:  # of the linker: Python's packages are there, the system's are not
        raise ImportError(
            f"pyvista is installed, but a library of the system that it needs cannot be loaded ({error}): install it "
            "(Debian and Ubuntu: apt install libgl1 libegl1 libxrender1)"
        ) from error


def versions() -> list[str]:
    """Versions of what draws, told without importing it; "" for what is not installed."""
    found = []
    for name in ("pyvista", "vtk"):
        try:
            found.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            found.append("")
    return found


class Stage:
    """A lit turntable with one object, of bounding radius 1, in the middle of the picture.

    Parameters
    ----------
    parts : list of Part
        The object.
    lights : (q, 3) array
        Azimuth and elevation in degrees, azimuth 0 being where the camera stands, and intensity.
    size : int
        Pixels along each side.
    """

    def __init__(self, parts: Sequence[Part], lights: Floats, size: int) -> None:
        pyvista = import_pyvista()
        self._drawn = SUPERSAMPLING * size
        self._size = size
        with pyvista.vtk_verbosity("off"):  # VTK warns of each kind of window that it tries and does not get
            # A theme of its own: the user's global one changes edges, shading and the camera.
            self._plotter = pyvista.Plotter(
                off_screen=True, window_size=(self._drawn, self._drawn), lighting="none", theme=pyvista.themes.Theme()
            )
            self._window = self._plotter.ren_win
            self._window.SetAlphaBitPlanes(1)
            self._window.SetMultiSamples(0)
            self._window.Initialize()
            self._window.MakeCurrent()
            usable = bool(self._window.IsCurrent())  # what VTK draws without a context ends the process
        if not usable:
            raise OSError(
                "VTK found no OpenGL that draws off screen: install Mesa's EGL (Debian and Ubuntu: apt install libegl1 "
                "libgl1-mesa-dri) or OSMesa (libosmesa6), or set DISPLAY to an X server (xvfb-run)"
            )
        self._plotter.set_background("black")
        self._plotter.renderer.SetBackgroundAlpha(0.0)
        corners = np.concatenate([part.triangles.reshape(-1, 3) for part in parts])
        centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
        radius = np.linalg.norm(corners - centre, axis=1).max()
        self._actors = [
            self._add(pyvista, [part for part in parts if part.material == material], material, centre, radius)
            for material in dict.fromkeys(part.material for part in parts)
        ]
        for azimuth, elevation, intensity in lights:
            light = pyvista.Light(position=tuple(100 * _direction(azimuth, elevation)), intensity=intensity)
            light.positional = False
            self._plotter.add_light(light)
        self._plotter.camera.focal_point = (0.0, 0.0, 0.0)
        self._plotter.camera.view_angle = OPENING

    def _add(self, pyvista: ModuleType, parts: list[Part], material: str, centre: Floats, radius: float) -> Any:
        triangles = np.concatenate([part.triangles for part in parts])
        faces = np.column_stack([np.full(len(triangles), 3), np.arange(3 * len(triangles)).reshape(-1, 3)])
        mesh = pyvista.PolyData((triangles.reshape(-1, 3) - centre) / radius, faces.ravel())
        counts = [len(part.triangles) for part in parts]
        colours = np.repeat([part.colour for part in parts], counts, axis=0)
        mesh.cell_data["colour"] = np.round(255 * colours).astype(np.uint8)
        specular, power, ambient, diffuse = SHINE[material]
        return self._plotter.add_mesh(
            mesh, scalars="colour", rgb=True, show_scalar_bar=False, specular=specular, specular_power=power,
            ambient=ambient, diffuse=diffuse, smooth_shading=False,
        )  # fmt: skip

    def draw(self, azimuth: float, elevation: float) -> NDArray[np.uint8]:
        """Colours times coverage, and coverage, (4, size, size) from 0 to 255."""
        for actor in self._actors:
            actor.SetOrientation(0.0, 0.0, -azimuth)
        camera = self._plotter.camera
        camera.position = tuple(DISTANCE * _direction(0.0, elevation))
        camera.up = (0.0, 0.0, 1.0)
        camera.clipping_range = (DISTANCE - 1.5, DISTANCE + 1.5)
        self._window.Render()
        pixels = self._read()
        pixels[..., :3] *= pixels[..., 3:] > 0
        cells = pixels.reshape(self._size, SUPERSAMPLING, self._size, SUPERSAMPLING, 4)
        mean = cells.sum(axis=(1, 3), dtype=np.uint32) / SUPERSAMPLING**2
        # Pictures have their first row on top, OpenGL has it at the bottom.
        return np.ascontiguousarray(np.round(mean).astype(np.uint8)[::-1].transpose(2, 0, 1))

    def _read(self) -> NDArray[np.uint8]:
        vtk = importlib.import_module("vtkmodules.vtkCommonCore")
        buffer = vtk.vtkUnsignedCharArray()
        self._window.GetRGBACharPixelData(0, 0, self._drawn - 1, self._drawn - 1, 0, buffer)
        pixels: NDArray[np.uint8] = np.frombuffer(buffer, dtype=np.uint8).reshape(self._drawn, self._drawn, 4).copy()
        return pixels

    def close(self) -> None:
        """Free the window."""
        self._plotter.close()


def _direction(azimuth: float, elevation: float) -> Floats:
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    return np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
