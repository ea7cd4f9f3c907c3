"""A grid of runs of which several train at once, each in its own directory."""

import dataclasses
import functools
import io
import json

import numpy as np
import pytest
from rich.console import Console

from jaxnorm import ResNet
from jaxnorm.conv import kernels
from jaxnorm.study.config import Config
from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs import study
from jaxnorm.study.runs.study import DirectoryRecord, Execution, announce, run_study, to_train
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.training import loop
from jaxnorm.study.training.loop import Result
from jaxnorm.study.training.metrics import measure
from jaxnorm.study.training.record import Stopped

GRID = [Config(norm=norm, seed=seed, num_epochs=2, batch_size=256) for seed in (0, 1, 2) for norm in ("bn", "gn")]


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture
def run(tmp_path, digits):
    """Runs a grid in a folder: the exit code, the folder and what was said."""
    workdir = Workdir(tmp_path / "w", study="compare_norms")

    def go(configs, parallel_seeds):
        console = Console(file=io.StringIO(), width=200)
        execution = Execution(parallel_seeds=parallel_seeds, data_parallel=1)
        code = run_study(configs, digits, workdir, preset="quick", console=console, execution=execution)
        return code, workdir, console.file.getvalue()

    return go


def row_of(epoch, **fields):
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"), 0.5)
    return dict(epoch=epoch, step=4 * epoch, learning_rate=0.1, **numbers, seconds=2.0, **fields)


def pretended(teams, fails=None):
    """A stand-in for `train_team` that notes the teams; `fails` is what it raises before a run ends, by name."""

    def train_team(configs, dataset, records, *, alone, steps_per_call):
        teams.append([config.name for config in configs])
        logits = np.zeros((len(dataset.test), 10), np.float32)
        for record in records:
            record.restore({"step": np.zeros((), np.int32)})
        for config, record in zip(configs, records, strict=True):
            record.stepped(8)
            if config.name in (fails or {}):
                raise fails[config.name]
            for epoch in (1, 2):
                record.append(row_of(epoch, **({"parallel_seeds": len(configs)} if len(configs) > 1 else {})))
            splits = dict.fromkeys(("train", "validation", "test"), measure(logits, dataset.test.label))
            yield config, Result("complete", 8, 2, None, 7, 4.0, record.rows, splits, None, logits, {})

    return train_team


def status_of(workdir, config):
    return (workdir.directory(config).result or {}).get("status")


def test_seeds_of_a_norm_train_together_each_in_its_directory(run, monkeypatch):
    teams = []
    monkeypatch.setattr(study, "train_team", pretended(teams))
    code, workdir, said = run(GRID, 2)
    assert code == 0
    assert teams == [["bn-seed0", "bn-seed1"], ["gn-seed0", "gn-seed1"], ["bn-seed2"], ["gn-seed2"]]
    for config in GRID:
        assert status_of(workdir, config) == "complete"
        together = 1 if config.seed == 2 else 2
        assert workdir.directory(config).provenance["parallel_seeds"] == together
        assert [row.get("parallel_seeds", 1) for row in workdir.directory(config).rows] == [together] * 2
    assert "bn-seed0 and 1 more seed: compiling" in said
    assert "bn-seed1: epoch 2/2" in said
    assert "bn-seed1: test accuracy" in said and said.count("(4 s, shared by 2 seeds)") == 4
    assert said.count("(4 s)") == 2
    assert run(GRID, 3)[0] == 0
    assert len(teams) == 4, "nothing is left to train"


def test_more_seeds_join_what_is_left(run, monkeypatch):
    teams = []
    monkeypatch.setattr(study, "train_team", pretended(teams))
    run([GRID[0]], 4)
    run(GRID, 4)
    assert teams == [["bn-seed0"], ["gn-seed0", "gn-seed1", "gn-seed2"], ["bn-seed1", "bn-seed2"]]


