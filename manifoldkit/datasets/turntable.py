"""Vehicles on a turntable: images whose azimuth and elevation are known, and that anyone can render again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ._backdrops import BACKGROUNDS, Backdrop, check_background
from ._meshes import read_mesh
from ._render_cache import cached, fingerprint
from ._stage import DISTANCE, OPENING, SHINE, SUPERSAMPLING, Stage, versions
from ._turntable_arguments import check_angles, check_classes, check_lights, check_paint, check_size
from ._validation import check_flag, check_real, check_rng
from ._vehicles import VEHICLES, Part, vehicle

__all__ = ["VEHICLE_NAMES", "TurntableViews", "make_turntable", "turntable_background"]

#: The vehicles that can be asked for by name.
VEHICLE_NAMES: tuple[str, ...] = tuple(VEHICLES)

#: Lights as (azimuth, elevation, intensity): a key light from the left, a weaker one, and one from behind.
LIGHTS = ((-45.0, 40.0, 1.0), (35.0, 25.0, 0.7), (175.0, 65.0, 0.9))

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TurntableViews:
    """Views of turning objects, and all that is known about them.

    Attributes
    ----------
    images : (n, 3, size, size) float32 array
        Red, green and blue in [0, 1], the first row on top.
    labels : (n,) int64 array
        Indices into `class_names`.
    angles : (n, 2) float64 array
        Azimuth and elevation of each view in degrees.
    masks : (n, size, size) float32 array
        Share of each pixel that the object covers, in [0, 1]; above 0.5 is the segmentation.
    class_names : tuple of str
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    angles: Floats
    masks: NDArray[np.float32]
    class_names: tuple[str, ...]


def make_turntable(
    classes: Any,
    azimuth: Any,
    elevation: Any,
    size: int = 64,
    background: Any = "flat",
    random_state: Any = None,
    *,
    lattice: bool = True,
    paint: Sequence[float] | None = None,
    lights: Any = LIGHTS,
    cache: bool = True,
    progress: bool = False,
) -> TurntableViews:
    r"""Render vehicles from all sides: one surface of images for each class, with azimuth and elevation known.

    The camera stands at azimuth a, counter-clockwise from the front of the vehicle, and looks down by the elevation e,
    from 5.4 times the radius of the bounding sphere. Camera and lights stay, the vehicle turns; so windows and paint
    reflect the lights at certain azimuths. Every picture is the mean of 4 x 4 drawn pixels for each of its own, hence
    changes smoothly with the angles.

    Parameters
    ----------
    classes : list of str or path, or mapping
        Names of vehicles (`VEHICLE_NAMES` are all): "pickup", "suv", "sedan", "dump truck", "box truck", "jeep",
        "forklift"; and files of meshes, their class named after the file, that pyvista reads (PLY, STL, OBJ, GLB, VTK,
        ...) or trimesh, if that is installed; or a mapping of names to files, or to meshes or scenes of pyvista or
        trimesh. Meshes have the front towards +x and +z up, and are scaled to fill the picture. Their own colours and
        textures are not used: they are grey, or of the colour `paint`.
    azimuth : array-like or float
        Degrees, from -360 to 360.
    elevation : array-like or float
        Degrees, from -10 (a camera below) to 90 (above).
    size : int, default 64
        Pixels along each side, from 8 to 512.
    background : {"flat", "random", "scenes"} or (3, size, size) array, default "flat"
        A grey; colours and patterns drawn for each view; ground, horizon and sky drawn for each view; or a picture in
        [0, 1] for all views.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness of the backgrounds, which are drawn in the order of the views: those of one class depend on
        how many views are before it.
    lattice : bool, default True
        Views of each class at all pairs of the angles, azimuth slowest. With False, `azimuth` and `elevation` are
        paired up, one view for each; one of them may be a single angle.
    paint : (red, green, blue), optional
        Colour of every body in [0, 1], so that little but shapes tells the classes apart (the box of the box truck
        stays white). Default: each vehicle's own.
    lights : array-like (q, 3), optional
        Azimuth (-360 to 360) and elevation (-90 to 90) in degrees, azimuth 0 being the camera's, and intensity (0 to
        100).
    cache : bool, default True
        Keep what was drawn (4 size^2 bytes a view) in the user's cache folder, and look there first. Files carry a
        SHA-256 sum; damaged ones are drawn again, with a line in the log. See the notes.
    progress : bool, default False
        Show a progress bar while drawing.

    Returns
    -------
    TurntableViews
        Classes slowest, then the angles in the order given. It takes 16 size^2 bytes a view, and while a class is drawn
        another 4 for each of its views; more than the machine's memory is refused.

    Raises
    ------
    ImportError
        If something is to be drawn, or a mesh is not one of ours, and pyvista is not installed (``pip install
        "manifoldkit[render]"``) or lacks a library of the system (the message says what to install).
    OSError
        If there is no OpenGL that draws without a screen (the message says what to install), or a file of a mesh is
        not there or cannot be read.
    TypeError, ValueError
        If a class is unknown, or an argument lies outside its range.

    Notes
    -----
    All seven vehicles at 360 azimuths and 45 elevations are 113,400 views, 5.6 GB at 64 pixels: render in parts.
    A processor core draws some 110 views of 64 pixels a second, or 280 of 32 (Mesa's llvmpipe).
    The cache is ``manifoldkit/turntable`` in ``$XDG_CACHE_HOME``, or else in ``~/.cache`` (Linux), ``~/Library/Caches``
    (macOS) or ``%LOCALAPPDATA%`` (Windows, where it is ``manifoldkit/Cache/turntable``); delete the folder to clear it,
    for instance after a change of the driver. Nothing else removes files from it.
    Views are the same each time on one machine, whatever pyvista's global theme; on another one, with another driver or
    version of VTK, single bytes may differ. Files of the cache belong to one version of pyvista and VTK. The vehicles
    are our own, after the seven of the source, whose meshes and lights are not public.

    References
    ----------
    .. [1] "On-manifold projected gradient descent", section 3.

    Examples
    --------
    >>> from manifoldkit.datasets import make_turntable
    >>> views = make_turntable(["sedan", "jeep"], azimuth=range(0, 360, 90), elevation=20, size=32)  # doctest: +SKIP
    >>> views.images.shape, views.class_names, views.angles[1]  # doctest: +SKIP
    ((8, 3, 32, 32), ('sedan', 'jeep'), array([90., 20.]))

    Meshes of your own, each a class:

    >>> chairs = make_turntable({"oak": "oak.stl", "steel": "steel.glb"}, range(360), [10, 20])  # doctest: +SKIP
    """
    meshes, size = check_classes(classes), check_size(size)
    angles = check_angles(azimuth, elevation, check_flag(lattice, "lattice"), len(meshes), size)
    backdrop = Backdrop(check_background(background, size), size, check_rng(random_state))
    lamps = check_lights(lights)
    colour = check_paint(paint)
    keep, show = check_flag(cache, "cache"), check_flag(progress, "progress")

    n, shape = len(angles), (len(angles), 4, size, size)
    images = np.empty((len(meshes) * n, 3, size, size), dtype=np.float32)
    masks = np.empty((len(meshes) * n, size, size), dtype=np.float32)
    with tqdm(total=len(images), desc="views", disable=not show) as bar:
        for index, mesh in enumerate(meshes.values()):
            parts = vehicle(mesh, colour) if isinstance(mesh, str) else read_mesh(mesh, colour)

            def draw(parts: list[Part] = parts) -> NDArray[np.uint8]:
                return _draw(parts, angles, lamps, size, bar)

            views = cached(_key(parts, angles, lamps, size), shape, draw) if keep else draw()
            bar.update((index + 1) * n - bar.n)
            first = index * n
            for i, view in enumerate(views):
                cover = view[3] / np.float32(255)
                behind = (1 - cover) * backdrop.draw(angles[i, 1])
                images[first + i] = np.clip(view[:3] / np.float32(255) + behind, 0, 1)
                masks[first + i] = cover
    labels = np.repeat(np.arange(len(meshes), dtype=np.int64), n)
    return TurntableViews(images, labels, np.tile(angles, (len(meshes), 1)), masks, tuple(meshes))


