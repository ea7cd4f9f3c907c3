"""Who may write to a workdir."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.runs.lock import check_free, held
from tests.drivers import environment, path_of


def assert_a_driver_stops_before_jax_is_loaded(workdir, pid):
    command = [sys.executable, "-X", "importtime", str(path_of("compare_norms")), "--workdir", str(workdir)]
    finished = subprocess.run(command, env=environment(workdir), capture_output=True, text=True, timeout=60)
    assert finished.returncode == 2
    assert f"but process {pid} on" in finished.stderr
    assert "| jax\n" not in finished.stderr


HOLDING = """
import sys, time
from pathlib import Path
from jaxnorm.study.runs.lock import held
with held(Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holding(workdir, before=""):
    """A process that holds the folder, after what is done `before`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", before + HOLDING, str(workdir)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_holds_the_folder_and_a_dead_one_holds_nothing(tmp_path):
    with holding(tmp_path) as process:
        with pytest.raises(UserError, match=f"process {process.pid} on .* does; wait for it"), held(tmp_path):
            pass
        with pytest.raises(UserError, match=f"process {process.pid} on .* does; wait for it"):
            check_free(tmp_path)
        assert_a_driver_stops_before_jax_is_loaded(tmp_path, process.pid)
    check_free(tmp_path)
    with held(tmp_path):
        assert json.loads((tmp_path / ".lock.holder").read_text())["pid"] == os.getpid()
        (tmp_path / "study.json").write_text("{}")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "study.json"}


def refusing(monkeypatch, error, *, folders=False):
    """Makes `flock` raise an error in this process, of folders only if wanted; returns a program that does the same."""
    program = (
        "import errno, fcntl, os, stat\n"
        "def refuse(handle, *_, flock=fcntl.flock):\n"
        f"    if {folders} and not stat.S_ISDIR(os.fstat(handle).st_mode): return flock(handle, *_)\n"
        f"    raise OSError(errno.{error}, os.strerror(errno.{error}))\n"
        "fcntl.flock = refuse\n"
    )
    monkeypatch.setattr("fcntl.flock", fcntl.flock)  # it comes back after the test
    exec(program, {})
    return program


def test_whoever_deletes_the_lock_admits_nobody(tmp_path):
    with holding(tmp_path):
        for path in tmp_path.iterdir():
            path.unlink()
        for _ in range(2):
            with pytest.raises(UserError, match="one process at a time"), held(tmp_path):
                pass


@pytest.mark.parametrize(
    "error, folders, name", [("EBADF", True, ".lock"), ("ENOSYS", False, ".lock.marker")], ids=["no folders", "nothing"]
)
def test_nor_on_a_disk_that_locks_less(tmp_path, monkeypatch, error, folders, name):
    with holding(tmp_path, refusing(monkeypatch, error, folders=folders)) as process:
        (tmp_path / name).unlink()
        for _ in range(2):
            with pytest.raises(UserError, match=f"process {process.pid} on .* does; wait for it"), held(tmp_path):
                pass
    with held(tmp_path):
        pass


@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP", "ENOLCK"])
def test_a_disk_without_locks_has_one_writer_too(tmp_path, monkeypatch, error):
    with holding(tmp_path, refusing(monkeypatch, error)) as process:
        for take in (held, lambda workdir: contextlib.nullcontext(check_free(workdir))):
            with pytest.raises(UserError, match=f"process {process.pid} on .* if that process is gone"), take(tmp_path):
                pass
    for _ in range(2):
        check_free(tmp_path)
        with held(tmp_path):
            (tmp_path / "study.json").write_text("{}")
    assert {path.name for path in tmp_path.iterdir()} <= {".lock", "study.json"}


def test_a_folder_that_did_not_become_a_study_s_is_left_as_it_was(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    for folder in (tmp_path / "new" / "study", tmp_path / "mine"):
        with held(folder):
            assert (folder / ".lock").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_what_cannot_be_a_folder_is_refused_before_anything_is_touched(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, words in [
        (file, "is a file"),
        (file / "sub", "must be in a folder, but .*file is a file"),
        (tmp_path / ("x" * 300), "must be a usable path"),
        (tmp_path / "link", "is a link to nothing"),
    ]:
        with pytest.raises(UserError, match=words):
            check_free(path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


def test_a_folder_that_cannot_be_made_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be writable"), held(tmp_path / "file" / "a"):
        pass
    with pytest.raises(UserError, match="must be writable"), held(Path("/proc/nowhere/a")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
