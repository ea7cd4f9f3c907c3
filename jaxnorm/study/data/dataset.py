"""A data set in memory: three splits of uint8 images, and what a reader must know about where they came from."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one split, in a fixed order."""

    image: np.ndarray
    """uint8 (N, H, W, 3)."""
    label: np.ndarray
    """int32 (N,)."""

    def __len__(self) -> int:
        return len(self.label)


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]`, beginning at a multiple of 64 bytes: such an array JAX uses on CPU as it lies, without a copy.

    `rows` are numbers from 0 on.
    """
    if rows.dtype.kind not in "iu" or (len(rows) and not 0 <= rows.min() <= rows.max() < len(array)):
        raise IndexError(f"rows must be whole numbers from 0 to {len(array) - 1}")
    shape = (len(rows), *array.shape[1:])
    size = math.prod(shape) * array.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    taken = memory[start : start + size].view(array.dtype).reshape(shape)
    return np.take(array, rows, axis=0, out=taken, mode="clip")  # the other modes fill a copy first


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits, the constants of their augmentation, and their provenance.

    Example:
        >>> from jaxnorm.study.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> digits.description, len(digits.train), len(digits.validation), len(digits.test)
        ('scikit-learn digits', 1077, 360, 360)
    """

    name: Literal["cifar10", "digits"]
    """Id, as `--dataset` takes it."""
    description: str
    """Name for figures and tables; says so where the images are not the original ones."""
    source: str
    """One line: where this data was read from."""
    fingerprint: str
    """SHA-256 of all images and labels in a canonical order and layout: equal data, equal fingerprint, any source."""
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, float, float]
    """Red, green, blue; subtracted from image / 255."""
    pad: int
    """Black pixels around a training image before the random crop: an eighth of its side."""
    flip: bool
    """Whether a training image may be mirrored left to right (a mirrored digit is another sign)."""
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes; labels run from 0 to one less."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        height, width, channels = self.train.image.shape[1:]
        return height, width, channels

    def to_json(self) -> dict[str, Any]:
        """The provenance of a run's data, as `provenance.json` holds it."""
        return {
            "name": self.name,
            "description": self.description,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "num_train": len(self.train),
            "num_validation": len(self.validation),
            "num_test": len(self.test),
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
        }
