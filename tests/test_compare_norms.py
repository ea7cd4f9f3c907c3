"""The driver as a person runs it: real processes on the embedded digits."""

import functools
import os
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.drivers import FAST, ROOT, content, drive, driver_here, environment, path_of, start, summary, wait_for_line

DRIVER = path_of("compare_norms")
compare = functools.partial(drive, "compare_norms")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("compared")
    finished = compare(tmp_path, *FAST, "--norms", "flax_bn", "bn")
    assert finished.returncode == 0, finished.stderr
    return tmp_path / "runs" / "compare_norms", finished


def test_a_comparison_leaves_all_it_promises(compared):
    workdir, finished = compared
    for run in ("flax_bn-seed0", "bn-seed0"):
        names = {path.name for path in (workdir / run).iterdir()}
        assert {"config.json", "metrics.jsonl", "result.json", "predictions.npz", "provenance.json"} <= names
        rows, result = content(workdir, run)
        assert [row["epoch"] for row in rows] == [1, 2]
        assert result["status"] == "complete"
        predictions = np.load(workdir / run / "predictions.npz", allow_pickle=False)
        accuracy = (predictions["logits"].argmax(1) == predictions["label"]).mean()
        assert accuracy == pytest.approx(result["test"]["accuracy"])
        assert len(predictions["label"]) == 360
    for name in ("summary.csv", "summary.json", "report.html", "report.md", "study.json"):
        assert (workdir / name).stat().st_size > 0
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert {"accuracy.png", "loss.png", "test_accuracy.png", "feature_quantiles.png"} <= figures
    header = (workdir / "summary.csv").read_text().splitlines()[0]
    assert header.startswith("norm,seed,split,accuracy,micro_f1,macro_f1,loss,status")
    assert len(summary(workdir)) == 6
    assert "training takes about" in finished.stdout
    assert "Batch norm" in finished.stdout
    assert str(workdir / "report.html") in finished.stdout or "runs/compare_norms/report.html" in finished.stdout


def test_the_sanity_check_variants_start_from_one_seed_alike(compared):
    workdir, _ = compared
    losses = [content(workdir, run)[0][0]["train_loss"] for run in ("flax_bn-seed0", "bn-seed0")]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_a_workdir_is_extended_and_what_is_complete_stays(compared):
    workdir, _ = compared
    before = (workdir / "bn-seed0" / "result.json").stat().st_mtime_ns
    finished = compare(workdir.parent.parent, *FAST, "--norms", "gn", "bn", "--seeds", "0")
    assert finished.returncode == 0, finished.stderr
    assert (workdir / "bn-seed0" / "result.json").stat().st_mtime_ns == before
    assert len(summary(workdir)) == 9
    assert [row["norm"] for row in summary(workdir)[::3]] == ["flax_bn", "bn", "gn"]


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(compared):
    workdir, _ = compared
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    finished = compare(workdir.parent.parent, *FAST, "--norms", "ln", "bn", "--dry-run")
    assert finished.returncode == 0, finished.stderr
    assert "Plan: 2 runs of 2 epochs, batch size 256: ln, bn; seeds 0\n" in finished.stdout
    assert "Done: 1 of 2 runs, left as they are\n" in finished.stdout
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_another_configuration_is_refused_with_the_differences(compared):
    workdir, _ = compared
    finished = compare(workdir.parent.parent, "--batch-size", "128", "--num-epochs", "2", "--norms", "bn")
    assert finished.returncode == 2
    assert "--batch-size: 256 -> 128" in finished.stderr
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


def test_a_run_that_stops_after_an_epoch_and_by_a_signal_goes_on_to_the_same_end(compared, tmp_path):
    workdir, _ = compared
    command = [*FAST, "--norms", "bn", "--workdir", "w"]
    assert compare(tmp_path, *command, "--stop-after-epoch", "1").returncode == 0
    assert content(tmp_path / "w", "bn-seed0")[1]["epoch"] == 1
    with start("compare_norms", tmp_path, *command) as process:
        wait_for_line(process, "compiling")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "To go on: python " in output
    assert not (tmp_path / "w" / "bn-seed0" / "result.json").exists()
    assert compare(tmp_path, *command).returncode == 0
    rows, result = content(tmp_path / "w", "bn-seed0")
    unbroken_rows, unbroken = content(workdir, "bn-seed0")
    assert rows == unbroken_rows
    assert {**result, "seconds": 0} == {**unbroken, "seconds": 0}


