"""Disks that refuse: a full one, a file too large, standard output that nobody takes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnorm.study.runs.checkpoints import Checkpoints
from tests.drivers import ROOT, content, drive, environment, path_of

pytestmark = pytest.mark.durability

RUN = ["--norms", "gn", "--batch-size", "256", "--num-epochs", "3"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB of its own: room for the weights and about four checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if not done or done.returncode:
        pytest.skip("a disk of its own takes the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_one_line(finished, words):
    assert finished.returncode == 2, finished.stderr
    assert re.search(words, finished.stderr), finished.stderr
    assert "Traceback" not in finished.stderr
    assert len([line for line in finished.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_a_disk_that_fills_up_while_training(tmp_path, small_disk, report):
    whole = drive("compare_norms", tmp_path, *RUN, "--workdir", "whole")
    assert whole.returncode == 0, whole.stderr
    workdir = small_disk / "w"
    first = drive("compare_norms", tmp_path, *RUN, "--stop-after-epoch", "1", "--workdir", workdir)
    checkpoints = Checkpoints(workdir / "gn-seed0" / "checkpoints")
    steps = checkpoints.steps()
    assert steps, first.stderr
    free = shutil.disk_usage(small_disk).free
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * max(0, free - 100_000))
    assert_one_line(
        drive("compare_norms", tmp_path, *RUN, "--workdir", workdir),
        r"the disk must take \S*disk\S*, but does not \(No space left on device, \d MB free there\); free some space",
    )
    assert checkpoints.steps() == steps
    filler.unlink()
    shutil.rmtree(workdir / "figures", ignore_errors=True)  # four megabytes hold no figures
    finished = drive("compare_norms", tmp_path, *RUN, "--workdir", workdir)
    rows, result = content(workdir, "gn-seed0")
    unbroken_rows, unbroken = content(tmp_path / "whole", "gn-seed0")
    assert rows == unbroken_rows, finished.stderr
    assert {**result, "seconds": 0} == {**unbroken, "seconds": 0}
    report("disk full while training, room made, gone on", 1, "nothing")


def test_files_that_may_not_grow(tmp_path, report):
    """A limit on the size of files stands in for a quota: the write itself fails, in orbax's own code, too."""
    limited = ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash"]  # in KiB
    finished = subprocess.run(
        [*limited, sys.executable, str(path_of("compare_norms")), *RUN, "--workdir", "w"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert_one_line(finished, r"the disk must take \S*w/gn-seed0/checkpoints\S*, but does not \(File too large")
    assert Checkpoints(tmp_path / "w" / "gn-seed0" / "checkpoints").steps() == []
    again = drive("compare_norms", tmp_path, *RUN, "--workdir", "w")
    assert again.returncode == 0, again.stderr
    report("files that may not grow, limit lifted, gone on", 1, "nothing")


def test_a_read_only_disk(tmp_path, small_disk, report):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    finished = drive("compare_norms", tmp_path, *RUN, "--workdir", small_disk / "w", timeout=60)
    assert_one_line(finished, r"workdir must be writable, but \S*disk/w is not \(Read-only file system\)")
    report("read-only disk", 1, "nothing")


def test_a_standard_output_that_takes_nothing(tmp_path, report):
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(
            [sys.executable, "-m", "jaxnorm", "doctor"],
            cwd=tmp_path,
            env={**environment(tmp_path), "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
        )
    assert_one_line(finished, "standard output or a file must take what is written, but does not")
    report("standard output on a full disk", 1, "nothing")
