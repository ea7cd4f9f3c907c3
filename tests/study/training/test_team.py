"""A run in a team is the run alone, and the same team gives the same numbers twice."""

import contextlib
import dataclasses
import functools
import logging
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Config, ResNet, UserError, train
from jaxnorm.study.registry import NORMS
from jaxnorm.study.training import loop
from jaxnorm.study.training.evaluation import evaluate
from jaxnorm.study.training.loop import initial_state, on_device, train_team
from jaxnorm.study.training.optimizer import make_optimizer
from jaxnorm.study.training.parallel import Devices
from jaxnorm.study.training.record import Memory, Stopped
from jaxnorm.study.training.step import create_state, epoch_order, train_steps
from jaxnorm.study.training.team import Team, team_for, teams, way_on

SEEDS = (0, 1, 2)
CONFIGS = [Config(norm="bn", batch_size=8, num_epochs=2, learning_rate=0.05, seed=seed) for seed in SEEDS]
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""For programs that run once or twice: LLVM does not try hard."""


def small_states():
    """Of a network that is quick to compile, in float64, where rounding stays small."""
    model = ResNet(num_blocks=1, norm=NORMS["bn"], num_classes=3, num_filters=4)
    states = [create_state(model, make_optimizer(0.05, 10.0, 2, 3), seed, (8, 8, 3)) for seed in SEEDS]
    return [state.replace(**jax.tree.map(in_float64, state.numbers)) for state in states]


def in_float64(leaf):
    return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf


def after_two_steps(states, seeds, tiny, devices, num_steps=1):
    images = on_device(tiny.train, tiny, devices)
    state, order = devices.stack(states), devices.stack([epoch_order(seed, 1, len(tiny.train)) for seed in seeds])
    step = train_steps.lower(state, images, order, batch_size=8, num_steps=num_steps)
    step = step.compile(compiler_options=QUICKLY)
    assert not re.search("all-(reduce|gather|to-all)|collective", step.as_text()), "runs exchange nothing"
    for _ in range(2 // num_steps):
        state, _ = step(state, images, order)
    return jax.device_get(devices.apart(state.numbers))


@pytest.fixture(scope="module")
def small_alone(tiny):
    with jax.enable_x64(True):
        states = small_states()
        return [after_two_steps([state], [seed], tiny, Devices())[0] for seed, state in zip(SEEDS, states, strict=True)]


@pytest.mark.parametrize("way, count, num_steps", [("vmap", 1, 1), ("scan", 1, 2), ("vmap", 2, 2), ("unroll", 8, 1)])
def test_a_run_in_a_team_takes_the_steps_it_takes_alone(tiny, small_alone, way, count, num_steps):
    """With its own weights, order and augmentation: any other would be far off in float64."""
    with jax.enable_x64(True):
        devices = team_for(len(SEEDS), count=count, way=way)
        found = after_two_steps(small_states(), SEEDS, tiny, devices, num_steps)
    assert devices.count == min(count, len(SEEDS))
    for own, alone in zip(found, small_alone, strict=True):
        chex.assert_trees_all_close(own, alone, rtol=1e-6, atol=1e-9)
        chex.assert_trees_all_equal_shapes_and_dtypes(own, alone)
    assert abs(found[0]["sums"].loss - found[1]["sums"].loss) > 1e-3, "seeds differ"


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_stacked_comes_apart_bit_for_bit(tiny, count):
    devices = team_for(len(SEEDS), count=count)
    numbers = [initial_state(config, tiny).numbers for config in CONFIGS]
    for own, before in zip(devices.apart(devices.stack(numbers)), numbers, strict=True):
        chex.assert_trees_all_equal(own, jax.device_get(before))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(own))


def test_each_run_lies_on_one_device():
    team = team_for(3, count=2)
    (leaf,) = jax.tree.leaves(team.stack([jnp.zeros((5,))] * 3))
    assert leaf.shape == (4, 5), "the last run fills the place that is left"
    assert {shard.data.shape for shard in leaf.addressable_shards} == {(2, 5)}
    assert len(leaf.sharding.device_set) == 2


@pytest.mark.parametrize("size, count, devices, per_device", [(1, 8, 1, 1), (5, 4, 3, 2), (5, 8, 5, 1), (9, 8, 5, 2)])
def test_runs_are_spread_evenly(size, count, devices, per_device):
    team = team_for(size, count=count)
    assert team.count == devices
    assert isinstance(team, Team) == (size > 1)
    if size > 1:
        assert team.per_device == per_device


def test_on_cpu_runs_are_copies_of_the_network_elsewhere_one():
    assert (way_on("cpu"), way_on("gpu"), way_on("tpu")) == ("unroll", "vmap", "vmap")
    assert team_for(2, count=1).way == "unroll"


def test_one_of_several_processes_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="--parallel-seeds goes with one process, but there are 2; drop it"):
        team_for(2)
    assert team_for(1) == Devices()


def test_equal_configurations_but_for_the_seed_make_a_team_in_the_order_of_the_grid():
    grid = [
        Config(norm=norm, seed=seed, tags=tags)
        for seed in (0, 1, 2)
        for tags in ((), ("lr1",))
        for norm in ("bn", "gn")
    ]
    found = [[config.name for config in team] for team in teams(grid, 2)]
    assert found == [
        *(["bn-seed0", "bn-seed1"], ["gn-seed0", "gn-seed1"]),
        *(["bn-lr1-seed0", "bn-lr1-seed1"], ["gn-lr1-seed0", "gn-lr1-seed1"]),
        *(["bn-seed2"], ["gn-seed2"], ["bn-lr1-seed2"], ["gn-lr1-seed2"]),
    ]
    assert [len(team) for team in teams(grid, 99)] == [3, 3, 3, 3]
    assert [team for (team,) in teams(grid, 1)] == grid


class Kept(Memory):
    """Stops after some steps, gives back what it saved, and may start from other numbers."""

    def __init__(self, stop_at=None, saved=None, rows=(), change=lambda numbers: numbers):
        super().__init__()
        self.stop_at, self.saved, self.step, self.change = stop_at, saved, 0, change
        self.rows = list(rows)

    def restore(self, numbers):
        return self.saved or (self.change(numbers), 0.0)

    def save(self, numbers, seconds):
        self.saved = jax.tree.map(np.array, numbers), seconds

    def stepped(self, step):
        self.step = step

    def should_stop(self):
        return self.stop_at is not None and self.step >= self.stop_at


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """Eight thin layers compile faster than 14."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "ResNet14", functools.partial(ResNet, num_blocks=1, num_filters=4))
        # Three seeds on two devices: one of them has two, and one is left over.
        patch.setattr(loop, "team_for", functools.partial(team_for, count=2))
        yield


