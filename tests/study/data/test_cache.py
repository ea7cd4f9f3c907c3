"""The decoded copy: used when it is right, discarded when it is not, done without when it cannot be."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from jaxnorm.files import cache_folder
from jaxnorm.study.data.cache import Decoded, cached, fingerprint_of


class Origin:
    """A source file, and how often it was decoded."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "source.bin"
        self.path.write_bytes(b"source")
        self.times = 0
        rng = np.random.default_rng(0)
        self.image = rng.integers(0, 256, (7, 4, 4, 3), np.uint8)
        self.label = np.arange(7, dtype=np.uint8)
        self.fingerprint = fingerprint_of(self.image, self.label)

    def load(self) -> Decoded:
        def decode() -> Decoded:
            self.times += 1
            return Decoded(self.image, self.label, self.fingerprint, "the origin")

        decoded = cached(self.path, [self.path], decode)
        np.testing.assert_array_equal(decoded.image, self.image)
        np.testing.assert_array_equal(decoded.label, self.label)
        assert decoded.fingerprint == self.fingerprint
        assert decoded.source.startswith("the origin")
        return decoded


@pytest.fixture
def origin(tmp_path):
    return Origin(tmp_path)


def cache_file() -> Path:
    (file,) = cache_folder().iterdir()
    return file


def test_second_load_reads_the_copy_and_says_so(origin, capsys):
    assert origin.load().source == "the origin"
    assert str(cache_folder()) in origin.load().source
    assert origin.times == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["time", "size"])
def test_changed_source_is_decoded_again_in_place_of_the_old_copy(origin, capsys, change):
    origin.load()
    if change == "time":
        os.utime(origin.path, ns=(1, 1))
    else:
        origin.path.write_bytes(b"another source")
    origin.load()
    origin.load()
    assert origin.times == 2
    assert capsys.readouterr().err == ""
    cache_file()  # still one


def forged(content: bytes) -> bytes:
    """The content with the hash that belongs to it, as somebody else can write it."""
    return hashlib.sha256(content[65:]).hexdigest().encode() + content[64:]


def spoil_every_way(content: bytes) -> dict[str, bytes]:
    middle = content.index(b"\n", 65) + 100

    def flipped(at: int) -> bytes:
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return {
        "pixel": flipped(middle),
        "label": flipped(len(content) - 1),
        "digest": flipped(3),
        "fingerprint": content.replace(b'"fingerprint": "', b'"fingerprint": "0', 1),
        "forged": forged(content[:middle] + b"x" + content[middle + 1 :]),
        "truncated": content[:-1],
        "longer": content + b"\0",
        "empty": b"",
        "garbage": b"\xff" * 1000,
        "pickle": b"\x80\x04N.",
    }


@pytest.mark.parametrize("how", spoil_every_way(b"0" * 64 + b"\n{}\n" + bytes(200)))
def test_damaged_copy_is_discarded_with_one_line(origin, capsys, how):
    origin.load()
    file = cache_file()
    good = file.read_bytes()
    file.write_bytes(spoil_every_way(good)[how])
    assert origin.load().source == "the origin"
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and error.count("\n") == 1 and str(file) in error
    assert file.read_bytes() == good
    assert str(cache_folder()) in origin.load().source
    assert origin.times == 2
    assert capsys.readouterr().err == ""


def test_unwritable_cache_is_a_warning(origin, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    origin.load()
    assert "XDG_CACHE_HOME" in capsys.readouterr().err


def test_interrupted_store_leaves_nothing(origin, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        origin.load()
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_default_folder(monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/jaxnorm")
