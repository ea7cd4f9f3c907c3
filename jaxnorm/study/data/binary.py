"""CIFAR-10 and CIFAR-100 as their authors publish them: files of records, in a folder or in a tar.gz archive."""

import contextlib
import dataclasses
import gzip
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from jaxnorm.errors import UserError, one_line

SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE  # label, then 1024 red, 1024 green, 1024 blue, row by row
_AGAIN = "download it again"


_CLASSES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CLASSES_100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
    "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
    "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataclasses.dataclass(frozen=True)
class Release:
    """What was published. By default CIFAR-10; tests use smaller releases.

    Attributes:
        name: as `--dataset` takes it; tensorflow-datasets has the same.
        title: for messages and figures.
        num_test: test images; there are five times as many training images.
        train_files: names of the training files, which share the images equally.
        test_file: name of the test file.
        label_bytes: labels before the pixels of a record, a byte each; the last is the class.
        class_names: by label.
        mean: red, green and blue; subtracted from image / 255.
        folder: name of the folder of the files.
        url: of the archive.
        archive_bytes: size of the archive.
        archive_sha256: of the archive, hexadecimal.
    """

    name: Literal["cifar10", "cifar100"] = "cifar10"
    title: str = "CIFAR-10"
    num_test: int = 10_000
    train_files: tuple[str, ...] = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    test_file: str = "test_batch.bin"
    label_bytes: int = 1
    class_names: tuple[str, ...] = _CLASSES_10
    mean: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    folder: str = "cifar-10-batches-bin"
    url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    archive_bytes: int = 170_052_171
    archive_sha256: str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

    @property
    def archive(self) -> str:
        """Name of the archive."""
        return self.url.rpartition("/")[2]

    @property
    def num_train(self) -> int:
        """Training images, before the validation images are split off."""
        return 5 * self.num_test

    @property
    def num_records(self) -> Mapping[str, int]:
        """Images by file, in the order of the records."""
        each = self.num_train // len(self.train_files)
        return {**dict.fromkeys(self.train_files, each), self.test_file: self.num_test}

    def empty_records(self) -> np.ndarray:
        """An uninitialized array for all records.

        Returns:
            uint8 (num_train + num_test, 3073).
        """
        return np.empty((self.num_train + self.num_test, RECORD_BYTES), np.uint8)

    def parts(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """The records of each file.

        Args:
            records: those of all files.

        Returns:
            Views of `records` by the file's name.
        """
        ends = np.cumsum([*self.num_records.values()])
        return dict(zip(self.num_records, np.split(records, ends[:-1]), strict=True))

    def file_bytes(self, name: str) -> int:
        """Exact size of a file.

        Args:
            name: of the file.

        Returns:
            Bytes.
        """
        return self.num_records[name] * (self.label_bytes - 1 + RECORD_BYTES)

    def read_into(self, part: np.ndarray, content: bytes | np.ndarray) -> None:
        """Writes the records of a file, of each its class and its pixels.

        Args:
            part: uint8 (N, 3073).
            content: of the file.
        """
        part[:] = np.frombuffer(content, np.uint8).reshape(len(part), -1)[:, self.label_bytes - 1 :]


CIFAR10 = Release()
CIFAR100 = Release(
    name="cifar100",
    title="CIFAR-100",
    train_files=("train.bin",),
    test_file="test.bin",
    label_bytes=2,
    class_names=tuple(_CLASSES_100.split()),
    mean=(0.5071, 0.4865, 0.4409),
    folder="cifar-100-binary",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    archive_bytes=168_513_733,
    archive_sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)


def read_folder(folder: Path, release: Release) -> np.ndarray:
    """All records of the files in `folder`.

    Args:
        folder: of the files.
        release: what they must hold.

    Returns:
        uint8 (60000, 3073), in the files' order.

    Raises:
        UserError: if a file is missing, not a file, of another size, or has a label that is no class.
        OSError: if a file cannot be read.
    """
    check_folder(folder, release)
    records = release.empty_records()
    for name, part in release.parts(records).items():
        path = folder / name
        content = np.empty(release.file_bytes(name), np.uint8)
        with path.open("rb") as file:
            read = file.readinto(content.data)
        _check_size(path, read, release, name, _unpack_again(release))  # it may have changed since the first check
        release.read_into(part, content)
        check_labels(part, path, release)
    return records


def check_folder(folder: Path, release: Release) -> None:
    """Checks that `folder` holds the files in the right sizes; does not read them.

    Args:
        folder: of the files.
        release: what they must hold.

    Raises:
        UserError: if a file is missing, not a file or of another size.
    """
    again = _unpack_again(release)
    missing = [name for name in release.num_records if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder} must hold the {len(release.num_records)} files of {release.title}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; {again}"
        )
    for name in release.num_records:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} must be a file, but is a folder or a device; {again}")
        _check_size(path, path.stat().st_size, release, name, again)