def results_of(tiny, records=None, configs=CONFIGS):
    records = records or [Memory() for _ in configs]
    return {config.seed: result for config, result in train_team(configs, tiny, records)}


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def compilations():
    """Names of the programs that are compiled meanwhile."""
    kept, names, logger = Lines(), [], logging.getLogger("jax")
    logger.addHandler(kept)
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.removeHandler(kept)
        names += [match[1] for line in kept.lines if (match := re.search(r"XLA compilation of jit\((\w+)\)", line))]


def timeless(rows):
    return [{**row, "seconds": 0} for row in rows]


@pytest.fixture(scope="module")
def first_time(tiny):
    with compilations() as compiled:
        found = results_of(tiny)
    return found, compiled


@pytest.fixture(scope="module")
def together(first_time):
    return first_time[0]


@pytest.fixture(scope="module")
def alone(tiny):
    return train(CONFIGS[1], tiny)


def test_every_run_of_a_team_has_all_that_it_has_alone(together, alone):
    assert list(together) == list(SEEDS)
    found = together[1]
    assert (found.status, found.step, found.epoch) == ("complete", 6, 2)
    assert found.rows[0]["train_loss"] == pytest.approx(alone.rows[0]["train_loss"], abs=1e-3)
    np.testing.assert_allclose(found.test_logits, alone.test_logits, atol=0.05)
    assert {name: split.num_images for name, split in found.splits.items()} == dict(train=24, validation=10, test=7)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.variables, alone.variables)
    assert [row["parallel_seeds"] for row in found.rows] == [3, 3]
    assert list(alone.rows[0]) == [name for name in found.rows[0] if name != "parallel_seeds"]
    assert together[0].rows[0]["train_loss"] != found.rows[0]["train_loss"]
    assert together[0].rows[0]["seconds"] == found.rows[0]["seconds"] > 0, "all share the epoch's time"


def test_a_team_compiles_one_program_and_again_none_and_gives_the_same_numbers_to_the_last_bit(tiny, first_time):
    together, compiled = first_time
    assert (compiled.count("train_steps"), compiled.count("eval_steps")) == (1, 3), "splits differ in their sizes"
    with compilations() as compiled:
        again = results_of(tiny)
    assert compiled == []
    for seed in SEEDS:
        chex.assert_trees_all_equal(together[seed].variables, again[seed].variables)
        assert timeless(together[seed].rows) == timeless(again[seed].rows)
        np.testing.assert_array_equal(together[seed].test_logits, again[seed].test_logits)


