"""The files of one run, from its beginning to its outcome."""

import dataclasses
import json

import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.runs.directory import RunDirectory

CONFIG = Config(norm="bn", batch_size=107, num_epochs=3)  # ten steps an epoch
NOW = {"xla_flags": "", "device": {"cores": 2}}


def state_at(step):
    return {"step": np.asarray(step, np.int32)}


def row(epoch, **fields):
    return {"epoch": epoch, "step": 10 * epoch, "val_accuracy": epoch / 10, **fields}


@pytest.fixture
def run(tmp_path, digits):
    """A run that has begun, with the lines of `epochs`."""

    def run(*epochs, config=CONFIG):
        made = RunDirectory(tmp_path, config)
        made.begin(digits, NOW)
        rows = [
            row(epoch, **dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "seconds"), 0.5))
            for epoch in epochs
        ]
        for each in rows:
            made.append(each)
        return made

    return run


def epochs_on_disk(run):
    return [each["epoch"] for each in RunDirectory(run.path, run.config).rows]


def test_a_line_cut_short_does_not_count_and_later_lines_are_cut_back_to_the_checkpoint(run):
    first = run(1, 2, 3)
    with (first.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    assert epochs_on_disk(first) == [1, 2, 3]
    first.checkpoints.save(25, state_at(25), 1.5)
    again = run()
    restored, seconds = again.restore(state_at(0))
    assert (int(restored["step"]), seconds) == (25, 1.5)
    assert [each["epoch"] for each in again.rows] == epochs_on_disk(again) == [1, 2]


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


def test_what_it_was_trained_on_before_is_kept_and_decisive_changes_are_listed(run, digits):
    run()
    made = RunDirectory(run().path, CONFIG)
    made.begin(digits, {**NOW, "xla_flags": "--a"})
    made.append(row(1, **dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "seconds"), 0.5)))
    slower = RunDirectory(made.path, dataclasses.replace(CONFIG, learning_rate=0.05))
    slower.begin(digits, {**NOW, "device": {"cores": 1}})
    found = slower.provenance
    assert found["device"] == {"cores": 1}
    assert [earlier["xla_flags"] for earlier in found["earlier"]] == ["", "", "--a"]
    assert found["changes"] == [
        "xla_flags: none -> --a (after epoch 0)",
        "xla_flags: --a -> none (after epoch 1)",
        "learning_rate: 0.1 -> 0.05 (after epoch 1)",
    ]


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
def test_which_runs_need_nothing_more(tmp_path, result, finished):
    if result is not None:
        (tmp_path / "result.json").write_text(json.dumps(result))
    assert RunDirectory(tmp_path, CONFIG).is_finished == finished


def test_checkpoints_are_as_far_apart_as_asked(tmp_path):
    assert RunDirectory(tmp_path, CONFIG, checkpoint_every_seconds=0.0).should_save()
    assert not RunDirectory(tmp_path, CONFIG, checkpoint_every_seconds=1000.0).should_save()
    assert not RunDirectory(tmp_path, CONFIG).should_save()
