"""The embedded digits: all of them, once each, enlarged exactly, split by class and always in the same way."""

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from jaxnorm.study.data import load_dataset
from jaxnorm.study.data.digits import enlarge


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def originals():
    return datasets.load_digits()


def splits(digits):
    return [digits.train, digits.validation, digits.test]


def test_shapes_dtypes_and_constants(digits):
    assert [len(split) for split in splits(digits)] == [1077, 360, 360]
    for split in splits(digits):
        assert split.image.shape == (len(split), 16, 16, 3) and split.image.dtype == np.uint8
        assert split.label.shape == (len(split),) and split.label.dtype == np.int32
        assert (split.image == split.image[..., :1]).all()
    assert (digits.name, digits.description, digits.pad, digits.flip) == ("digits", "scikit-learn digits", 2, False)
    assert digits.class_names == tuple("0123456789") and digits.num_classes == 10
    assert digits.image_shape == (16, 16, 3)


def test_mean_is_that_of_the_training_images(digits):
    np.testing.assert_allclose(digits.mean, (digits.train.image / 255).mean((0, 1, 2)), rtol=1e-12)


def test_every_digit_is_used_once(digits, originals):
    def multiset(image, label):
        return sorted((int(y), x.tobytes()) for x, y in zip(image, label, strict=True))

    image = np.concatenate([split.image[..., 0] for split in splits(digits)])
    label = np.concatenate([split.label for split in splits(digits)])
    assert multiset(image, label) == multiset(enlarge(originals.images.astype(int)), originals.target)


def test_splits_are_stratified(digits, originals):
    share = np.bincount(originals.target) / 1797
    for split in splits(digits):
        assert np.abs(np.bincount(split.label) - share * len(split)).max() <= 1


def test_enlarging_is_bilinear(originals):
    position = (np.arange(16) + 0.5) / 2 - 0.5
    weight = np.stack([np.interp(position, np.arange(8), row) for row in np.eye(8)], axis=1)
    exact = weight @ (originals.images * 255 / 16) @ weight.T
    assert np.abs(enlarge(originals.images.astype(int)) - exact).max() <= 0.5
    pillow = Image.fromarray(originals.images[3].astype(np.float32)).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(exact[3], np.asarray(pillow) * 255 / 16, atol=1e-3)


def test_enlarging_keeps_black_and_white():
    assert (enlarge(np.full((1, 8, 8), 16)) == 255).all()
    assert (enlarge(np.zeros((1, 8, 8), int)) == 0).all()


def test_same_data_on_every_machine(digits):
    assert digits.fingerprint == "b56f4327da270a28276b126514a7eb96d374ae5dda9b18a0af95c228178e9052"
    again = load_dataset("digits")
    for old, new in zip(splits(digits), splits(again), strict=True):
        np.testing.assert_array_equal(old.image, new.image)
        np.testing.assert_array_equal(old.label, new.label)
