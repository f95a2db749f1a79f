"""Vehicles as arrays, backgrounds, the cache, and what a renderer has to get right."""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from manifoldkit.datasets import VEHICLE_NAMES, make_turntable, turntable, turntable_background
from manifoldkit.datasets import _meshes as meshes
from manifoldkit.datasets import _render_cache as render_cache
from manifoldkit.datasets import _stage as stage
from manifoldkit.datasets._vehicles import vehicle

GREY = (0.6, 0.6, 0.62)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def renderer():
    """Skip where vehicles cannot be drawn."""
    pytest.importorskip("pyvista", reason="the extra render is not installed")
    try:
        stage.Stage(vehicle("sedan"), np.array([[0.0, 45.0, 1.0]]), 8).close()
    except OSError as error:
        pytest.skip(str(error))


class FakeStage:
    """Draws views that say which angles they were drawn at."""

    drawn = 0

    def __init__(self, parts, lights, size):
        self.size = size

    def draw(self, azimuth, elevation):
        type(self).drawn += 1
        view = np.zeros((4, self.size, self.size), dtype=np.uint8)
        view[:, : self.size // 2] = 100  # colours are multiplied by the coverage: the true ones are at full strength
        view[0, 0, 0], view[1, 0, 0] = azimuth % 100, elevation
        return view

    def close(self):
        pass


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(turntable, "Stage", FakeStage)
    monkeypatch.setattr(FakeStage, "drawn", 0)
    return FakeStage


def corners(name):
    return np.concatenate([part.triangles.reshape(-1, 3) for part in vehicle(name)])


class TestVehicles:
    """The meshes, which need no renderer."""

    @pytest.mark.parametrize("name", VEHICLE_NAMES)
    def test_they_stand_on_the_ground_and_are_as_long_as_vehicles(self, name):
        points = corners(name)
        assert abs(points[:, 2].min()) < 1e-12
        assert 3.0 < np.ptp(points[:, 0]) < 7.5
        assert 1.0 < np.ptp(points[:, 1]) < 2.6

    @pytest.mark.parametrize("name", VEHICLE_NAMES)
    def test_left_is_the_mirror_image_of_right(self, name):
        points = corners(name).round(9) + 0.0
        mirrored = (points * [1.0, -1.0, 1.0]).round(9) + 0.0
        assert np.array_equal(np.unique(points, axis=0), np.unique(mirrored, axis=0))

    @pytest.mark.parametrize("name", VEHICLE_NAMES)
    def test_bodies_are_closed_and_face_outwards(self, name):
        """The directed faces of a closed surface sum to zero, and its volume is positive."""
        for part in vehicle(name):
            if part.material == "glass":
                continue
            a, b, c = part.triangles.transpose(1, 0, 2)
            faces = np.cross(b - a, c - a)
            assert np.abs(faces.sum(axis=0)).max() < 1e-9
            assert np.einsum("fi,fi->", a, faces) / 6 > 0

    @pytest.mark.parametrize("name", [name for name in VEHICLE_NAMES if name != "forklift"])
    def test_windows_face_away_from_the_cabin(self, name):
        panes = [part.triangles for part in vehicle(name) if part.material == "glass"]
        middle = np.concatenate(panes).reshape(-1, 3).mean(axis=0)
        assert len(panes) >= 2
        for pane in panes:
            normal = np.cross(pane[0, 1] - pane[0, 0], pane[0, 2] - pane[0, 0])
            assert normal @ (pane.reshape(-1, 3).mean(axis=0) - middle) > 0

    def test_paint_changes_bodies_and_nothing_else(self):
        for name in VEHICLE_NAMES:
            own, grey = vehicle(name), vehicle(name, GREY)
            changed = [p.colour != q.colour for p, q in zip(own, grey, strict=True)]
            assert any(changed)
            assert all(q.colour == GREY for q, new in zip(grey, changed, strict=True) if new)
            assert all(np.array_equal(p.triangles, q.triangles) for p, q in zip(own, grey, strict=True))


class TestComposition:
    """Order, backgrounds and masks, with a stage that draws nothing real."""

    def test_order_of_labels_and_angles(self, fake):
        views = make_turntable(["jeep", "suv"], [10, 20, 30], [5, 15], 8)
        assert views.class_names == ("jeep", "suv")
        assert views.labels.tolist() == [0] * 6 + [1] * 6
        assert views.angles[:3].tolist() == [[10, 5], [10, 15], [20, 5]]
        assert np.array_equal(views.angles[:6], views.angles[6:])
        assert np.allclose(255 * views.images[:, 0, 0, 0] // 1, views.angles[:, 0] + 155 * 0.62 // 1, atol=1.01)
        assert views.images.dtype == views.masks.dtype == np.float32
        assert views.labels.dtype == np.int64

    def test_a_vehicle_under_another_name(self, fake):
        views = make_turntable({"mine": "suv", "jeep": "jeep"}, 10, 5, 8)
        assert views.class_names == ("mine", "jeep")

    def test_pairs_instead_of_a_lattice(self, fake):
        views = make_turntable(["jeep"], [10, 20], [5, 15], 8, lattice=False)
        assert views.angles.tolist() == [[10, 5], [20, 15]]
        for one in (
            make_turntable(["jeep"], [10, 20], 5, 8, lattice=False),
            make_turntable(["jeep"], [10, 20], [5], 8),
        ):
            assert one.angles.tolist() == [[10, 5], [20, 5]]

    @pytest.mark.parametrize("background", ["flat", "random", "scenes"])
    def test_the_vehicle_is_laid_over_the_background(self, fake, background):
        views = make_turntable(["jeep"], [0, 50], [3, 40], 16, background, random_state=3)
        cover = views.masks[:, None]
        assert np.allclose(views.masks[:, 8:], 0)
        assert np.allclose(views.masks[:, 1:8], 100 / 255)
        behind = (views.images - 100 / 255)[:, :, 1:8] / (1 - cover)[:, :, 1:8]
        assert behind.min() > -1e-6
        again = make_turntable(["jeep"], [0, 50], [3, 40], 16, background, random_state=3)
        assert np.array_equal(views.images, again.images)
        other = make_turntable(["jeep"], [0, 50], [3, 40], 16, background, random_state=4)
        assert np.array_equal(views.images, other.images) == (background == "flat")
        assert np.array_equal(views.images[0, :, 8:], views.images[1, :, 8:]) == (background == "flat")
        assert views.images.min() >= 0
        assert views.images.max() <= 1

    def test_a_picture_behind_all_views(self, fake):
        picture = turntable_background("random", 8, random_state=1)
        views = make_turntable(["jeep"], [0, 1, 2], 3, 8, picture)
        assert np.allclose(views.images[:, :, 4:], picture[:, 4:], atol=1e-6)

    def test_a_scene_has_a_sky_only_where_the_camera_sees_the_horizon(self):
        for seed in range(5):
            low, high = (turntable_background("scenes", 32, e, random_state=seed) for e in (1.0, 40.0))
            assert low[2, :8].mean() > low[2, -8:].mean()  # bluer above
            assert abs(high[2, :8].mean() - high[2, -8:].mean()) < low[2, :8].mean() - low[2, -8:].mean()

    def test_a_bar_is_shown_on_demand(self, fake, capsys):
        make_turntable(["jeep"], [0, 1], 3, 8)
        assert capsys.readouterr().err == ""
        make_turntable(["jeep"], [0, 1, 2], 3, 8, progress=True)
        assert "3/3" in capsys.readouterr().err


class TestCache:
    """What was drawn is kept, and never used when it is not what was drawn."""

    def files(self):
        return sorted((render_cache.cache_folder() / "turntable").glob("*"))

    def test_views_are_drawn_once(self, fake):
        first = make_turntable(["jeep", "suv"], [1, 2], 3, 8)
        assert fake.drawn == 4
        second = make_turntable(["suv", "jeep"], [1, 2], 3, 8)
        assert fake.drawn == 4
        assert len(self.files()) == 2
        assert np.array_equal(first.images, second.images)

    @pytest.mark.parametrize(
        "change", [{"size": 9}, {"paint": GREY}, {"lights": [[0, 0, 1.0]]}, {"azimuth": [2, 1]}, {"elevation": 4}]
    )
    def test_other_views_have_other_files(self, fake, change):
        settings = {"azimuth": [1, 2], "elevation": 3, "size": 8}
        make_turntable(["jeep"], **settings)
        make_turntable(["jeep"], **(settings | change))
        assert fake.drawn == 4

    def test_other_materials_have_other_files(self, fake, monkeypatch):
        make_turntable(["jeep"], 1, 3, 8)
        monkeypatch.setitem(stage.SHINE, "glass", (0.5, 9.0, 0.2, 0.3))
        make_turntable(["jeep"], 1, 3, 8)
        assert fake.drawn == 2

    def test_without_a_cache_nothing_is_kept(self, fake):
        make_turntable(["jeep"], 1, 3, 8, cache=False)
        assert self.files() == []

    @pytest.mark.parametrize("versions", [["0.1", "9.5.2"], ["0.49.1", "9.9"], ["", ""]])
    def test_other_versions_of_what_draws_have_other_files(self, fake, monkeypatch, versions):
        monkeypatch.setattr(turntable, "versions", lambda: ["0.49.1", "9.5.2"])
        make_turntable(["jeep"], 1, 3, 8)
        monkeypatch.setattr(turntable, "versions", lambda: versions)
        make_turntable(["jeep"], 1, 3, 8)
        assert fake.drawn == 2

    def test_versions_are_those_installed(self, monkeypatch):
        pyvista = pytest.importorskip("pyvista")
        assert stage.versions() == [pyvista.__version__, ".".join(map(str, pyvista.vtk_version_info[:3]))]

        def missing(name):
            raise stage.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(stage.metadata, "version", missing)
        assert stage.versions() == ["", ""]

    @pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "I8", "BOOL", "F64"])
    def test_headers_that_tell_another_type_are_drawn_again(self, fake, dtype, caplog):
        """Whole files whose header says so: their reader raises errors of all kinds, or gives other numbers."""
        good = make_turntable(["jeep"], [1, 2], 3, 8)
        (file,) = self.files()
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        width = {"BF16": 2, "F64": 8}.get(dtype, 1)
        header["views"] |= {"dtype": dtype, "shape": [2, 4, 8, 8 // width]}
        told = json.dumps(header).encode()
        file.write_bytes(len(told).to_bytes(8, "little") + told + content[8 + length :])
        with caplog.at_level(logging.WARNING, "manifoldkit"):
            again = make_turntable(["jeep"], [1, 2], 3, 8)
        assert fake.drawn == 4
        assert "drawn again" in caplog.text
        assert np.array_equal(good.images, again.images)
        make_turntable(["jeep"], [1, 2], 3, 8)
        assert fake.drawn == 4  # repaired

    def test_half_written_files_of_two_threads_have_two_names(self, tmp_path, monkeypatch):
        names = []
        monkeypatch.setattr(render_cache.os, "replace", lambda partial, path: names.append(partial.name))
        for _ in range(2):
            render_cache.cached("key", (1,), lambda: np.zeros(1, np.uint8), tmp_path)
        assert len(set(names)) == 2
        assert all(name.startswith("key.") and name.endswith(".partial") for name in names)

    @pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "swap"])
    def test_damaged_files_are_drawn_again(self, fake, damage, caplog):
        good = make_turntable(["jeep"], [1, 2], 3, 8)
        (file,) = self.files()
        content = bytearray(file.read_bytes())
        if damage == "flip":
            content[-5] ^= 1
        elif damage == "cut":
            del content[-20:]
        elif damage == "empty":
            content.clear()
        elif damage == "foreign":
            content = bytearray(b"not a picture at all, but long enough to be read as one")
        else:  # the whole and undamaged file of other views
            make_turntable(["jeep"], [7, 8], 3, 8)
            (other,) = set(self.files()) - {file}
            content = bytearray(other.read_bytes())
        before = fake.drawn
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING, "manifoldkit"):
            again = make_turntable(["jeep"], [1, 2], 3, 8)
        assert fake.drawn == before + 2
        assert "drawn again" in caplog.text
        assert np.array_equal(good.images, again.images)
        make_turntable(["jeep"], [1, 2], 3, 8)
        assert fake.drawn == before + 2

    def test_a_cache_that_cannot_be_written_costs_a_line_in_the_log(self, fake, tmp_path, monkeypatch, caplog):
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with caplog.at_level(logging.WARNING, "manifoldkit"):
            views = make_turntable(["jeep"], 1, 3, 8)
        assert len(views.images) == 1
        assert "could not be kept" in caplog.text

    def test_fingerprints_tell_shapes_types_and_order_apart(self):
        one = np.arange(4)
        several = [
            [one], [one.reshape(2, 2)], [one.astype(np.int32)], [one, 1], [1, one], [one[::-1]], [one[:2], one[2:]],
        ]  # fmt: skip
        prints = {render_cache.fingerprint(*parts) for parts in several}
        assert len(prints) == 7


