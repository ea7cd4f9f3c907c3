"""The data sets: CIFAR-10 and handwritten digits as uint8 arrays, split and fingerprinted. Imports nothing heavy."""

from pathlib import Path
from typing import TYPE_CHECKING

from jaxnorm.errors import UserError
from jaxnorm.study.config import nearest

if TYPE_CHECKING:
    from jaxnorm.study.data.dataset import Dataset

DATASETS = {
    "digits": "the 1,797 handwritten digits of scikit-learn, 16x16 pixels, 10 classes",
    "cifar10": "CIFAR-10, 60,000 photographs, 32x32 pixels, 10 classes; downloaded if --data-dir has none",
}
"""What each data set is, by the name that `--dataset` takes."""


def load_dataset(name: str, *, data_dir: Path | None = None, progress: bool = True, download: bool = True) -> "Dataset":
    """Loads a data set into memory, split into training, validation and test images.

    Args:
        name: "digits" (embedded, needs no files) or "cifar10" (found on disk, else downloaded; see
            `jaxnorm.study.data.cifar`).
        data_dir: folder to look for CIFAR-10 in and to download it to; by default `$JAXNORM_DATA_DIR`, else
            `$XDG_CACHE_HOME/jaxnorm/data` (`~/.cache/jaxnorm/data`). The digits do not use it.
        progress: whether long work (download, preparation, decoding) reports on standard error.
        download: whether data that is not on disk is downloaded; else it is black images with an empty fingerprint.

    Returns:
        The data set.

    Raises:
        UserError: if the name is unknown, a file is missing, damaged or unreadable, or the download fails.

    Examples:
        >>> load_dataset("digits").train.image.shape
        (1077, 16, 16, 3)
    """
    if name == "digits":
        from jaxnorm.study.data.digits import load_digits

        return load_digits()
    if name == "cifar10":
        from jaxnorm.study.data.cifar import load_cifar

        return load_cifar(data_dir, progress=progress, download=download)
    raise UserError(f"unknown dataset {name!r}; {nearest(name, DATASETS)}")
