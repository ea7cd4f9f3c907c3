"""A data set from a folder that has a folder of images for each class."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import numpy as np

from jaxnorm.errors import UserError, one_line
from jaxnorm.study.data.arrays import dataset_from_arrays
from jaxnorm.study.data.binary import readable
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.data.progress import progress_bar

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
"""The split that each name of a folder stands for."""


def dataset_from_folder(
    folder: str | Path, *, image_size: int | None = None, flip: bool = True, name: str = "folder", progress: bool = True
) -> Dataset:
    """A data set of the images in ``FOLDER/CLASS/*.png``, or in ``FOLDER/train/CLASS``, ``validation`` and ``test``.

    Files of every format that Pillow reads, with 8 bits for a channel, are images; other files, hidden ones and folders
    within a class's are left out. Images become RGB and upright, and need not be square. Classes are the folders' names
    in alphabetical order. Splits that are not there are drawn from the training images, as in `dataset_from_arrays`,
    which also says what is augmented and how the fingerprint is made.

    Args:
        folder: the folder, or one that has a folder for each split.
        image_size: the images are cropped to a square at their centre and resized to this side (Lanczos); None keeps
            them as they are, and they must all have one size.
        flip: whether training mirrors images left to right.
        name: its id, as for `register_dataset`.
        progress: whether reading reports on standard error.

    Returns:
        The data set, in memory.

    Raises:
        UserError: if there is no such folder, a class has no image, a file is damaged, or sizes differ.
    """
    if image_size is not None and not (isinstance(image_size, int) and image_size >= 1):
        raise UserError(f"`image_size` must be a whole number of at least 1, but is {image_size}; give one such as 32")
    path = Path(folder).expanduser()
    with readable(path):
        if not path.is_dir():
            raise UserError(f"the images must be in a folder, but {path} is none; check the path")
        folders = _splits(path)
        classes = _classes(folders["train"])
        found = {split: _files(one, classes) for split, one in folders.items()}
        num_files = sum(map(len, found.values()))
        with progress_bar(f"Reading {path.name}", num_files, enabled=progress) as advance:
            splits, first = {}, None
            for split, files in found.items():
                images = []
                for file, _ in files:
                    images.append(_image(file, image_size))
                    first = first or (file, images[0])
                    _check_size(images[-1], file, *first)
                    advance(1)
                splits[split] = np.stack(images), np.array([label for _, label in files])
    return dataset_from_arrays(
        name,
        splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        class_names=classes,
        description=path.resolve().name,
        source=f"{num_files:,} images of the folder {quote(str(path))}",
        flip=flip,
    )


def _splits(path: Path) -> dict[str, Path]:
    """The folder of each split that is given."""
    if not (path / "train").is_dir():
        return {"train": path}
    found: dict[str, Path] = {}
    for folder in sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")):
        split = SPLITS.get(folder.name)
        if split is None or split in found:
            raise UserError(
                f"beside train there may be a folder for validation and one for test, but {path} holds "
                f"{folder.name!r}; rename it or move it away"
            )
        found[split] = folder
    return found


def _classes(folder: Path) -> list[str]:
    found = sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    if len(found) < 2:
        raise UserError(
            f"{folder} must hold a folder for each of at least two classes, but holds "
            f"{'only ' + repr(found[0]) if found else 'no folder'}; sort the images into folders, or correct the path"
        )
    return found


def _files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """The image files of a split with their labels, by class and name."""
    from PIL import Image

    suffixes = Image.registered_extensions()
    found = []
    if others := sorted({*_classes(folder)} - {*classes}):
        raise UserError(f"{folder} must hold classes of the training images, but holds {others[0]!r}; rename it")
    for label, name in enumerate(classes):
        inside = (folder / name).iterdir() if (folder / name).is_dir() else ()
        files = sorted(one for one in inside if one.suffix.lower() in suffixes and not one.name.startswith("."))
        if not files:
            raise UserError(f"{folder / name} must hold images, but holds none; add some, or remove the class")
        found += [(file, label) for file in files]
    return found


def _image(path: Path, size: int | None) -> np.ndarray:
    """An upright RGB image, uint8 (H, W, 3)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):  # Pillow would cut the values off at 255
                raise ValueError(f"it has more than 8 bits for a channel, mode {opened.mode}")
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} must be an image, but cannot be read ({one_line(error)}); replace it") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _check_size(image: np.ndarray, file: Path, first_file: Path, first: np.ndarray) -> None:
    if image.shape != first.shape:
        (height, width), (first_height, first_width) = image.shape[:2], first.shape[:2]
        raise UserError(
            f"images must have one size, but {first_file} has {first_width}x{first_height} and {file} "
            f"{width}x{height} pixels; give `image_size`, such as 32"
        )
