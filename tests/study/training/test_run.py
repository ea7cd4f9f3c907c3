import dataclasses
import logging

import chex
import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxnorm import Config, UserError, train
from jaxnorm.study.data.dataset import Split
from jaxnorm.study.training import loop
from jaxnorm.study.training.evaluation import EVAL_BATCH_SIZE, evaluate
from jaxnorm.study.training.loop import call_sizes, initial_state, on_device
from jaxnorm.study.training.record import Memory, Stopped

CONFIG = Config(norm="bn", batch_size=5, num_epochs=3)


@pytest.fixture(scope="module")
def result(tiny):
    return train(CONFIG, tiny)


def test_a_run_has_a_line_per_epoch_and_metrics_of_every_split(result, tiny):
    assert result.status == "complete"
    assert (result.epoch, result.step) == (3, 3 * 4), "24 images in batches of 5: the last 4 are left out"
    assert [row["epoch"] for row in result.rows] == [1, 2, 3]
    assert [row["step"] for row in result.rows] == [4, 8, 12]
    assert list(result.rows[0]) == [
        *("epoch", "step", "learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("val_macro_f1", "seconds", "feature_quantiles"),
    ]
    assert {name: split.num_images for name, split in result.splits.items()} == dict(train=24, validation=10, test=7)
    assert result.rows[-1]["val_accuracy"] == result.splits["validation"].accuracy
    assert len(result.rows[0]["feature_quantiles"]) == 4
    assert result.test_logits.shape == (7, 3)
    predicted = result.test_logits.argmax(1)
    assert result.splits["test"].macro_f1 == pytest.approx(
        f1_score(tiny.test.label, predicted, average="macro", labels=range(3), zero_division=0)
    )


def test_the_same_run_gives_the_same_numbers_to_the_last_bit(result, tiny):
    again = train(CONFIG, tiny)
    chex.assert_trees_all_equal(result.variables, again.variables)
    strip = [{**row, "seconds": 0} for row in result.rows]
    assert strip == [{**row, "seconds": 0} for row in again.rows]


def test_another_seed_gives_other_numbers(result, tiny):
    other = train(dataclasses.replace(CONFIG, seed=1), tiny)
    assert other.rows[0]["train_loss"] != result.rows[0]["train_loss"]


def test_stopping_after_an_epoch_leaves_the_schedule_as_it_is(result, tiny):
    short = train(dataclasses.replace(CONFIG, stop_after_epoch=2), tiny)
    assert short.epoch == 2
    assert short.rows[1]["train_loss"] == result.rows[1]["train_loss"]


class Interrupted(Memory):
    """Stops after some steps, and gives back what it saved."""

    def __init__(self, stop_at=None, saved=None, rows=()):
        super().__init__()
        self.stop_at, self.saved, self.step = stop_at, saved, 0
        self.rows = list(rows)

    def restore(self, numbers):
        return self.saved or (numbers, 0.0)

    def save(self, numbers, seconds):
        self.saved = jax.tree.map(np.array, numbers), seconds

    def stepped(self, step):
        self.step = step

    def should_stop(self):
        return self.stop_at is not None and self.step >= self.stop_at


@pytest.mark.parametrize("stop_at", [1, 4, 6, 8])
def test_a_run_stopped_at_any_step_and_resumed_equals_one_never_stopped(result, tiny, stop_at):
    first = Interrupted(stop_at)
    with pytest.raises(Stopped):
        train(CONFIG, tiny, record=first)
    assert int(first.saved[0]["step"]) == stop_at
    resumed = train(CONFIG, tiny, record=Interrupted(saved=first.saved, rows=first.rows))
    chex.assert_trees_all_equal(result.variables, resumed.variables)
    assert [{**row, "seconds": 0} for row in result.rows] == [{**row, "seconds": 0} for row in resumed.rows]


def test_a_run_that_diverges_says_where_and_keeps_its_last_good_state(tiny):
    diverged = train(dataclasses.replace(CONFIG, norm="none", learning_rate=1e15), tiny)
    assert diverged.status == "diverged"
    assert 1 <= diverged.diverged_at_step <= 12
    assert diverged.step == diverged.diverged_at_step - 1
    assert diverged.splits == {}
    assert diverged.test_logits is None
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(diverged.variables))


