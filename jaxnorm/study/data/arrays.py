"""A data set from a user's own arrays."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.study.data.dataset import Dataset, Split
from jaxnorm.study.registered import check_id

EMBEDDED = ("digits", "cifar10", "cifar100")
MOST_CLASSES = 10_000
SHARE = 5
"""One image in so many of each class is for testing, and one for validation, where the user gives no such split."""


class Arrays(NamedTuple):
    """Images and labels of a split as a user gives them.

    Attributes:
        image: uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W).
        label: integers (N,), from 0.
    """

    image: np.ndarray
    label: np.ndarray


def dataset_from_arrays(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    class_names: Sequence[str] | None = None,
    description: str | None = None,
    source: str = "arrays of the caller",
    flip: bool = True,
) -> Dataset:
    """A data set of images and labels in memory.

    Without validation or test images, a fifth of the images of each class is drawn from `train` for each of them, with
    `numpy.random.default_rng(0)`. The mean of red, green and blue is that of the training images. In training, images
    are shifted by up to an eighth of their side.

    Args:
        name: its id: lower-case letters, digits and underscores.
        train: images, uint8 (N, H, W, 3) or gray (N, H, W, 1) or (N, H, W), and labels, integers (N,) from 0.
        validation: the same for validation; None draws them from `train`.
        test: the same for testing; None draws them from `train`.
        class_names: by label; by default the labels.
        description: name for figures and tables; by default `name`.
        source: one line: where the images are from.
        flip: whether training mirrors images left to right.

    Returns:
        The data set. Its fingerprint is the SHA-256 of the labels and pixels of training, validation and test images.

    Raises:
        UserError: if images or labels have another type or shape, a label has no name, or a class has no training image
            or too few for the splits.

    Examples:
        >>> import numpy as np
        >>> image, label = np.zeros((30, 8, 8), np.uint8), np.arange(30) % 3
        >>> found = dataset_from_arrays("squares", (image, label), class_names=["a", "b", "c"])
        >>> len(found.train), len(found.validation), len(found.test), found.image_shape
        (18, 6, 6, (8, 8, 3))
    """
    check_id("dataset", name)
    if name in EMBEDDED:
        raise UserError(f"the data set needs a name of its own, but is called {name!r} as a built-in one; rename it")
    given = {"train": train, "validation": validation, "test": test}
    parts = {split: _checked(split, one) for split, one in given.items() if one is not None or split == "train"}
    names = _names(class_names, [*parts.values()])
    _check_counts(parts["train"].label, names, 1 + (validation is None) + (test is None))
    counts = {label: max(1, round(count / SHARE)) for label, count in enumerate(np.bincount(parts["train"].label))}
    for split in ("test", "validation"):
        if split not in parts:
            parts["train"], parts[split] = _drawn(parts["train"], counts)
    splits = [parts[split] for split in ("train", "validation", "test")]
    if len(shapes := {one.image.shape[1:] for one in splits}) > 1:
        raise UserError(f"the images of all splits must have one shape, but have {sorted(shapes)}; resize them")
    mean = parts["train"].image.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    red, green, blue = (round(float(value), 6) for value in mean)
    return Dataset(
        name=name,
        description=name if description is None else description,
        source=source,
        fingerprint=_fingerprint(splits),
        train=Split(*splits[0]),
        validation=Split(*splits[1]),
        test=Split(*splits[2]),
        mean=(red, green, blue),
        pad=min(parts["train"].image.shape[1:3]) // 8,
        flip=flip,
        class_names=names,
    )


def _checked(split: str, given: Any) -> Arrays:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise UserError(
            f"`{split}` must be a pair of images and labels, but is a {type(given).__name__}"
            f"{f' of {len(given)}' if isinstance(given, (tuple, list)) else ''}; give (images, labels)"
        )
    image, label = map(np.asarray, given)
    if image.ndim == 3:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise UserError(
            f"the images of `{split}` must be uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W), 0 to 255, but are "
            f"{image.dtype} {np.shape(given[0])}; convert them"
        )
    is_whole = label.dtype.kind in "iu" and label.size > 0
    if not is_whole or label.shape != image.shape[:1] or label.min() < 0 or label.max() >= MOST_CLASSES:
        found = f" from {label.min()} to {label.max()}" if is_whole else ""
        raise UserError(
            f"the labels of `{split}` must be {len(image)} integers from 0 to {MOST_CLASSES - 1}, one for each image, "
            f"but are {label.dtype} {label.shape}{found}; give one for each image, counted from 0"
        )
    return Arrays(np.broadcast_to(image, (*image.shape[:3], 3)), label.astype(np.int32))


def _drawn(given: Arrays, counts: Mapping[int, int]) -> tuple[Arrays, Arrays]:
    """The images without so many of each class, and these; both in their order."""
    rng, chosen = np.random.default_rng(0), np.zeros(len(given.label), bool)
    for label in np.unique(given.label):
        places = np.flatnonzero(given.label == label)
        chosen[rng.permutation(places)[: counts[label]]] = True
    kept, drawn = (np.flatnonzero(one) for one in (~chosen, chosen))
    return Arrays(given.image[kept], given.label[kept]), Arrays(given.image[drawn], given.label[drawn])


def _names(class_names: Sequence[str] | None, splits: Sequence[Arrays]) -> tuple[str, ...]:
    most = max(int(one.label.max()) for one in splits)
    names = tuple(map(str, range(most + 1) if class_names is None else class_names))
    if most >= len(names) or len(names) < 2 or len(set(names)) < len(names) or not all(map(str.isprintable, names)):
        raise UserError(
            f"classes must be at least two and have a name each, but the labels go to {most} and the names are "
            f"{', '.join(map(repr, names[:10]))}{', ...' * (len(names) > 10)}; correct labels or `class_names`"
        )
    return names


def _check_counts(label: np.ndarray, names: Sequence[str], least: int) -> None:
    counts = np.bincount(label, minlength=len(names))
    few = int(counts.argmin())
    if counts[few] < least:
        raise UserError(
            f"each class must have at least {least} images in `train`, one for each split that is made of it, but "
            f"{names[few]!r} (label {few}) has {counts[few]}; add some, give `validation` and `test`, or count labels "
            "from 0 without gaps"
        )


def _fingerprint(splits: Sequence[Arrays]) -> str:
    digest = hashlib.sha256()
    for one in splits:
        digest.update(f"{one.image.shape}".encode())
        digest.update(one.label.astype("<i4").data)
        for image in one.image:
            digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
