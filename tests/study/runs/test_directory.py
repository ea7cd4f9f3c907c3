"""The files of one run, from its beginning to its outcome."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.runs.directory import RunDirectory
from tests.study.report.workdirs import DIGITS, provenance_of

CONFIG = Config(norm="bn", batch_size=107, num_epochs=3)  # ten steps an epoch
NOW = provenance_of(None, DIGITS, "Batch norm")
FLAGS = {**NOW, "environment": {"XLA_FLAGS": "--a"}}


def state_at(step):
    return {"step": np.asarray(step, np.int32)}


def row(epoch):
    others = ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_macro_f1", "seconds")
    return {"epoch": epoch, "step": 10 * epoch, "val_accuracy": epoch / 10, **dict.fromkeys(others, 0.5)}


@pytest.fixture
def run(tmp_path, digits):
    """A run that has begun, with the lines of `epochs`."""

    def run(*epochs, config=CONFIG, provenance=NOW):
        made = RunDirectory(tmp_path / config.name, config)
        made.begin(digits, provenance)
        for epoch in epochs:
            made.keep(epoch, {"gate/stem": np.full(3, epoch / 10, np.float32)})
            made.append(row(epoch))
        return made

    return run


def epochs_on_disk(run):
    return [each["epoch"] for each in RunDirectory(run.path, run.config).rows]


def test_a_line_cut_short_does_not_count_and_later_epochs_are_cut_back_to_the_checkpoint(run):
    first = run(1, 2, 3)
    with (first.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    assert epochs_on_disk(first) == [1, 2, 3]
    first.checkpoints.save(25, state_at(25), 1.5)
    again = run()
    restored, seconds = again.restore(state_at(0))
    assert (int(restored["step"]), seconds) == (25, 1.5)
    assert [each["epoch"] for each in again.rows] == epochs_on_disk(again) == [1, 2]
    assert sorted(path.name for path in again.path.glob("arrays/*")) == ["epoch_0001.npz", "epoch_0002.npz"]


def test_without_a_checkpoint_it_starts_over(run):
    run(1)
    again = run()
    restored, seconds = again.restore(state_at(0))
    assert (int(restored["step"]), seconds, again.rows) == (0, 0.0, [])


def test_a_run_whose_lines_were_lost_does_not_continue(run):
    first = run(1)
    first.checkpoints.save(20, state_at(20), 0.0)
    run().restore(state_at(0))  # the line of epoch 2 is about to be written
    (first.path / "result.json").write_text("{}")
    for step in (25, 30):
        first.checkpoints.save(step, state_at(step), 0.0)
        with pytest.raises(UserError, match=f"must hold epochs 1 to {step // 10}, .* checkpoint of step {step}"):
            run().restore(state_at(0))
    assert (first.path / "result.json").exists(), "a refusal changes nothing"
    assert epochs_on_disk(first) == [1]


def test_less_epochs_than_a_checkpoint_has_behind_it_are_refused(run):
    run(1, 2).checkpoints.save(20, state_at(20), 0.0)
    with pytest.raises(UserError, match="is trained to step 20, but --stop-after-epoch 1 asks for less"):
        run(config=dataclasses.replace(CONFIG, stop_after_epoch=1)).restore(state_at(0))


def test_what_it_was_trained_on_before_is_kept_and_decisive_changes_are_listed(run):
    run()
    run()
    run(1, provenance=FLAGS)
    fewer = {**NOW, "device": {**NOW["device"], "cores": 1}}
    found = run(config=dataclasses.replace(CONFIG, learning_rate=0.05), provenance=fewer).provenance
    assert found["device"]["cores"] == 1
    assert [earlier["environment"] for earlier in found["earlier"]] == [{}, {}, {"XLA_FLAGS": "--a"}]
    assert [earlier["config"]["learning_rate"] for earlier in found["earlier"]] == [0.1, 0.1, 0.1]
    assert found["changes"] == [
        "XLA_FLAGS: none -> --a (after epoch 0)",
        "XLA_FLAGS: --a -> none (after epoch 1)",
        "learning_rate: 0.1 -> 0.05 (after epoch 1)",
    ]


@pytest.mark.parametrize("killed_at", range(1, 5))
def test_a_change_that_was_allowed_is_recorded_once_wherever_a_kill_falls(run, monkeypatch, killed_at):
    run(1)
    slower = dataclasses.replace(CONFIG, learning_rate=0.05)
    writes = []

    def kill(path):
        writes.append(path)
        if len(writes) == killed_at:
            raise KeyboardInterrupt
        return replacing(path)

    replacing = files.replacing
    monkeypatch.setattr(files, "replacing", kill)
    with pytest.raises(KeyboardInterrupt):
        run(config=slower)
    monkeypatch.undo()
    RunDirectory(writes[0].parent, slower).check()
    assert run(config=slower).provenance["changes"] == ["learning_rate: 0.1 -> 0.05 (after epoch 1)"]


@pytest.mark.parametrize("name", ["provenance.json", "config.json", "manifest.json", "metrics.jsonl"])
@pytest.mark.parametrize("how", ["delete", "change"])
def test_an_unfinished_run_without_one_of_its_files_does_not_continue(run, name, how):
    path = run(1).path / name
    path.unlink() if how == "delete" else path.write_text(path.read_text().replace("0.5", "0.6").replace("bn", "gn"))
    with pytest.raises(UserError, match=name):
        RunDirectory(path.parent, CONFIG).check()
    with pytest.raises(UserError, match=name):
        run().restore(state_at(0))


def test_a_checkpoint_of_another_run_is_not_restored(run):
    other = run(config=dataclasses.replace(CONFIG, seed=1))
    other.checkpoints.save(5, state_at(5), 0.0)
    mine = run()
    shutil.copytree(other.path / "checkpoints", mine.path / "checkpoints")
    with pytest.raises(UserError, match="step_00000005: is a checkpoint of the run bn-seed1/.*, not of bn-seed0/"):
        run().restore(state_at(0))


@pytest.mark.parametrize("gone", ["checkpoints", "checkpoints/step_00000005"])
def test_an_emptied_folder_is_not_taken_for_a_run_that_never_saved(run, gone):
    first = run()
    first.save(state_at(5), 0.0)
    shutil.rmtree(first.path / gone)
    with pytest.raises(UserError, match="bn-seed0 was saved, but .*checkpoints is empty"):
        run().restore(state_at(0))


def test_a_crash_is_an_outcome_that_names_no_home(run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    made = run(1, 2)
    made.crash(RuntimeError("no room\nin /home/someone/x"))
    result = json.loads((made.path / "result.json").read_text())
    assert (result["status"], result["epoch"], result["step"]) == ("crashed", 2, 20)
    assert (result["best_val_epoch"], result["error"]) == (2, "RuntimeError: no room in ~/x")
    assert "/home/someone" not in (made.path / "crash.txt").read_text()
    assert not made.is_finished


@pytest.mark.parametrize(
    "result, finished",
    [
        (None, False),
        (dict(status="complete", epoch=3), True),
        (dict(status="complete", epoch=2), False),
        (dict(status="diverged", epoch=1), True),
        (dict(status="crashed", epoch=3), False),
    ],
)
def test_which_runs_need_nothing_more(run, result, finished):
    made = run()
    if result is not None:
        files.write_json(made.path / "result.json", result)
        assert not RunDirectory(made.path, CONFIG).is_finished, "what the manifest does not name does not count"
        made.manifest.add("result.json")
        made.manifest.write()
    assert RunDirectory(made.path, CONFIG).is_finished == finished


def test_checkpoints_are_as_far_apart_as_asked(tmp_path):
    assert RunDirectory(tmp_path, CONFIG, checkpoint_every_seconds=0.0).should_save()
    assert not RunDirectory(tmp_path, CONFIG, checkpoint_every_seconds=1000.0).should_save()
    assert not RunDirectory(tmp_path, CONFIG).should_save()
