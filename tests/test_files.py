import errno
import json
import os
import stat

import pytest

from jaxnorm import files


def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as part:
        part.write_text("new, but only hal")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


def test_a_replaced_file_is_new_readable_and_alone(tmp_path):
    path = tmp_path / "folder" / "a.json"
    files.write_json(path, {"é": 1.5})
    files.write_json(path, {"é": 2.5})
    assert json.loads(path.read_text()) == {"é": 2.5}
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044, "results are for others to read, too"
    assert [child.name for child in path.parent.iterdir()] == ["a.json"]


def test_a_disk_that_flushes_no_folders_takes_files(tmp_path, monkeypatch):
    def fsync(handle, *, fsync=os.fsync):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_json_that_is_none_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
