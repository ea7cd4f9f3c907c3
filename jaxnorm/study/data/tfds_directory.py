"""CIFAR as a tensorflow-datasets directory (`cifar10/3.0.2`, array_record), read and written without TensorFlow."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.errors import UserError, one_line
from jaxnorm.study.data.binary import SIDE, Release, check_labels
from jaxnorm.study.data.progress import progress_bar
from jaxnorm.temporary import temporary

VERSION = "3.0.2"
FILE_FORMAT = "array_record"
BATCH = 1_000


def version_path(release: Release) -> Path:
    """The folder of a release below the data folder.

    Args:
        release: gives the name.

    Returns:
        A relative path.

    Examples:
        >>> version_path(Release()).as_posix()
        'cifar10/3.0.2'
    """
    return Path(release.name) / VERSION


def file_format(directory: Path) -> str:
    """The format of the prepared files, from the directory's description.

    Args:
        directory: such as `cifar10/3.0.2`.

    Returns:
        Such as "array_record"; "tfrecord" where the description gives none.

    Raises:
        UserError: if the description is missing or damaged.
    """
    return str(_describe(directory).get("fileFormat") or "tfrecord")  # directories of old versions state none


def read_directory(directory: Path, release: Release, *, progress: bool) -> np.ndarray:
    """All records, sorted by their `id` into the order of the binary files.

    Args:
        directory: such as `cifar10/3.0.2`.
        release: what it must hold.
        progress: whether to report on standard error.

    Returns:
        uint8 (60000, 3073), as from `jaxnorm.study.data.binary.read_folder`.

    Raises:
        UserError: if the directory is damaged, incomplete, or holds something else, or a package is not installed.
    """
    _check_counts(directory, release)
    records = release.empty_records()
    train, test = records[: release.num_train], records[release.num_train :]
    try:
        import tensorflow_datasets as tfds

        sources = tfds.builder_from_directory(directory).as_data_source(
            decoders={
                "image": tfds.decode.SkipDecoding()
            }  # Pillow decodes what is not OpenCV's here, without a warning
        )
        with progress_bar(f"Reading {version_path(release)}", len(records), enabled=progress) as advance:
            _read_split(sources["train"], "train", train, directory, release, advance)
            _read_split(sources["test"], "test", test, directory, release, advance)
    except ImportError as error:
        raise UserError(
            f"reading {directory} needs tensorflow-datasets and array_record, but {error.name or error} "
            "cannot be imported; pip install 'jaxnorm[tfds]'"
        ) from error
    except UserError:
        raise
    except Exception as error:  # array_record's C++ and tfds raise RuntimeError, ValueError, KeyError ... for damage
        raise UserError(f"{directory} is damaged ({_brief(error)}); {_FIX}") from error
    return records


def write_directory(records: np.ndarray, data_dir: Path, release: Release, *, progress: bool) -> Path:
    """Writes CIFAR-10 to `data_dir/cifar10/3.0.2` as tfds itself does, and checks it; it appears when all is written.

    Any program then reads it with `tfds.builder_from_directory(PATH).as_data_source()`. The ids are those of tfds
    (`train_00000` ... in the order of the binary files), and so is the shuffled order of the records on disk.

    Args:
        records: uint8 (60000, 3073) as from `read_folder`.
        data_dir: an existing folder.
        release: what the records are.
        progress: whether to report on standard error.

    Returns:
        The directory.

    Raises:
        ImportError: if tensorflow-datasets or array_record is not installed.
        OSError: if the directory cannot be written, or does not read back as it was written.
    """
    import array_record.python.array_record_module  # noqa: F401  (tfds imports it only when the first file is written)
    import tensorflow_datasets as tfds

    class Cifar10(tfds.image_classification.Cifar10, skip_registration=True):  # type: ignore[call-arg]
        """tfds's builder, its description included, with examples from memory: its own would need TensorFlow."""

        name = "cifar10"

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            del dl_manager  # nothing is downloaded here
            self.info.features["label"].names = list(release.class_names)
            return {
                "train": examples("train", records[: release.num_train], advance),
                "test": examples("test", records[release.num_train :], advance),
            }

    Cifar10.__module__ = tfds.image_classification.Cifar10.__module__  # recorded on disk as the description's origin
    final = data_dir / version_path(release)
    with temporary(final.parent, is_folder=True) as part:
        with _tfds_quiet(tfds), progress_bar(f"Preparing {final}", len(records), enabled=progress) as advance:
            Cifar10(data_dir=str(part), file_format=FILE_FORMAT).download_and_prepare(file_format=FILE_FORMAT)
        prepared = part / version_path(release)
        if not np.array_equal(read_directory(prepared, release, progress=progress), records):
            raise OSError(f"{prepared} does not read back as it was written")
        final.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was first; both directories are complete and equal
            _rename_folder(prepared, final)
    return final


