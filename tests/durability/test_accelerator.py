"""A rehearsal of the accelerator's command on the CPU: whole, and killed at three moments on three machines."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1500
pytestmark = pytest.mark.durability


def begin(out, **options):
    command = [sys.executable, ROOT / "benchmarks" / "accelerator.py", "--rehearse", "--platform", "cpu"]
    command += ["--minutes", "20", "--seeds", "1", "--jobs", "1", "--out", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def end(process):
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    end(begin(out))
    return out


def test_everything_is_written_and_can_be_published(whole, tmp_path):
    correctness = json.loads((whole / "correctness.json").read_text())["results"]
    assert set(correctness["norms"]) == {"none", "bn"}
    assert all(entry["passed"] for entry in correctness["norms"].values())
    assert correctness["resume"] == {"bn": {"resumed_bits_are_equal": True}}
    speed = json.loads((whole / "speed.json").read_text())
    assert speed["ended"] == "exit code 0"
    assert {entry["contender"] for entry in speed["results"]["programs"]} == {"jaxnorm", "flax"}
    assert json.loads((whole / "machine.json").read_text())["jax"]
    command = [sys.executable, "-m", "jaxnorm", "publish", whole / "runs", tmp_path / "published"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=SECONDS)
    assert (tmp_path / "published" / "summary.csv").read_text().count(",complete,") == 2 * 3  # runs and splits


def wait_for(path, process, *content):
    until = time.monotonic() + SECONDS
    while not (path.exists() and all(word.encode() in path.read_bytes() for word in content)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)


def processes_of(out):
    """Command lines that name `out` of processes that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(out) in line:
            found.append(line)
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux lists processes in /proc")
def test_killed_at_three_moments_it_goes_on_from_its_archives_elsewhere(whole, tmp_path):
    moments = [
        ("correctness.json", "none"),
        ("speed.json", "images_per_second"),
        ("runs/none-seed0/result.json", "test"),
    ]
    archives = []
    for place, (name, word) in enumerate(moments):
        out = tmp_path / str(place)
        out.mkdir()
        for archive in archives:
            (out / archive.name).write_bytes(archive.read_bytes())
        process = begin(out)
        wait_for(out / name, process, word)
        if place == 2:
            wait_for(out / "result.tar", process, "result.json")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        until = time.monotonic() + 60
        while processes_of(out) and time.monotonic() < until:
            time.sleep(0.1)
        assert not processes_of(out)
        archives = sorted(out.glob("result*.tar"))
    out = tmp_path / "last"
    out.mkdir()
    for archive in archives:
        (out / archive.name).write_bytes(archive.read_bytes())
    output = end(begin(out))
    assert "Going on from the archives" in output and "correctness.py" not in output and "throughput.py" not in output
    assert "Done: 1 of 2 runs" in output
    for run in ("none-seed0", "bn-seed0"):
        ours, theirs = (np.load(place / "runs" / run / "predictions.npz") for place in (out, whole))
        np.testing.assert_array_equal(ours["logits"], theirs["logits"])


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--minutes", "0"), "--minutes must be positive"),
        (("--minutes", "5"), "--data-dir must hold CIFAR-10"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, flags, words):
    command = [
        sys.executable,
        ROOT / "benchmarks" / "accelerator.py",
        "--out",
        tmp_path,
        "--data-dir",
        tmp_path,
        *flags,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert words in ended.stderr
