import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import NORMS, ResNet, functional
from jaxnorm.study.training.optimizer import make_optimizer
from jaxnorm.study.training.state import create_state
from jaxnorm.study.training.step import train_step

# r_max and d_max after so many thousand of the paper's steps: batch norm until 5, r_max 3 from 40, d_max 5 from 25
LIMITS = {0: (1, 0), 5: (1, 0), 15: (1 + 2 * 10 / 35, 2.5), 22.5: (2, 4.375), 25: (1 + 2 * 20 / 35, 5), 40: (3, 5)}


@pytest.mark.parametrize("step", [*LIMITS, 130])
def test_batch_renorm_s_limits_are_those_of_the_paper(step):
    r_max, d_max = LIMITS.get(step, (3, 5))
    x = 4 + 9 * jax.random.normal(jax.random.key(0), (8, 3))  # beyond the largest limits
    layer = NORMS["brn"](train=True)
    variables = layer.init(jax.random.key(0), x)
    chex.assert_trees_all_equal(variables["schedule"], {"progress": jnp.ones(())})
    variables["schedule"]["progress"] = jnp.asarray(step / 130)
    y, _ = layer.apply(variables, x, mutable=["batch_stats"])
    expected, _ = functional.batch_renorm(x, train=True, r_max=r_max, d_max=d_max, momentum=0.9)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_each_step_knows_how_much_of_the_training_is_done_and_none_compiles_anew(caplog):
    model = ResNet(num_blocks=1, num_filters=4, norm=NORMS["brn"], num_classes=3)
    state = create_state(model, make_optimizer(0.1, 1.0, 2, 4), 0, (8, 8, 3), num_steps=8, num_replicas=2)
    step = jax.jit(train_step)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for done in range(3):
            image, label = jax.random.normal(jax.random.key(done), (4, 8, 8, 3)), jnp.asarray([0, 1, 2, 0])
            state, _ = step(state, image, label)
            found = jax.tree.leaves(state.model_state["schedule"])
            assert len(found) == 9
            assert {float(each) for each in found} == {done / 8}
    assert sum("XLA compilation of jit(train_step)" in message for message in caplog.messages) == 1