class TestBadInput:
    def check(self, error, match, *args, **options):
        with pytest.raises(error, match=match):
            make_turntable(*args, **options)

    def test_classes(self, tmp_path):
        self.check(ValueError, r"unknown class 'tank'.*pickup.*forklift", ["tank"], 0, 10)
        self.check(FileNotFoundError, r"none\.ply', which is no file", [tmp_path / "none.ply"], 0, 10)
        self.check(FileNotFoundError, "'oak.stl', which is no file", {"oak": "oak.stl"}, 0, 10)
        self.check(ValueError, "'suv' is given twice", ["suv", "suv"], 0, 10)
        self.check(ValueError, "at least one class", [], 0, 10)
        self.check(TypeError, r"write \['suv'\]", "suv", 0, 10)
        self.check(TypeError, "names of vehicles", [3], 0, 10)
        self.check(TypeError, "names of vehicles.*got 3 of type int", {"mine": 3}, 0, 10)
        mesh = SimpleNamespace(vertices=np.eye(3), faces=np.array([[0, 1, 2]]))
        self.check(TypeError, r"got a SimpleNamespace without a name: pass a mapping \{name: mesh\}", [mesh], 0, 10)
        self.check(ValueError, "did you mean 'dump truck'", ["dump_truck"], 0, 10)
        self.check(ValueError, "did you mean 'suv'", {"mine": "SUV"}, 0, 10)
        self.check(TypeError, r"whose order.*got a set: pass sorted\(classes\)", {"suv", "jeep"}, 0, 10)
        self.check(TypeError, r"whose order.*got a generator: pass list\(classes\)", (n for n in ["suv"]), 0, 10)
        self.check(TypeError, "must be a list of names or a mapping.*got None", None, 0, 10)
        self.check(TypeError, "must be a list of names or a mapping.*got 3", 3, 0, 10)

    def test_angles(self):
        self.check(ValueError, "must lie between -360 and 360 degrees, got 361: wrap it with %", ["suv"], [0, 361], 10)
        self.check(ValueError, "must lie between -10 and 90 degrees, got 91: these are degrees", ["suv"], 0, [10, 91])
        self.check(ValueError, "elevation.*got -11", ["suv"], 0, -11)
        self.check(ValueError, "NaN", ["suv"], np.nan, 10)
        self.check(ValueError, "azimuth must hold at least one angle.*got none", ["suv"], [], 10)
        self.check(ValueError, "elevation must hold at least one angle.*got none", ["suv"], 0, range(0))
        self.check(ValueError, "azimuth must be a number or a list", ["suv"], [[0, 1]], 10)
        self.check(ValueError, "as many with lattice=False.* got 2 and 3", ["suv"], [0, 1], [1, 2, 3], lattice=False)
        self.check(TypeError, "azimuth must hold real numbers", ["suv"], ["north"], 10)
        self.check(TypeError, "azimuth must hold real numbers, got truth values", ["suv"], True, 10)
        self.check(TypeError, "azimuth must hold real numbers, got truth values", ["suv"], [3, True], 10)
        self.check(TypeError, "elevation must hold real numbers, got truth values", ["suv"], 0, np.array([True]))
        self.check(TypeError, r"got a masked array.*compressed\(\)", ["suv"], np.ma.array([1.0, 2.0], mask=[0, 1]), 10)
        self.check(
            TypeError, "azimuth must hold real numbers, got generator: pass a list", ["suv"], (i for i in (1,)), 10
        )
        self.check(TypeError, "azimuth must hold real numbers, got set: pass a list", ["suv"], {1, 2}, 10)
        self.check(ValueError, "azimuth holds a number beyond those of double precision", ["suv"], [10**400], 10)

    def test_more_views_than_memory_are_refused_before_anything_is_made(self, fake):
        """7 x 4e8 views of 512 pixels: (16 x 7 + 4) 512^2 bytes each."""
        many = np.linspace(0, 90, 20_000)
        before = time.process_time()
        self.check(ValueError, r"7 x 400000000 views.*1.22e\+16 bytes", VEHICLE_NAMES, many, many, 512)
        assert time.process_time() - before < 1
        assert fake.drawn == 0

    def test_the_rest(self):
        self.check(ValueError, "size must be at least 8", ["suv"], 0, 10, 4)
        self.check(ValueError, "size must be at most 512", ["suv"], 0, 10, 513)
        self.check(TypeError, "size must be an integer", ["suv"], 0, 10, 32.0)
        self.check(ValueError, "background must be one of flat, random, scenes", ["suv"], 0, 10, 8, "sea")
        loud = np.full((3, 8, 8), 200.0)
        self.check(ValueError, "values from 200 to 200: divide by 255", ["suv"], 0, 10, 8, loud)
        self.check(ValueError, r"values from -200 to -200$", ["suv"], 0, 10, 8, -loud)
        self.check(ValueError, r"shape \(3, 8, 8\)", ["suv"], 0, 10, 8, np.zeros((8, 8, 3)))
        self.check(ValueError, r"values in \[0, 1\]", ["suv"], 0, 10, 8, np.full((3, 8, 8), 255.0))
        self.check(ValueError, r"values in \[0, 1\].*NaN", ["suv"], 0, 10, 8, np.full((3, 8, 8), np.nan))
        self.check(ValueError, "lights must be rows", ["suv"], 0, 10, lights=[[0, 45]])
        self.check(ValueError, "lights must be rows", ["suv"], 0, 10, lights=[[0, 45, -1]])
        self.check(ValueError, "lights must be rows", ["suv"], 0, 10, lights=[])
        self.check(ValueError, "paint must be three numbers", ["suv"], 0, 10, paint=(1, 0))
        self.check(ValueError, "paint must be three numbers.*got 0.5", ["suv"], 0, 10, paint=0.5)
        self.check(ValueError, "paint must be three numbers.*got 'red'", ["suv"], 0, 10, paint="red")
        self.check(TypeError, "lights must be rows.*got None", ["suv"], 0, 10, lights=None)
        self.check(TypeError, "one of flat, random, scenes, or a picture.*got NoneType", ["suv"], 0, 10, 8, None)
        self.check(TypeError, "one of flat, random, scenes, or a picture.*got dtype <U4", ["suv"], 0, 10, 8, ["flat"])
        self.check(ValueError, "elevation within 90.*got an elevation of 91", ["suv"], 0, 10, lights=[[0, 91, 1]])
        self.check(ValueError, "azimuth within 360.*got an azimuth of -361", ["suv"], 0, 10, lights=[[-361, 0, 1]])
        self.check(ValueError, "at most 100, got an intensity of 1e", ["suv"], 0, 10, lights=[[0, 45, 1e300]])
        self.check(ValueError, "lights contains NaN or infinity", ["suv"], 0, 10, lights=[[0, 45, np.inf]])
        self.check(
            TypeError, "paint must hold real numbers, got generator", ["suv"], 0, 10, paint=(c for c in (0, 1, 0))
        )
        self.check(TypeError, "paint must hold real numbers, got truth values", ["suv"], 0, 10, paint=(True, 0, 0))
        self.check(ValueError, "each colour of paint", ["suv"], 0, 10, paint=(1, 0, 255))
        self.check(TypeError, "cache must be True or False", ["suv"], 0, 10, cache="no")
        self.check(TypeError, "random_state", ["suv"], 0, 10, random_state="seed")
        with pytest.raises(ValueError, match="background must be one of"):
            turntable_background("sea")
        with pytest.raises(TypeError, match="kind must be one of"):
            turntable_background(np.zeros((3, 64, 64)))

    def test_without_pyvista(self, monkeypatch):
        def missing(name):
            raise ModuleNotFoundError(f"No module named {name!r}")

        monkeypatch.setattr(stage.importlib, "import_module", missing)
        self.check(ImportError, r'pip install "manifoldkit\[render\]"', ["suv"], 0, 10, 8)

    @pytest.mark.parametrize("error", [ImportError, OSError])
    @pytest.mark.parametrize("module", ["pyvista", "vtkmodules.vtkRenderingOpenGL2"])
    def test_without_a_library_of_the_system_pip_is_not_advised(self, error, module, monkeypatch):
        def unlinked(name):
            if name == module:
                raise error("libXrender.so.1: cannot open shared object file: No such file or directory")
            return SimpleNamespace()

        monkeypatch.setattr(stage.importlib, "import_module", unlinked)
        with pytest.raises(ImportError, match=r"libXrender.so.1.*apt install libgl1 libegl1 libxrender1") as caught:
            make_turntable(["suv"], 0, 10, 8)
        assert "pip" not in str(caught.value)


