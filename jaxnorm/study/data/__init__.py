"""The data sets: uint8 images and labels, split and fingerprinted. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnorm.errors import UserError, one_line
from jaxnorm.study import registered
from jaxnorm.study.config import nearest

if TYPE_CHECKING:
    from jaxnorm.study.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class NamedDataset:
    """A registered data set.

    Attributes:
        id: as ``--dataset`` takes it.
        description: what it is, in one line.
        load: see `register_dataset`.
    """

    id: str
    description: str
    load: Callable[..., "Dataset"]


DATASETS: dict[str, NamedDataset] = {}
"""Every registered data set by id; the built-in ones first."""
_OFFERED = ("data_dir", "image_size", "progress", "download")


def register_dataset(id: str, load: Callable[..., "Dataset"], *, description: str | None = None) -> None:
    """Adds a data set to `DATASETS`, so that every driver can train on it.

    Args:
        id: a new one; lower-case letters, digits and underscores.
        load: returns the `Dataset`, for example by `dataset_from_arrays` or `dataset_from_folder`. It is called with
            those of these keywords that it has parameters for: `data_dir`, the folder of ``--data-dir`` or None;
            `image_size`, that of ``--image-size`` or None; `progress`, whether long work reports on standard error;
            `download`, which is False in a dry run.
        description: one line for ``--list datasets``; by default the id.

    Raises:
        UserError: if the id is malformed or taken by another function, or `load` needs other keywords.

    Examples:
        >>> from jaxnorm.study.data.digits import load_digits
        >>> register_dataset("my_digits", lambda: load_digits(), description="digits again")
        >>> load_dataset("my_digits").name, DATASETS.pop("my_digits").description
        ('my_digits', 'digits again')
    """
    words = id if description is None else description
    registered.check_registration("dataset", id, words, load, DATASETS[id].load if id in DATASETS else None, most=100)
    registered.check_call("dataset", id, load, (), _OFFERED)
    DATASETS[id] = NamedDataset(id, words, load)


def check_dataset(name: str, *, data_dir: Path | None = None, image_size: int | None = None) -> None:
    """Checks the name of a data set, and that it takes what is given for it. Reads nothing.

    Args:
        name: its id.
        data_dir: where its files are, or None.
        image_size: to which its images are resized, or None.

    Raises:
        UserError: if no such id is registered, or something is given that it does not take.
    """
    if name not in DATASETS:
        raise UserError(f"`dataset` must name a data set, but names {name!r}; {nearest(name, DATASETS)}")
    for keyword, value in (("data_dir", data_dir), ("image_size", image_size)):
        takers = [id for id, one in DATASETS.items() if registered.taken(one.load, [keyword])]
        if value is not None and name not in takers:
            raise UserError(
                f"`{keyword}` is for {', '.join(takers)}, but is {value} with {name}, which does not take it; drop it "
                "or change `dataset`"
            )


def load_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    image_size: int | None = None,
    progress: bool = True,
    download: bool = True,
) -> "Dataset":
    """Loads a data set into memory, split into training, validation and test images.

    Args:
        name: "digits" (embedded, needs no files), "cifar10" or "cifar100" (found on disk, else downloaded; see
            `jaxnorm.study.data.cifar`), "folder" (`dataset_from_folder` of `data_dir`), or one that is registered.
        data_dir: folder to look for the files in, and to download CIFAR to; by default `$JAXNORM_DATA_DIR`, else
            `$XDG_CACHE_HOME/jaxnorm/data` (`~/.cache/jaxnorm/data`).
        image_size: side in pixels to which the images of a folder are resized.
        progress: whether long work (download, preparation, decoding) reports on standard error.
        download: whether data that is not on disk is downloaded; else it is black images with an empty fingerprint.

    Returns:
        The data set, named `name`.

    Raises:
        UserError: if the name is unknown, something is given that the data set does not take, a file is missing,
            damaged or unreadable, or the download fails.

    Examples:
        >>> load_dataset("digits").train.image.shape
        (1077, 16, 16, 3)
    """
    check_dataset(name, data_dir=data_dir, image_size=image_size)
    from jaxnorm.study.data.dataset import Dataset

    offered = {"data_dir": data_dir, "image_size": image_size, "progress": progress, "download": download}
    try:
        found = registered.call(DATASETS[name].load, offered)
    except (UserError, OSError):
        raise
    except Exception as error:
        if registered.is_own(DATASETS[name].load):
            raise
        raise UserError(
            f"the function of the data set {name!r} must return a Dataset, but fails with {type(error).__name__}: "
            f"{one_line(error)}; correct it, or give the `data_dir` that it needs"
        ) from error
    if not isinstance(found, Dataset):
        raise UserError(
            f"the function of the data set {name!r} must return a Dataset, but returns {type(found).__name__}; make "
            "one by dataset_from_arrays"
        )
    return dataclasses.replace(found, name=name)


def load_recorded(recipe: Mapping[str, Any], data_dir: Path | None = None) -> "Dataset":
    """Loads the data set that a recipe names.

    Args:
        recipe: has `dataset` and `image_size`.
        data_dir: where its files are, or None; a data set without files does not take it.

    Returns:
        The data set.

    Raises:
        UserError: as `load_dataset`.
    """
    name = recipe["dataset"]
    has_files = name not in DATASETS or "data_dir" in registered.taken(DATASETS[name].load, ["data_dir"])
    return load_dataset(name, data_dir=data_dir if has_files else None, image_size=recipe["image_size"])


def _digits() -> "Dataset":
    from jaxnorm.study.data.digits import load_digits

    return load_digits()


def _cifar10(*, data_dir: Path | None, progress: bool, download: bool) -> "Dataset":
    from jaxnorm.study.data.cifar import load_cifar

    return load_cifar(data_dir, progress=progress, download=download)


def _cifar100(*, data_dir: Path | None, progress: bool, download: bool) -> "Dataset":
    from jaxnorm.study.data.binary import CIFAR100
    from jaxnorm.study.data.cifar import load_cifar

    return load_cifar(data_dir, progress=progress, download=download, release=CIFAR100)


def _folder(*, data_dir: Path | None, image_size: int | None, progress: bool) -> "Dataset":
    from jaxnorm.study.data.folder import dataset_from_folder

    if data_dir is None:
        raise UserError("`dataset` folder needs the folder of the images, but `data_dir` is not given; give it")
    return dataset_from_folder(data_dir, image_size=image_size, progress=progress)


register_dataset(
    "digits", _digits, description="the 1,797 handwritten digits of scikit-learn, 16x16 pixels, 10 classes"
)
register_dataset(
    "cifar10",
    _cifar10,
    description="CIFAR-10, 60,000 photographs, 32x32 pixels, 10 classes; downloaded if --data-dir has none",
)
register_dataset(
    "cifar100",
    _cifar100,
    description="CIFAR-100, 60,000 photographs, 32x32 pixels, 100 classes; downloaded if --data-dir has none",
)
register_dataset("folder", _folder, description="your images: --data-dir has a folder for each class")
