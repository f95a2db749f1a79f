"""The shell does what the library does, and tells errors in a line."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest

import manifoldkit
from manifoldkit import DiffusionManifold
from manifoldkit.cli import OPTIONS, QUERIES, main
from manifoldkit.datasets import make_circle


@pytest.fixture
def folder(tmp_path):
    points = make_circle(120, noise=0.02, random_state=0).points
    np.save(tmp_path / "points.npy", points)
    np.savetxt(tmp_path / "queries.csv", 1.2 * points[:5], delimiter=",")
    assert main(["fit", str(tmp_path / "points.npy"), "--out", str(tmp_path / "m"), "--n-components", "9"]) == 0
    return tmp_path


@pytest.mark.parametrize("ending", [".npy", ".csv", ".txt"])
@pytest.mark.parametrize("name", [name for name in QUERIES if name != "tangent_basis"])
def test_queries_answer_as_the_library_does(folder, name, ending):
    points = np.load(folder / "points.npy")
    expected = getattr(DiffusionManifold(9).fit(points), name)(np.loadtxt(folder / "queries.csv", delimiter=","))
    out = folder / f"answer{ending}"
    assert main([name, str(folder / "m"), str(folder / "queries.csv"), "--out", str(out)]) == 0
    found = np.load(out) if ending == ".npy" else np.loadtxt(out, delimiter="," if ending == ".csv" else None)
    np.testing.assert_array_equal(found, expected)


def test_tangents_and_information(folder, capsys):
    out = folder / "tangents.npy"
    assert main(["tangent-basis", str(folder / "m"), str(folder / "queries.csv"), "--out", str(out)]) == 0
    assert np.load(out).shape == (5, 2, 1)
    assert main(["info", str(folder / "m")]) == 0
    text = capsys.readouterr().out
    assert "120 of shape (2,)" in text
    assert "tangent spaces of 1" in text


def test_classes(folder):
    points = np.load(folder / "points.npy")
    np.save(folder / "both.npy", np.concatenate([points, 3 * points]))
    (folder / "names.txt").write_text("inner\n" * 120 + "outer\n" * 120)
    (folder / "asked.txt").write_text("inner\n" * 5)
    command = ["fit", str(folder / "both.npy"), "--labels", str(folder / "names.txt"), "--out", str(folder / "a")]
    assert main([*command, "--n-components", "9"]) == 0
    assert list(manifoldkit.load(folder / "a").classes_) == ["inner", "outer"]
    query = ["project", str(folder / "a"), str(folder / "queries.csv"), "--labels", str(folder / "asked.txt")]
    assert main([*query, "--out", str(folder / "p.csv")]) == 0
    radius = np.linalg.norm(np.loadtxt(folder / "p.csv", delimiter=","), axis=1)
    np.testing.assert_allclose(radius, 1, atol=0.05)


def test_every_option_is_a_parameter(folder):
    assert set(OPTIONS) <= set(DiffusionManifold().get_params())
    command = ["fit", str(folder / "points.npy"), "--out", str(folder / "n"), "--distance-components", "2"]
    assert main([*command, "--n-components", "7", "--epsilon", "1.5", "--neighbors", "brute"]) == 0
    parameters = manifoldkit.load(folder / "n").get_params()
    assert (parameters["epsilon"], parameters["neighbors"], parameters["distance_components"]) == (1.5, "brute", 2)


def test_the_command_is_installed():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="manifoldkit")
    assert [script.value for script in scripts] == ["manifoldkit.cli:main"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["info", "nothing"], "there is no file"),
        (["info", "points.npy"], "no file of manifoldkit"),
        (["fit", "nothing.npy", "--out", "x"], "nothing.npy"),
        (["fit", "points.xlsx", "--out", "x"], "must end in .npy, .csv or .txt"),
        (["fit", "points.npy", "--out", "x", "--n-components", "500"], "exceeds n_samples=120"),
        (["fit", "points.npy", "--out", "x", "--labels", "queries.csv"], "one label for each of 120 samples"),
        (["project", "m", "queries.csv", "--out", "x.xlsx"], "must end in"),
        (["project", "m", "queries.csv", "--out", "x.npy", "--labels", "queries.csv"], "leave out --labels"),
        (["tangent-basis", "m", "queries.csv", "--out", "x.csv"], "end in .npy"),
    ],
)
def test_bad_input(folder, command, message, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"manifoldkit {command[0]}: ")
    assert message in error
    assert not (folder / "x").exists()
