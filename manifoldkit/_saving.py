"""Files for fitted objects: arrays in safetensors, everything else as JSON in its header, and never any code.

An object is written as a tree: numbers, text, lists and dictionaries as they are, arrays by name, and objects of the
classes registered by `savable` as their attributes. Reading makes objects of these classes only and calls nothing that
the file could name. An array that several objects share is written once, and is shared again when read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SaveMixin", "load", "savable", "save"]

#: Of the layout of the file; raised when older readers would misunderstand it.
FORMAT = "1"
PLAIN = (bool, int, float, str, type(None))

_CLASSES: dict[str, type] = {}
_Class = TypeVar("_Class", bound=type)


def savable(cls: _Class) -> _Class:
    """Register a class whose objects may stand in a file.

    Its attributes are written, or what the method ``_saved_state()`` returns, and read into a new object, or given to
    the class method ``_restored(state)``.
    """
    _CLASSES[cls.__name__] = cls
    return cls


class SaveMixin:
    """Adds `save` and `load` to an estimator."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted object to a file that :meth:`load` reads, on any machine, without running code from it.

        Unlike a pickle the file holds arrays (safetensors) and their description (JSON), with a checksum. The file
        appears under its name only when it is complete.

        Parameters
        ----------
        path : str or path
            An existing file is replaced.

        Raises
        ------
        NotFittedError
            If the object has not been fitted.
        TypeError
            If a parameter is a function, a random state or another object that no file can describe.
        """
        check_is_fitted(self)
        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an object that :meth:`save` wrote.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, was not written by manifoldkit, or holds an object of another class.
        """
        found = load(path)
        if not isinstance(found, cls):
            raise ValueError(f"{os.fspath(path)} holds a {type(found).__name__}, not a {cls.__name__}")
        return found


def save(value: Any, path: str | os.PathLike[str]) -> None:
    """Write an object of a registered class, see `SaveMixin.save`."""
    from safetensors.numpy import save_file

    from . import __version__

    writer = _Writer()
    tree = json.dumps(writer.encode(value, type(value).__name__))
    header = {
        "format": FORMAT,
        "manifoldkit": __version__,
        "tree": tree,
        "sha256": _checksum(tree, writer.arrays),
    }
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(writer.arrays, name, metadata=header)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> Any:
    """Read a manifold that was written by its method ``save``, whatever its class.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    DiffusionManifold or ManifoldAtlas

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or was not written by manifoldkit.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import manifoldkit
    >>> t = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    >>> ring = manifoldkit.DiffusionManifold(n_components=9).fit(np.column_stack([np.cos(t), np.sin(t)]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "ring.safetensors"
    ...     ring.save(path)
    ...     again = manifoldkit.load(path)
    >>> bool((again.project([[0.0, 1.3]]) == ring.project([[0.0, 1.3]])).all())
    True
    """
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    if not Path(name).is_file():
        raise FileNotFoundError(f"there is no file {name}")
    try:
        with safe_open(name, framework="numpy") as file:
            header = file.metadata() or {}
            if "manifoldkit" not in header:
                raise ValueError(f"{name} was not written by manifoldkit, but by another user of safetensors")
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"{name} has layout {header.get('format')!r}, this version of manifoldkit reads {FORMAT!r}: it was "
                    f"written by manifoldkit {header['manifoldkit']}"
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{name} is damaged, or no file of manifoldkit: {error}") from error
    tree = header.get("tree", "")
    if _checksum(tree, arrays) != header.get("sha256"):
        raise ValueError(f"{name} is damaged: its contents do not match their checksum")
    try:
        return _decode(json.loads(tree), arrays)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{name} describes no object of this version of manifoldkit: {error!r}") from error


def _checksum(tree: str, arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256(tree.encode())
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].dtype.str} {arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class _Writer:
    """Turns objects into a tree of JSON, and collects their arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # so that no two arrays have the same identity, one after the other

    def encode(self, value: Any, where: str) -> Any:
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), where)}
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, torch.Tensor):
            return {"tensor": self._array(value, where)}
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "OU":
                return {"text": [str(item) for item in value], "dtype": value.dtype.str}
            return {"array": self._array(value, where)}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [self.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]}
        if isinstance(value, dict):
            return {"dict": {key: self.encode(item, f"{where}[{key!r}]") for key, item in value.items()}}
        if sp.issparse(value):
            rows = value.tocsr()
            parts = (rows.data, rows.indices, rows.indptr, list(rows.shape))
            return {"sparse": self.encode(list(parts), where), "new": isinstance(value, sp.sparray)}
        if _CLASSES.get(type(value).__name__) is type(value):
            state = value._saved_state() if hasattr(value, "_saved_state") else vars(value)
            items = {key: self.encode(item, f"{where}.{key}") for key, item in state.items()}
            return {"object": type(value).__name__, "state": items}
        raise TypeError(
            f"{where} is a {type(value).__name__}, which cannot be written without code: use pickle, or set the "
            "parameter to a name or a number"
        )

    def _array(self, value: Any, where: str) -> str:
        if id(value) not in self._names:
            array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            if array.dtype.kind not in "biuf":
                raise TypeError(f"{where} is an array of {array.dtype}, and only numbers can be written")
            self._names[id(value)] = f"{len(self._names):03d} {where}"
            self._kept.append(value)
            self.arrays[self._names[id(value)]] = np.ascontiguousarray(array).reshape(array.shape)
        return self._names[id(value)]


def _decode(tree: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(tree, PLAIN):
        return tree
    if "scalar" in tree:
        return arrays[tree["scalar"]][()]
    if "tensor" in tree:
        return torch.from_numpy(arrays[tree["tensor"]])
    if "text" in tree:
        return np.array(tree["text"], dtype=tree["dtype"])
    if "array" in tree:
        return arrays[tree["array"]]
    if "list" in tree:
        return [_decode(item, arrays) for item in tree["list"]]
    if "tuple" in tree:
        return tuple(_decode(item, arrays) for item in tree["tuple"])
    if "dict" in tree:
        return {key: _decode(item, arrays) for key, item in tree["dict"].items()}
    if "sparse" in tree:
        data, indices, start, shape = _decode(tree["sparse"], arrays)
        return (sp.csr_array if tree["new"] else sp.csr_matrix)((data, indices, start), shape=tuple(shape))
    cls = _CLASSES[tree["object"]]
    state = {key: _decode(item, arrays) for key, item in tree["state"].items()}
    if hasattr(cls, "_restored"):
        return cls._restored(state)
    made: Any = object.__new__(cls)
    made.__dict__.update(state)
    return made
