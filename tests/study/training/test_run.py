import dataclasses
import logging

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxnorm import NORMS, Config, ResNet, UserError, train
from jaxnorm.study.data.dataset import Split
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
    """Stops after some steps, and restores what it has saved."""

    def __init__(self, stop_at=None, saved=None, rows=()):
        super().__init__()
        self.stop_at, self.saved, self.step = stop_at, saved, 0
        self.rows.extend(rows)

    def restore(self, saved):
        return self.saved or (saved, 0.0)

    def save(self, saved, seconds):
        self.saved = jax.tree.map(np.array, saved), seconds

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


def test_a_norm_with_a_schedule_is_resumed_exactly(tiny):
    config, model = dataclasses.replace(CONFIG, norm="brn"), ResNet(num_blocks=1, num_filters=4, norm=NORMS["brn"])
    whole = train(config, tiny, model=model)
    first = Interrupted(stop_at=2)  # of 12, while the limits rise
    with pytest.raises(Stopped):
        train(config, tiny, model=model, record=first)
    resumed = train(config, tiny, model=model, record=Interrupted(saved=first.saved, rows=first.rows))
    chex.assert_trees_all_equal(whole.variables, resumed.variables)
    assert {float(each) for each in jax.tree.leaves(whole.variables["schedule"])} == {np.float32(11 / 12)}


class SavedAtTheEnd(Interrupted):
    """Saves after the last step of the first epoch, and is killed before it can keep the epoch's row."""

    def should_save(self):
        return self.step == 4

    def append(self, row):
        raise KeyboardInterrupt


def test_a_run_killed_between_an_epochs_last_checkpoint_and_its_row_writes_the_row_when_it_is_resumed(result, tiny):
    first = SavedAtTheEnd()
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tiny, record=first)
    assert (int(first.saved[0]["step"]), first.rows) == (4, [])
    resumed = train(CONFIG, tiny, record=Interrupted(saved=first.saved))
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


class Small(nn.Module):
    """A network of a user: its logits are infinite in evaluation where an image is all white."""

    pooled: bool = True

    @nn.compact
    def __call__(self, x, *, train):
        white = (x > 0.69).all(axis=(1, 2, 3))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3))(x))).mean(axis=(1, 2))
        if self.pooled:
            self.sow("intermediates", "pooled", x)
        logits = nn.Dense(3)(x)
        return logits if train else jnp.where(white[:, None], jnp.inf, logits)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_network_of_ones_own_trains_and_is_summarized_with_the_features_that_it_sows(tiny, pooled):
    config = Config(norm="mine", batch_size=6, num_epochs=4, record_features="all", evaluate_statistics=True)
    record = Memory()
    result = train(config, tiny, model=Small(pooled), record=record)
    assert (result.status, result.step, result.num_params) == ("complete", 16, 3 * 3 * 3 * 8 + 8 + 2 * 8 + 8 * 3 + 3)
    assert result.rows[-1]["train_loss"] < result.rows[0]["train_loss"]
    assert [row["feature_quantiles"] is not None for row in result.rows] == [pooled] * 4
    layers = ["Conv_0", "pooled"] if pooled else ["Conv_0"]
    assert [name for name in record.arrays[2] if name.startswith("quantiles/")] == [f"quantiles/{n}" for n in layers]
    assert set(result.statistics) == {"running", "precise", "precise_128", "evaluation_batch"}


@pytest.mark.parametrize(
    "field, value", [("init", "he"), ("num_blocks", 3), ("compute_dtype", "bfloat16"), ("ghost_batch_size", 2)]
)
def test_a_setting_that_a_network_of_ones_own_would_ignore_is_refused(tiny, field, value):
    with pytest.raises(UserError, match=f"{field} describes the network that train builds, but is {value}"):
        train(dataclasses.replace(CONFIG, batch_size=4, **{field: value}), tiny, model=Small())


@pytest.mark.parametrize("split, epoch", [("validation", 0), ("test", 3)])
def test_an_evaluation_that_is_not_finite_counts_as_diverged_too(tiny, split, epoch):
    images = getattr(tiny, split)
    white = Split(image=np.concatenate([images.image[:-1], np.full_like(images.image[:1], 255)]), label=images.label)
    diverged = train(CONFIG, dataclasses.replace(tiny, **{split: white}), model=Small())
    assert (diverged.status, diverged.epoch) == ("diverged", epoch)
    assert diverged.diverged_at_step == diverged.step == 4 * max(epoch, 1)
    assert (diverged.splits, diverged.test_logits) == ({}, None)
    assert len(diverged.rows) == epoch


def test_a_batch_larger_than_the_data_is_refused(tiny):
    with pytest.raises(UserError, match="24 training images of digits, but is 25; lower it"):
        train(dataclasses.replace(CONFIG, batch_size=25), tiny)


class LogLength(Memory):
    """Notes the length of a log when training asks for the first time whether to stop: then the clock starts."""

    def __init__(self, log):
        super().__init__()
        self.log, self.before = log, None

    def should_stop(self):
        self.before = len(self.log()) if self.before is None else self.before
        return False


def test_all_sizes_of_calls_are_compiled_before_the_clock_runs(tiny, caplog):
    def log():
        return [line for line in caplog.messages if "XLA compilation of jit(train_steps)" in line]

    record = LogLength(log)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(dataclasses.replace(CONFIG, norm="none", stop_after_epoch=1), tiny, record=record, steps_per_call=3)
    assert record.before == len(log()) == 2, "four steps an epoch: a call of three, a call of one"


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_a_step_a_call_is_refused(tiny, steps):
    with pytest.raises(UserError, match=f"steps_per_call must be at least 1, but is {steps}; give 1 or more"):
        train(CONFIG, tiny, steps_per_call=steps)
