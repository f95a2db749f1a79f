"""Tables of benchmarks in Markdown."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation of a sample."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def cell(rows: Sequence[Mapping[str, float]], name: str, digits: int = 3) -> str:
    """`spread` of one figure of some rows."""
    return spread([row[name] for row in rows], digits)


def mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def command(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """The line that makes these tables again, with what was not left at its default; the folder of the rows is not."""
    name = Path(parser.prog)
    words = ["python", f"benchmarks/{name}"]
    for option, value in vars(options).items():
        if option not in ("work", "out") and value != parser.get_default(option):
            values = [str(entry) for entry in (value if isinstance(value, list) else [value])]
            words += [f"--{option.replace('_', '-')}", *values]
    return f"Command: `{' '.join(words)} --out benchmarks/{name.stem}.md`."


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; floats are shown with three digits."""
    head = tuple(head)
    shown = [" | ".join(f"{entry:.3g}" if isinstance(entry, float) else str(entry) for entry in row) for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {row} |" for row in shown)])


def write(parts: Iterable[str], out: Path | None) -> None:
    """Paragraphs, headings and tables to a file, or to the screen without one."""
    text = "\n\n".join(parts) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