def test_after_a_crash_those_of_the_team_that_have_not_ended_are_tried_alone(run, monkeypatch):
    teams = []
    monkeypatch.setattr(study, "train_team", pretended(teams, {"bn-seed1": RuntimeError("no room")}))
    code, workdir, said = run(GRID, 3)
    assert code == 1
    bn = [status_of(workdir, config) for config in GRID if config.norm == "bn"]
    gn = [status_of(workdir, config) for config in GRID if config.norm == "gn"]
    assert (bn, gn) == (["complete", "crashed", "complete"], ["complete"] * 3)
    assert teams[1:3] == [["bn-seed1"], ["bn-seed2"]]
    assert "bn-seed1: crashed: RuntimeError: no room (traceback in " in said
    assert "bn-seed2: once more, alone\n" in said
    assert "no room" in (workdir.path / "bn-seed1" / "crash.txt").read_text()


def test_a_stop_is_told_of_those_that_have_not_ended_and_ends_the_grid(run, monkeypatch):
    teams = []
    monkeypatch.setattr(study, "train_team", pretended(teams, {"bn-seed1": Stopped()}))
    code, workdir, said = run(GRID, 3)
    assert code == 143
    assert len(teams) == 1
    assert [line for line in said.splitlines() if "stopped" in line] == [
        "bn-seed1: stopped and saved",
        "bn-seed2: stopped and saved",
    ]
    assert status_of(workdir, GRID[0]) == "complete"


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_a_team_is_taken_up_alone_and_runs_alone_as_a_team(run, monkeypatch, before, after):
    """By checkpoints on disk, stopped within the second epoch."""
    monkeypatch.setattr(loop, "ResNet14", functools.partial(ResNet, num_blocks=1, num_filters=4))
    configs = [config for config in GRID if config.norm == "gn"][:2]
    stepped, asked = DirectoryRecord.stepped, []

    def stop_after_six(record, step):
        stepped(record, step)
        asked[:] = [True] if step == 6 else []

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryRecord, "stepped", stop_after_six)
        patch.setattr(DirectoryRecord, "should_stop", lambda record: bool(asked))
        for group in [configs] if before == 2 else [[config] for config in configs]:
            assert run(group, before)[0] == 143
            asked.clear()
    code, workdir, said = run(configs, after)
    assert code == 0
    assert said.count("going on after step 6") == 2
    for config in configs:
        assert workdir.checkpoints(config).steps() == [6, 8]
        assert [row.get("parallel_seeds", 1) for row in workdir.directory(config).rows] == [before, after]
        assert json.loads((workdir.directory(config).path / "result.json").read_text())["epoch"] == 2
        provenance = workdir.directory(config).provenance
        assert (provenance["parallel_seeds"], provenance["earlier"][0]["parallel_seeds"]) == (after, before)


def test_the_plan_says_how_many_seeds_train_at_once(tmp_path, digits):
    workdir = Workdir(tmp_path / "w", study="compare_norms")
    for parallel_seeds, words in ((1, None), (2, "Seeds: up to 2 at once, spread over 2 devices")):
        console = Console(file=io.StringIO(), width=200)
        announce(GRID, digits, workdir, console, parallel_seeds=parallel_seeds)
        lines = console.file.getvalue().splitlines()
        assert [line for line in lines if line.startswith("Seeds")] == ([words] if words else [])


def test_the_plan_says_where_the_kernels_are_missing_and_what_that_costs(tmp_path, digits, monkeypatch):
    workdir = Workdir(tmp_path / "w", study="compare_norms")
    reason = "there is no C++ compiler"
    monkeypatch.setattr(study, "seconds_for", lambda *_: 1.0)  # whose probe would call kernels that are only said to be
    words = (
        f"Convolutions: XLA's, not our own kernels, because {reason}; training takes about twice the time without them"
    )
    for alone, missing, expected in ((True, reason, [words]), (True, None, []), (False, reason, [])):
        monkeypatch.setattr(kernels, "alone", lambda alone=alone: alone)
        monkeypatch.setattr(kernels, "missing", lambda missing=missing: missing)
        console = Console(file=io.StringIO(), width=200)
        announce(GRID, digits, workdir, console)
        lines = console.file.getvalue().splitlines()
        assert [line for line in lines if line.startswith("Convolutions")] == expected


