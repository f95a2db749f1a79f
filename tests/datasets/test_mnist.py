"""The image data sets: contents, choice of images, order of the folders, damaged files, downloads."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from manifoldkit.datasets import _fetch, load_fashion_mnist, load_mnist, mnist

CHECKOUT = Path(__file__).parents[2] / "data" / "mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture
def isolated(monkeypatch, tmp_path):
    """No environment, no cache and no checkout: only what a test puts there."""
    monkeypatch.delenv("MANIFOLDKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_fetch, "__file__", str(tmp_path / "site-packages" / "manifoldkit" / "datasets" / "_fetch.py"))
    return tmp_path


def copy_test_split(folder, compressed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name in (IMAGES, LABELS):
        if compressed:
            shutil.copy(CHECKOUT / f"{name}.gz", folder)
        else:
            (folder / name).write_bytes(gzip.decompress((CHECKOUT / f"{name}.gz").read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("split", "n", "first"), [("train", 60_000, [5, 0, 4, 1, 9]), ("test", 10_000, [7, 2, 1, 0, 4])]
)
def test_mnist_is_complete(split, n, first):
    images, labels = load_mnist(split)
    assert images.shape == (n, 28, 28)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    assert labels[:5].tolist() == first
    assert images.min() == 0.0
    assert images.max() == 1.0
    # Back to bytes, the images have the sum that is published for the file.
    raw = struct.pack(">4I", 2051, n, 28, 28) + (images * 255).round().astype(np.uint8).tobytes()
    assert hashlib.md5(raw).hexdigest() == mnist._MNIST.splits[split][0].md5


def test_bundled_files_have_the_sums_that_ship_with_them():
    lines = (CHECKOUT / "SHA256SUMS").read_text().split("\n")
    sums = dict(reversed(line.split()) for line in lines if line)
    assert len(sums) == 4
    for name, expected in sums.items():
        assert hashlib.sha256((CHECKOUT / name).read_bytes()).hexdigest() == expected


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_complete():
    images, labels = load_fashion_mnist("test", download=False)
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert labels[:3].tolist() == [9, 2, 1]


def test_classes_and_counts():
    images, labels = load_mnist("test", classes=[7, 3], n_per_class=20, random_state=0)
    assert np.bincount(labels)[[3, 7]].tolist() == [20, 20]
    assert len(images) == 40
    everything = load_mnist("test")
    again = load_mnist("test", classes=[3, 7], n_per_class=20, random_state=0)
    np.testing.assert_array_equal(images, again.images)
    assert not np.array_equal(images, load_mnist("test", classes=[3, 7], n_per_class=20, random_state=1).images)
    sevens = load_mnist("test", classes=7)
    np.testing.assert_array_equal(sevens.images, everything.images[everything.labels == 7])
    assert len(np.unique(images.reshape(40, -1), axis=0)) == 40  # without repetition


def test_own_folder_goes_before_checkout_and_cache(isolated, monkeypatch):
    own = isolated / "own"
    own.mkdir()
    cache = copy_test_split(isolated / "cache" / "manifoldkit" / "mnist")
    checkout = copy_test_split(isolated / "site-packages" / "data" / "mnist")
    read = []
    original = _fetch.read_idx
    monkeypatch.setattr(_fetch, "read_idx", lambda path, shape: read.append(path.parent) or original(path, shape))

    def source():
        read.clear()
        assert len(load_mnist("test", download=False).images) == 10_000
        (folder,) = set(read)
        return folder

    assert source() == cache  # site-packages without pyproject.toml is no checkout
    (isolated / "site-packages" / "pyproject.toml").touch()
    assert source() == checkout
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(own))
    assert source() == checkout  # an own folder without the files is passed over
    copy_test_split(own)
    assert source() == own
    copy_test_split(own / "mnist", compressed=False)
    assert source() == own / "mnist"


def test_half_a_data_set_is_passed_over(isolated, monkeypatch):
    copy_test_split(isolated / "own")
    (isolated / "own" / f"{LABELS}.gz").unlink()
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(isolated / "own"))
    with pytest.raises(FileNotFoundError, match=r"no folder holds the test split of mnist .*MANIFOLDKIT_DATA"):
        load_mnist("test", download=False)


def test_own_folder_must_exist(isolated, monkeypatch):
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(isolated / "nowhere"))
    with pytest.raises(ValueError, match=r"MANIFOLDKIT_DATA is set to .*nowhere.* not a folder"):
        load_mnist("test")


def test_files_of_the_other_data_set_are_not_mistaken(isolated, monkeypatch):
    copy_test_split(isolated / "own")
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(isolated / "own"))
    monkeypatch.setattr(
        mnist, "_FASHION_MNIST", _fetch.Collection("fashion-mnist", (), (), mnist._FASHION_MNIST.splits)
    )
    with pytest.raises(FileNotFoundError, match="no folder holds the test split of fashion-mnist"):
        load_fashion_mnist("test", download=False)


def test_other_compression_is_welcome(isolated, monkeypatch):
    own = copy_test_split(isolated / "own", compressed=False)
    for name in (IMAGES, LABELS):
        (own / f"{name}.gz").write_bytes(gzip.compress((own / name).read_bytes(), compresslevel=1))
        (own / name).unlink()
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(own))
    assert len(load_mnist("test", download=False).labels) == 10_000


def header(*sizes, magic=0x00000801):
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is truncated: 0 bytes do not hold the header"),
        (header(10_000, magic=0x12345678) + bytes(10_000), "magic number 0x12345678, expected 0x00000801"),
        (header(9_999) + bytes(9_999), r"announces an array of shape \(9999,\), expected \(10000,\)"),
        (header(10_000) + bytes(500), "is truncated: 500 values read, 10000 expected"),
        (header(10_000) + bytes(10_001), "has bytes after its end"),
        (header(10_000) + bytes(10_000), "has the right size but not the right contents"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_refused(isolated, monkeypatch, contents, message, compressed):
    own = copy_test_split(isolated / "own")
    (own / f"{LABELS}.gz").unlink()
    path = own / (f"{LABELS}.gz" if compressed else LABELS)
    path.write_bytes(gzip.compress(contents) if compressed else contents)
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(own))
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist("test")
    assert str(path) in str(caught.value)
    assert "fresh copy" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no gzip" + b, lambda b: b[:20] + bytes(99)])
def test_damaged_compression_is_refused(isolated, monkeypatch, damage):
    own = copy_test_split(isolated / "own")
    path = own / f"{LABELS}.gz"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setenv("MANIFOLDKIT_DATA", str(own))
    with pytest.raises(ValueError, match="is not a complete gzip file"):
        load_mnist("test")


def test_without_pooch_the_message_names_the_extra(isolated, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "manifoldkit\[data\]".*MANIFOLDKIT_DATA'):
        load_mnist("test")


def test_download_goes_to_the_cache_and_is_verified(isolated, monkeypatch):
    calls = []

    def retrieve(url, known_hash, fname, path):
        calls.append((url, known_hash))
        if url.startswith("https://ossci"):
            raise OSError("mirror is down")
        path.mkdir(parents=True, exist_ok=True)
        return shutil.copy(CHECKOUT / fname, path)

    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    assert len(load_mnist("test").labels) == 10_000
    assert (isolated / "cache" / "manifoldkit" / "mnist" / f"{IMAGES}.gz").is_file()
    assert len(calls) == 4  # two files, two mirrors
    assert {known for _, known in calls} == {f"sha256:{source.sha256}" for source in mnist._MNIST.splits["test"]}
    assert len(load_mnist("test").labels) == 10_000
    assert len(calls) == 4  # from the cache now


def test_when_all_mirrors_fail_every_reason_is_told(isolated, monkeypatch):
    def retrieve(url, **options):
        raise ValueError("SHA256 mismatch") if "googleapis" in url else OSError("no route")

    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    with pytest.raises(OSError, match=r"could not download .*no route.*SHA256 mismatch.*MANIFOLDKIT_DATA"):
        load_mnist("test")


def test_cache_folder_follows_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _fetch.cache_folder() == tmp_path / "manifoldkit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert _fetch.cache_folder() == tmp_path / ".cache" / "manifoldkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by its specification
    assert _fetch.cache_folder() == tmp_path / ".cache" / "manifoldkit"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _fetch.cache_folder() == tmp_path / "Library" / "Caches" / "manifoldkit"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "validation"}, ValueError, 'split must be "train" or "test", got \'validation\''),
        ({"classes": 10}, ValueError, "classes must be integers from 0 to 9, got 10"),
        ({"classes": [-1]}, ValueError, "each of classes must be at least 0, got -1"),
        ({"classes": [1.5]}, TypeError, "each of classes must be an integer, got 1.5"),
        ({"classes": "3"}, TypeError, "classes must be integers from 0 to 9, got '3'"),
        ({"classes": []}, ValueError, "classes is empty"),
        ({"classes": [1, 1]}, ValueError, r"classes must not repeat, got \[1, 1\]"),
        ({"n_per_class": 0}, ValueError, "n_per_class must be at least 1, got 0"),
        ({"n_per_class": 2000}, ValueError, "n_per_class is 2000, but class 0 has only 980 images"),
        ({"download": 1}, TypeError, "download must be True or False, got 1"),
        ({"random_state": "x"}, TypeError, "random_state must be None"),
    ],
)
def test_wrong_arguments_say_what_came_and_what_was_expected(options, error, message):
    with pytest.raises(error, match=message):
        load_mnist(**{"split": "test", **options})