def test_a_variant_that_diverges_or_crashes_does_not_keep_the_others_from_finishing(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import flax.linen as nn, jax.numpy as jnp\n"
        "from jaxnorm import register_norm\n"
        "class Faulty(nn.Module):\n"
        "    train: bool\n"
        "    @nn.compact\n"
        "    def __call__(self, x): raise RuntimeError('no such <norm>')\n"
        "class Exploding(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x): return 1e30 * x\n"
        "register_norm('faulty', lambda *, train, axis_name, dtype, name: Faulty(train, name=name))\n"
        "build = lambda *, train, axis_name, dtype, name: Exploding(name=name)\n"
        "register_norm('exploding', build, label='Bang & <b>')\n"
    )
    norms = ["--import", "mine.py", "--norms", "faulty", "exploding", "gn"]
    # A name in brackets is no markup.
    absolute = [f"--import={tmp_path / 'mine.py'}", *norms[2:], "--workdir", tmp_path / "w[b]"]
    finished = compare(tmp_path, *FAST, *absolute)
    assert finished.returncode == 1, finished.stderr
    for path in (tmp_path / "w[b]").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), f"{path} names the home directory"
    assert "--import ~/mine.py" in (tmp_path / "w[b]" / "study.json").read_text()
    assert [row["status"] for row in summary(tmp_path / "w[b]")[::3]] == ["crashed", "diverged", "complete"]
    assert summary(tmp_path / "w[b]")[0]["accuracy"] == ""
    assert "exploding-seed0: diverged at step 1" in finished.stdout
    assert "faulty-seed0: crashed: RuntimeError: no such <norm>" in finished.stdout
    assert "no such <norm>" in (tmp_path / "w[b]" / "faulty-seed0" / "crash.txt").read_text()
    page = (tmp_path / "w[b]" / "report.html").read_text()
    assert "Bang &amp; &lt;b&gt;" in page
    assert "<b>" not in page.split("</style>")[-1].replace("<body>", "")
    with (tmp_path / "mine.py").open("a") as mine:
        mine.write("# another file now\n")
    refused = compare(tmp_path, *FAST, *norms, "--workdir", "w[b]", timeout=60)
    assert refused.returncode == 2
    assert "imported mine.py: " in refused.stderr
    # Without the one that crashed, nothing is left to train; what diverged still tells.
    again = compare(tmp_path, *FAST, *norms[:3], "exploding", "gn", "--workdir", "w[b]", "--quiet")
    assert again.returncode == 3
    assert again.stderr == "exploding-seed0: diverged\n"
    assert again.stdout == "w[b]/summary.csv\n"


def test_an_import_that_ends_the_process_or_shadows_a_module_does_neither(tmp_path):
    (tmp_path / "leaver.py").write_text("import sys; sys.exit(0)")
    finished = compare(tmp_path, "--import", "leaver.py", timeout=60)
    assert finished.returncode == 2
    assert "'leaver.py' fails with SystemExit" in finished.stderr
    (tmp_path / "json.py").write_text(
        "from jaxnorm import register_norm, NORMS\n"
        "register_norm('copy', lambda *, train, axis_name, dtype, name: NORMS['none'](train=train, name=name))\n"
    )
    twice = ["--import", "json.py", "--import", "./json.py"]
    finished = compare(tmp_path, *twice, "--norms", "copi", timeout=60)
    assert "did you mean 'copy'" in finished.stderr
    (tmp_path / "wrong.py").write_text("from jaxnorm import register_norm\nregister_norm('w', lambda x: None)\n")
    finished = compare(tmp_path, "--import", "wrong.py", "--norms", "w", timeout=60)
    assert "must take the keywords train, axis_name, dtype and name" in finished.stderr


