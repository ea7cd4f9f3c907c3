"""CIFAR-10 as its authors publish it: six files of 3073-byte records, in a folder or in a tar.gz archive."""

import contextlib
import dataclasses
import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxnorm.errors import UserError, one_line

FOLDER_NAME = "cifar-10-batches-bin"
ARCHIVE_NAME = "cifar-10-binary.tar.gz"
NUM_TRAIN_FILES = 5
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE  # label, then 1024 red, 1024 green, 1024 blue, row by row
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


_AGAIN = "download it again"
_UNPACK_AGAIN = f"unpack {ARCHIVE_NAME} again"


@dataclasses.dataclass(frozen=True)
class Release:
    """What was published: the number of images, and the archive. Tests use smaller releases.

    Attributes:
        images_per_file: records in each of the six files.
        url: of the archive.
        archive_bytes: size of the archive.
        archive_sha256: of the archive, hexadecimal.
    """

    images_per_file: int = 10_000
    url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    archive_bytes: int = 170_052_171
    archive_sha256: str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

    @property
    def file_names(self) -> tuple[str, ...]:
        """In the order of the records: five training files, then the test file."""
        return (*(f"data_batch_{i}.bin" for i in range(1, NUM_TRAIN_FILES + 1)), "test_batch.bin")

    @property
    def file_bytes(self) -> int:
        """Exact size of each file."""
        return self.images_per_file * RECORD_BYTES

    @property
    def num_train(self) -> int:
        """Training images, before the validation images are split off."""
        return NUM_TRAIN_FILES * self.images_per_file

    @property
    def num_test(self) -> int:
        """Test images."""
        return self.images_per_file

    def empty_records(self) -> np.ndarray:
        """An uninitialized array for all records.

        Returns:
            uint8 (num_train + num_test, 3073).
        """
        return np.empty((self.num_train + self.num_test, RECORD_BYTES), np.uint8)


def read_folder(folder: Path, release: Release) -> np.ndarray:
    """All records of the six files in `folder`.

    Args:
        folder: of the six files.
        release: what they must hold.

    Returns:
        uint8 (60000, 3073), in the files' order.

    Raises:
        UserError: if a file is missing, not a file, of another size, or has a label above 9.
        OSError: if a file cannot be read.
    """
    check_folder(folder, release)
    records = release.empty_records()
    for name, part in zip(release.file_names, np.split(records, NUM_TRAIN_FILES + 1), strict=True):
        path = folder / name
        with path.open("rb") as file:
            read = file.readinto(part.data)
        _check_size(path, read, release, _UNPACK_AGAIN)  # it may have changed since its size was checked
        check_labels(part, path)
    return records


def check_folder(folder: Path, release: Release) -> None:
    """Checks that `folder` holds six files of the right size; does not read them.

    Args:
        folder: of the six files.
        release: what they must hold.

    Raises:
        UserError: if a file is missing, not a file or of another size.
    """
    missing = [name for name in release.file_names if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder} must hold the six files of CIFAR-10, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; {_UNPACK_AGAIN}"
        )
    for name in release.file_names:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} must be a file, but is a folder or a device; {_UNPACK_AGAIN}")
        _check_size(path, path.stat().st_size, release, _UNPACK_AGAIN)


def read_archive(path: Path, release: Release) -> np.ndarray:
    """All records of the archive. Members are read by name; nothing is extracted to disk.

    Args:
        path: of the archive.
        release: what it must hold.

    Returns:
        uint8 (60000, 3073), as from `read_folder`.

    Raises:
        UserError: if the archive is damaged or larger than CIFAR-10 can be, or one of its six files is missing, there
            twice, not a regular file, of another size, or has a label above 9.
        OSError: if the archive cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} must be a file, but is a folder or a device; put the downloaded archive there")
    records = release.empty_records()
    parts = dict(zip(release.file_names, np.split(records, NUM_TRAIN_FILES + 1), strict=True))
    most = 2 * records.nbytes + 2**20  # a larger archive is no CIFAR-10 and could fill the memory
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > most:
                    raise UserError(f"{path} unpacks to more than {most:,} bytes, as CIFAR-10 never does; {_AGAIN}")
                folder, _, name = member.name.removeprefix("./").partition("/")
                if folder == FOLDER_NAME and name in release.file_names:
                    _read_member(tar, member, parts.pop(name, None), path, release)
            while stream.read(2**20):  # to the end, where gzip compares its checksum
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise UserError(f"{path} is damaged or is no tar.gz archive ({_one_line(error)}); {_AGAIN}") from error
    if parts:
        missing = ", ".join(f"{FOLDER_NAME}/{name}" for name in parts)
        raise UserError(f"{path} must hold the six files of CIFAR-10, but lacks {missing}; {_AGAIN}")
    return records


def _read_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, part: np.ndarray | None, path: Path, release: Release
) -> None:
    name = f"{path}:{member.name}"
    if part is None:
        raise UserError(f"{name} is there twice, and only one can be right; {_AGAIN}")
    if not member.isreg():
        raise UserError(f"{name} must be a regular file, but is a link, a folder or a device; {_AGAIN}")
    _check_size(name, member.size, release, _AGAIN)
    file = tar.extractfile(member)
    if file is None:
        raise UserError(f"{name} must have content, but has none; {_AGAIN}")
    with file:
        part.reshape(-1)[:] = np.frombuffer(file.read(), np.uint8)
    check_labels(part, name)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns an `OSError` while reading something in `path` into a `UserError` of one line.

    Args:
        path: named in the message where the error names no file.

    Yields:
        None.

    Raises:
        UserError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise UserError(
            f"cannot read {error.filename or path}: {reason}; make it readable, or give another --data-dir"
        ) from error


def check_labels(records: np.ndarray, name: Path | str) -> None:
    """Checks that every label is one of the ten classes.

    Args:
        records: uint8 (N, 3073).
        name: the records' source, for the message.

    Raises:
        UserError: if a label is above 9; it names the first such record.
    """
    bad = np.flatnonzero(records[:, 0] >= len(CLASS_NAMES))
    if bad.size:
        raise UserError(
            f"labels must be 0 to {len(CLASS_NAMES) - 1}, but record {bad[0]} of {name} has {records[bad[0], 0]}; "
            "the file is damaged or is not CIFAR-10: fetch it again"
        )


def _check_size(name: Path | str, found: int, release: Release, fix: str) -> None:
    if found != release.file_bytes:
        raise UserError(
            f"{name} must have {release.file_bytes:,} bytes ({release.images_per_file:,} records of {RECORD_BYTES}), "
            f"but has {found:,}; {fix}"
        )


def _one_line(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
