"""scikit-learn's 1,797 real handwritten digits (8x8, 0 to 16), enlarged to 16x16: a data set that needs no download."""

import hashlib

import numpy as np

from jaxnorm.study.data.dataset import Dataset, Split

NUM_VALIDATION = NUM_TEST = 360


def load_digits() -> Dataset:
    """The digits as (N, 16, 16, 3) uint8, three equal channels, in a stratified split of 1,077 / 360 / 360.

    The split is that of scikit-learn's `train_test_split` with `random_state=0`: first the test images, then
    validation. The fingerprint covers the label and 16x16 pixels of every image in the order training, validation,
    test, so that it changes if another version of scikit-learn splits differently.

    Returns:
        The data set.

    Examples:
        >>> load_digits().train.image.shape
        (1077, 16, 16, 3)
    """
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    bunch = sklearn_digits()
    image, label = enlarge(bunch.images.astype(np.int64)), bunch.target.astype(np.int32)

    rest, test = train_test_split(np.arange(len(label)), test_size=NUM_TEST, stratify=label, random_state=0)
    train, validation = train_test_split(rest, test_size=NUM_VALIDATION, stratify=label[rest], random_state=0)

    order = np.concatenate([train, validation, test])
    records = np.concatenate([label[order, None].astype(np.uint8), image[order].reshape(len(order), -1)], axis=1)
    mean = float(image[train].mean() / 255)

    def split(rows: np.ndarray) -> Split:
        return Split(image=np.repeat(image[rows, :, :, None], 3, axis=-1), label=label[rows])

    return Dataset(
        name="digits",
        description="scikit-learn digits",
        source="the 1,797 handwritten digits that scikit-learn carries",
        fingerprint=hashlib.sha256(records.data).hexdigest(),
        train=split(train),
        validation=split(validation),
        test=split(test),
        mean=(mean, mean, mean),
        pad=2,
        flip=False,
        class_names=tuple(str(digit) for digit in range(10)),
    )


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """Bilinear enlargement: along each axis, a new pixel is 3/4 of the nearest old one and 1/4 of the next.

    Pixel centres are at halves, and edges are repeated. The sums are of integers and rounded once, so that every
    machine gets the same bytes.

    Args:
        pixels: (N, 8, 8) integers 0..16.

    Returns:
        (N, 16, 16) uint8, 0..255.

    Examples:
        >>> enlarge(np.full((1, 8, 8), 16)).max()
        np.uint8(255)
    """
    side = pixels.shape[-1]
    new = np.arange(2 * side)
    weight = np.zeros((2 * side, side), np.int64)
    weight[new, new // 2] += 3
    weight[new, np.clip(new // 2 + np.where(new % 2 == 0, -1, 1), 0, side - 1)] += 1
    total = weight @ pixels @ weight.T  # white is 16 * 16 = 256
    return ((total * 255 + 128) // 256).astype(np.uint8)
