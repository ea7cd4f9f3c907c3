import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnorm.temporary import OLD_SECONDS, abandoned, remove_abandoned, temporary

ROOT = Path(__file__).resolve().parent.parent
LEFT = "import os, sys, signal\nfrom pathlib import Path\nfrom jaxnorm.temporary import temporary\n" + (
    "with temporary(Path(sys.argv[1]), is_folder=sys.argv[2] == 'True') as part:\n"
    "    (part / 'x').touch() if part.is_dir() else None\n"
    "    os.kill(os.getpid(), signal.SIGKILL)"
)


@pytest.mark.parametrize("is_folder", [False, True])
def test_the_next_process_removes_what_a_killed_one_has_left_and_nothing_else(tmp_path, is_folder):
    path = tmp_path / "[a].txt"
    for name in (".b.txt.1.part", ".[a].txt", "[a].txt.1.part"):
        (tmp_path / name).touch()
    command = [sys.executable, "-c", LEFT, str(path), str(is_folder)]
    with temporary(path) as ours:
        assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == -9
        (left,) = abandoned(path)
        assert left.is_dir() == is_folder
        with temporary(path) as other:
            assert ours.exists() and other.exists() and ours != other
            assert not left.exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == [".[a].txt", ".b.txt.1.part", "[a].txt.1.part"]


def test_on_a_disk_without_locks_only_old_files_are_removed(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with temporary(tmp_path / "a") as part:
        assert abandoned(tmp_path / "a") == []
        old = part.stat().st_mtime - OLD_SECONDS - 1
        os.utime(part, (old, old))
        remove_abandoned(tmp_path / "a")
        assert not part.exists()


def test_a_folder_that_is_not_there_has_nothing(tmp_path):
    assert abandoned(tmp_path / "nowhere" / "a") == []
