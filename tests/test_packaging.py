"""What a user meets first: light imports, complete lists of public names, documented methods, one version."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import manifoldkit
from manifoldkit import exceptions

ROOT = Path(__file__).parents[1]
PACKAGES = ["manifoldkit"] + [
    module.name for module in pkgutil.walk_packages(manifoldkit.__path__, "manifoldkit.") if module.ispkg
]
MODULES = PACKAGES + [
    module.name
    for module in pkgutil.walk_packages(manifoldkit.__path__, "manifoldkit.")
    if not module.ispkg and not module.name.endswith("__main__")
]


def test_version_is_that_of_the_metadata():
    assert manifoldkit.__version__ == importlib.metadata.version("manifoldkit")
    assert f'\nversion = "{manifoldkit.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {manifoldkit.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{manifoldkit.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_type_information_is_shipped():
    assert Path(manifoldkit.__file__).with_name("py.typed").is_file()


def test_imports_are_light():
    """The engine that compiles, the downloader and the other extras are imported when first used."""
    late = [
        "pykeops",
        "keopscore",
        "pooch",
        "faiss",
        "pynndescent",
        "numba",
        "dask",
        "sphinx",
        "pytest",
        "pyvista",
        "vtkmodules",
        "zuko",
        "normflows",
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {MODULES!r}: importlib.import_module(name)\n"
        f"print([name for name in {late!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_every_package_has_its_page_of_the_documentation():
    pages = (ROOT / "docs" / "api.md").read_text()
    made = (ROOT / "docs" / "conf.py").read_text()
    for package in PACKAGES:
        name = package.removeprefix("manifoldkit.")
        if package.count(".") <= 1:
            assert f"\napi/{name}\n" in pages
            assert f'"{name}"' in made or name == "manifoldkit"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert len(set(public)) == len(public)
    for entry in public:
        thing = getattr(module, entry)
        if not callable(thing) or not getattr(thing, "__module__", "").startswith("manifoldkit"):
            continue
        assert inspect.getdoc(thing), f"{name}.{entry} has no docstring"
        if inspect.isclass(thing):
            own = {
                key: value
                for base in thing.__mro__
                if base.__module__.startswith("manifoldkit")
                for key, value in vars(base).items()
            }
            for key, value in own.items():
                if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(getattr(thing, key)), f"{name}.{entry}.{key} has no docstring"


@pytest.mark.parametrize(
    "name", [f"manifoldkit.{name}" for name in ("datasets", "geometry", "attacks", "isometry", "priors", "defenses")]
)
def test_packages_list_their_public_names(name):
    assert importlib.import_module(name).__all__


def test_the_package_itself_loads_no_pictures():
    code = "import sys, manifoldkit; print([name for name in ('matplotlib', 'PIL', 'pykeops') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_every_warning_of_the_library_is_provoked_by_a_test():
    """Names of classes that no test mentions."""
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("*/test_*.py"))
    missing = [name for name in exceptions.__all__ if name not in sources]
    assert not missing