def read_archive(path: Path, release: Release) -> np.ndarray:
    """All records of the archive. Members are read by name; nothing is extracted to disk.

    Args:
        path: of the archive.
        release: what it must hold.

    Returns:
        uint8 (60000, 3073), as from `read_folder`.

    Raises:
        UserError: if the archive is damaged or too large, or one of its files is missing, there twice, not a regular
            file, of another size, or has a label that is no class.
        OSError: if the archive cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} must be a file, but is a folder or a device; put the downloaded archive there")
    records = release.empty_records()
    parts = release.parts(records)
    most = 2 * records.nbytes + 2**20  # a larger archive is another one and could fill the memory
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > most:
                    raise UserError(
                        f"{path} unpacks to more than {most:,} bytes, as {release.title} never does; {_AGAIN}"
                    )
                folder, _, name = member.name.removeprefix("./").partition("/")
                if folder == release.folder and name in release.num_records:
                    _read_member(tar, member, parts.pop(name, None), path, release)
            while stream.read(2**20):  # to the end, where gzip compares its checksum
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise UserError(f"{path} is damaged or is no tar.gz archive ({_one_line(error)}); {_AGAIN}") from error
    if parts:
        missing = ", ".join(f"{release.folder}/{name}" for name in parts)
        raise UserError(
            f"{path} must hold the {len(release.num_records)} files of {release.title}, but lacks {missing}; {_AGAIN}"
        )
    return records


def _read_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, part: np.ndarray | None, path: Path, release: Release
) -> None:
    name = f"{path}:{member.name}"
    if part is None:
        raise UserError(f"{name} is there twice, and only one can be right; {_AGAIN}")
    if not member.isreg():
        raise UserError(f"{name} must be a regular file, but is a link, a folder or a device; {_AGAIN}")
    _check_size(name, member.size, release, Path(member.name).name, _AGAIN)
    file = tar.extractfile(member)
    if file is None:
        raise UserError(f"{name} must have content, but has none; {_AGAIN}")
    with file:
        release.read_into(part, file.read())
    check_labels(part, name, release)


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


def check_labels(records: np.ndarray, name: Path | str, release: Release) -> None:
    """Checks that every label is a class.

    Args:
        records: uint8 (N, 3073).
        name: the records' source, for the message.
        release: what they are.

    Raises:
        UserError: if a label is none; it names the first such record.
    """
    num_classes = len(release.class_names)
    bad = np.flatnonzero(records[:, 0] >= num_classes)
    if bad.size:
        raise UserError(
            f"labels must be 0 to {num_classes - 1}, but record {bad[0]} of {name} has {records[bad[0], 0]}; "
            f"the file is damaged or is not {release.title}: fetch it again"
        )


def _check_size(path: Path | str, found: int, release: Release, name: str, fix: str) -> None:
    size, count = release.file_bytes(name), release.num_records[name]
    if found != size:
        raise UserError(
            f"{path} must have {size:,} bytes ({count:,} records of {size // count}), but has {found:,}; {fix}"
        )


def _unpack_again(release: Release) -> str:
    return f"unpack {release.archive} again"


def _one_line(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
