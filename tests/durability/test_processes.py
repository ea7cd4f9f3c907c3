"""Two real processes that share their devices: together they train what one trains, and what becomes of a dead one."""

import json
import signal
import time

import pytest

from tests.drivers import FAST, compare_together, content, drive, start_together

pytestmark = pytest.mark.durability
RUN = ["--norms", "gn", "--batch-size", "256", "--num-epochs", "4", "--checkpoint-every-seconds", "0"]


def wait_for_epoch(workdir, epoch):
    path = workdir / "gn-seed0" / "metrics.jsonl"
    for _ in range(1200):
        if path.exists() and len(path.read_text().splitlines()) >= epoch:
            return
        time.sleep(0.1)
    raise AssertionError(f"epoch {epoch} was never reached")


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "gn-seed0" / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_what_one_trains_and_only_the_first_writes(tmp_path, report):
    arguments = [*FAST, "--norms", "gn"]
    places = [tmp_path / "first", tmp_path / "second"]
    first, second = compare_together(places, *arguments, "--workdir", "w")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "gn-seed0: test accuracy" in first.stdout
    assert "gn-seed0" not in second.stdout
    assert [path.name for path in places[1].iterdir()] == ["cache"]
    assert drive("compare_norms", tmp_path, *arguments, "--workdir", "w").returncode == 0
    together, alone = rows_of(places[0] / "w"), rows_of(tmp_path / "w")
    for name in ("train_loss", "val_loss"):
        assert [row[name] for row in together] == pytest.approx([row[name] for row in alone], rel=1e-3)
    provenance = json.loads((places[0] / "w" / "gn-seed0" / "provenance.json").read_text())
    assert provenance["device"]["processes"] == provenance["data_parallel"] == 2
    report("two processes train as one", 1, "nothing")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_run_within_a_minute_and_the_run_goes_on(tmp_path, victim, report):
    places = [tmp_path / "first", tmp_path / "second"]
    started = start_together(places, *RUN, "--workdir", "w")
    wait_for_epoch(places[0] / "w", 1)
    started[victim].kill()
    killed_at = time.monotonic()
    _, errors = started[1 - victim].communicate(timeout=60)
    assert time.monotonic() - killed_at < 60
    assert started[1 - victim].returncode == 1, errors
    assert "error: another process of this run is gone" in errors
    assert "Traceback" not in errors
    started[victim].communicate()
    # Alone, on one device: the same numbers to rounding as never interrupted on two.
    again = drive("compare_norms", places[0], *RUN, "--workdir", "w")
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stdout
    unbroken = drive("compare_norms", tmp_path, *RUN, "--workdir", "w")
    assert unbroken.returncode == 0, unbroken.stderr
    rows, _ = content(places[0] / "w", "gn-seed0")
    expected, _ = content(tmp_path / "w", "gn-seed0")
    assert [row["train_loss"] for row in rows] == pytest.approx([row["train_loss"] for row in expected], rel=0.02)
    report(f"process {victim} of two killed, gone on alone", 1, "nothing")


def test_a_signal_to_one_process_stops_both_and_saves(tmp_path, report):
    places = [tmp_path / "first", tmp_path / "second"]
    command = [*RUN[:-2], "--num-epochs", "60", "--workdir", "w"]
    started = start_together(places, *command)
    wait_for_epoch(places[0] / "w", 1)
    started[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [143, 143], said
    assert "To go on: python " in said[0][0]
    finished = compare_together(places, *command, "--stop-after-epoch", "8")
    assert [process.returncode for process in finished] == [0, 0]
    report("SIGTERM to one of two processes, saved, gone on", 1, "nothing")
