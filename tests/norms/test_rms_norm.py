"""RMS norm against its definition in float64, and against Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from jaxnorm.functional import rms_norm

SHAPE = (4, 5, 6, 8)


def oracle(x, scale, axes, mask=None, epsilon=1e-6):
    where = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    count = np.maximum(where.sum(axes, keepdims=True), 1)
    square = np.where(where, np.abs(x) ** 2, 0).sum(axes, keepdims=True) / count
    return x / np.sqrt(square + epsilon) * scale


@pytest.mark.parametrize("axes", [-1, (1, 2, 3), (0, 1, 2)])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_values_and_gradients(axes, masked, dtype):
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == np.float64):
        x = (rng.normal(size=SHAPE) + 3 + (1j * rng.normal(size=SHAPE) if dtype == np.complex64 else 0)).astype(dtype)
        mask = rng.uniform(size=(4, 5, 6, 1)) < 0.7 if masked else None
        scale = rng.uniform(0.5, 1.5, 8)
        y = rms_norm(x, scale.astype(x.real.dtype), reduction_axes=axes, mask=mask)
        tolerance = 1e-12 if dtype == np.float64 else 2e-6
        wide = x.astype(np.complex128 if dtype == np.complex64 else np.float64)
        np.testing.assert_allclose(y, oracle(wide, scale, axes, mask), rtol=tolerance, atol=tolerance)
        assert y.dtype == dtype
    if dtype == np.float64:
        with jax.enable_x64(True):
            check_grads(lambda x, s: rms_norm(x, s, reduction_axes=axes, mask=mask), (x, scale), order=2)


def test_what_a_mask_hides_changes_nothing():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    mask = np.arange(6)[:, None] < 4
    clean = rms_norm(np.where(mask, x, 0), reduction_axes=(1, 2, 3), mask=mask)
    poisoned = rms_norm(np.where(mask, x, np.nan), reduction_axes=(1, 2, 3), mask=mask)
    np.testing.assert_array_equal(clean, poisoned)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_it_is_flax_s(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE) * 5, dtype)
    expected = nn.RMSNorm().init_with_output(jax.random.key(0), x)[0]
    found = rms_norm(x, jnp.ones(8))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_over_a_mapped_axis():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    mask = np.random.default_rng(1).uniform(size=SHAPE) < 0.5
    run = jax.vmap(lambda x, m: rms_norm(x, reduction_axes=-1, mask=m, axis_name="part"), 2, 2, axis_name="part")
    np.testing.assert_allclose(run(x, mask), rms_norm(x, reduction_axes=(2, 3), mask=mask), rtol=1e-5)
