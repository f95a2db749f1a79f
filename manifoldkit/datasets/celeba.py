"""CelebA, from the user's own copy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._validation import check_count, check_rng
from .attributed import AttributedImages

__all__ = ["load_celeba"]

_SPLITS = {"train": 0, "valid": 1, "test": 2}
_CROP = 178  # width of the aligned images, 178 x 218


def load_celeba(
    folder: Any,
    split: Literal["train", "valid", "test"] | None = None,
    *,
    n_samples: int | None = None,
    size: int = 64,
    attributes: Sequence[str] | None = None,
    random_state: Any = None,
) -> AttributedImages:
    """Load aligned CelebA images and attributes from a folder in the format of its authors [1]_.

    The data set may not be redistributed: get it from its authors. The folder holds ``img_align_celeba/`` with the
    images (or another folder of this name, in which they are), ``list_attr_celeba.txt``, and, for `split`,
    ``list_eval_partition.txt``; tables ending in ``.csv`` will do as well.

    Parameters
    ----------
    folder : str or Path
    split : {"train", "valid", "test"}, optional
        The authors' partition; by default all images.
    n_samples : int, optional
        That many images, chosen at random without repetition, in the order of the file; by default all, which takes
        10 GB at size 64.
    size : int, default 64
        Height and width, after the central square of the shorter side, at most 178, has been cut out.
    attributes : sequence of str, optional
        Names of the attributes to return, "Male" or "Smiling" for instance; by default all 40.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    AttributedImages

    Raises
    ------
    FileNotFoundError
        If the folder, a table or an image is missing.
    TypeError, ValueError
        If a table is damaged, an attribute is unknown, or an argument lies outside its range.
    ImportError
        If Pillow, which comes with matplotlib, is not installed.

    References
    ----------
    .. [1] Z. Liu, P. Luo, X. Wang and X. Tang. "Deep learning face attributes in the wild", ICCV 2015.

    Examples
    --------
    >>> from manifoldkit.datasets import load_celeba
    >>> faces = load_celeba("celeba", "train", n_samples=1000, random_state=0)  # doctest: +SKIP
    >>> faces.images.shape, len(faces.names)  # doctest: +SKIP
    ((1000, 3, 64, 64), 40)
    """
    root, side = Path(folder).expanduser(), check_count(size, "size")
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}: get CelebA from its authors and name the folder with it")
    if split is not None and split not in _SPLITS:
        raise ValueError(f"split must be one of {tuple(_SPLITS)} or None, got {split!r}")
    names, table = _table(root, "list_attr_celeba")
    wanted = names if attributes is None else tuple(attributes)
    if isinstance(attributes, str):
        raise TypeError(f"attributes must be a sequence of names, got the string {attributes!r}: take [{attributes!r}]")
    if not names:
        raise ValueError("list_attr_celeba is empty or has no line of names: replace it by a fresh copy")
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise ValueError(f"attributes must be among {names}, got {unknown or 'none'}")
    files = list(table)
    if split is not None:
        parts = _table(root, "list_eval_partition")[1]
        absent = next((name for name in files if name not in parts), None)
        if absent is not None:
            raise ValueError(f"list_eval_partition does not name {absent}: the tables are of different data sets")
        files = [name for name in files if parts[name][0] == _SPLITS[split]]
    if not files:
        raise ValueError(f"the tables name no image of split {split!r}")
    if n_samples is not None:
        count = check_count(n_samples)
        if count > len(files):
            raise ValueError(f"n_samples is {count}, but there are only {len(files)} images: ask for fewer")
        rows = check_rng(random_state).choice(len(files), size=count, replace=False)
        files = [files[row] for row in np.sort(rows)]
    columns = [names.index(name) for name in wanted]
    flags = np.array([table[name] for name in files])[:, columns]
    if not np.isin(flags, (-1, 0, 1)).all():
        raise ValueError("list_attr_celeba holds other numbers than -1, 0 and 1: replace it by a fresh copy")
    place = root / "img_align_celeba"
    nested = place / place.name
    place = nested if nested.is_dir() else place
    images = np.empty((len(files), 3, side, side), dtype=np.float32)
    for row, name in enumerate(files):
        images[row] = _read(place / name, side)
    return AttributedImages(images, (flags > 0).astype(np.int64), wanted)


def _table(root: Path, stem: str) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Names of the columns and rows of integers by file name."""
    path = next((root / f"{stem}{end}" for end in (".txt", ".csv") if (root / f"{stem}{end}").is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{root} holds neither {stem}.txt nor {stem}.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.reader(stream)) if path.suffix == ".csv" else [line.split() for line in stream]
    lines = [line for line in lines if line]
    if path.suffix == ".csv":
        names, lines = tuple(lines[0][1:]) if lines else (), lines[1:]
    elif stem == "list_attr_celeba":  # number of images, names, rows
        names, lines = tuple(lines[1]) if len(lines) > 1 else (), lines[2:]
    else:
        names = ("partition",)
    rows: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        try:
            rows[line[0]] = [int(entry) for entry in line[1:]]
        except ValueError as error:
            raise ValueError(f"{path}, entry {number + 1}: {error}: replace it by a fresh copy") from error
        if len(line) != len(names) + 1:
            raise ValueError(f"{path}, entry {number + 1}: {len(line) - 1} numbers for {len(names)} columns")
    return names, rows


def _read(path: Path, size: int) -> NDArray[np.float32]:
    """An image (3, size, size) in [0, 1]."""
    from PIL import Image, UnidentifiedImageError  # slow to import

    if not path.is_file():
        raise FileNotFoundError(f"{path} is named in the table of attributes, but is not there")
    try:
        with Image.open(path) as image:
            width, height = image.size
            side = min(width, height, _CROP)
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side)
            small = image.convert("RGB").crop(box).resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no picture or a damaged one: replace it by a fresh copy") from error
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / np.float32(255.0)
