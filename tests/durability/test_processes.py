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
    for _ in range(6000):  # on a busy machine two processes compile for minutes
        if path.exists() and len(path.read_text().splitlines()) >= epoch:
            return
        time.sleep(0.1)
    raise AssertionError(f"epoch {epoch} was never reached")


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "gn-seed0" / "metrics.jsonl").read_text().splitlines()]


def check_ended_by_loss(code, errors, of_coordinator):
    """The first process is the coordinator: between two collectives, JAX's own thread notices its loss and aborts."""
    aborted = of_coordinator and code == -signal.SIGABRT
    assert aborted or code == 1, errors
    assert ("another task died" if aborted else "error: another process of this run is gone") in errors
    assert "Traceback" not in errors


def test_two_processes_train_what_one_trains_and_only_the_first_writes(tmp_path, report):
    arguments = [*FAST, "--norms", "gn"]
    places = [tmp_path / "first", tmp_path / "second"]
    first, second = compare_together(places, *arguments, "--workdir", "w")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "gn-seed0: test accuracy" in first.stdout
    assert "gn-seed0" not in second.stdout
    assert {path.name for path in places[1].iterdir()} <= {"cache", ".config"}  # matplotlib's own
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
    _, errors = started[1 - victim].communicate(timeout=60)
    check_ended_by_loss(started[1 - victim].returncode, errors, of_coordinator=victim == 0)
    started[victim].communicate()
    # Alone, on one device: the same numbers to rounding as never interrupted on two. One device on CPU has our
    # convolutions, two have XLA's, so that this must be allowed.
    again = drive("compare_norms", places[0], *RUN, "--workdir", "w", "--allow-changes")
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stdout
    unbroken = drive("compare_norms", tmp_path, *RUN, "--workdir", "w")
    assert unbroken.returncode == 0, unbroken.stderr
    rows, _ = content(places[0] / "w", "gn-seed0")
    expected, _ = content(tmp_path / "w", "gn-seed0")
    assert [row["train_loss"] for row in rows] == pytest.approx([row["train_loss"] for row in expected], rel=0.02)
    report(f"process {victim} of two killed, gone on alone", 1, "nothing")


ALONE = """
import jax
from jaxnorm.study.runs import checkpoints
from jaxnorm.study.training import run

def fail(*_):
    raise RuntimeError("of its own")

def in_the_first(*arguments):
    if jax.process_index() == 0:
        checkpoints.Checkpoints.save = fail
    return initial_state(*arguments)

def in_the_second(*arguments):
    return fail() if jax.process_index() == 1 else close_epoch(*arguments)

initial_state, close_epoch = run.initial_state, run.close_epoch
"""


@pytest.mark.parametrize(
    "victim, patch", [(0, "run.initial_state = in_the_first"), (1, "run.close_epoch = in_the_second")]
)
def test_a_process_that_crashes_alone_ends_the_run_within_a_minute(tmp_path, victim, patch, report):
    places = [tmp_path / "first", tmp_path / "second"]
    (tmp_path / "alone.py").write_text(ALONE + patch)
    started = start_together(places, *RUN, "--workdir", "w", "--import", tmp_path / "alone.py")
    said = {victim: started[victim].communicate(timeout=600)}
    said[1 - victim] = started[1 - victim].communicate(timeout=60)  # counted from the end of the crashed one
    assert started[victim].returncode == 1, said
    assert f"error: gn-seed0 has crashed in process {victim} alone (RuntimeError: of its own)" in said[victim][1]
    assert "Traceback" not in said[victim][1]
    check_ended_by_loss(started[1 - victim].returncode, said[1 - victim][1], of_coordinator=victim == 0)
    assert (places[0] / "w" / "gn-seed0" / "crash.txt").exists() == (victim == 0)
    again = drive("compare_norms", places[0], *RUN, "--workdir", "w", "--allow-changes")
    assert again.returncode == 0, again.stderr
    report(f"process {victim} of two crashed alone, gone on alone", 1, "nothing")


def test_a_variant_that_crashes_in_both_does_not_keep_the_next_from_training(tmp_path, report):
    places = [tmp_path / "first", tmp_path / "second"]
    (tmp_path / "faulty.py").write_text(
        "import flax.linen as nn\n"
        "from jaxnorm import register_norm\n"
        "class Faulty(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x): raise RuntimeError('no such norm')\n"
        "register_norm('faulty', lambda *, train, axis_name, dtype, name: Faulty(name=name))\n"
    )
    norms = ["--import", tmp_path / "faulty.py", "--norms", "faulty", "gn"]
    first, second = compare_together(places, *FAST, *norms, "--workdir", "w")
    assert (first.returncode, second.returncode) == (1, 1), first.stderr + second.stderr
    assert "faulty-seed0: crashed: RuntimeError: no such norm" in first.stdout
    assert "process 1: faulty-seed0: RuntimeError: no such norm" in second.stderr
    assert len(rows_of(places[0] / "w")) == 2
    report("a variant crashed in both of two processes, the next trained", 1, "nothing")


SLOW = """
import time
import jax
import jaxnorm.study.data

def download(*arguments, **options):
    if jax.process_index() == 0:
        print("downloading", flush=True)
        time.sleep(600)
    return load_dataset(*arguments, **options)

load_dataset, jaxnorm.study.data.load_dataset = jaxnorm.study.data.load_dataset, download
"""


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_before_training_ends_both_at_once(tmp_path, number, code, word, report):
    places = [tmp_path / "first", tmp_path / "second"]
    (tmp_path / "slow.py").write_text(SLOW)
    started = start_together(places, *RUN, "--workdir", "w", "--import", tmp_path / "slow.py")
    assert started[0].stdout.readline() == "downloading\n"
    time.sleep(5)  # until the second waits
    started[0].send_signal(number)
    _, errors = started[0].communicate(timeout=30)  # the download would take 600
    assert (started[0].returncode, errors.splitlines()[-1]) == (code, word)
    _, errors = started[1].communicate(timeout=30)
    check_ended_by_loss(started[1].returncode, errors, of_coordinator=True)
    report(f"{number.name} to the first of two processes that downloads", 1, "nothing")


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
