"""Corrupted images: seven kinds, each at five strengths, computed from the images and a seed."""

import io
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from jaxnorm.errors import UserError


class Corruption(NamedTuple):
    """A kind of corruption.

    Attributes:
        words: what its amounts are, for a reader.
        amounts: of strengths 1 to 5.
        apply: gives the corrupted images of images, float64 (N, H, W, C) within 0 to 1, an amount, and a generator of
            random numbers; values outside of 0 to 1 are clipped afterwards.
    """

    words: str
    amounts: tuple[float, ...]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


STRENGTHS = (1, 2, 3, 4, 5)


def _noise(x: np.ndarray, deviation: float, draw: np.random.Generator) -> np.ndarray:
    return x + deviation * draw.normal(size=x.shape)


def _blur(x: np.ndarray, deviation: float, _: np.random.Generator) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(x, (0, deviation, deviation, 0), mode="nearest"))


def _contrast(x: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    mean = x.mean((1, 2), keepdims=True)
    return mean + factor * (x - mean)


def _brightness(x: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    return x + amount


def _jpeg(x: np.ndarray, quality: float, _: np.random.Generator) -> np.ndarray:
    return _by_image(x, lambda image: _decoded(image, int(quality)))


def _decoded(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file)


def _pixelation(x: np.ndarray, share: float, _: np.random.Generator) -> np.ndarray:
    height, width = (max(1, round(share * side)) for side in x.shape[1:3])

    def coarse(image: Image.Image) -> Image.Image:
        small = image.resize((width, height), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.NEAREST)

    return _by_image(x, coarse)


def _by_image(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(one))) for one in np.rint(255 * x).astype(np.uint8)]) / 255


def _fog(x: np.ndarray, density: float, draw: np.random.Generator) -> np.ndarray:
    """White with soft clouds from 0.6 to 1, the same for all channels."""
    noise = draw.normal(size=x.shape[:3])
    field = ndimage.gaussian_filter(noise, (0, x.shape[1] / 8, x.shape[2] / 8), mode="wrap")
    low, high = field.min((1, 2), keepdims=True), field.max((1, 2), keepdims=True)
    cloud = 0.6 + 0.4 * (field - low) / (high - low)
    return (1 - density) * x + density * cloud[..., None]


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption("Gaussian, standard deviation", (0.04, 0.08, 0.12, 0.18, 0.26), _noise),
    "blur": Corruption("Gaussian, standard deviation in pixels", (0.4, 0.6, 0.8, 1.0, 1.4), _blur),
    "contrast": Corruption("factor about each image's mean", (0.75, 0.6, 0.45, 0.3, 0.15), _contrast),
    "brightness": Corruption("added to all pixels", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    "jpeg": Corruption("quality", (60, 40, 25, 15, 8), _jpeg),
    "pixelation": Corruption("share of the sides that is kept", (0.85, 0.7, 0.55, 0.45, 0.35), _pixelation),
    "fog": Corruption("share of white clouds", (0.15, 0.3, 0.45, 0.6, 0.75), _fog),
}
"""All kinds, in the style of Hendrycks and Dietterich 2019 (arXiv 1903.12261). The amounts are our own."""


def corrupted(image: np.ndarray, kind: str, strength: int, *, seed: int = 0) -> np.ndarray:
    """Images with a corruption. The random numbers of a kind are the same at all strengths.

    Args:
        image: uint8 (N, H, W, 3).
        kind: one of `CORRUPTIONS`.
        strength: 1 to 5.
        seed: decides the noise and the clouds.

    Returns:
        uint8 of the shape of `image`.

    Raises:
        UserError: if the kind or the strength is unknown.

    Examples:
        >>> corrupted(np.full((1, 2, 2, 3), 100, np.uint8), "brightness", 1).max()
        np.uint8(126)
    """
    if kind not in CORRUPTIONS:
        raise UserError(f"a corruption must be one of {', '.join(CORRUPTIONS)}, but is {kind!r}; choose another")
    if strength not in STRENGTHS:
        raise UserError(f"a corruption's strength must be 1 to 5, but is {strength}; choose another")
    one = CORRUPTIONS[kind]
    draw = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    found = one.apply(np.asarray(image, np.float64) / 255, one.amounts[strength - 1], draw)
    return np.rint(255 * np.clip(found, 0, 1)).astype(np.uint8)