BAD_INPUT = [
    (["--norms", "bn", "gm"], r"'gm'; did you mean .*gn.*valid: flax_bn, none"),
    (["--preset", "sudy"], r"'sudy'; did you mean 'study'\? valid: quick, short, study"),
    (["--batch-size", "0"], "error: --batch-size must be at least 1, but is 0"),
    (["--batch-size", "1078"], "1077 training images of digits, but is 1078"),
    (["--seeds", "1", "2", "1"], "--seeds must name each value once, but names 1 2 times"),
    (["--norms", "bn", "bn"], "names bn 2 times"),
    (["--seeds", "-1"], "--seeds must be within 0"),
    (["--stop-after-epoch", "13"], "schedule of 12 epochs, but is 13"),
    (["--import", "nowhere.py"], "there is no file 'nowhere.py'"),
    (["--data-parallel", "9"], "must not exceed the number of devices, but is 9 and there are 8"),
    (
        ["--data-parallel", "3"],
        "the number of devices must divide the batch size 32, but is 3; choose --data-parallel 1",
    ),
    (["--data-parallel", "0"], "--data-parallel must be auto or at least 1, but is 0"),
    (["--bn-statistics", "replica"], "there is one device; give --num-replicas"),
    (["--num-replicas", "4"], "error: --num-replicas needs --bn-statistics replica, but is 4 with global statistics"),
    (
        ["--bn-statistics", "replica", "--num-replicas", "5"],
        "error: --num-replicas must divide the batch size 32, but is 5",
    ),
    (["--jobs", "0"], "--jobs must be at least 1, but is 0; give 1 or more"),
    (["--jobs", "2", "--data-parallel", "4"], "is 2 while --data-parallel is 4; drop one of them"),
    (["--jobs", "2", "--coordinator", "auto"], "is 2 while --coordinator is auto; drop one of them"),
    (["--jobs", "2", "--bn-statistics", "replica"], "one device; give --num-replicas"),
    (["--steps-per-call", "0"], "--steps-per-call must be at least 1, but is 0"),
    (["--process-id", "1"], "--coordinator, --num-processes and --process-id go together"),
    (
        ["--coordinator", "host", "--num-processes", "2", "--process-id", "0"],
        "--coordinator must be HOST:PORT, but is 'host'",
    ),
    (["--workdir", "/proc/1/jaxnorm"], "workdir must be writable"),
    (["--workdir", str(DRIVER)], "is a file"),
    (["--workdir", str(DRIVER / "sub")], "must be in a folder, but .* is a file"),
    (["--workdir", "x" * 300], "must be a usable path"),
    *(([flag], f"{flag} must name at least one value") for flag in ("--norms", "--seeds", "--quantiles")),
    (["--learning-rates"], "--learning-rates must name at least one value"),
    (["--learning_rates", "--seeds", "0"], "--learning-rates must name at least one value"),
    (["--learning-rate", "nan"], "error: --learning-rate must be a positive"),
    *(([flag, "x"], f"{flag}: .*'x'.*; see --help") for flag in ("--num-epochs", "--seeds", "--learning-rates")),
    (["--seeds", "0,1,2"], "--seeds takes values with blanks between them, but is given '0,1,2'; write 0 1 2"),
    (["--norms=bn,gn"], "--norms takes values with blanks .* write bn gn"),
    (["--import", "a", "b.py"], "is given a and b.py; write --import a --import b.py"),
    (["--workdir", ""], "arguments must not be empty, but one is; leave it out"),
    (["--workdir="], "arguments must not be empty, but --workdir= is"),
    (["--jobs", "1.5"], "--jobs: .*'1.5'"),
    (["--bogus"], "--bogus; see --help"),
    (["--dataset", "mnist"], "--dataset must name a data set, but names 'mnist'.*digits"),
    (["--batch-size"], "--batch-size.*; see --help"),
    (["--workdir", str(ROOT)], "holds other files"),
    (["--data-dir", "."], "--data-dir is for cifar10, cifar100, folder, but is . with digits"),
    (["--dataset", "cifar10", "--data-dir", "nothing"], "CIFAR-10.*nothing"),
]


@pytest.fixture
def compare_here(tmp_path, monkeypatch, capsys):
    return driver_here("compare_norms", tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("arguments, words", BAD_INPUT, ids=[" ".join(each[0])[:30] for each in BAD_INPUT])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(compare_here, arguments, words):
    code, errors, left_behind = compare_here(*arguments)
    assert code == 2
    assert re.search(words, errors), errors
    assert re.fullmatch(r"error: [^\n]+\n", errors)
    assert left_behind == []


def test_a_path_that_is_no_text_is_refused(tmp_path):
    finished = compare(tmp_path, "--workdir", "w\udcff", timeout=60)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: arguments must be UTF-8 text")
    assert r"'w\udcff'" in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_looks_the_same_from_a_shell(tmp_path):
    finished = compare(tmp_path, "--norms", "gm", timeout=60)
    assert finished.returncode == 2
    assert re.fullmatch(r"error: --norms must name registered norms, but names 'gm'[^\n]+\n", finished.stderr)


def test_help_names_every_flag(tmp_path):
    finished = compare(tmp_path, "--help", timeout=60)
    assert finished.returncode == 0
    assert max(map(len, finished.stdout.splitlines())) <= 100, "the width of the terminal"
    flags = "preset norms seeds num-epochs stop-after-epoch batch-size dataset data-dir workdir learning-rate import"
    for flag in flags.split():
        assert f"--{flag} " in finished.stdout


def test_help_whose_reader_has_left_ends_without_a_word(tmp_path):
    command = [sys.executable, str(DRIVER), "--help"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_in_a_terminal_there_is_a_live_bar_with_the_time_left(tmp_path):
    leader, follower = pty.openpty()
    command = [sys.executable, str(DRIVER), *FAST, "--norms", "none"]
    env = {**environment(tmp_path), "TERM": "xterm-256color"}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=follower, stderr=follower) as process:
        os.close(follower)
        screen = b""
        while True:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            screen += chunk
    os.close(leader)
    text = screen.decode(errors="replace")
    assert process.returncode == 0, text
    assert re.search(r"none-seed0 .*compiling", text)
    assert re.search(r"none-seed0 .*epoch 2/2 .*val", text)
    assert re.search(r"none-seed0 .*final evaluation", text)
    assert " left" in text
    assert "100 %" in text
