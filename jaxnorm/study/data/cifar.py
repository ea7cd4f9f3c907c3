"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from any of their forms on disk: found, checked, decoded once, split.

CIFAR-10 is looked for in `--data-dir`, else `$JAXNORM_DATA_DIR`, else `$XDG_CACHE_HOME/jaxnorm/data`
(`~/.cache/jaxnorm/data`), in this order:

1. `cifar10/3.0.2`, a directory prepared by tensorflow-datasets in the array_record format;
2. `cifar-10-batches-bin`, the unpacked binary archive (the data folder may also be this folder itself);
3. `cifar-10-binary.tar.gz`, the binary archive;
4. `cifar10_labels.xz` and `cifar10_part1.xz` to `cifar10_part3.xz`, see `jaxnorm.study.data.packed`.

Otherwise the archive is downloaded there and prepared as 1. Every source gives the same records in the same order, so
that equal data has one fingerprint: the SHA-256 of the six binary files, concatenated.

CIFAR-100, with its 100 fine classes, has the first three forms: `cifar100/3.0.2`, `cifar-100-binary` and
`cifar-100-binary.tar.gz`. The archive is downloaded and read as it is. The fingerprint is of CIFAR-10's records, label
and pixels, and so leaves out the coarse classes.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import numpy as np

from jaxnorm.errors import UserError, one_line
from jaxnorm.files import cache_folder, sha256
from jaxnorm.study.data import binary, packed, tfds_directory
from jaxnorm.study.data.binary import CIFAR10, SIDE, Release, readable
from jaxnorm.study.data.cache import Decoded, cached, fingerprint_of
from jaxnorm.study.data.dataset import Dataset, Split, take
from jaxnorm.study.data.download import UnreachableError, download, host
from jaxnorm.study.streams import tell
from jaxnorm.temporary import abandoned, remove_abandoned, temporary

PICKLES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
}

# A public JPEG re-encoding holds the images in another order. The SHA-256 of its labels in that order distinguishes it
# from the original, whatever JPEG decoder was used (with libjpeg-turbo the data's fingerprint is 9ce3e96e...).
REENCODED_LABELS_SHA256 = "bfecf51857bbd06be1ba2f34c9213e92d5c95dff289417c8b3392370e6abc96b"


@dataclasses.dataclass(frozen=True)
class Source:
    """One form of the data on disk, found but not yet read.

    Attributes:
        path: the file or folder.
        files: all its files.
        read: returns the records and one line about their source, with its path as a shell would quote it.
    """

    path: Path
    files: tuple[Path, ...]
    read: Callable[[], tuple[np.ndarray, str]]


