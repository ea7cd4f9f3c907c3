"""A run on several devices is the run on one; statistics by replica are those of a loop over replicas."""

import dataclasses
import logging
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Config, ResNet, UserError, train
from jaxnorm.study.registry import NORMS
from jaxnorm.study.training.devices import Devices, devices_for, use_compilation_cache, with_replicas
from jaxnorm.study.training.evaluation import evaluate
from jaxnorm.study.training.images import on_device
from jaxnorm.study.training.optimizer import make_optimizer
from jaxnorm.study.training.state import create_state, initial_state
from jaxnorm.study.training.step import epoch_order, train_step, train_steps

CONFIG = Config(norm="bn", batch_size=8, num_epochs=2, learning_rate=0.05)
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""For programs that run once or twice: LLVM does not try hard."""
STUDIED = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")


def small_state(norm, num_replicas=1, batch_size=8):
    """Of a network that is quick to compile, in float64: sums over devices are then the sums on one to 1e-12."""
    model = ResNet(num_blocks=1, norm=NORMS[norm], num_classes=3, num_filters=4)
    tx = make_optimizer(0.05, 10.0, 2, 24 // batch_size)
    state = create_state(model, tx, 0, (8, 8, 3), num_replicas=num_replicas)
    return state.replace(**jax.tree.map(in_float64, state.saved))


def in_float64(leaf):
    return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf


def after_steps(state, tiny, count, num_steps=2, batch_size=8):
    devices = devices_for(dataclasses.replace(CONFIG, batch_size=batch_size), count)
    images = on_device(tiny.train, tiny, devices)
    state, order = devices.replicate((state, epoch_order(0, 1, len(tiny.train))))
    step = train_steps.lower(state, images, order, batch_size=batch_size).compile(compiler_options=QUICKLY)
    for _ in range(num_steps):
        state, _ = step(state, images, order)
    return state


@pytest.mark.parametrize("norm", STUDIED)
def test_a_batch_shared_by_eight_devices_gives_what_one_gives(tiny, norm):
    with jax.enable_x64(True):
        one, eight = (after_steps(small_state(norm), tiny, count) for count in (1, 8))
        assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(eight.saved))
        chex.assert_trees_all_close(jax.device_get(one.saved), jax.device_get(eight.saved), rtol=1e-6, atol=1e-7)


def test_devices_exchange_gradients_and_statistics_but_no_images(tiny):
    config = dataclasses.replace(CONFIG, batch_size=16)
    devices = devices_for(config, 8)
    images = on_device(tiny.train, tiny, devices)
    state, order = devices.replicate((initial_state(config, tiny), epoch_order(0, 1, len(tiny.train))))
    program = train_steps.lower(state, images, order, batch_size=16).compile(compiler_options=QUICKLY).as_text()
    assert "all-reduce" in program
    assert "all-gather" not in program and "all-to-all" not in program


@pytest.mark.parametrize("norm, count", [("flax_bn", 1), ("bn", 4), ("bin", 4)])
def test_statistics_by_replica_are_those_of_a_loop_over_replicas(tiny, norm, count):
    with jax.enable_x64(True):
        state = small_state(norm, num_replicas=4)
        image = jax.random.normal(jax.random.key(0), (8, 8, 8, 3), jnp.float64)
        label = jnp.arange(8) % 3
        devices = devices_for(CONFIG, count)
        placed = devices.replicate(state), *map(devices.shard, devices.replicate((image, label)))
        stepped, loss = jax.jit(train_step).lower(*placed).compile(compiler_options=QUICKLY)(*placed)

        def loss_of(params, image, label):
            logits, updated = state.model.apply(
                {**state.variables, "params": params}, image, train=True, mutable=["batch_stats"]
            )
            logits = logits.astype(jnp.float32)
            losses = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, label[:, None], -1)[:, 0]
            return losses.mean(), updated["batch_stats"]

        parts = [(image[start : start + 2], label[start : start + 2]) for start in range(0, 8, 2)]
        slope = jax.jit(jax.value_and_grad(loss_of, has_aux=True)).lower(state.params, *parts[0])
        slope = slope.compile(compiler_options=QUICKLY)
        found = [slope(state.params, *part) for part in parts]
        mean = lambda *leaves: sum(leaves) / 4  # noqa: E731
        assert float(loss) == pytest.approx(np.mean([loss for (loss, _), _ in found]), rel=1e-6)
        statistics = jax.tree.map(mean, *(statistics for (_, statistics), _ in found))
        chex.assert_trees_all_close(jax.device_get(stepped.model_state["batch_stats"]), statistics, rtol=1e-6)
        kernel = lambda tree: np.asarray(tree["stage2_block1"]["conv1"]["kernel"])  # noqa: E731
        gradient = mean(*(kernel(gradients) for _, gradients in found))
        np.testing.assert_allclose((kernel(state.params) - kernel(stepped.params)) / 0.05, gradient, atol=1e-6)


def test_evaluation_on_several_devices_counts_every_image_once(tiny):
    with jax.enable_x64(True):
        state = small_state("bn")
        whole, shared = (
            evaluate(state.model, devices.replicate(state.variables), on_device(tiny.validation, tiny, devices))
            for devices in (Devices(), devices_for(CONFIG, 8))
        )
    chex.assert_trees_all_close(whole, shared, atol=1e-5)


@pytest.fixture(scope="module")
def on_one(tiny):
    return train(dataclasses.replace(CONFIG, evaluate_statistics=True), tiny)


@pytest.mark.optimized  # in few steps ReLUs amplify the last bits, which the compiler decides
def test_a_whole_run_on_two_devices_with_two_steps_a_call_ends_as_on_one(tiny, on_one, caplog):
    config = dataclasses.replace(CONFIG, evaluate_statistics=True)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        shared = train(config, tiny, devices=devices_for(config, 2), steps_per_call=2)
    lines = [record.getMessage() for record in caplog.records]
    compiled = sum("XLA compilation of jit(train_steps)" in line for line in lines)
    assert compiled == 2, "three steps an epoch: a call of two, a call of one"
    assert shared.step == on_one.step == 6
    np.testing.assert_allclose(shared.test_logits, on_one.test_logits, atol=1e-3)
    assert [row["train_loss"] for row in shared.rows] == pytest.approx([row["train_loss"] for row in on_one.rows])


def test_bfloat16_trains_with_weights_and_statistics_in_float32(tiny, on_one):
    result = train(dataclasses.replace(CONFIG, compute_dtype="bfloat16", stop_after_epoch=1), tiny)
    assert result.status == "complete"
    assert {leaf.dtype for leaf in jax.tree.leaves(result.variables)} == {jnp.dtype("float32")}
    assert result.rows[0]["train_loss"] != on_one.rows[0]["train_loss"], "the arithmetic is another"
    assert result.rows[0]["train_loss"] == pytest.approx(on_one.rows[0]["train_loss"], rel=0.05)


@pytest.mark.parametrize(
    "changes, wanted, words",
    [
        ({}, 9, "--data-parallel must not exceed .* 9 and there are 8"),
        ({"batch_size": 6}, 4, "must divide the batch size 6, but is 4; choose --data-parallel 2 or another"),
        (
            {"bn_statistics": "replica", "num_replicas": 2},
            4,
            "must divide the number of replicas 2, but is 4; choose --data-parallel 2",
        ),
    ],
)
def test_devices_that_do_not_fit_are_one_clear_line(changes, wanted, words):
    with pytest.raises(UserError, match=words):
        devices_for(dataclasses.replace(CONFIG, **changes), wanted)


def test_programs_are_kept_for_accelerators_only(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(jax.config, "update", kept.__setitem__)
    use_compilation_cache(tmp_path)
    assert kept == {}
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(platform="gpu")])
    use_compilation_cache(tmp_path)
    assert kept.pop("jax_compilation_cache_dir") == str(tmp_path)
    assert kept == {"jax_persistent_cache_min_compile_time_secs": 0}, "small programs are kept, too"
    kept.clear()
    tmp_path.chmod(0o777)
    use_compilation_cache(tmp_path)
    assert kept == {}, "JAX runs what it finds there"


def test_replicas_are_as_many_as_devices_unless_given():
    replica = dataclasses.replace(CONFIG, bn_statistics="replica")
    assert with_replicas(replica, 4).num_replicas == 4
    assert with_replicas(dataclasses.replace(replica, num_replicas=2), 4).num_replicas == 2
    assert with_replicas(CONFIG, 4).num_replicas is None
    with pytest.raises(UserError, match="there is one device; give `num_replicas`"):
        with_replicas(replica)
    assert devices_for(CONFIG).count == 1, "CPU devices share the same cores"