@pytest.mark.parametrize("split, epoch", [("validation", 0), ("test", 3)])
def test_an_evaluation_that_is_not_finite_counts_as_diverged_too(tiny, monkeypatch, split, epoch):
    def broken(model, variables, images):
        logits, pooled = evaluate(model, variables, images)
        if images.label.shape[0] == len(getattr(tiny, split)):
            logits[0, 0], pooled[0, 0] = np.inf, np.nan
        return logits, pooled

    monkeypatch.setattr(loop, "evaluate", broken)
    diverged = train(CONFIG, tiny)
    assert (diverged.status, diverged.epoch) == ("diverged", epoch)
    assert diverged.diverged_at_step == diverged.step == 4 * max(epoch, 1)
    assert (diverged.splits, diverged.test_logits) == ({}, None)
    assert len(diverged.rows) == epoch


def test_a_batch_larger_than_the_data_is_refused(tiny):
    with pytest.raises(UserError, match="24 training images of digits, but is 25; lower --batch-size"):
        train(dataclasses.replace(CONFIG, batch_size=25), tiny)


@pytest.mark.parametrize(
    "step, steps_per_call, sizes",
    [
        (0, 100, [100, 12]),
        (0, 104, [104]),
        (0, 1000, [312]),
        (0, 1, [1]),
        (300, 100, [100, 12]),
        (50, 100, [100, 62, 12]),
        (624 + 50, 100, [100, 62]),
        (624 + 262, 100, [50]),
        (936, 100, []),
        (1000, 100, []),
    ],
)
def test_the_sizes_of_calls_that_will_occur(step, steps_per_call, sizes):
    assert call_sizes(step, 3, 312, steps_per_call) == sizes


class Listening(Memory):
    """Notes how much of a log stood when training asked for the first time whether to stop, and all of it at the end.

    After the first question, the clock runs.
    """

    def __init__(self, log):
        super().__init__()
        self.log, self.before = log, None

    def should_stop(self):
        self.before = len(self.log()) if self.before is None else self.before
        return False


def test_all_sizes_of_calls_are_compiled_before_the_clock_runs(tiny, caplog):
    def log():
        return [line for line in caplog.messages if "XLA compilation of jit(train_steps)" in line]

    record = Listening(log)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(dataclasses.replace(CONFIG, norm="none", stop_after_epoch=1), tiny, record=record, steps_per_call=3)
    assert record.before == len(log()) == 2, "four steps an epoch: a call of three, a call of one"


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_a_step_a_call_is_refused(tiny, steps):
    with pytest.raises(UserError, match=f"steps_per_call must be at least 1, but is {steps}; give 1 or more"):
        train(CONFIG, tiny, steps_per_call=steps)


@pytest.mark.parametrize("num_images", [1, EVAL_BATCH_SIZE, EVAL_BATCH_SIZE + 3])
def test_evaluation_counts_every_image_once_in_order(tiny, num_images):
    state = initial_state(CONFIG, tiny)
    image = np.random.default_rng(0).integers(0, 256, (num_images, 8, 8, 3), np.uint8)
    images = on_device(Split(image=image, label=np.zeros(num_images, np.int32)), tiny)
    logits, pooled = evaluate(state.model, state.variables, images)
    assert (logits.shape, pooled.shape) == ((num_images, 3), (num_images, 64))
    apply = jax.jit(lambda image: state.model.apply(state.variables, images.normalized(image), train=False))
    np.testing.assert_allclose(logits, apply(images.image), atol=1e-5)
