"""The file that lets an evaluation go on where it was interrupted, and what tells one run from another."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from joblib.hashing import NumpyHasher

from manifoldkit.attacks._input import as_numpy
from manifoldkit.attacks.base import Attack

__all__ = ["Record", "digest_of", "fingerprint_of"]

#: How every record begins.
HEAD = '{"manifoldkit": "evaluation", "run": "'
#: What every module has.
_OWN = frozenset(vars(torch.nn.Module()))
#: What a line of the record holds.
KEYS = {"batch", "data", "labels", "predictions", "figures"}


class Record:
    """A file of JSON lines: a head that names the run, then one line for each finished batch."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.done: dict[int, dict[str, Any]] = {}
        content = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if "\n" not in content and HEAD.startswith(content[: len(HEAD)]):  # nothing yet, or a head that was torn
            path.write_text(json.dumps({"manifoldkit": "evaluation", "run": fingerprint}) + "\n")
            return
        lines = content.split("\n")
        head = _parsed(lines[0])
        if head is None or head.get("manifoldkit") != "evaluation":
            raise ValueError(f"{path} is not the record of an evaluation: give another path")
        if head.get("run") != fingerprint:
            raise ValueError(
                f"{path} belongs to a run with another network, other attacks, budgets or seeds: give another path, or "
                "remove the file"
            )
        for line in lines[1:]:
            entry = _parsed(line)  # the last line of an interrupted run may be torn, any line damaged: not done then
            if entry is not None and entry.pop("checksum", None) == _checksum(entry) and entry.keys() >= KEYS:
                self.done[entry["batch"]] = entry
        if not content.endswith("\n"):
            with path.open("a") as file:
                file.write("\n")

    def read(self, number: int, digest: str) -> dict[str, Any] | None:
        """What was written of a batch, or None; refused if the batch has other contents now."""
        entry = self.done.get(number)
        if entry is not None and entry["data"] != digest:
            raise ValueError(f"{self.path} holds other images for batch {number}: do not shuffle, or give another path")
        return entry

    def write(self, number: int, digest: str, figures: dict[str, Any]) -> None:
        """Append a batch, on the disk when this returns."""
        entry = {"batch": number, "data": digest, **figures}
        with self.path.open("a") as file:
            file.write(json.dumps(entry | {"checksum": _checksum(entry)}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _checksum(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def digest_of(images: Any, labels: Any) -> str:
    """A digest of the contents of a batch."""
    text = hashlib.sha256()
    for part in (images, labels):
        numbers = np.ascontiguousarray(as_numpy(part))
        text.update(f"{getattr(part, 'dtype', None)}{numbers.dtype}{numbers.shape}".encode())
        text.update(numbers.tobytes())
    return text.hexdigest()


class _Hasher(NumpyHasher):
    """joblib's hash of contents; pickles of tensors hold addresses, so these are hashed by their entries."""

    def save(self, obj: Any) -> None:
        if isinstance(obj, torch.nn.Module):
            settings = [(name, type(part).__qualname__, _settings(part)) for name, part in obj.named_modules()]
            obj = (repr(obj), list(obj.state_dict().items()), settings)
        elif isinstance(obj, FunctionType) and ("<" in obj.__qualname__ or obj.__module__ == "__main__"):
            code = obj.__code__
            obj = (obj.__qualname__, code.co_code, repr(code.co_consts), repr(code.co_names))
        elif isinstance(obj, torch.Tensor):
            plain = obj.detach().cpu()
            plain = plain.float() if plain.dtype == torch.bfloat16 else plain
            obj = (str(obj.dtype), plain.contiguous().numpy())
        elif hasattr(type(obj), "MADE_LATER"):
            name = f"{type(obj).__module__}.{type(obj).__qualname__}"
            obj = (name, {key: value for key, value in vars(obj).items() if key not in obj.MADE_LATER})
        super().save(obj)


def _settings(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """What a module holds besides weights and modules: a scale, a temperature, a forward that was put in its place."""
    return sorted((name, value) for name, value in vars(module).items() if name not in _OWN)


def _hash(value: Any, what: str) -> str:
    try:
        return str(_Hasher("sha1").hash(value))
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"a record needs to tell one run from another, and {what} cannot be hashed ({error}): define its class at "
            "the top of a module, or leave path out"
        ) from error


def fingerprint_of(
    model: torch.nn.Module, attacks: Mapping[str, Attack], plan: Any, calibration: Any, random_state: int
) -> str:
    """A digest of the networks' weights, layers and settings, and of what attacks and calibration are set to."""
    parts = [repr(plan), repr(random_state), _hash(model, "the model"), _hash(calibration, "the calibration")]
    for name, attack in attacks.items():
        parts.append(f"{name!r} {type(attack).__module__}.{type(attack).__qualname__}")
        for key, value in sorted(vars(attack).items()):
            if key not in ("model", "generator"):  # replaced by those of the run
                what = f"{key} of the attack {name!r}"
                parts.append(f"{key} {_loss_name(value, what) if key == 'loss' else _hash(value, what)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _loss_name(loss: Any, what: str) -> str:
    if isinstance(loss, torch.nn.Module):
        return _hash(loss, what)
    if not isinstance(loss, FunctionType) or "<" in loss.__qualname__:  # <lambda>, <locals>: one name for many
        raise ValueError(f"{what} has no name that a record could tell it by: define a function at the top of a module")
    return f"{loss.__module__}.{loss.__qualname__}"
