"""Where the files of an image data set are: on this machine if possible, else downloaded once into a cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._idx import read_idx

ENVIRONMENT_VARIABLE = "MANIFOLDKIT_DATA"


@dataclass(frozen=True)
class Source:
    """One IDX file: its name, its shape, and the sums that identify it."""

    name: str
    shape: tuple[int, ...]
    md5: str  # of the uncompressed file, however it was compressed
    sha256: str  # of the gzip file on the mirrors


@dataclass(frozen=True)
class Collection:
    """A data set: the folder name it goes by, its mirrors, its system folders, and its (images, labels) by split."""

    name: str
    mirrors: tuple[str, ...]
    system: tuple[str, ...]
    splits: dict[str, tuple[Source, Source]]


def cache_folder() -> Path:
    """The folder for downloads: the user's cache, by the custom of the operating system."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if home.is_absolute():  # by the specification of XDG a relative one is to be ignored
        return home / "manifoldkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "manifoldkit" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "manifoldkit"
    return Path.home() / ".cache" / "manifoldkit"


def search_folders(collection: Collection) -> Iterator[Path]:
    """The folders that may hold the files, the user's own choice first."""
    if own := os.environ.get(ENVIRONMENT_VARIABLE):
        root = Path(own).expanduser()
        if not root.is_dir():
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE} is set to {own!r}, which is not a folder: correct it or unset the variable"
            )
        yield root / collection.name
        yield root
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():  # in an installed package this is site-packages, none of our business
        yield checkout / "data" / collection.name
    yield from map(Path, collection.system)
    yield cache_folder() / collection.name


def read_split(
    collection: Collection, split: str, *, download: bool, foreign: frozenset[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of a split, from the first folder that has both files.

    Parameters
    ----------
    collection : Collection
        The data set.
    split : str
        A key of ``collection.splits``.
    download : bool
        Whether to go to the mirrors when no folder has the files.
    foreign : frozenset of str
        MD5 sums of other data sets with the same file names; a folder that holds those is passed over.

    Raises
    ------
    ValueError
        If a file is damaged.
    FileNotFoundError
        If no folder has the files and `download` is false.
    ImportError
        If a download is needed and pooch is missing.
    OSError
        If every mirror fails.
    """
    sources = collection.splits[split]
    folders = list(search_folders(collection))
    for folder in folders:
        found = [path for source in sources if (path := _find(folder, source.name))]
        if len(found) == len(sources):
            contents = [read_idx(path, source.shape) for path, source in zip(found, sources, strict=True)]
            if not any(md5 in foreign for _, md5 in contents):
                break
    else:
        if not download:
            raise FileNotFoundError(
                f"no folder holds the {split} split of {collection.name} (looked in {', '.join(map(str, folders))}): "
                f"set {ENVIRONMENT_VARIABLE} to the folder with its IDX files, or allow the download: download=True"
            )
        found = [_download(collection, source) for source in sources]
        contents = [read_idx(path, source.shape) for path, source in zip(found, sources, strict=True)]
    for path, source, (_, md5) in zip(found, sources, contents, strict=True):
        if md5 != source.md5:
            raise ValueError(
                f"{path} has the right size but not the right contents (MD5 {md5} uncompressed, expected "
                f"{source.md5}): replace the file by a fresh copy"
            )
    (images, _), (labels, _) = contents
    return images, labels


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _download(collection: Collection, source: Source) -> Path:
    """Fetch one file into the cache, from the first mirror that delivers what its SHA256 promises."""
    try:
        import pooch  # optional, so imported when needed
    except ImportError as error:
        raise ImportError(
            f"{collection.name} is not on this machine, and downloading it needs pooch: run "
            f'pip install "manifoldkit[data]", or set {ENVIRONMENT_VARIABLE} to the folder with its IDX files'
        ) from error
    file_name = f"{source.name}.gz"
    failures = []
    for mirror in collection.mirrors:
        try:
            path = pooch.retrieve(
                mirror + file_name,
                known_hash=f"sha256:{source.sha256}",
                fname=file_name,
                path=cache_folder() / collection.name,
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong checksum is a ValueError
            failures.append(f"{mirror}: {error}")
            continue
        return Path(path)
    raise OSError(
        f"could not download {file_name} of {collection.name} ({'; '.join(failures)}): check the network, or set "
        f"{ENVIRONMENT_VARIABLE} to the folder with its IDX files"
    )
