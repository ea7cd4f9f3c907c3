import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.runs.workdir import Workdir

CONFIG = Config(norm="bn")
DATA = "f" * 64


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "study", study="compare_norms")


def begun(workdir, *configs, **result):
    workdir.path.mkdir(exist_ok=True)
    workdir.describe(configs, preset="quick", command="python x.py")
    for config in configs:
        directory = workdir.directory(config)
        directory.begin(config, {"data": {"fingerprint": DATA}})
        if result:
            directory.finish(result)
    return workdir


def test_checking_touches_nothing(workdir):
    workdir.check([CONFIG])
    assert not workdir.path.exists()


def test_more_norms_and_seeds_and_a_later_stop_are_welcome(workdir):
    first = dataclasses.replace(CONFIG, stop_after_epoch=2)
    begun(workdir, first)
    more = [dataclasses.replace(CONFIG, norm=norm, seed=seed) for norm in ("bn", "gn") for seed in (0, 1)]
    workdir.check(more)
    workdir.describe(more, preset="quick", command="")
    assert json.loads((workdir.path / "study.json").read_text())["labels"] == {
        c.norm: NORMS[c.norm].label for c in more
    }
    study = json.loads((workdir.path / "study.json").read_text())
    assert (study["norms"], study["seeds"]) == (["bn", "gn"], [0, 1])
    assert "norm" not in study["recipe"]


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_any_other_difference_is_refused_and_listed_for_old_runs_and_new_ones(workdir, norm):
    begun(workdir, CONFIG)
    other = dataclasses.replace(CONFIG, norm=norm, batch_size=64, learning_rate=0.3)
    with pytest.raises(UserError, match=r"batch_size: 32 -> 64; learning_rate: 0.1 -> 0.3"):
        workdir.check([other])


NOW = {
    "versions": {"python": "3.11.7", "jax": "0.10.1"},
    "device": {"platform": "cpu", "kind": "EPYC", "count": 1, "cores": 2},
    "xla_flags": "",
    "matmul_precision": "default",
    "data": {"fingerprint": DATA},
    "git": {"commit": "a" * 40, "dirty": False},
    "imported_norms": {"mine": "b" * 64},
}


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("data", {"fingerprint": "e" * 64}, "data fingerprint: ffffffffffff... -> eeeeeeeeeeee..."),
        ("versions", {"python": "3.11.7", "jax": "0.12.0"}, "jax: 0.10.1 -> 0.12.0"),
        ("xla_flags", "--a", "xla_flags: none -> --a"),
        ("matmul_precision", "highest", "matmul_precision: default -> highest"),
        ("device", {"platform": "gpu"}, "device platform: cpu -> gpu"),
        ("imported_norms", {"mine": "c" * 64, "new": ""}, "file of norm mine: bbbbbbbbbbbb... -> cccccccccccc..."),
    ],
)
def test_what_decides_a_run_s_numbers_and_has_changed_is_named(workdir, field, value, words):
    begun(workdir, CONFIG)
    workdir.directory(CONFIG).begin(CONFIG, NOW)
    assert workdir.changes(NOW) == ([], [])
    assert workdir.changes({**NOW, field: value}) == ([words], [])


def test_other_cores_and_devices_of_a_platform_are_slight_changes(workdir):
    begun(workdir, CONFIG)
    workdir.directory(CONFIG).begin(CONFIG, NOW)
    other = {**NOW, "device": {"platform": "cpu", "kind": "Xeon", "count": 1, "cores": 8}}
    assert workdir.changes(other) == ([], ["device kind: EPYC -> Xeon", "device cores: 2 -> 8"])
    other = {**NOW, "git": {"commit": "c" * 40, "dirty": True}}
    assert workdir.changes(other) == ([], ["commit: aaaaaaa -> ccccccc"])


def test_what_a_run_was_taken_up_with_before_is_kept(workdir):
    begun(workdir, CONFIG)
    directory = workdir.directory(CONFIG)
    directory.begin(CONFIG, NOW)
    directory.begin(CONFIG, {**NOW, "xla_flags": "--a"})
    found = directory.provenance
    assert found["xla_flags"] == "--a"
    assert found["earlier"] == [{"data": {"fingerprint": DATA}}, NOW]
    directory.append({"epoch": 1, "step": 9})
    directory.begin(dataclasses.replace(CONFIG, learning_rate=0.05), NOW)
    assert directory.provenance["changes"] == [
        "xla_flags: none -> --a (after epoch 0)",
        "xla_flags: --a -> none (after epoch 1)",
        "learning_rate: 0.1 -> 0.05 (after epoch 1)",
    ]


