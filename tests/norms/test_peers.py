"""flax.linen as an independent oracle, and its interface as the one to keep."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnorm import norms

SHAPE = (4, 5, 6, 8)
NAMES = ("BatchNorm", "InstanceNorm", "LayerNorm", "GroupNorm")
FIELDS = {
    "BatchNorm": [dict(use_running_average=False), dict(use_running_average=False, axis=1, momentum=0.7)],
    "InstanceNorm": [dict(), dict(feature_axes=(1, 3)), dict(feature_axes=1, use_scale=False)],
    "LayerNorm": [dict(), dict(reduction_axes=(1, 2, 3)), dict(reduction_axes=(0, 2), feature_axes=(1, 3))],
    "GroupNorm": [
        dict(num_groups=4),
        dict(num_groups=None, group_size=8),
        dict(num_groups=2, reduction_axes=(0, 2, 3)),
    ],
}
PAIRS = [(name, fields) for name, choices in FIELDS.items() for fields in choices]


def sample(dtype=np.float32):
    return (np.random.default_rng(0).normal(size=SHAPE) + 2).astype(dtype)


def both(name, fields, x, **kwargs):
    """Outputs and variables after a first and a second call, of ours and of flax's, with random parameters."""
    results = []
    for module in (norms, nn):
        layer = getattr(module, name)(
            scale_init=nn.initializers.uniform(), bias_init=nn.initializers.uniform(), **fields
        )
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        apply = jax.jit(functools.partial(layer.apply, mutable=["batch_stats"]))
        results.append((variables, apply(variables, x, **kwargs)))
    return results


def assert_same(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for value, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert value.dtype == wanted.dtype
        np.testing.assert_allclose(value, wanted, **(tolerance or dict(rtol=1e-5, atol=1e-5)))


@pytest.mark.parametrize("name", NAMES)
def test_fields_defaults_and_signature_are_flax_s(name):
    def fields(cls):
        return [(f.name, f.default) for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]

    ours, theirs = getattr(norms, name), getattr(nn, name)
    assert fields(ours)[: len(fields(theirs))] == fields(theirs)
    assert all(default is None for _, default in fields(ours)[len(fields(theirs)) :])  # what is added is off

    def parameters(cls):
        return [(p.name, p.kind, p.default) for p in inspect.signature(cls.__call__).parameters.values()]

    added = [(name, inspect.Parameter.KEYWORD_ONLY, None) for name in ("scale", "bias")]
    assert parameters(ours) == parameters(theirs) + added


def test_batch_instance_norm_takes_batch_norm_s_fields():
    def names(cls):
        return [f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]

    assert names(norms.BatchInstanceNorm) == [*names(norms.BatchNorm), "train_gate", "gate_init"]


@pytest.mark.parametrize(("name", "fields"), PAIRS)
def test_variables_and_values_are_flax_s(name, fields):
    ours, theirs = both(name, fields, sample())
    assert_same(ours, theirs)


@pytest.mark.parametrize(("name", "fields"), PAIRS)
def test_the_slow_variance_is_flax_s_to_the_last_bits(name, fields):
    ours, theirs = both(name, {**fields, "use_fast_variance": False}, sample() + 1e3)
    assert_same(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fast", [True, False])
def test_complex_input_is_normalized_as_in_flax(name, fast):
    x = (sample() + 1j * np.random.default_rng(1).normal(size=SHAPE)).astype(np.complex64)
    ours, theirs = both(name, {**FIELDS[name][0], "dtype": jnp.complex64, "use_fast_variance": fast}, x)
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("force", [True, False])
def test_output_and_statistics_have_flax_s_dtypes_in_low_precision(name, dtype, force):
    fields = {**FIELDS[name][0], "dtype": dtype, "param_dtype": jnp.bfloat16, "force_float32_reductions": force}
    ours, theirs = both(name, fields, jnp.asarray(sample(), jnp.bfloat16))
    assert_same(ours, theirs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_finite_values_that_a_mask_excludes_are_normalized_as_in_flax(name):
    mask = jnp.asarray(np.random.default_rng(2).uniform(size=SHAPE) < 0.8)
    ours, theirs = both(name, FIELDS[name][0], sample(), mask=mask)
    assert_same(ours, theirs)


def test_variables_of_flax_load_unchanged():
    x = sample()
    theirs = nn.BatchNorm(use_running_average=True, scale_init=nn.initializers.uniform())
    variables = theirs.init(jax.random.key(3), x)
    np.testing.assert_allclose(
        norms.BatchNorm(use_running_average=True).apply(variables, x), theirs.apply(variables, x), rtol=1e-6, atol=1e-6
    )
