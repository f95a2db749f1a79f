"""Rows of a long benchmark, kept in files: a run that was interrupted goes on, and a part can be run by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def stored(file: Path, compute: Callable[[], Any]) -> Any:
    """What `compute` returns, from the file if it is there; the file appears when it is whole."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(compute()))
        partial.replace(file)
        print(f"{file.stem}: {file.read_text()}", file=sys.stderr, flush=True)
    return json.loads(file.read_text())