def test_a_folder_from_before_paths_were_shortened_goes_on_and_names_no_home(workdir, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    begun(workdir, CONFIG)
    path = workdir.directory(CONFIG).path / "provenance.json"
    path.write_text(json.dumps({**NOW, "xla_flags": "--a=/home/someone/b", "command": "python /home/someone/x.py"}))
    study = json.loads((workdir.path / "study.json").read_text())
    (workdir.path / "study.json").write_text(json.dumps({**study, "command": "python /home/someone/x.py"}))
    now = {**NOW, "xla_flags": "--a=~/b"}
    assert workdir.changes(now) == ([], [])
    workdir.describe([CONFIG], preset="quick", command="python ~/x.py")
    workdir.directory(CONFIG).begin(CONFIG, now)
    assert json.loads((workdir.path / "study.json").read_text())["command"] == "python ~/x.py"
    assert "/home/someone" not in path.read_text()
    assert workdir.directory(CONFIG).provenance["changes"] == []


def test_a_field_younger_than_the_folder_had_its_default(workdir):
    begun(workdir, CONFIG)
    for path, part in ((workdir.path / "study.json", "recipe"), (workdir.directory(CONFIG).path / "config.json", None)):
        content = json.loads(path.read_text())
        for name in ("bn_statistics", "num_replicas", "compute_dtype"):
            del (content[part] if part else content)[name]
        path.write_text(json.dumps(content))
    workdir.check([CONFIG])
    with pytest.raises(UserError, match="compute_dtype: float32 -> bfloat16"):
        workdir.check([dataclasses.replace(CONFIG, compute_dtype="bfloat16")])


def test_another_learning_rate_may_be_allowed_and_leaves_finished_runs_as_they_are(workdir):
    half = dataclasses.replace(CONFIG, norm="gn")
    begun(workdir, CONFIG, status="complete", epoch=12)
    finish_files(workdir, 12)
    workdir.describe([CONFIG, half], preset="quick", command="python x.py")
    workdir.directory(half).begin(half, NOW)
    slower = [dataclasses.replace(config, learning_rate=0.05) for config in (CONFIG, half)]
    with pytest.raises(UserError, match="learning_rate: 0.1 -> 0.05.*accept with --allow-changes"):
        workdir.check(slower)
    assert workdir.check(slower, allow_changes=True) == ["learning_rate: 0.1 -> 0.05"]
    workdir.describe(slower, preset="quick", command="python x.py --learning-rate 0.05")
    workdir.directory(half).begin(slower[1], NOW)
    assert workdir.check(slower) == [], "once allowed, it is the study's"
    longer = [dataclasses.replace(config, num_epochs=20, learning_rate=0.02) for config in slower]
    with pytest.raises(UserError, match="num_epochs: 12 -> 20(?!.*--allow-changes)"):
        workdir.check(longer, allow_changes=True)


def finish_files(workdir, epochs):
    directory = workdir.directory(CONFIG)
    for epoch in range(1, epochs + 1):
        directory.append({"epoch": epoch, "step": epoch})
    (directory.path / "predictions.npz").write_bytes(b"")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("metrics.jsonl", '{"epoch": 2, "step": 2}\n', r"metrics.jsonl must hold epochs 1 to 12, but holds \[2\]"),
        ("metrics.jsonl", "{\n", "metrics.jsonl must hold JSON lines"),
        ("predictions.npz", None, "predictions.npz must stand beside result.json, but is gone"),
        ("result.json", "{}", "result.json must hold a status and an epoch"),
        ("result.json", "[1]", "result.json must hold a JSON object"),
        ("config.json", "{", "config.json must be JSON"),
    ],
)
def test_a_finished_run_whose_files_are_damaged_is_not_believed(workdir, name, content, words):
    begun(workdir, CONFIG, status="complete", epoch=12)
    finish_files(workdir, 12)
    workdir.check([CONFIG])
    path = workdir.directory(CONFIG).path / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=words):
        workdir.check([CONFIG])


def test_less_epochs_than_already_trained_are_refused(workdir):
    begun(workdir, CONFIG, status="complete", epoch=12)
    finish_files(workdir, 12)
    with pytest.raises(UserError, match="is trained to epoch 12, but --stop-after-epoch 3 asks for less"):
        workdir.check([dataclasses.replace(CONFIG, stop_after_epoch=3)])