def _rename_folder(old: Path, new: Path) -> None:
    try:
        old.rename(new)
    except OSError as error:
        if new.is_dir():
            raise FileExistsError(os.fspath(new)) from error
        raise


_FIX = "remove it to use another source, or prepare it again"


def examples(split: str, records: np.ndarray, advance: Callable[[int], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    """What tfds stores of each record of a split.

    Args:
        split: "train" or "test".
        records: uint8 (N, 3073).
        advance: called with 1 after each record.

    Yields:
        The record's number, and its id, PNG and label.
    """
    from PIL import Image

    for index, record in enumerate(records):
        png = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(record[1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0))).save(png, "png")
        yield index, {"id": f"{split}_{index:05d}", "image": png.getvalue(), "label": int(record[0])}
        advance(1)


def _read_split(
    source: Any, split: str, records: np.ndarray, directory: Path, release: Release, advance: Callable[[int], None]
) -> None:
    from PIL import Image

    seen = np.zeros(len(records), bool)
    for start in range(0, len(source), BATCH):
        examples = source.__getitems__(list(range(start, min(start + BATCH, len(source)))))
        for example in examples:
            name = example["id"].decode()
            prefix, _, number = name.rpartition("_")
            index = int(number) if number.isdecimal() else -1
            if prefix != split or not 0 <= index < len(records) or seen[index]:
                raise UserError(
                    f"ids must run from {split}_00000 to {split}_{len(records) - 1:05d}, each once, "
                    f"but {directory} has {name!r} (again or out of range); {_FIX}"
                )
            with Image.open(io.BytesIO(example["image"]), formats=("PNG", "JPEG")) as image:
                if image.size != (SIDE, SIDE) or image.mode != "RGB":
                    raise UserError(
                        f"images must be {SIDE}x{SIDE} RGB, but {name} of {directory} is "
                        f"{image.width}x{image.height} {image.mode}; {_FIX}"
                    )
                records[index, 1:] = np.asarray(image).transpose(2, 0, 1).reshape(-1)
            records[index, 0] = min(int(example["label"]) % 2**64, 255)  # a label that is out of range remains so
            seen[index] = True
        advance(len(examples))
    check_labels(records, f"{directory} ({split})", release)


def _check_counts(directory: Path, release: Release) -> None:
    expected = {"train": release.num_train, "test": release.num_test}
    try:
        found = {s["name"]: sum(int(n) for n in s.get("shardLengths", [])) for s in _describe(directory)["splits"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{directory}/dataset_info.json does not list its splits; {_FIX}") from error
    if found != expected:
        raise UserError(f"{directory} must hold {_counts(expected)}, but holds {_counts(found)}; {_FIX}")


def _counts(splits: dict[str, int]) -> str:
    return " and ".join(f"{count:,} {name} images" for name, count in splits.items()) or "nothing"


def _describe(directory: Path) -> dict[str, Any]:
    path = directory / "dataset_info.json"
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{directory} has no dataset_info.json, so it was never finished; {_FIX}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({_brief(error)}); {_FIX}") from error
    if not isinstance(description, dict):
        raise UserError(f"{path} must hold a JSON object, but does not; {_FIX}")
    return description


@contextlib.contextmanager
def _tfds_quiet(tfds: Any) -> Iterator[None]:
    """Suppresses the text that tfds prints to standard output, and its progress bars: we draw our own."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _brief(error: BaseException) -> str:
    text = one_line(error) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
