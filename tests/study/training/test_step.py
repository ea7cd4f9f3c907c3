import dataclasses
import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnorm import NORMS, Config, ResNet, ResNet14
from jaxnorm.study.data import load_dataset
from jaxnorm.study.training.images import on_device
from jaxnorm.study.training.optimizer import make_optimizer
from jaxnorm.study.training.state import EpochSums, create_state, initial_state
from jaxnorm.study.training.step import call_sizes, epoch_order, train_step, train_steps

STEP = jax.jit(train_step)  # shared: each variant is compiled once for all tests


def batch_of(seed=0):
    key = jax.random.key(seed)
    return jax.random.normal(key, (6, 8, 8, 3)), jax.random.randint(key, (6,), 0, 3)


def state_of(norm):
    tx = make_optimizer(0.1, 10.0, 100, 10)
    model = ResNet(num_blocks=1, norm=NORMS[norm], num_classes=3)  # eight layers are quicker to compile than 14
    return create_state(model, tx, seed=0, image_shape=(8, 8, 3))


def test_a_step_is_one_step_of_gradient_descent_on_the_mean_cross_entropy():
    state = state_of("bn")
    image, label = batch_of()

    def loss_function(params):
        logits, updated = state.model.apply(
            {**state.variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        log_probability = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)
        return -log_probability.mean(), (updated, logits)

    (loss, (updated, logits)), gradients = jax.jit(jax.value_and_grad(loss_function, has_aux=True))(state.params)
    stepped, got = STEP(state, image, label)
    assert float(got) == pytest.approx(float(loss), rel=1e-5)
    expected = jax.tree.map(lambda param, gradient: param - 0.1 * gradient, state.params, gradients)
    chex.assert_trees_all_close(stepped.params, expected, atol=1e-5)
    chex.assert_trees_all_close(stepped.model_state, updated, atol=1e-5)
    assert int(stepped.step) == 1
    assert int(stepped.sums.count) == 6
    assert float(stepped.sums.loss) == pytest.approx(6 * float(loss), rel=1e-5)
    assert int(stepped.sums.correct) == int((logits.argmax(-1) == label).sum())


def float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree)


@pytest.fixture(scope="module")
def digits_batches():
    split = load_dataset("digits").train
    order = np.random.default_rng(0).permutation(len(split))
    return [(split.image[index] / 255 - 0.3, split.label[index]) for index in order[: 20 * 32].reshape(20, 32)]


@pytest.mark.optimized  # without optimization it takes two minutes
def test_the_librarys_batch_norm_and_ours_train_alike(digits_batches):
    """In float64: there, rounding stays small enough to tell a difference of definition from one of rounding.

    In float32 no two ways to compute batch norm stay within 1e-4 for 20 steps at this rate, not even flax's own two
    (its one-pass and its two-pass variance end 0.07 apart): a ReLU that rounding flips changes the gradient by far
    more than the rounding, and each step multiplies the difference about tenfold.
    """
    with jax.enable_x64(True):
        losses, states = {}, {}
        for norm in ("flax_bn", "bn"):
            tx = make_optimizer(0.1, 10.0, 100, 10)
            state = create_state(ResNet14(norm=NORMS[norm]), tx, seed=0, image_shape=(16, 16, 3))
            state = state.replace(params=float64(state.params), model_state=float64(state.model_state))
            step, losses[norm] = jax.jit(train_step), []
            for image, label in digits_batches:
                state, loss = step(state, jnp.asarray(image), jnp.asarray(label))
                losses[norm].append(float(loss))
            states[norm] = state
        assert losses["bn"][-1] < losses["bn"][0] - 0.5
        np.testing.assert_allclose(losses["bn"], losses["flax_bn"], atol=1e-6)
        chex.assert_trees_all_close(states["bn"].model_state, states["flax_bn"].model_state, rtol=1e-6)


def test_along_one_path_the_librarys_batch_norm_and_ours_see_the_same_loss(digits_batches):
    """In float32: at each of 20 states of a run, both give the same loss and the same update of the statistics."""
    tx = make_optimizer(0.1, 10.0, 100, 10)
    models = {norm: ResNet(num_blocks=1, norm=NORMS[norm]) for norm in ("flax_bn", "bn")}
    state = create_state(models["flax_bn"], tx, seed=0, image_shape=(16, 16, 3))
    step = jax.jit(train_step)
    for image, label in digits_batches:
        batch = jnp.asarray(image, jnp.float32), jnp.asarray(label)
        ours, our_loss = step(state.replace(model=models["bn"]), *batch)
        state, loss = step(state, *batch)
        assert float(our_loss) == pytest.approx(float(loss), abs=1e-4)
        chex.assert_trees_all_close(ours.model_state, state.model_state, rtol=1e-3, atol=1e-6)