def turntable_background(kind: str, size: int = 64, elevation: float = 20.0, random_state: Any = None) -> Floats:
    """One background, to put behind all views of a surface: ``make_turntable(..., background=picture)``.

    Parameters
    ----------
    kind : {"flat", "random", "scenes"}
    size : int, default 64
    elevation : float, default 20
        Degrees; a scene's horizon depends on it.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    (3, size, size) float64 array
        Values in [0, 1].

    Examples
    --------
    >>> from manifoldkit.datasets import turntable_background
    >>> picture = turntable_background("scenes", 32, elevation=5.0, random_state=0)
    >>> picture.shape, bool(picture.min() >= 0 and picture.max() <= 1)
    ((3, 32, 32), True)
    """
    size = check_size(size)
    if not isinstance(kind, str):
        raise TypeError(f"kind must be one of {', '.join(BACKGROUNDS)}, got {kind!r}")
    backdrop = Backdrop(check_background(kind, size), size, check_rng(random_state))
    return backdrop.draw(check_real(elevation, "elevation", -10.0, 90.0))


def _draw(parts: list[Part], angles: Floats, lights: Floats, size: int, bar: Any) -> NDArray[np.uint8]:
    """Views (n, 4, size, size)."""
    stage = Stage(parts, lights, size)
    try:
        views = np.empty((len(angles), 4, size, size), dtype=np.uint8)
        for i, (azimuth, elevation) in enumerate(angles):
            views[i] = stage.draw(azimuth, elevation)
            bar.update()
        return views
    finally:
        stage.close()


def _key(parts: list[Part], angles: Floats, lights: Floats, size: int) -> str:
    """What determines the bytes of the views, up to the driver."""
    look = [(part.colour, part.material) for part in parts]
    constants = [SUPERSAMPLING, DISTANCE, OPENING, SHINE]
    return fingerprint("turntable 3", versions(), *(p.triangles for p in parts), look, angles, lights, size, constants)