def test_another_study_and_a_folder_of_other_things_and_a_file_are_refused(workdir, tmp_path):
    begun(workdir, CONFIG)
    with pytest.raises(UserError, match="must belong to batch_size_study, but .* holds 'compare_norms'"):
        Workdir(workdir.path, study="batch_size_study").check([CONFIG])
    with pytest.raises(UserError, match="holds other files"):
        Workdir(tmp_path, study="compare_norms").check([CONFIG])
    with pytest.raises(UserError, match="is a file"):
        Workdir(workdir.path / "study.json", study="compare_norms").check([CONFIG])
    with pytest.raises(UserError, match="must lie in a folder, but .*study.json is a file"):
        Workdir(workdir.path / "study.json" / "sub", study="compare_norms").check([CONFIG])
    with pytest.raises(UserError, match="must be a usable path"):
        Workdir(workdir.path / ("x" * 300), study="compare_norms").check([CONFIG])
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="links to nothing"):
        Workdir(tmp_path / "link", study="compare_norms").check([CONFIG])
    (workdir.path / "study.json").write_text("{")
    with pytest.raises(UserError, match="study.json must be JSON"):
        workdir.check([CONFIG])


@pytest.mark.parametrize(
    "result, finished",
    [
        (None, False),
        (dict(status="complete", epoch=12), True),
        (dict(status="complete", epoch=5), False),
        (dict(status="diverged", epoch=1), True),
        (dict(status="crashed", epoch=12), False),
    ],
)
def test_which_runs_need_nothing_more(workdir, result, finished):
    begun(workdir, CONFIG, **(result or {}))
    assert workdir.is_finished(CONFIG) == finished


def test_a_line_cut_short_is_not_a_line_and_rows_are_cut_back_to_a_step(tmp_path):
    directory = RunDirectory(tmp_path)
    for epoch in (1, 2, 3):
        directory.append({"epoch": epoch, "step": 10 * epoch})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    assert [row["epoch"] for row in directory.rows] == [1, 2, 3]
    directory.reopen(25, steps_per_epoch=10)
    assert [row["epoch"] for row in directory.rows] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_run_whose_lines_were_lost_does_not_go_on(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.append({"epoch": 1, "step": 10})
    (tmp_path / "result.json").write_text("{}")
    directory.reopen(20, steps_per_epoch=10)  # the line of epoch 2 is about to be written
    (tmp_path / "result.json").write_text("{}")
    for step in (25, 30):
        with pytest.raises(UserError, match=f"must hold epochs 1 to {step // 10}, which the checkpoint of step {step}"):
            directory.reopen(step, steps_per_epoch=10)
    assert (tmp_path / "result.json").exists(), "a refusal changes nothing"
    assert len(directory.rows) == 1


def test_hidden_files_do_not_keep_a_folder_from_being_used(workdir):
    workdir.path.mkdir()
    (workdir.path / ".DS_Store").write_text("")
    workdir.check([CONFIG])


def test_runs_may_differ_in_what_the_study_varies_and_in_nothing_else(tmp_path):
    workdir = Workdir(tmp_path / "study", study="batch_size_study", varied=("batch_size",))
    configs = [dataclasses.replace(CONFIG, batch_size=size, tags=(f"bs{size}",)) for size in (8, 16)]
    begun(workdir, *configs)
    study = json.loads((workdir.path / "study.json").read_text())
    assert study["grid"] == {"batch_sizes": [8, 16]}
    assert [run["name"] for run in study["runs"]] == ["bn-bs8-seed0", "bn-bs16-seed0"]
    more = dataclasses.replace(CONFIG, batch_size=4, tags=("bs4",))
    workdir.check([more])
    with pytest.raises(UserError, match="learning_rate: 0.1 -> 0.3"):
        workdir.check([dataclasses.replace(more, learning_rate=0.3)])
    with pytest.raises(UserError, match="varied: "):
        dataclasses.replace(workdir, varied=()).check([more])


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_a_request_and_the_handlers_come_back(number, code):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.signal is None
        for _ in range(2):  # what a terminal and `timeout` send twice at once is one request
            signal.raise_signal(number)
        wait_for(lambda: stop.signal is not None)
    assert (stop.signal, stop.exit_code) == (number, code)
    assert signal.getsignal(number) == before


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_second_signal_ends_the_process_though_it_is_deep_in_other_work():
    program = (
        "import ctypes\n"
        "from jaxnorm.study.runs.signals import StopRequest\n"
        "with StopRequest():\n"
        "    print('entered', flush=True)\n"
        "    libc = ctypes.CDLL(None)\n"
        "    for _ in range(60): libc.usleep(1_000_000)\n"  # as a compilation: outside of Python
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    options = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", program], **options) as process:
        assert process.stdout.readline() == "entered\n"
        process.send_signal(signal.SIGINT)
        line = process.stderr.readline() or process.stderr.readline()
        while "once more ends at once" not in line:
            line = process.stderr.readline()
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
