"""Ghost batches give what a loop over parts of the batch gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm.norms import BatchInstanceNorm, BatchNorm

LAYERS = [BatchNorm, BatchInstanceNorm]
X = jax.random.normal(jax.random.key(0), (12, 5, 4, 3)) * jnp.arange(1.0, 13).reshape(12, 1, 1, 1) + 3


def variables_of(layer):
    variables = layer.init(jax.random.key(1), X, use_running_average=False)
    params = {
        name: 0.3 + 0.5 * jax.random.uniform(jax.random.key(2), leaf.shape)
        for name, leaf in variables["params"].items()
    }
    return {**variables, "params": params}


def apply(layer, variables, x, mask=None):
    y, updated = layer.apply(variables, x, use_running_average=False, mask=mask, mutable=["batch_stats"])
    return y, updated["batch_stats"]


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("size", [1, 4, 12])
@pytest.mark.parametrize("masked", [False, True])
def test_values_statistics_and_gradients_are_those_of_a_loop_over_the_parts(cls, size, masked):
    layer, plain = cls(momentum=0.9, ghost_batch_size=size), cls(momentum=0.9)
    variables = variables_of(plain)
    mask = jax.random.bernoulli(jax.random.key(3), 0.7, X.shape) if masked else None
    weight = jax.random.normal(jax.random.key(4), X.shape)
    parts = [slice(start, start + size) for start in range(0, 12, size)]

    def function_of(layer):
        def loss(params, x, mask, weight):
            y, statistics = apply(layer, {**variables, "params": params}, x, mask)
            return (weight * y).sum(), (y, statistics)

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    (by_params, by_x), (y, statistics) = function_of(layer)(variables["params"], X, mask, weight)
    of_part = function_of(plain)
    loop = [of_part(variables["params"], X[at], None if mask is None else mask[at], weight[at]) for at in parts]
    np.testing.assert_allclose(y, np.concatenate([y for _, (y, _) in loop]), atol=2e-6)
    np.testing.assert_allclose(by_x, np.concatenate([by_x for (_, by_x), _ in loop]), atol=2e-5)
    total = jax.tree.map(lambda *leaves: sum(leaves), *[by_params for (by_params, _), _ in loop])
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=2e-5), by_params, total)
    counts = np.stack([np.full(3, size * 20) if mask is None else mask[part].sum((0, 1, 2)) for part in parts])
    for name in ("mean", "var"):
        average = np.average(np.stack([updated[name] for _, (_, updated) in loop]), axis=0, weights=counts)
        np.testing.assert_allclose(statistics[name], average, rtol=1e-5)


@pytest.mark.parametrize("cls", LAYERS)
def test_one_ghost_batch_is_the_batch_and_evaluation_has_none(cls):
    plain, ghosts = cls(), cls(ghost_batch_size=3)
    variables = variables_of(plain)
    np.testing.assert_allclose(
        apply(cls(ghost_batch_size=12), variables, X)[0], apply(plain, variables, X)[0], atol=2e-6
    )
    np.testing.assert_array_equal(
        ghosts.apply(variables, X, use_running_average=True), plain.apply(variables, X, use_running_average=True)
    )


@pytest.mark.parametrize("cls", LAYERS)
def test_impossible_ghost_batches_raise(cls):
    variables = variables_of(cls())
    with pytest.raises(ValueError, match="must divide the batch of 12, but is 5"):
        apply(cls(ghost_batch_size=5), variables, X)
    with pytest.raises(ValueError, match="a ghost batch must be on one device"):
        apply(cls(ghost_batch_size=3, axis_name="batch"), variables, X)
