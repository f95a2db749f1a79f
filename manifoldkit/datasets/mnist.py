"""MNIST and Fashion-MNIST as float arrays."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._fetch import Collection, Source, read_split
from ._validation import check_count, check_flag, check_rng

__all__ = ["ImageDataset", "load_fashion_mnist", "load_mnist"]


class ImageDataset(NamedTuple):
    """Images and their labels; unpacks as ``images, labels``.

    Attributes
    ----------
    images : (n, 28, 28) float32 array
        Values in [0, 1], 0 is the background.
    labels : (n,) int64 array
        Classes 0 to 9.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_mnist(
    split: Literal["train", "test"] = "train",
    *,
    classes: Any = None,
    n_per_class: int | None = None,
    download: bool = True,
    random_state: Any = None,
) -> ImageDataset:
    """Load MNIST, the handwritten digits of LeCun, Cortes and Burges [1]_.

    The files are looked for in ``$MANIFOLDKIT_DATA/mnist``, ``$MANIFOLDKIT_DATA``, the folder ``data/mnist`` of a
    source checkout and the user's cache, in this order; failing these they are downloaded into the cache. Whatever is
    found is verified against the published checksums.

    Parameters
    ----------
    split : {"train", "test"}, default "train"
        60,000 or 10,000 images.
    classes : int or sequence of int, optional
        Keep only these digits; by default all ten.
    n_per_class : int, optional
        Keep that many images of each class, chosen at random without repetition; by default all.
    download : bool, default True
        Whether to download files that are not on this machine, which needs the extra ``data``.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for `n_per_class`.

    Returns
    -------
    ImageDataset
        `images` (n, 28, 28), float32 in [0, 1], and `labels` (n,), int64, in the order of the file.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or a file is damaged.
    FileNotFoundError
        If the files are not found and `download` is false.
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the download fails.

    References
    ----------
    .. [1] Y. LeCun, C. Cortes and C. J. C. Burges. "The MNIST database of handwritten digits", 1998. Licence CC BY-SA
       3.0.

    Examples
    --------
    >>> from manifoldkit.datasets import load_mnist
    >>> images, labels = load_mnist("test", classes=[0, 1], n_per_class=50, random_state=0)
    >>> images.shape, images.dtype, sorted(set(labels.tolist()))
    ((100, 28, 28), dtype('float32'), [0, 1])
    """
    return _load(_MNIST, _FASHION_MNIST, split, classes, n_per_class, download, random_state)


def load_fashion_mnist(
    split: Literal["train", "test"] = "train",
    *,
    classes: Any = None,
    n_per_class: int | None = None,
    download: bool = True,
    random_state: Any = None,
) -> ImageDataset:
    """Load Fashion-MNIST, the clothes of Zalando Research [1]_ in the format of MNIST.

    The files are looked for in ``$MANIFOLDKIT_DATA/fashion-mnist``, ``$MANIFOLDKIT_DATA``, the folder
    ``data/fashion-mnist`` of a source checkout, the folder of Debian's package ``dataset-fashion-mnist`` and the
    user's cache, in this order; failing these they are downloaded into the cache. Whatever is found is verified
    against the known checksums.

    Parameters
    ----------
    split : {"train", "test"}, default "train"
        60,000 or 10,000 images.
    classes : int or sequence of int, optional
        Keep only these classes; by default all ten. They are 0 T-shirt, 1 trouser, 2 pullover, 3 dress, 4 coat,
        5 sandal, 6 shirt, 7 sneaker, 8 bag, 9 ankle boot.
    n_per_class : int, optional
        Keep that many images of each class, chosen at random without repetition; by default all.
    download : bool, default True
        Whether to download files that are not on this machine, which needs the extra ``data``.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for `n_per_class`.

    Returns
    -------
    ImageDataset
        `images` (n, 28, 28), float32 in [0, 1], and `labels` (n,), int64, in the order of the file.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or a file is damaged.
    FileNotFoundError
        If the files are not found and `download` is false.
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the download fails.

    References
    ----------
    .. [1] H. Xiao, K. Rasul and R. Vollgraf. "Fashion-MNIST: a novel image dataset for benchmarking machine learning
       algorithms", arXiv:1708.07747, 2017. MIT licence.

    Examples
    --------
    >>> from manifoldkit.datasets import load_fashion_mnist
    >>> images, labels = load_fashion_mnist("test", classes=9)  # doctest: +SKIP
    >>> images.shape  # doctest: +SKIP
    (1000, 28, 28)
    """
    return _load(_FASHION_MNIST, _MNIST, split, classes, n_per_class, download, random_state)