def test_a_team_stopped_within_an_epoch_goes_on_together_bit_for_bit_and_each_alone(tiny, together, alone):
    first = [Kept(stop_at=4 if config.seed == 2 else None) for config in CONFIGS]
    with pytest.raises(Stopped):
        results_of(tiny, first)
    assert [int(record.saved[0]["step"]) for record in first] == [4, 4, 4]
    resumed = results_of(tiny, [Kept(saved=record.saved, rows=record.rows) for record in first])
    for seed in SEEDS:
        chex.assert_trees_all_equal(resumed[seed].variables, together[seed].variables)
        assert timeless(resumed[seed].rows) == timeless(together[seed].rows)
    record = Kept(saved=first[1].saved, rows=first[1].rows)
    own = train(CONFIGS[1], tiny, record=record)
    assert (own.status, own.step) == ("complete", 6)
    assert own.rows[1]["train_loss"] == pytest.approx(alone.rows[1]["train_loss"], abs=0.02)
    assert "parallel_seeds" not in own.rows[1]


def test_runs_at_different_steps_go_on_apart(tiny, together):
    ahead, other = Kept(stop_at=3), dataclasses.replace(CONFIGS[0], seed=9)
    with pytest.raises(Stopped):
        train(other, tiny, record=ahead)
    records = [Kept(), Kept(saved=ahead.saved, rows=ahead.rows), Kept(), Kept()]
    found = results_of(tiny, records, [CONFIGS[0], other, *CONFIGS[1:]])
    assert list(found) == [0, 1, 2, 9]
    assert (found[9].status, found[9].step) == ("complete", 6)
    assert [row.get("parallel_seeds") for row in found[9].rows] == [None, None]
    for seed in SEEDS:
        assert timeless(found[seed].rows) == timeless(together[seed].rows)


def exploding(numbers):
    return {**numbers, "params": jax.tree.map(lambda leaf: leaf * 1e30, numbers["params"])}


def test_a_run_that_diverges_leaves_the_others_as_they_are(tiny, together):
    records = [Kept(), Kept(change=exploding), Kept()]
    found = results_of(tiny, records)
    assert list(found) == [1, 0, 2], "it ends first"
    assert (found[1].status, found[1].diverged_at_step, found[1].step, found[1].rows) == ("diverged", 1, 0, [])
    assert (found[1].splits, found[1].test_logits) == ({}, None)
    assert int(records[1].saved[0]["step"]) == 0
    for seed in (0, 2):
        chex.assert_trees_all_equal(found[seed].variables, together[seed].variables)
        assert timeless(found[seed].rows) == timeless(together[seed].rows)


def test_a_team_of_which_all_diverge_ends(tiny):
    found = results_of(tiny, [Kept(change=exploding) for _ in CONFIGS])
    assert {(result.status, result.step) for result in found.values()} == {("diverged", 0)}


@pytest.mark.parametrize("split, epoch", [("validation", 0), ("test", 2)])
def test_an_evaluation_that_is_not_finite_counts_as_diverged_for_its_own_run(tiny, monkeypatch, together, split, epoch):
    def broken(model, variables, images):
        logits, pooled = evaluate(model, variables, images)
        if images.label.shape[0] == len(getattr(tiny, split)):
            logits = np.array(logits)
            logits[1, 0, 0] = np.inf
        return logits, pooled

    monkeypatch.setattr(loop, "evaluate", broken)
    found = results_of(tiny)
    assert (found[1].status, found[1].epoch, found[1].step) == ("diverged", epoch, 3 * max(epoch, 1))
    for seed in (0, 2):
        assert timeless(found[seed].rows) == timeless(together[seed].rows)


def test_all_features_and_other_statistics_are_recorded_for_each_run(tiny):
    configs = [dataclasses.replace(config, record_features="all", evaluate_statistics=True) for config in CONFIGS]
    records = [Memory() for _ in configs]
    found = results_of(tiny, records, configs)
    assert all(found[seed].statistics["precise"]["test"]["num_images"] == 7 for seed in SEEDS)
    quantiles = [record.arrays[1]["quantiles/stem_conv"] for record in records]
    assert len({values.tobytes() for values in quantiles}) == 3


def test_runs_that_differ_in_more_than_their_seed_are_no_team(tiny):
    with pytest.raises(ValueError, match="differ in their seed alone"):
        results_of(tiny, configs=[CONFIGS[0], dataclasses.replace(CONFIGS[1], norm="gn")])