class TestGoodInput:
    """What is easily refused by mistake."""

    def test_names_of_numpy_become_names_of_python(self, fake):
        names = make_turntable(np.array(["suv", "jeep"]), 0, 10, 8).class_names
        assert names == ("suv", "jeep")
        assert {type(name) for name in names} == {str}

    def test_tensors_with_a_gradient(self, fake):
        grey = torch.full((3, 8, 8), 0.25, requires_grad=True)
        views = make_turntable(["jeep"], torch.tensor([1.0, 2.0], requires_grad=True), 3, 8, grey)
        assert views.angles[:, 0].tolist() == [1, 2]
        assert np.array_equal(views.images[:, :, 4:], np.full((2, 3, 4, 8), 0.25))

    def test_a_picture_of_nested_lists(self, fake):
        picture = turntable_background("random", 8, random_state=0)
        array, nested = (make_turntable(["jeep"], 1, 3, 8, entry).images for entry in (picture, picture.tolist()))
        assert np.array_equal(array, nested)

    def test_lights_of_the_largest_angles_and_of_none(self, fake):
        views = make_turntable(["jeep"], 1, 3, 8, lights=[[360, -90, 100], [-360, 90, 0]])
        assert len(views.images) == 1


@pytest.mark.usefixtures("renderer")
class TestRendering:
    def test_the_same_views_every_time(self):
        first, second = (make_turntable(["jeep"], [0, 77], [5, 40], 32, cache=False) for _ in range(2))
        assert np.array_equal(first.images, second.images)
        kept = make_turntable(["jeep"], [0, 77], [5, 40], 32)
        assert np.array_equal(first.images, kept.images)
        assert np.array_equal(first.images, make_turntable(["jeep"], [0, 77], [5, 40], 32).images)

    @pytest.mark.parametrize(
        "setting",
        ["show_edges", "show_vertices", "opacity", "lighting", "anti_aliasing", "parallel"],
    )
    def test_the_users_theme_of_pyvista_changes_nothing(self, setting):
        """Neither the pictures, nor, by them, the cache; and it stays as it was set."""
        import pyvista

        def view():
            return make_turntable(["jeep"], 30, 20, 32, cache=False).images

        theme = pyvista.global_theme
        kept = copy.deepcopy(theme)
        values = {"opacity": 0.5, "lighting": False, "anti_aliasing": "ssaa"}
        clean = view()
        try:
            if setting == "parallel":
                theme.camera.parallel_projection = True
            else:
                setattr(theme, setting, values.get(setting, True))
            changed = copy.deepcopy(theme)
            assert changed != kept
            assert view().tobytes() == clean.tobytes()
            assert theme == changed
        finally:
            theme.load_theme(kept)

    def test_a_full_turn_is_no_turn(self):
        views = make_turntable(["pickup"], [-360, -90, 0, 270, 360], 20, 32, cache=False).images
        assert np.abs(views[[0, 1, 4]] - views[[2, 3, 2]]).max() < 0.02

    @pytest.mark.parametrize("name", VEHICLE_NAMES)
    def test_they_are_inside_the_picture_and_symmetric(self, name):
        azimuth = np.array([25.0, 110.0])
        views = make_turntable([name], [*azimuth, *-azimuth], [3, 44], 64, cache=False)
        rim = np.concatenate([views.masks[:, [0, -1]].ravel(), views.masks[:, :, [0, -1]].ravel()])
        assert rim.max() < 0.1  # the bounding sphere ends one pixel inside
        assert 0.08 < views.masks.mean() < 0.5
        assert np.abs(views.masks[:4] - views.masks[4:, :, ::-1]).mean() < 2e-3

    def test_images_follow_the_angles_smoothly(self):
        """Half the angle gives about half the change, where pictures without supersampling jump."""
        views = make_turntable(["suv"], [40, 40.25, 40.5, 41], 20, 32, cache=False).images
        quarter, half, whole = (np.linalg.norm(views[i] - views[0]) for i in (1, 2, 3))
        assert quarter < 0.75 * half < 0.75 * 0.75 * whole

    def test_lights_change_colours_and_not_masks(self):
        dim, bright = (
            make_turntable(["suv"], 30, 20, 32, lights=[[-45, 40, level]], cache=False) for level in (0.2, 1.0)
        )
        assert np.array_equal(dim.masks, bright.masks)
        assert (bright.images >= dim.images - 1e-6).all()
        assert bright.images.mean() > dim.images.mean() + 0.01

    def test_windows_flash_at_some_azimuths(self):
        """The pixels of the side windows of a sedan are dark from most sides, bright where they mirror a light."""
        views = make_turntable(["sedan"], range(60, 121, 5), 15, 64, paint=(0.0, 0.0, 0.0), cache=False)
        brightest = np.quantile(views.images.mean(axis=1)[:, 20:30, 26:40], 0.7, axis=(1, 2))
        assert brightest.max() > 2 * brightest.min()

    @pytest.mark.parametrize("kind", ["ply", "stl", "vtk", "pyvista", "trimesh"])
    def test_a_sphere_of_the_users_is_a_disc(self, kind, tmp_path):
        """Its outline has the angular radius arcsin(1 / distance), from everywhere."""
        import pyvista

        ball = pyvista.Sphere(radius=7.0, center=(3, -2, 5), theta_resolution=60, phi_resolution=60)
        if kind == "pyvista":
            classes = {"ball": ball}
        elif kind == "trimesh":  # what its meshes have
            classes = {"ball": SimpleNamespace(vertices=np.asarray(ball.points), faces=ball.regular_faces)}
        else:
            classes = [tmp_path / f"ball.{kind}"]
            ball.save(classes[0])
        views = make_turntable(classes, [0, 100], [0, 60], 64, cache=False)
        assert views.class_names == ("ball",)
        radius = 32 * np.tan(np.arcsin(1 / stage.DISTANCE)) / np.tan(np.deg2rad(stage.OPENING / 2))
        assert np.abs(views.masks.sum(axis=(1, 2)) / (np.pi * radius**2) - 1).max() < 0.01

    @pytest.mark.parametrize(("azimuth", "right"), [(0, True), (90, False), (180, False), (270, True)])
    def test_which_way_is_up_and_which_way_it_turns(self, azimuth, right):
        """A tower at the front left corner of a slab: the camera goes counter-clockwise, the first row is on top."""
        import pyvista

        slab = pyvista.Box(bounds=(-1, 1, -1, 1, -1, -0.6))
        tower = pyvista.Box(bounds=(0.6, 1, 0.6, 1, -0.6, 1))
        mask = make_turntable({"tower": slab.merge(tower)}, azimuth, 0, 32, cache=False).masks[0]
        rows = np.flatnonzero(mask.sum(axis=1) > 0.5)
        top = mask[rows[0] : rows[0] + 4].sum(axis=0)
        assert 0 < top.sum() < 0.5 * mask[rows[-1] - 3 : rows[-1] + 1].sum()
        assert (np.average(np.arange(32), weights=top) > 16) == right

    @pytest.mark.parametrize("angle", [20, 80])
    def test_elevation_looks_down(self, angle):
        """The top of a flat plate shows, lit, from above; from below it would be its underside."""
        import pyvista

        plate = pyvista.Box(bounds=(-1, 1, -1, 1, -0.01, 0.01))
        lights = [[0.0, 89.0, 1.0]]
        above = make_turntable({"plate": plate}, 0, angle, 32, lights=lights, cache=False)
        below = make_turntable({"plate": plate}, 0, -10, 32, lights=lights, cache=False)
        brightest = [(views.images.max(axis=1) * (views.masks > 0.99)).max() for views in (above, below)]
        assert brightest[0] > 1.3 * brightest[1]
        shares = above.masks.sum() / make_turntable({"plate": plate}, 0, 90, 32, cache=False).masks.sum()
        assert abs(shares - np.sin(np.deg2rad(angle))) < 0.05

    @pytest.mark.parametrize(("name", "error"), [("a.ply", ValueError), ("a.txt", OSError), ("a.vtk", OSError)])
    def test_files_that_hold_no_mesh(self, name, error, tmp_path):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(error, match=f"{name} (holds no triangles, or is damaged|cannot be read as a mesh)"):
            make_turntable([tmp_path / name], 0, 10, 8)

    def test_a_damaged_file_is_told_of_once(self, tmp_path, caplog):
        """pyvista writes what VTK says of it to the root logger as well; our error is enough, other logs stay."""
        (tmp_path / "a.stl").write_bytes(b"solid x\nfacet nonsense" + bytes(range(200)))
        with pytest.raises(ValueError, match=r"a\.stl holds no triangles, or is damaged"):
            make_turntable([tmp_path / "a.stl"], 0, 10, 8)
        logging.getLogger().error("mine")
        assert [record.getMessage() for record in caplog.records] == ["mine"]

    def test_corners_at_nowhere_are_counted(self):
        import pyvista

        mesh = pyvista.PolyData(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [np.nan, 0, 1]]), [3, 0, 1, 2, 3, 0, 1, 3])
        with pytest.raises(ValueError, match="NaN or infinite corners in 1 of 2 triangles"):
            make_turntable({"a": mesh}, 0, 10, 8)

    @pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e300])
    def test_units_of_length_do_not_matter(self, scale):
        corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
        faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3]])
        one, other = (
            make_turntable({"a": SimpleNamespace(vertices=corners * s, faces=faces)}, 20, 30, 16, cache=False)
            for s in (1.0, scale)
        )
        assert one.masks.sum() > 10
        assert np.abs(one.images - other.images).max() < 0.02

    def test_points_of_no_face_do_not_matter(self):
        corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1e6, 0, 0]])
        faces = np.array([[0, 1, 2]])
        few, more = (
            make_turntable({"a": SimpleNamespace(vertices=points, faces=faces)}, 20, 60, 16, cache=False)
            for points in (corners[:3], corners)
        )
        assert np.array_equal(few.images, more.images)

    def test_colours_of_meshes_are_not_used(self):
        import pyvista

        ball = pyvista.Sphere()
        plain = make_turntable({"ball": ball}, 0, 10, 16, cache=False)
        ball["rgb"] = np.tile(np.array([255, 0, 0], np.uint8), (ball.n_points, 1))
        assert np.array_equal(plain.images, make_turntable({"ball": ball}, 0, 10, 16, cache=False).images)

    @pytest.mark.parametrize(
        ("vertices", "faces", "match"),
        [
            (np.eye(3), [[0, 1, 7]], "has 3 points, but a face with point 7"),
            (np.eye(3), [[0, 1, -1]], "has 3 points, but a face with point -1"),
            ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]], "without area"),
            (np.ones((3, 3)), [[0, 1, 2]], "without area"),
            (np.zeros((3, 3)), [[0, 1, 2]], "without area"),
            (np.full((3, 3), np.nan), [[0, 1, 2]], "NaN or infinity"),
            (np.eye(3), [[0.0, 1.0, 2.0]], r"faces \(m, 3\) of whole numbers"),
            (np.eye(3)[:, :2], [[0, 1, 2]], r"vertices \(n, 3\)"),
            (np.zeros((0, 3)), np.zeros((0, 3), int), "holds no triangles"),
        ],
    )
    def test_meshes_that_are_none(self, vertices, faces, match):
        with pytest.raises(ValueError, match=match):
            make_turntable({"a": SimpleNamespace(vertices=vertices, faces=np.array(faces))}, 0, 10, 8)

    def test_faces_of_pyvista_that_name_points_that_do_not_exist(self):
        """VTK would read beyond its arrays."""
        import pyvista

        broken = pyvista.PolyData(np.eye(3), [3, 0, 1, 2])
        broken.GetPolys().GetConnectivityArray().SetValue(2, 700_000)
        for mesh in (broken, pyvista.MultiBlock([pyvista.Sphere(), broken])):
            with pytest.raises(ValueError, match="has 3 points, but a face with point 700000"):
                make_turntable({"a": mesh}, 0, 10, 8)

    def test_scenes_are_taken_as_one_mesh(self):
        """What trimesh has: a scene has no vertices, but gives its geometry."""
        ball = SimpleNamespace(vertices=np.eye(3), faces=np.array([[0, 1, 2]]))
        scene = SimpleNamespace(geometry={"ball": ball}, to_geometry=lambda: ball)
        one, other = (make_turntable({"a": mesh}, 20, 30, 16, cache=False).images for mesh in (ball, scene))
        assert np.array_equal(one, other)
        lines = SimpleNamespace(geometry={}, to_geometry=lambda: SimpleNamespace(vertices=np.eye(3)))
        with pytest.raises(TypeError, match="no vertices and faces"):
            make_turntable({"a": lines}, 20, 30, 16)

    def test_files_that_only_trimesh_reads(self, tmp_path, monkeypatch):
        file = tmp_path / "triangle.off"
        file.write_text("OFF\n3 1 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n")
        load, asked = stage.importlib.import_module, []

        def without(name):
            if name == "trimesh":
                raise ModuleNotFoundError(name)
            return load(name)

        def reader(path, force):
            asked.append((path, force))
            return SimpleNamespace(vertices=np.eye(3), faces=np.array([[0, 1, 2]]))

        monkeypatch.setattr(meshes.importlib, "import_module", without)
        with pytest.raises(
            OSError, match=r"triangle.off cannot be read.*trimesh.*is not installed: pip install trimesh"
        ):
            make_turntable([file], 0, 10, 8)
        fake = SimpleNamespace(load=reader)
        monkeypatch.setattr(meshes.importlib, "import_module", lambda n: fake if n == "trimesh" else load(n))
        assert make_turntable([file], 20, 30, 16).masks.sum() > 10
        assert asked == [(str(file), "mesh")]

    def test_a_mesh_without_triangles(self):
        import pyvista

        with pytest.raises(ValueError, match="mesh with a surface"):
            make_turntable({"dot": pyvista.PolyData(np.zeros((1, 3)))}, 0, 10, 8)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is how Linux draws without a screen")
    def test_no_opengl_is_an_error_and_no_crash(self):
        code = (
            "from manifoldkit.datasets import make_turntable\n"
            "try: make_turntable(['suv'], 0, 10, 8, cache=False)\n"
            "except OSError as error: print('refused:', error)"
        )
        hidden = {"__EGL_VENDOR_LIBRARY_FILENAMES": os.devnull, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | hidden
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        if result.returncode == 0 and result.stdout == "":
            pytest.skip("this machine has OSMesa besides EGL")
        assert "apt install libegl1" in result.stdout
