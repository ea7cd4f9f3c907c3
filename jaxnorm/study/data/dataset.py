"""A data set in memory: three splits of uint8 images, and their source."""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one split, in a fixed order.

    Attributes:
        image: uint8 (N, H, W, 3).
        label: int32 (N,).
    """

    image: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]`, in memory that begins at a multiple of 64 bytes: JAX uses such an array on CPU without a copy.

    Args:
        array: (N, ...), of any dtype.
        rows: integers from 0 to N - 1.

    Returns:
        A copy of the rows, of the array's dtype.

    Raises:
        IndexError: if a row is not in the array.

    Examples:
        >>> take(np.array([1, 2, 3]), np.array([2, 0])).tolist()
        [3, 1]
    """
    if rows.dtype.kind not in "iu" or (len(rows) and not 0 <= rows.min() <= rows.max() < len(array)):
        raise IndexError(f"rows must be integers from 0 to {len(array) - 1}")
    shape = (len(rows), *array.shape[1:])
    size = math.prod(shape) * array.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    taken = memory[start : start + size].view(array.dtype).reshape(shape)
    return np.take(array, rows, axis=0, out=taken, mode="clip")  # the other modes fill a copy first


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits, the constants of their augmentation, and their source.

    Attributes:
        name: id, as `--dataset` takes it.
        description: name for figures and tables; it says so where the images are not the original ones.
        source: one line: where this data was read from.
        fingerprint: SHA-256 of all images and labels in one order and layout: the same for equal data of any source.
        train: the training split.
        validation: the validation split.
        test: the test split.
        mean: red, green, blue; subtracted from image / 255.
        pad: black pixels around a training image before the random crop: an eighth of its side.
        flip: whether training mirrors images left to right (a mirrored digit is not that digit).
        class_names: by label.

    Examples:
        >>> from jaxnorm.study.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> digits.description, len(digits.train), len(digits.validation), len(digits.test)
        ('scikit-learn digits', 1077, 360, 360)
    """

    name: str
    description: str
    source: str
    fingerprint: str
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, float, float]
    pad: int
    flip: bool
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are 0 to num_classes - 1."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        height, width, channels = self.train.image.shape[1:]
        return height, width, channels

    def to_json(self) -> dict[str, Any]:
        """All but the images and the augmentation, as in `provenance.json`.

        Returns:
            JSON values by name.
        """
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