def test_checkpoints_of_a_team_take_as_little_of_the_time_as_one_run_s(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])
    due = {}
    for seeds in (1, 4):
        now[0] = 0.0
        workdir = Workdir(tmp_path / "w", study="compare_norms")
        record = DirectoryRecord(workdir, GRID[0], 4, None, None, None, seeds)
        while not record.should_save():
            now[0] += 1
        due[seeds] = now[0]
    assert due == {1: 51, 4: 201}, "all four are saved when one is due"


RATES = [
    Config(norm=norm, num_epochs=2, batch_size=size, lr_rule=rule, tags=(f"bs{size}", rule))
    for norm in ("bn", "gn")
    for rule in ("fixed", "linear")
    for size in (128, 64)
]


@pytest.fixture
def sweep(tmp_path, digits):
    """Runs a grid that varies batch size and rule in a folder: the exit code and what was said."""

    def go(configs, **options):
        workdir = Workdir(tmp_path / "sweep", study="batch_size_study", varied=("batch_size", "lr_rule"))
        console = Console(file=io.StringIO(), width=200)
        code = run_study(configs, digits, workdir, preset="quick", console=console, execution=Execution(**options))
        return code, workdir, console.file.getvalue()

    return go


def test_what_two_configurations_compute_alike_is_trained_once(sweep, digits, monkeypatch):
    trained = []
    monkeypatch.setattr(study, "train_team", pretended(trained))
    code, workdir, said = sweep(RATES)
    assert code == 0
    assert [name for names in trained for name in names] == [
        f"{norm}-{point}-seed0" for norm in ("bn", "gn") for point in ("bs128-fixed", "bs64-fixed", "bs64-linear")
    ]
    assert "bn-bs128-linear-seed0: computes what bn-bs128-fixed-seed0 does, and takes over its outcome" in said
    first, second = (workdir.directory(config) for config in (RATES[0], RATES[2]))
    for file in ("metrics.jsonl", "predictions.npz", "result.json"):
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes()
    assert second.config == RATES[2].to_json()
    assert second.provenance == {**first.provenance, "same_as": "bn-bs128-fixed-seed0"}
    assert sweep(RATES)[0] == 0
    assert len(trained) == 6, "what is finished stays"


def test_the_plan_counts_what_is_trained(tmp_path, digits):
    console = Console(file=io.StringIO(), width=200)
    workdir = Workdir(tmp_path / "w", study="batch_size_study", varied=("batch_size", "lr_rule"))
    announce(RATES, digits, workdir, console)
    assert "Plan: 8 runs of 2 epochs" in console.file.getvalue()
    assert "Same: 2 runs compute what others do and take over the outcome" in console.file.getvalue()


def test_a_crash_is_handed_on_and_mended_with_the_first(sweep, monkeypatch):
    crash = {"bn-bs128-fixed-seed0": RuntimeError("boom")}
    monkeypatch.setattr(study, "train_team", pretended([], crash))
    code, workdir, _ = sweep(RATES)
    assert code == 1
    assert [status_of(workdir, config) for config in RATES[:4]] == ["crashed", "complete", "crashed", "complete"]
    monkeypatch.setattr(study, "train_team", pretended(trained := []))
    assert sweep(RATES)[0] == 0
    assert trained == [["bn-bs128-fixed-seed0"]]
    assert status_of(workdir, RATES[2]) == "complete"
    assert not (workdir.directory(RATES[2]).path / "crash.txt").exists()


def test_what_has_begun_to_train_on_its_own_goes_on(tmp_path):
    workdir = Workdir(tmp_path, study="batch_size_study", varied=("batch_size", "lr_rule"))
    assert RATES[2] not in to_train(RATES, workdir)
    (workdir.directory(RATES[2]).path / "checkpoints" / "step_00000004").mkdir(parents=True)
    assert RATES[2] in to_train(RATES, workdir)


def test_a_first_that_went_on_at_another_rate_is_no_twin(sweep, monkeypatch):
    monkeypatch.setattr(study, "train_team", pretended(trained := []))
    faster = [dataclasses.replace(config, learning_rate=0.2) for config in RATES[:1]]
    sweep(faster)
    sweep(RATES)
    assert ["bn-bs128-linear-seed0"] in trained
