"""Corruptions against what their definitions say of simple images."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxnorm import UserError
from jaxnorm.study.data.corruptions import CORRUPTIONS, STRENGTHS, corrupted


@pytest.fixture(scope="module")
def images():
    """Smooth images with edges, as photographs have."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:16, 0:16] / 16
    shades = [128 + 60 * np.sin(6 * (a * x + b * y)) + 60 * (x > c) - 30 for a, b, c in draw.random((12, 3))]
    return np.stack([np.stack([shade, shade * 0.8, 255 - shade], -1) for shade in shades]).clip(0, 255).astype(np.uint8)


def flat(value, count=8):
    return np.full((count, 32, 32, 3), value, np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_greater_strength_is_further_from_the_image_and_the_same_call_gives_the_same_bytes(images, kind):
    before = images.copy()
    found = [corrupted(images, kind, strength) for strength in STRENGTHS]
    distances = [np.abs(one.astype(float) - images).mean() for one in found]
    assert all(one.dtype == np.uint8 and one.shape == images.shape for one in found)
    assert distances[0] > 0 and distances == sorted(distances), distances
    np.testing.assert_array_equal(corrupted(images, kind, 3), found[2])
    np.testing.assert_array_equal(images, before)


def test_noise_has_its_deviation_and_its_seed():
    grey = flat(128)
    found = corrupted(grey, "noise", 2).astype(float)
    assert found.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert found.mean() == pytest.approx(128, abs=0.5)
    assert (corrupted(grey, "noise", 2, seed=1) != found).mean() > 0.9


def test_blur_keeps_the_mean_and_averages_noise_as_a_gaussian_does():
    draw = np.random.default_rng(0)
    noise = draw.normal(128, 20, (40, 32, 32, 3)).clip(0, 255).astype(np.uint8)
    found = corrupted(noise, "blur", 5).astype(float)
    inner = found[:, 6:-6, 6:-6]
    assert inner.mean() == pytest.approx(noise.mean(), abs=0.5)
    assert inner.var() == pytest.approx(noise.var() / (4 * np.pi * 1.4**2), rel=0.1), "of a wide kernel"


def test_contrast_and_brightness_are_the_lines_that_they_say(images):
    mean = images.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(corrupted(images, "contrast", 5), mean + 0.15 * (images - mean), atol=0.51)
    np.testing.assert_allclose(corrupted(images, "brightness", 3), np.minimum(images + 0.3 * 255, 255), atol=0.51)


def test_jpeg_is_what_pillow_decodes(images):
    file = io.BytesIO()
    Image.fromarray(images[3]).save(file, "jpeg", quality=25)
    np.testing.assert_array_equal(corrupted(images, "jpeg", 3)[3], np.asarray(Image.open(file)))


def test_pixelation_leaves_as_many_values_as_it_keeps_pixels(images):
    found = corrupted(images, "pixelation", 5)[0]  # a side of 16 keeps round(0.35 * 16) = 6
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= 36
    assert found.mean() == pytest.approx(images[0].mean(), abs=3)


def test_fog_whitens_black_with_clouds_that_differ_between_images():
    black = flat(0)
    found = corrupted(black, "fog", 5) / 255 / 0.75
    assert found.min() == pytest.approx(0.6, abs=0.01) and found.max() == pytest.approx(1, abs=0.01)
    assert (found[..., 0] == found[..., 2]).all(), "the same for all channels"
    assert np.abs(np.diff(found, axis=1)).max() < 0.15, "soft"
    assert np.abs(found[0] - found[1]).mean() > 0.03


@pytest.mark.parametrize("kind, strength, words", [("snow", 1, "one of noise, blur"), ("fog", 6, "1 to 5, but is 6")])
def test_an_unknown_kind_or_strength_is_named(kind, strength, words):
    with pytest.raises(UserError, match=words):
        corrupted(flat(0, 1), kind, strength)