def test_gates_train_only_where_they_should_and_stay_within_0_and_1():
    gates = {}
    for norm in ("bin", "bin_frozen"):
        state = state_of(norm)
        for index in range(5):
            state, _ = STEP(state, *batch_of(index))
        leaves = jax.tree_util.tree_leaves_with_path(state.params)
        gates[norm] = np.concatenate([leaf for path, leaf in leaves if path[-1].key == "gate"])
    assert gates["bin"].shape == (16 * 3 + 32 * 3 + 64 * 3,)
    assert (gates["bin_frozen"] == 1).all()
    assert gates["bin"].max() == 1
    assert gates["bin"].min() >= 0
    assert (gates["bin"] < 1).mean() > 0.1


def test_a_loss_that_is_not_finite_stops_all_updates_and_names_its_step():
    state = state_of("bn")
    image, label = batch_of()
    good, _ = STEP(state, image, label)
    bad, loss = STEP(good, image.at[0].set(jnp.nan), label)
    assert not np.isfinite(loss)
    assert int(bad.diverged_at) == 2
    after, _ = STEP(bad, image, label)
    assert int(after.diverged_at) == 2
    chex.assert_trees_all_equal(good.saved, after.saved)


def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_decide():
    orders = {(seed, epoch): np.asarray(epoch_order(seed, epoch, 50)) for seed in (0, 1) for epoch in (1, 2)}
    for order in orders.values():
        assert sorted(order) == list(range(50))
    assert len({order.tobytes() for order in orders.values()}) == 4
    np.testing.assert_array_equal(orders[1, 2], epoch_order(1, 2, 50))


def run_steps(tiny, num_steps, chunk):
    config = Config(norm="bn", batch_size=5)
    state, images = initial_state(config, tiny), on_device(tiny.train, tiny)
    order = epoch_order(0, 1, 24)
    for _ in range(num_steps // chunk):
        state, _ = train_steps(state, images, order, batch_size=5, num_steps=chunk)
    return state


def test_several_steps_in_one_dispatch_equal_as_many_single_ones(tiny):
    chex.assert_trees_all_close(run_steps(tiny, 4, 1).saved, run_steps(tiny, 4, 2).saved, atol=2e-5)


def test_a_step_takes_its_batch_from_the_order_and_the_step_alone(tiny):
    # Without crop and flip, the batch of step 3 of an epoch is order[10:15].
    plain = dataclasses.replace(tiny, pad=0, flip=False)
    config = Config(norm="gn", batch_size=5)
    images, order = on_device(plain.train, plain), epoch_order(0, 1, 24)
    state = initial_state(config, plain).replace(step=jnp.asarray(4 + 2, jnp.int32))
    index = np.asarray(order)[10:15]
    image = images.normalized(jnp.asarray(plain.train.image[index]))
    expected, _ = jax.jit(train_step)(state, image, jnp.asarray(plain.train.label[index]))
    got, _ = train_steps(state, images, order, batch_size=5)
    chex.assert_trees_all_close(got.params, expected.params, atol=1e-6)


def test_all_steps_of_runs_that_differ_in_their_seed_share_one_compiled_program(tiny, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for seed in (0, 1):
            state = initial_state(Config(norm="in", batch_size=6, seed=seed), tiny)
            for _ in range(2):
                state, _ = train_steps(state, on_device(tiny.train, tiny), epoch_order(seed, 1, 24), batch_size=6)
    assert sum("XLA compilation of jit(train_steps)" in message for message in caplog.messages) == 1


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


def test_sums_start_from_nothing():
    assert optax.tree_utils.tree_sum(EpochSums.zero()) == 0


def test_the_largest_seeds_have_an_order_of_their_own():
    orders = {tuple(np.asarray(epoch_order(seed, 1, 20))) for seed in (0, 2**31 - 1, 2**31, 2**32 - 1)}
    assert len(orders) == 4
