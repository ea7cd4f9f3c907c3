"""A run on several devices is the run on one; statistics by replica are those of a loop over replicas."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxnorm import Config
from jaxnorm.training.loop import initial_state, on_device
from jaxnorm.training.parallel import devices_for
from jaxnorm.training.step import epoch_order, train_steps

CONFIG = Config(norm="bn", batch_size=8, num_epochs=2, learning_rate=0.05)
STUDIED = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")


@pytest.fixture(scope="module", autouse=True)
def float64():
    """Sums over devices are rounded otherwise than sums on one; in float64 the difference shows nothing else."""
    with jax.enable_x64(True):
        yield


def after_steps(config, tiny, count, num_steps=3):
    """The state and the program's cache after some steps on `count` devices."""
    devices = devices_for(config, count)
    assert devices.count == count
    images = on_device(tiny.train, tiny, devices)
    state = initial_state(config, tiny)
    doubled = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state.numbers)
    state = devices.replicate(state.replace(**doubled))
    order = devices.replicate(epoch_order(0, 1, len(tiny.train)))
    for _ in range(num_steps):
        state, _ = train_steps(state, images, order, batch_size=config.batch_size)
    return state


@pytest.mark.parametrize("norm", STUDIED)
def test_a_batch_shared_by_eight_devices_gives_what_one_gives(tiny, norm):
    config = dataclasses.replace(CONFIG, norm=norm)
    one, eight = (after_steps(config, tiny, count) for count in (1, 8))
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(eight.numbers))
    chex.assert_trees_all_close(jax.device_get(one.numbers), jax.device_get(eight.numbers), rtol=1e-6, atol=1e-6)
