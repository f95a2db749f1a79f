"""Pairs of digits, drawn faces, and folders in the format of CelebA."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from manifoldkit.datasets import (
    FACE_ATTRIBUTES,
    draw_faces,
    face_is_possible,
    load_celeba,
    load_digit_pairs,
    load_mnist,
    make_faces,
)

CODE = {name: k for k, name in enumerate(FACE_ATTRIBUTES)}


class TestDigitPairs:
    def test_halves_are_digits_of_the_split_and_of_the_labels(self):
        for split, other in (("train", "test"), ("test", "train")):
            images, labels = load_digit_pairs(split, 50, random_state=0)
            assert images.shape == (50, 28, 56)
            assert images.dtype == np.float32
            singles, classes = load_mnist(split, classes=list(range(6)))
            known = {image.tobytes(): label for image, label in zip(singles, classes, strict=True)}
            foreign = {image.tobytes() for image in load_mnist(other, classes=list(range(6))).images}
            for side in range(2):
                halves = np.ascontiguousarray(images[:, :, 28 * side : 28 * side + 28])
                assert [known[half.tobytes()] for half in halves] == labels[:, side].tolist()
                assert not any(half.tobytes() in foreign for half in halves)

    def test_all_36_classes_are_equally_likely(self):
        labels = load_digit_pairs("test", 7200, pool=4, random_state=1).labels
        counts = np.bincount(labels @ [6, 1], minlength=36)
        assert ((counts - 200) ** 2 / 200).sum() < 66.6  # chi-squared with 35 degrees of freedom, p = 0.001

    def test_pooling_averages(self):
        whole, half = (load_digit_pairs("test", 20, pool=pool, random_state=2).images for pool in (1, 2))
        np.testing.assert_allclose(half, whole.reshape(20, 14, 2, 28, 2).mean(axis=(2, 4)), atol=1e-6)

    def test_classes_and_seeds(self):
        a, b = (load_digit_pairs("test", 30, digits=[7, 3], random_state=3) for _ in range(2))
        assert set(a.labels.ravel()) == {3, 7}
        np.testing.assert_array_equal(a.images, b.images)

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"split": "valid"}, ValueError, "split"),
            ({"n_samples": 0}, ValueError, "n_samples"),
            ({"pool": 3}, ValueError, "pool must be 1, 2 or 4"),
            ({"pool": 2.0}, TypeError, "pool"),
            ({"digits": [10]}, ValueError, "0 to 9"),
            ({"digits": []}, ValueError, "classes is empty"),
        ],
    )
    def test_bad_input(self, options, error, match):
        with pytest.raises(error, match=match):
            load_digit_pairs(**options)


class TestFaces:
    def test_the_law_of_the_attributes(self):
        """Rates of 4,000 faces to five standard errors; impossible combinations never."""
        attributes = make_faces(4_000, size=16, random_state=0).attributes.astype(bool)
        male, bald, beard, lipstick, long_hair, glasses, smiling, blue = attributes.T
        assert face_is_possible(attributes.astype(int)).all()
        for event, given, rate in [
            (male, male | True, 0.5),
            (bald, male, 0.3),
            (beard, male, 0.4),
            (lipstick, ~male, 0.6),
            (long_hair, ~male, 0.75),
            (long_hair, male & ~bald, 0.15),
            (glasses, bald, 0.5),
            (glasses, ~bald, 0.25),
            (smiling, male, 0.5),
            (blue, smiling, 0.5),
        ]:
            error = 5 * (rate * (1 - rate) / given.sum()) ** 0.5
            assert event[given].mean() == pytest.approx(rate, abs=error)

    def test_half_of_the_combinations_of_sex_and_hair_are_impossible(self):
        cells = np.array(np.meshgrid(*[[0, 1]] * 8, indexing="ij")).reshape(8, -1).T
        seen = {tuple(row) for row in make_faces(4_000, size=16, random_state=1).attributes}
        possible = face_is_possible(cells)
        assert seen <= {tuple(row) for row in cells[possible]}
        assert possible.sum() == (2 * 2 + 2 * (2 * 2 - 1)) * 8  # women: lips x hair; men: beard x (bald, long or none)

    @pytest.mark.parametrize("name", FACE_ATTRIBUTES)
    def test_every_attribute_is_seen_and_local_ones_are_local(self, name):
        flags = make_faces(200, size=16, random_state=2).attributes
        other = flags.copy()
        other[:, CODE[name]] ^= 1
        variation = np.random.default_rng(0).random((200, 5))
        change = np.abs(draw_faces(flags, variation) - draw_faces(other, variation)).max(axis=1)
        assert (change.max(axis=(1, 2)) > 0.02).all()
        share = (change > 0.02).mean(axis=(1, 2))
        if name in ("glasses", "smiling", "lipstick"):
            assert share.max() < 0.16
        if name in ("male", "blue_background"):
            assert share.mean() > 0.16

    def test_images_follow_seed_and_range(self):
        images, attributes, names = make_faces(50, random_state=3)
        assert images.shape == (50, 3, 24, 24)
        assert (images.dtype, attributes.dtype, names) == (np.float32, np.int64, FACE_ATTRIBUTES)
        assert images.min() >= 0
        assert images.max() <= 1
        np.testing.assert_array_equal(images, make_faces(50, random_state=3).images)
        middle = draw_faces(attributes)
        np.testing.assert_array_equal(middle, draw_faces(attributes, np.full((50, 5), 0.5)))
        assert (
            np.abs(draw_faces(attributes[:1]) - draw_faces(attributes[:1], [[0.9, 0.5, 0.5, 0.5, 0.5]])) > 0.1
        ).any()

    @pytest.mark.parametrize(
        ("call", "error", "match"),
        [
            (lambda: make_faces(0), ValueError, "n_samples"),
            (lambda: make_faces(5, size=15), ValueError, "size must be at least 16"),
            (lambda: make_faces(5, random_state="a"), TypeError, "random_state"),
            (lambda: draw_faces([[0] * 7]), ValueError, r"\(n, 8\)"),
            (lambda: draw_faces([0] * 8), ValueError, r"\(n, 8\)"),
            (lambda: draw_faces([[-1] * 8]), ValueError, "recode"),
            (lambda: draw_faces([[0] * 8], [[0.5] * 4]), ValueError, r"\(1, 5\)"),
            (lambda: draw_faces([[0] * 8], [[2.0] * 5]), ValueError, "in \\[0, 1\\]"),
            (lambda: draw_faces([[0] * 8], [[np.nan] * 5]), ValueError, "in \\[0, 1\\]"),
            (lambda: face_is_possible(np.zeros((0, 8))), ValueError, r"\(n, 8\)"),
        ],
    )
    def test_bad_input(self, call, error, match):
        with pytest.raises(error, match=match):
            call()


@pytest.fixture
def folder(tmp_path):
    """Six images of one colour each, with three attributes, two in each part."""
    (tmp_path / "img_align_celeba").mkdir()
    flags = [(1, -1, -1), (-1, 1, 1), (1, 1, -1), (-1, -1, -1), (1, -1, 1), (-1, 1, -1)]
    lines = ["6", "Bald Male Smiling"]
    for k, row in enumerate(flags):
        picture = Image.new("RGB", (178, 218), (0, 0, 0))
        picture.paste((40 * k, 255 - 40 * k, 128), (0, 20, 178, 198))  # the central square
        picture.save(tmp_path / "img_align_celeba" / f"{k + 1:06d}.png")
        lines.append(f"{k + 1:06d}.png  " + " ".join(f"{flag:2d}" for flag in row))
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    parts = [f"{k + 1:06d}.png {k // 2}" for k in range(6)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return tmp_path


class TestCelebA:
    def test_everything(self, folder):
        images, attributes, names = load_celeba(folder, size=16)
        assert images.shape == (6, 3, 16, 16)
        assert names == ("Bald", "Male", "Smiling")
        assert attributes.tolist() == [[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]]
        expected = np.array([[40 * k, 255 - 40 * k, 128] for k in range(6)]) / 255
        np.testing.assert_allclose(images, np.broadcast_to(expected[:, :, None, None], images.shape), atol=1e-6)

    def test_parts_choices_and_columns(self, folder):
        chosen = load_celeba(str(folder), "valid", size=8, attributes=["Smiling", "Bald"])
        assert chosen.attributes.tolist() == [[0, 1], [0, 0]]
        assert chosen.names == ("Smiling", "Bald")
        some = [load_celeba(folder, size=8, n_samples=3, random_state=0).attributes for _ in range(2)]
        assert some[0].shape == (3, 3)
        np.testing.assert_array_equal(*some)

    def test_tables_of_kaggle(self, folder):
        expected = load_celeba(folder, "test", size=8)
        for stem, head in (("list_attr_celeba", 2), ("list_eval_partition", 0)):
            lines = [line.split() for line in (folder / f"{stem}.txt").read_text().splitlines()]
            names = ["image_id", *(lines[1] if head else ["partition"])]
            with (folder / f"{stem}.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([names, *lines[head:]])
            (folder / f"{stem}.txt").unlink()
        found = load_celeba(folder, "test", size=8)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.attributes, expected.attributes)
        assert found.names == expected.names

    def test_images_in_a_folder_within_the_folder(self, folder):
        expected = load_celeba(folder, size=8).images
        place = folder / "img_align_celeba"
        place.rename(folder / "inner")
        place.mkdir()
        (folder / "inner").rename(place / "img_align_celeba")
        np.testing.assert_array_equal(load_celeba(folder, size=8).images, expected)

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"attributes": "Bald"}, TypeError, r"take \['Bald'\]"),
            ({"split": "all"}, ValueError, "split must be one of"),
            ({"attributes": ["Young"]}, ValueError, r"\['Young'\]"),
            ({"attributes": []}, ValueError, "none"),
            ({"n_samples": 7}, ValueError, "only 6 images"),
            ({"n_samples": 0}, ValueError, "n_samples"),
            ({"size": 0}, ValueError, "size"),
        ],
    )
    def test_bad_arguments(self, folder, options, error, match):
        with pytest.raises(error, match=match):
            load_celeba(folder, **options)

    def test_damaged_folders(self, folder):
        table = folder / "list_attr_celeba.txt"
        good = table.read_text()
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            load_celeba(folder / "elsewhere")
        for bad, match in [
            (good.replace("000003.png   1  1 -1", "000003.png 1 1"), "2 numbers for 3 columns"),
            (good.replace("000003.png   1  1 -1", "000003.png 1 x 1"), "entry 3"),
            (good.replace("000003.png   1  1 -1", "000003.png 1 5 1"), "other numbers than"),
            ("6\nBald Male Smiling\n", "no image"),
            ("", "empty or has no line of names"),
        ]:
            table.write_text(bad)
            with pytest.raises(ValueError, match=match):
                load_celeba(folder)
        table.write_text(good.replace("000006.png", "000009.png"))
        with pytest.raises(ValueError, match=r"does not name 000009\.png"):
            load_celeba(folder, "test")
        with pytest.raises(FileNotFoundError, match=r"000009\.png is named"):
            load_celeba(folder)
        table.write_text(good)
        picture = folder / "img_align_celeba" / "000002.png"
        whole = picture.read_bytes()
        for part in (b"no picture", whole[: len(whole) // 2]):
            picture.write_bytes(part)
            with pytest.raises(ValueError, match=r"000002\.png is no picture or a damaged one"):
                load_celeba(folder)
        picture.write_bytes(whole)
        (folder / "list_eval_partition.txt").unlink()
        assert load_celeba(folder, size=8).images.shape == (6, 3, 8, 8)
        with pytest.raises(FileNotFoundError, match=r"neither list_eval_partition\.txt nor"):
            load_celeba(folder, "train")
