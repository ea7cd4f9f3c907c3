"""The packed files: what an encoder of our own writes is read back, and damaged files are named."""

import lzma

import numpy as np
import pytest

from jaxnorm.study.data.cifar import load_cifar
from jaxnorm.study.data.packed import LABELS, PARTS, missing_files, read_packed


def encoded(channels):
    """What the predictor of the format misses of channels (3, N, 32, 32): red, green, blue."""
    red, green, blue = channels.astype(int)
    missed = []
    for channel in (green, red - green, blue - green):
        guess = np.zeros_like(channel)
        guess[:, 0, 1:], guess[:, 1:, 0] = channel[:, 0, :-1], channel[:, :-1, 0]
        left, upper, corner = channel[:, 1:, :-1], channel[:, :-1, 1:], channel[:, :-1, :-1]
        guess[:, 1:, 1:] = np.median([left, upper, left + upper - corner], axis=0)
        missed.append((channel - guess) % 256)
    return np.array(missed, np.uint8)


@pytest.fixture
def packed(tmp_path, records):
    """A folder of the four files."""
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / LABELS).write_bytes(lzma.compress(records[:, 0].tobytes()))
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(1, 0, 2, 3)
    for name, part in zip(PARTS, np.split(images, 3, axis=1), strict=True):
        (folder / name).write_bytes(lzma.compress(encoded(part).tobytes()))
    return folder


def test_packed_files_give_the_records(packed, records, release):
    np.testing.assert_array_equal(read_packed(packed, release), records)


def test_packed_files_are_a_form_of_the_data_set(packed, records, release, tmp_path, write_folder):
    found = load_cifar(packed, release=release, progress=False)
    write_folder(tmp_path / "unpacked", records)
    expected = load_cifar(tmp_path / "unpacked", release=release, progress=False)
    assert found.fingerprint == expected.fingerprint
    assert found.source == f"the packed files in {packed}"
    np.testing.assert_array_equal(found.validation.image, expected.validation.image)


def test_a_part_that_has_not_arrived_is_named(packed, release, fails):
    (packed / PARTS[1]).unlink()
    assert missing_files(packed) == [PARTS[1]]
    with fails(packed, f"lacks {PARTS[1]}", "copy"):
        load_cifar(packed, release=release, progress=False)


@pytest.mark.parametrize("name", [LABELS, PARTS[0], PARTS[2]])
@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda content: content[:-20], "cut short"),
        (lambda content: content[:80] + bytes([content[80] ^ 255]) + content[81:], "damaged"),
        (lambda content: lzma.compress(lzma.decompress(content) + b"x"), "more"),
        (lambda content: lzma.compress(lzma.decompress(content)[1:]), "fewer"),
        (lambda _: lzma.compress(bytes(2**26)), "more"),
        (lambda _: b"", "cut short"),
    ],
)
def test_a_damaged_file_is_named(packed, release, fails, name, change, reason):
    path = packed / name
    path.write_bytes(change(path.read_bytes()))
    with fails(path, reason, "copy it again"):
        read_packed(packed, release)


def test_an_impossible_label(packed, records, release, fails):
    (packed / LABELS).write_bytes(lzma.compress(bytes([10] * len(records))))
    with fails(packed / LABELS, "record 0", "0 to 9"):
        read_packed(packed, release)
