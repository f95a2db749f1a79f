"""Sphinx: theory pages, the gallery, and an API page for every public package, made from its `__all__`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import manifoldkit

project = "manifoldkit"
author = "The manifoldkit developers"
version = release = manifoldkit.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
autosummary_generate = True
templates_path = ["_templates"]
autodoc_typehints = "none"  # numpydoc says it in words, with shapes
numpydoc_show_class_members = False  # autodoc does, in full
suppress_warnings = ["ref.ref"]  # links in docstrings inherited from scikit-learn
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {"secondary_sidebar_items": {"measured/*": []}}  # room for the tables
html_title = f"manifoldkit {version}"

PACKAGES = (
    "",
    "geometry",
    "attacks",
    "risk",
    "isometry",
    "priors",
    "defenses",
    "datasets",
    "plotting",
    "reductions",
    "exceptions",
)


def _page(name: str) -> str:
    """An API page: what the package says of itself, and a table of its public names."""
    full = f"manifoldkit.{name}".rstrip(".")
    package = importlib.import_module(full)
    names = [item for item in package.__all__ if callable(getattr(package, item))]
    if not name:  # the rest is described where it is defined
        names = [item for item in names if item not in importlib.import_module("manifoldkit.geometry").__all__]
    lines = [full, "=" * len(full), "", f".. automodule:: {full}", "   :no-members:", "", f".. currentmodule:: {full}"]
    lines += ["", ".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
    return "\n".join(lines + [f"   {item}" for item in names]) + "\n"


def _write(path: Path, text: str) -> None:
    """Write only what has changed, so that only that is built again."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


_here = Path(__file__).parent
for _name in PACKAGES:
    _write(_here / "api" / f"{_name or 'manifoldkit'}.rst", _page(_name))
for _table in sorted((_here.parent / "benchmarks").glob("*.md")):
    _write(_here / "measured" / _table.name, _table.read_text().replace("../docs/images/", "../images/"))


def _escaped(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Shapes such as (B, *shape) are no emphasis, and (n_components_,) is no link."""
    for i, line in enumerate(lines):
        line = re.sub(r"(?<![\w*`\\])\*(?=\w)(?!\w[^*]*\*(?!\w))", r"\\*", line)
        lines[i] = re.sub(r"(?<=\w)_(?=,?\))", r"\\_", line) if "`" not in line else line


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _escaped, priority=400)  # before numpydoc
