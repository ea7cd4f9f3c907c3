"""The six binary files and the archive: right ones are read, wrong ones are named."""

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxnorm.study.data.binary import read_archive, read_folder, readable


def test_folder_gives_the_records_in_the_order_of_the_files(tmp_path, release, records, write_folder):
    np.testing.assert_array_equal(read_folder(write_folder(tmp_path, records), release), records)


@pytest.mark.parametrize("change", [-1, -3073, 1])
def test_folder_with_a_file_of_another_size(tmp_path, release, records, write_folder, fails, change):
    folder = write_folder(tmp_path, records)
    path = folder / "data_batch_3.bin"
    path.write_bytes((path.read_bytes() + b"x")[: 61_460 + change])
    with fails(path, "61,460", f"{61_460 + change:,}", "unpack"):
        read_folder(folder, release)


def test_folder_with_an_impossible_label(tmp_path, release, records, write_folder, fails):
    records[47, 0] = 10
    with fails("data_batch_3.bin", "record 7", "has 10", "0 to 9"):
        read_folder(write_folder(tmp_path, records), release)


def test_folder_without_one_of_six(tmp_path, release, records, write_folder, fails):
    folder = write_folder(tmp_path, records)
    (folder / "test_batch.bin").unlink()
    with fails(folder, "test_batch.bin is missing"):
        read_folder(folder, release)


def test_folder_with_a_folder_for_a_file(tmp_path, release, records, write_folder, fails):
    folder = write_folder(tmp_path, records)
    (folder / "data_batch_1.bin").unlink()
    (folder / "data_batch_1.bin").mkdir()
    with fails(folder / "data_batch_1.bin", "must be a file"):
        read_folder(folder, release)


def test_unreadable_file_is_named(tmp_path, release, records, write_folder, fails, monkeypatch):
    folder = write_folder(tmp_path, records)

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with fails(folder / "data_batch_1.bin", "Permission denied", "--data-dir"), readable(folder):
        read_folder(folder, release)


def test_archive_gives_the_records(tmp_path, release, records, write_archive):
    np.testing.assert_array_equal(read_archive(write_archive(tmp_path, records), release), records)


def test_archive_members_are_found_by_name_in_any_order(tmp_path, release, records, write_archive):
    held = []

    def last_first(info: tarfile.TarInfo, content: bytes) -> list:
        info.name = "./" + info.name
        held.insert(0, (info, content))
        return held if info.name.endswith("test_batch.bin") else []

    np.testing.assert_array_equal(read_archive(write_archive(tmp_path, records, last_first), release), records)


def test_archive_with_paths_that_climb_out_writes_nothing(tmp_path, release, records, write_archive):
    def climb(info: tarfile.TarInfo, content: bytes) -> list:
        evil = tarfile.TarInfo("../evil.bin")
        evil.size = 4
        absolute = tarfile.TarInfo(str(tmp_path / "evil.bin"))
        absolute.size = 4
        return [(evil, b"evil"), (absolute, b"evil"), (info, content)]

    inside = tmp_path / "inside"
    np.testing.assert_array_equal(read_archive(write_archive(inside, records, climb), release), records)
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("place", ["../cifar-10-batches-bin", "/cifar-10-batches-bin", "elsewhere", "a/../b"])
def test_archive_does_not_take_members_from_other_places(tmp_path, release, records, write_archive, fails, place):
    def move(info: tarfile.TarInfo, content: bytes) -> list:
        info.name = info.name.replace("cifar-10-batches-bin", place)
        return [(info, content)]

    with fails("lacks", "data_batch_1.bin", "test_batch.bin"):
        read_archive(write_archive(tmp_path, records, move), release)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_archive_with_something_else_for_a_file(tmp_path, release, records, write_archive, fails, kind):
    def disguise(info: tarfile.TarInfo, content: bytes) -> list:
        if info.name.endswith("data_batch_2.bin"):
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0
        return [(info, content)]

    with fails("data_batch_2.bin", "regular file"):
        read_archive(write_archive(tmp_path, records, disguise), release)


def test_archive_with_an_oversize_member(tmp_path, release, records, write_archive, fails):
    def grow(info: tarfile.TarInfo, content: bytes) -> list:
        if info.name.endswith("data_batch_2.bin"):
            content += b"x"
            info.size += 1
        return [(info, content)]

    with fails("data_batch_2.bin", "61,460", "61,461"):
        read_archive(write_archive(tmp_path, records, grow), release)


def test_archive_that_unpacks_without_end(tmp_path, release, records, write_archive, fails):
    def bomb(info: tarfile.TarInfo, content: bytes) -> list:
        zeros = tarfile.TarInfo("zeros")
        zeros.size = 2**21
        return [(zeros, bytes(2**21)), (info, content)]

    with fails("unpacks to more than"):
        read_archive(write_archive(tmp_path, records, bomb), release)


def test_archive_with_a_file_twice(tmp_path, release, records, write_archive, fails):
    with fails("data_batch_1.bin", "twice"):
        read_archive(write_archive(tmp_path, records, lambda info, content: [(info, content)] * 2), release)


def test_archive_without_one_of_six(tmp_path, release, records, write_archive, fails):
    def drop(info: tarfile.TarInfo, content: bytes) -> list:
        return [] if info.name.endswith("_4.bin") else [(info, content)]

    with fails("lacks cifar-10-batches-bin/data_batch_4.bin;"):
        read_archive(write_archive(tmp_path, records, drop), release)


def test_archive_with_an_impossible_label(tmp_path, release, records, write_archive, fails):
    records[119, 0] = 255
    with fails("test_batch.bin", "record 19", "has 255"):
        read_archive(write_archive(tmp_path, records), release)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99, -4])
def test_truncated_archive(tmp_path, release, records, write_archive, fails, part):
    path = write_archive(tmp_path, records)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content)) if part >= 0 else int(part)])
    with fails(path, "damaged", "download it again"):
        read_archive(path, release)


def test_archive_with_a_flipped_bit(tmp_path, release, records, write_archive, fails):
    path = write_archive(tmp_path, records, level=0)  # stored, so that only the checksum shows it
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with fails(path, "damaged", "CRC"):
        read_archive(path, release)


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>", gzip.compress(b"not a tar" * 1000), gzip.compress(b"")],
    ids=["a page", "no tar", "nothing"],  # gzip writes the time: workers would collect other names
)
def test_garbage_for_an_archive(tmp_path, release, fails, content):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    with fails(path, "download it again"):
        read_archive(path, release)


def test_folder_for_an_archive(tmp_path, release, fails):
    with fails(tmp_path, "must be a file"):
        read_archive(tmp_path, release)