def load_cifar(
    data_dir: Path | None = None, *, progress: bool = True, download: bool = True, release: Release = CIFAR10
) -> Dataset:
    """CIFAR as uint8 NHWC arrays: 40,000 training, 10,000 validation and 10,000 test images.

    The split is `numpy.random.default_rng(0).permutation(50_000)` over the binary files' order, the first 40,000 for
    training. Decoded arrays are cached (`jaxnorm.study.data.cache`).

    Args:
        data_dir: folder to look in and to download to; None for `data_folder`'s default.
        progress: whether long work reports on standard error.
        download: whether it is downloaded if it is not there; else the images are black and the fingerprint is empty.
        release: which data set it is.

    Returns:
        The data set.

    Raises:
        UserError: if the folder has no usable form and the download fails, or if a file is damaged.
    """
    folder = data_folder(data_dir)
    with readable(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--data-dir must be a folder, but {folder} is a file; give the folder that holds it")
        archive, prepared = folder / release.archive, folder / release.name
        source = find(folder, release, progress=progress)
        if source is None and not download:
            decoded = _absent(folder, release)
        else:
            if source is None or (source.path == archive and abandoned(prepared)):
                source = _fetch(folder, release, progress=progress)
            else:  # what was killed before another form of the data came
                remove_abandoned(archive)
                remove_abandoned(prepared)
            decoded = cached(source.path, source.files, lambda: _decode(*source.read()))

    order = np.random.default_rng(0).permutation(release.num_train)
    num_train = 4 * release.num_train // 5
    label = decoded.label.astype(np.int32)

    def split(rows: np.ndarray) -> Split:
        return Split(image=take(decoded.image, rows), label=take(label, rows))

    reencoded = hashlib.sha256(decoded.label.data).hexdigest() == REENCODED_LABELS_SHA256
    return Dataset(
        name=release.name,
        description=f"{release.title} (JPEG q75 re-encoding)" if reencoded else release.title,
        source=decoded.source,
        fingerprint=decoded.fingerprint,
        train=split(order[:num_train]),
        validation=split(order[num_train:]),
        test=split(np.arange(release.num_train, len(label))),
        mean=release.mean,
        pad=SIDE // 8,
        flip=True,
        class_names=release.class_names,
    )


def data_folder(data_dir: Path | None) -> Path:
    """The folder to look in: `data_dir`, else `$JAXNORM_DATA_DIR`, else `data` in the cache folder.

    Args:
        data_dir: the user's choice, or None.

    Returns:
        An absolute path, with `~` expanded; the folder may not exist.
    """
    given = data_dir or os.environ.get("JAXNORM_DATA_DIR")
    return Path(os.path.expanduser(given)).absolute() if given else cache_folder() / "data"  # noqa: PTH111


def find(folder: Path, release: Release, *, progress: bool) -> Source | None:
    """The first form of the data in `folder`, in the order of this module's docstring.

    A directory that tensorflow-datasets prepared in another format than array_record is skipped.

    Args:
        folder: to look in.
        release: what the data set must hold.
        progress: whether reading it reports on standard error.

    Returns:
        The form found, or None.

    Raises:
        UserError: if a form of it is there but incomplete.
    """
    prepared = folder / tfds_directory.version_path(release)
    if prepared.exists() and tfds_directory.file_format(prepared) == tfds_directory.FILE_FORMAT:
        files = tuple(sorted(file for file in prepared.iterdir() if file.is_file()))
        return Source(
            prepared,
            files,
            lambda: (tfds_directory.read_directory(prepared, release, progress=progress), _tfds_line(prepared)),
        )
    unpacked = folder / release.folder
    if not unpacked.exists() and any((folder / name).exists() for name in release.num_records):
        unpacked = folder
    if unpacked.exists():
        files = tuple(unpacked / name for name in release.num_records)
        binary.check_folder(unpacked, release)
        return Source(
            unpacked,
            files,
            lambda: (binary.read_folder(unpacked, release), f"the binary files in {quote(str(unpacked))}"),
        )
    archive = folder / release.archive
    if archive.exists():

        def read() -> tuple[np.ndarray, str]:
            records, digest = binary.read_archive(archive, release), sha256(archive)
            if digest == release.archive_sha256:
                return records, f"the official archive {quote(str(archive))} (SHA-256 {digest[:8]}… verified)"
            return records, f"the archive {quote(str(archive))} (SHA-256 {digest[:8]}…, not the official one's)"

        return Source(archive, (archive,), read)
    if release.name == CIFAR10.name and len(packed.missing_files(folder)) <= len(packed.PARTS):
        files = tuple(folder / name for name in (packed.LABELS, *packed.PARTS) if (folder / name).exists())
        return Source(
            folder / packed.LABELS,
            files,
            lambda: (packed.read_packed(folder, release), f"the packed files in {quote(str(folder))}"),
        )
    return None


def _fetch(folder: Path, release: Release, *, progress: bool) -> Source:
    """Downloads the archive into `folder` and prepares CIFAR-10 once for tensorflow-datasets.

    From the download's end to the end of the preparation there is a temporary folder: if this process is killed, it
    shows the next one that the preparation was not finished.
    """
    with contextlib.ExitStack() as preparing:
        if not (folder / release.archive).exists():
            mark = temporary(folder / release.name, is_folder=True)
            _download(folder, release, lambda: preparing.enter_context(mark), progress=progress)
        return _prepare(folder, release, progress=progress)


def _download(folder: Path, release: Release, arriving: Callable[[], object], *, progress: bool) -> None:
    """Downloads the archive into `folder`; `arriving` is called just before it is there."""
    prepared = folder / tfds_directory.version_path(release)
    if prepared.exists():
        raise UserError(
            f"{prepared} must be in the array_record format, but is {tfds_directory.file_format(prepared)}, which only "
            'TensorFlow reads; prepare it with file_format="array_record", or remove it to have CIFAR downloaded'
        )
    pickles = [name for name in PICKLES[release.name] if (folder / name).exists()]
    unused = f" ({' and '.join(pickles)} there cannot be used: loading pickles can run code)" if pickles else ""
    archive = folder / release.archive
    try:
        download(
            release.url,
            archive,
            size=release.archive_bytes,
            sha256=release.archive_sha256,
            progress=progress,
            arriving=arriving,
        )
    except UnreachableError as error:
        raise UserError(
            f"{release.title} is not in {folder}: no {tfds_directory.version_path(release)}, {release.folder}, "
            f"{release.archive}{' or packed files' if release.name == CIFAR10.name else ''}{unused}, "
            f"and {host(release.url)} cannot be reached ({error}); put {release.archive} there, point --data-dir to a "
            "folder that has one of these, or use --dataset digits"
        ) from error


def _prepare(folder: Path, release: Release, *, progress: bool) -> Source:
    """Prepares the archive in `folder` if it is CIFAR-10's. Otherwise, and where that fails, it is the source."""
    prepared, archive = folder / tfds_directory.version_path(release), folder / release.archive
    records = binary.read_archive(archive, release)
    try:
        if release.name == CIFAR10.name:  # of CIFAR-100 the records have no coarse classes, which tfds keeps
            tfds_directory.write_directory(records, folder, release, progress=progress)
    except ImportError:
        pass  # without the extra "tfds" the archive is the usual source
    except (OSError, RuntimeError, UserError) as error:
        reason = one_line(error)
        tell(f"warning: {prepared} cannot be prepared ({reason}); {archive} is read instead")
    source = find(folder, release, progress=progress)
    if source is None:
        raise UserError(f"{archive} was downloaded but is not there any more; run the same command again")
    if source.path == prepared:  # it was compared with these records when it was written
        return dataclasses.replace(source, read=lambda: (records, _tfds_line(prepared)))
    return source


def _tfds_line(prepared: Path) -> str:
    return f"the tensorflow-datasets directory {quote(str(prepared))}"


def _absent(folder: Path, release: Release) -> Decoded:
    """As many images as there will be, all black."""
    num_images = release.num_train + release.num_test
    image = np.broadcast_to(np.uint8(0), (num_images, SIDE, SIDE, 3))
    source = f"{host(release.url)}: {release.archive_bytes / 1e6:.0f} MB to download to {quote(str(folder))}"
    return Decoded(image, np.zeros(num_images, np.uint8), "", source)


def _decode(records: np.ndarray, source: str) -> Decoded:
    planar = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    image, label = np.ascontiguousarray(planar.transpose(0, 2, 3, 1)), np.ascontiguousarray(records[:, 0])
    return Decoded(image, label, fingerprint_of(image, label), source)
