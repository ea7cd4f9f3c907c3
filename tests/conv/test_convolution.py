"""The fast convolution equals the plain one: values and gradients against float64 and against JAX's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxnorm import Conv
from jaxnorm.conv import operations
from jaxnorm.conv.convolution import convolve

IMAGES = ("NHWC", "HWIO", "NHWC")


def arrays(batch, size, features, kernel, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *size, features[0])).astype(dtype)
    return x, rng.normal(size=(*kernel, *features)).astype(dtype)


def both_ways(convolution, x, kernel, seed=1):
    y, pullback = jax.vjp(convolution, x, kernel)
    g = np.random.default_rng(seed).normal(size=y.shape).astype(y.dtype)
    return y, *pullback(g)


CASES = [
    # batch, image, features, kernel, strides, padding
    (4, (8, 8), (3, 5), (3, 3), (1, 1), ((1, 1), (1, 1))),
    (4, (8, 8), (3, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    (3, (9, 7), (2, 4), (3, 3), (2, 2), ((1, 1), (1, 1))),
    (3, (9, 7), (2, 4), (1, 1), (2, 2), "VALID"),
    (5, (7, 5), (2, 4), (1, 1), (1, 1), "VALID"),
    (2, (7, 9), (2, 3), (3, 3), (1, 1), "SAME"),
    (2, (8, 9), (2, 3), (3, 3), (2, 2), "SAME"),
    (2, (10, 9), (2, 3), (2, 4), (1, 1), ((0, 2), (3, 1))),
    (2, (11, 13), (1, 1), (5, 3), (3, 2), ((2, 0), (0, 4))),
    (1, (6, 6), (2, 2), (3, 3), (1, 1), ((-1, 0), (1, -1))),
    (2, (9, 9), (2, 2), (1, 1), (3, 3), ((0, 0), (2, 0))),
    (7, (6, 6), (2, 2), (3, 3), (4, 4), ((1, 1), (1, 1))),
    (1, (2, 2), (1, 1), (5, 5), (2, 2), "VALID"),
    (1, (8, 8), (1, 1), (3, 3), (2, 2), ((-3, -3), (-2, -3))),
    (1, (8, 8), (1, 1), (1, 1), (2, 2), ((-9, 4), (0, 0))),
]


@pytest.mark.parametrize("slice_bytes", [operations.SLICE_BYTES, 3000], ids=["whole", "sliced"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_plain_convolution_in_float64(case, slice_bytes, monkeypatch):
    monkeypatch.setattr(operations, "SLICE_BYTES", slice_bytes)
    batch, size, features, kernel, strides, padding = case
    x, weights = arrays(batch, size, features, kernel)
    found = jax.jit(lambda *a: both_ways(lambda *b: convolve(*b, strides, padding, dimension_numbers=IMAGES), *a))(
        x, weights
    )
    with jax.enable_x64(True):
        expected = both_ways(
            lambda *b: lax.conv_general_dilated(*b, strides, padding, dimension_numbers=IMAGES),
            x.astype(np.float64),
            weights.astype(np.float64),
        )
    for name, value, wanted in zip(("value", "by input", "by kernel"), found, expected, strict=True):
        assert value.shape == wanted.shape, name
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max(initial=0), err_msg=name)


@pytest.mark.parametrize("batch", [1, 7, 13, 16])
def test_a_batch_that_is_no_multiple_of_a_slice_is_summed_completely(batch, monkeypatch):
    monkeypatch.setattr(operations, "SLICE_BYTES", 5 * 4 * 8 * 8 * 3 * 4)
    x, weights = arrays(batch, (8, 8), (2, 2), (3, 3), np.float32)
    ours, own = (
        both_ways(
            functools.partial(operation, window_strides=(1, 1), padding="SAME", dimension_numbers=IMAGES), x, weights
        )
        for operation in (convolve, lax.conv_general_dilated)
    )
    np.testing.assert_allclose(ours[2], own[2], rtol=1e-5, atol=1e-4)


def test_the_layer_gives_what_flax_s_gives():
    x, _ = arrays(3, (9, 9), (4, 4), (3, 3))
    for fields in (
        dict(strides=2, padding=1),
        dict(padding="CIRCULAR"),
        dict(kernel_dilation=2),
        dict(feature_group_count=2, use_bias=False),
        dict(dtype=jnp.bfloat16),
        dict(input_dilation=2, padding=1),
    ):
        ours, theirs = (cls(8, (3, 3), **fields) for cls in (Conv, nn.Conv))
        variables = ours.init(jax.random.key(0), x)
        jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(0), x))

        found, expected = (
            jax.grad(lambda *a, layer: (layer.apply(*a).astype(jnp.float32) ** 2).sum(), argnums=(0, 1))(
                variables, x, layer=layer
            )
            for layer in (ours, theirs)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(b).max()), found, expected
        )


def test_it_works_over_mapped_axes_and_other_numbers_of_axes():
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 6, 2)).astype(np.float32)
    kernels = np.random.default_rng(1).normal(size=(3, 3, 3, 2, 4)).astype(np.float32)

    def mapped(operation):
        def loss(x, kernel):
            return (operation(x, kernel, (2, 2), "SAME", dimension_numbers=IMAGES) ** 2).sum()

        return jax.vmap(jax.grad(loss, argnums=(0, 1)))(x, kernels)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
        mapped(convolve),
        mapped(lax.conv_general_dilated),
    )
    assert Conv(4, (3,)).init_with_output(jax.random.key(0), x[0, 0])[0].shape == (6, 6, 4)


def test_second_order_gradients_are_right():
    x, weights = arrays(2, (5, 5), (2, 2), (3, 3))

    def penalty(operation):
        def inner(x, k):
            return (operation(x, k, (2, 2), "SAME", dimension_numbers=IMAGES) ** 3).sum()

        return jax.grad(lambda k: (jax.grad(inner)(x, k) ** 2).sum())(weights)

    np.testing.assert_allclose(penalty(convolve), penalty(lax.conv_general_dilated), rtol=1e-3, atol=1e-2)


def test_each_of_several_devices_keeps_its_images():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, weights = arrays(64, (16, 16), (8, 8), (3, 3))
    gradient = jax.grad(lambda k, x: (convolve(x, k, (1, 1), "SAME", dimension_numbers=IMAGES) ** 2).sum())
    compiled = jax.jit(gradient).lower(weights, jax.device_put(x, sharding)).compile()
    assert "all-gather" not in compiled.as_text()
    expected = gradient(weights, x)
    found = compiled(weights, jax.device_put(x, sharding))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("batch", [8, 64])
def test_it_works_within_shard_map_where_weights_do_not_vary(batch):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    x, weights = arrays(batch, (32, 32), (8, 8), (3, 3))

    def gradient(operation):
        def loss(kernel, x):
            y = operation(x, kernel, (2, 2), "SAME", dimension_numbers=IMAGES)
            return jax.lax.pmean((y**2).mean(), "data")

        return jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec())(weights, x)

    np.testing.assert_allclose(gradient(convolve), gradient(lax.conv_general_dilated), rtol=1e-4, atol=1e-5)