def _load(
    collection: Collection,
    sister: Collection,
    split: Any,
    classes: Any,
    n_per_class: Any,
    download: Any,
    random_state: Any,
) -> ImageDataset:
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    wanted = _check_classes(classes)
    count = None if n_per_class is None else check_count(n_per_class, "n_per_class")
    rng = check_rng(random_state)
    # Both data sets use the same file names, so that a folder may hold the other one.
    foreign = frozenset(source.md5 for source in sister.splits[split])
    images, labels = read_split(collection, split, download=check_flag(download, "download"), foreign=foreign)
    rows = _choose(labels, wanted, count, rng)
    return ImageDataset(images[rows].astype(np.float32) / np.float32(255.0), labels[rows].astype(np.int64))


def _check_classes(classes: Any) -> list[int]:
    if classes is None:
        return list(range(10))
    if isinstance(classes, (str, bytes)):
        raise TypeError(f"classes must be integers from 0 to 9, got {classes!r}: pass for example [3, 8]")
    items = list(np.atleast_1d(classes).tolist())
    wanted = [check_count(item, "each of classes", 0) for item in items]
    if not wanted:
        raise ValueError("classes is empty: name at least one class from 0 to 9, or leave it out for all")
    if max(wanted) > 9:
        raise ValueError(f"classes must be integers from 0 to 9, got {max(wanted)}")
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"classes must not repeat, got {wanted}: name each class once")
    return wanted


def _choose(
    labels: NDArray[np.uint8], wanted: list[int], count: int | None, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Sorted row numbers of the wanted classes, `count` of each."""
    chosen = []
    for label in sorted(wanted):  # in this order whatever the user's, so that a seed always means the same images
        rows = np.flatnonzero(labels == label)
        if count is not None:
            if count > len(rows):
                raise ValueError(
                    f"n_per_class is {count}, but class {label} has only {len(rows)} images here: ask for fewer"
                )
            rows = rng.choice(rows, size=count, replace=False)
        chosen.append(rows)
    return np.sort(np.concatenate(chosen))


def _splits(sums: dict[str, tuple[str, str]]) -> dict[str, tuple[Source, Source]]:
    splits = {}
    for split, prefix, n in (("train", "train", 60_000), ("test", "t10k", 10_000)):
        images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        splits[split] = (Source(images, (n, 28, 28), *sums[images]), Source(labels, (n,), *sums[labels]))
    return splits


_MNIST = Collection(
    name="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    system=(),
    splits=_splits(
        {
            "train-images-idx3-ubyte": (
                "6bbc9ace898e44ae57da46a324031adb",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            "train-labels-idx1-ubyte": (
                "a25bea736e30d166cdddb491f175f624",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            "t10k-images-idx3-ubyte": (
                "2646ac647ad5339dbf082846283269ea",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            "t10k-labels-idx1-ubyte": (
                "27ae3e4e09519cfbb04c329615203637",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        }
    ),
)

_FASHION_MNIST = Collection(
    name="fashion-mnist",
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    system=("/usr/share/datasets/fashion-mnist",),
    splits=_splits(
        {
            "train-images-idx3-ubyte": (
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            "train-labels-idx1-ubyte": (
                "9018921c3c673c538a1fc5bad174d6f9",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            "t10k-images-idx3-ubyte": (
                "8181f5470baa50b63fa0f6fddb340f0a",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            "t10k-labels-idx1-ubyte": (
                "15d484375f8d13e6eb1aabb0c3f46965",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        }
    ),
)
