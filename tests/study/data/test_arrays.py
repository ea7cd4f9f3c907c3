"""Data sets of a user: arrays, and folders of images."""

import hashlib
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import jaxnorm
from jaxnorm import DATASETS, dataset_from_arrays, dataset_from_folder, load_dataset, register_dataset
from jaxnorm.errors import UserError


def images(count, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def rows(split):
    return [(image.tobytes(), int(label)) for image, label in zip(split.image, split.label, strict=True)]


@given(st.lists(st.integers(3, 40), min_size=2, max_size=6), st.booleans(), st.booleans())
def test_every_image_is_in_one_split_and_every_class_in_each(counts, has_validation, has_test):
    label = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    more = (images(len(counts), seed=5), np.arange(len(counts)))
    given = (images(len(label)), label)
    found = dataset_from_arrays(
        "mine", given, validation=more if has_validation else None, test=more if has_test else None
    )
    drawn = rows(found.train)
    drawn += [] if has_validation else rows(found.validation)
    drawn += [] if has_test else rows(found.test)
    assert sorted(drawn) == sorted((one.tobytes(), int(y)) for one, y in zip(*given, strict=True))
    for split, is_given in ((found.validation, has_validation), (found.test, has_test)):
        assert set(split.label) == set(range(len(counts)))
        if is_given:
            assert rows(split) == [(one.tobytes(), int(y)) for one, y in zip(*more, strict=True)]
    if not has_validation and not has_test:
        for split in (found.validation, found.test):
            for place, count in enumerate(counts):
                assert abs((split.label == place).sum() - count / 5) <= 1
    assert found.mean == pytest.approx(found.train.image.mean(axis=(0, 1, 2)) / 255, abs=1e-6)


def test_gray_images_become_three_equal_channels():
    gray, label = images(30, (16, 12)), np.arange(30) % 3
    flat, deep = (dataset_from_arrays("gray", (one, label)) for one in (gray, gray[..., None]))
    assert flat.image_shape == (16, 12, 3) and flat.pad == 1 and flat.fingerprint == deep.fingerprint
    assert (flat.train.image[..., 0] == flat.train.image[..., 2]).all()


def test_the_fingerprint_is_that_of_all_images_and_labels():
    image, label = images(30), np.arange(30) % 3
    first = dataset_from_arrays("a", (image, label))
    digest = hashlib.sha256()
    for split in (first.train, first.validation, first.test):
        digest.update(str(split.image.shape).encode() + split.label.astype("<i4").tobytes() + split.image.tobytes())
    assert first.fingerprint == digest.hexdigest()
    assert dataset_from_arrays("b", (image.copy(), label), class_names=["x", "y", "z"]).fingerprint == first.fingerprint
    image[7, 0, 0, 0] ^= 1
    assert dataset_from_arrays("a", (image, label)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(train=(np.zeros((9, 8, 8, 3)), np.arange(9) % 3)), "uint8.*float64"),
        (dict(train=(images(9, (8, 8, 4)), np.arange(9) % 3)), r"\(9, 8, 8, 4\)"),
        (dict(train=(images(0), np.arange(0))), "uint8"),
        (dict(train=(images(9), np.arange(8) % 3)), "9 integers from 0.*(8,)"),
        (dict(train=(images(9), np.arange(9) % 3 - 1)), "from -1 to 1"),
        (dict(train=(images(9), 10**12 + np.arange(9) % 3)), "from 0 to 9999"),
        (dict(train=images(9)), "must be a pair of images and labels, but is a ndarray"),
        (dict(train=None), "must be a pair"),
        (dict(test=(images(9), np.arange(9) % 3, 0)), "`test` must be a pair .* but is a tuple of 3"),
        (dict(train=(images(30), np.arange(30) % 3 * 2)), r"'1' \(label 1\) has 0.*without gaps"),
        (dict(name="My data"), "a dataset's id must be"),
        (dict(name="digits"), "a name of its own"),
        (dict(train=(images(9), np.arange(9) / 3)), "float64"),
        (dict(train=(images(9), np.zeros(9, int))), "at least two"),
        (dict(class_names=["a", "b"]), "labels go to 2.*'a', 'b'; correct"),
        (dict(class_names=["a", "b", "a"]), "'a', 'b', 'a'"),
        (dict(class_names=["a", "b", "c", "d"]), "'d' .label 3. has 0"),
        (dict(train=(images(4), np.array([0, 0, 0, 1]))), "'1' .label 1. has 1"),
        (dict(test=(images(9, (4, 4, 3)), np.arange(9) % 3)), "one shape"),
        (dict(test=(images(9), np.arange(9))), "'3' .label 3. has 0"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    with pytest.raises(UserError, match=words) as error:
        dataset_from_arrays(**{"name": "mine", "train": (images(30), np.arange(30) % 3), **change})
    assert "\n" not in str(error.value)


@pytest.fixture
def photos(tmp_path):
    """Three classes of seven images in several formats and sizes, and what is not an image."""
    folder, rng = tmp_path / "my photos", np.random.default_rng(3)
    for place, name in enumerate(("Ähre", "cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(7):
            pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
            pixels[..., place] = 255
            Image.fromarray(pixels).save(folder / name / f"{number}.{('png', 'bmp', 'JPG')[number % 3]}")
        (folder / name / "notes.txt").write_text("no image")
        (folder / name / ".hidden.png").write_text("no image")
    (folder / ".cache").mkdir()
    return folder


def test_a_folder_of_class_folders_is_a_data_set(photos):
    found = dataset_from_folder(photos, image_size=16, progress=False)
    assert found.class_names == ("cat", "dog", "Ähre") and found.image_shape == (16, 16, 3) and found.pad == 2
    assert [len(one) for one in (found.train, found.validation, found.test)] == [15, 3, 3]
    assert found.description == "my photos" and found.source.startswith("21 images of the folder '/")
    for split in (found.train, found.test):
        channel = {0: 1, 1: 2, 2: 0}  # cat has green, dog blue, Ähre red
        for image, label in zip(split.image, split.label, strict=True):
            assert image.mean(axis=(0, 1)).argmax() == channel[label]
    again = load_dataset("folder", data_dir=photos, image_size=16, progress=False)
    assert again.fingerprint == found.fingerprint


@pytest.mark.parametrize("validation", [None, "val", "validation"])
def test_given_splits_are_kept(photos, tmp_path, validation):
    for split in ("train", "test", validation):
        if split:
            shutil.copytree(photos, tmp_path / "split" / split)
    (tmp_path / "split" / "test" / "cat" / "6.png").unlink()
    found = dataset_from_folder(tmp_path / "split", image_size=8, progress=False)
    sizes = [21, 21, 20] if validation else [18, 3, 20]
    assert [len(one) for one in (found.train, found.validation, found.test)] == sizes


def test_a_folder_beside_the_splits_is_named(photos, tmp_path):
    for name in ("train", "held_out"):
        shutil.copytree(photos, tmp_path / "split" / name)
    with pytest.raises(UserError, match="holds 'held_out'; rename it"):
        dataset_from_folder(tmp_path / "split", image_size=8, progress=False)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_bits_is_refused(photos, kind):
    name = "3.png" if kind == np.uint16 else "3.tiff"
    Image.fromarray(np.full((8, 8), 10_000, kind)).save(photos / "cat" / name)
    with pytest.raises(UserError, match=f"{name} must be an image.*more than 8 bits"):
        dataset_from_folder(photos, image_size=8, progress=False)


@pytest.mark.parametrize("size", [0, -3, 1.5, "8", (8, 8)])
def test_a_size_that_cannot_be_is_named(photos, size):
    with pytest.raises(UserError, match="`image_size` must be a whole number"):
        dataset_from_folder(photos, image_size=size, progress=False)


def test_a_photograph_is_turned_upright(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / "p" / name / f"{number}.png", exif=exif)
    found = dataset_from_folder(tmp_path / "p", progress=False)
    assert (found.test.image[0][:, 4:] == 255).all() and (found.test.image[0][:, :4] == 0).all()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "must be in a folder"),
        (lambda folder: [shutil.rmtree(folder / name) for name in ("cat", "dog")], "only 'Ähre'"),
        (lambda folder: [one.unlink() for one in (folder / "dog").glob("[0-9]*")], "dog.* holds none"),
        (lambda folder: (folder / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "3.png.*cannot be read"),
        (lambda folder: (folder / "dog" / "1.bmp").write_bytes((folder / "dog/1.bmp").read_bytes()[:900]), "1.bmp"),
        (lambda folder: shutil.copytree(folder, folder / "train" / "cat"), "holds .cat.; rename it"),
    ],
)
def test_a_folder_that_is_none_is_named(photos, harm, words):
    harm(photos)
    with pytest.raises(UserError, match=words) as error:
        dataset_from_folder(photos, image_size=8, progress=False)
    assert "\n" not in str(error.value)


def test_images_of_different_sizes_need_a_size(photos):
    with pytest.raises(UserError, match="30x20 and .* 30x21 pixels; give `image_size`"):
        dataset_from_folder(photos, progress=False)


def test_a_registered_data_set_is_loaded_by_its_name(tmp_path, registry):
    def load(*, data_dir, download):
        seen.append((data_dir, download))
        return dataset_from_arrays("other", (images(30), np.arange(30) % 3))

    seen = []
    register_dataset("mine", load)
    assert load_dataset("mine", data_dir=tmp_path, download=False).name == "mine"
    assert seen == [(tmp_path, False)]
    with pytest.raises(UserError, match="`image_size` is for folder, but is 8 with mine"):
        load_dataset("mine", image_size=8)
    with pytest.raises(UserError, match="must be new, but 'mine'"):
        register_dataset("mine", jaxnorm.load_dataset)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Mine", dict), "lower-case"),
        (("mine", 3), "must have a function"),
        (("mine", images(9)), "must have a function.*but has array"),
        (("mine", lambda path: path), "may take data_dir.*missing a required argument: 'path'"),
    ],
)
def test_what_cannot_be_registered_is_named(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        register_dataset(*arguments)
    assert "mine" not in DATASETS and "\n" not in str(error.value)


def test_a_function_that_fails_is_named(registry):
    register_dataset("mine", lambda data_dir: data_dir / "arrays.npz")
    with pytest.raises(UserError, match="'mine' must return a Dataset, but fails with TypeError"):
        load_dataset("mine")


def test_a_function_must_return_a_data_set(registry):
    register_dataset("mine", lambda: 3)
    with pytest.raises(UserError, match="must return a Dataset, but returns int"):
        load_dataset("mine")


def test_a_data_set_takes_only_what_is_its_own(tmp_path):
    with pytest.raises(UserError, match=r"`data_dir` is for cifar10, cifar100, folder, but is .* with digits"):
        load_dataset("digits", data_dir=tmp_path)
    with pytest.raises(UserError, match="`data_dir` is not given"):
        load_dataset("folder")
