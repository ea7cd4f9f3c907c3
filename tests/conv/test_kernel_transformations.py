"""Our own kernels under JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from jaxnorm.conv.convolution import convolve
from tests.conv.convolutions import IMAGES, ONE, arrays

STRIDES = pytest.mark.parametrize("strides", [(1, 1), (2, 2)], ids=["one", "two"])


def agree(calls, transformed, tolerance=1e-4):
    """Our kernels, which are called, and XLA's convolution give the same."""
    found = transformed(convolve)
    assert calls
    calls.clear()
    expected = transformed(lax.conv_general_dilated)
    assert not calls
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()),
        found,
        expected,
    )


def gradient_with(operation, strides):
    def loss(x, kernel):
        return (operation(x, kernel, strides, ONE, dimension_numbers=IMAGES) ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))


@STRIDES
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=["both", "images", "kernels"])
def test_over_mapped_axes(axes, strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)
    given = [
        np.stack([each, 2 * each, -each]) if axis == 0 else each for each, axis in zip((x, kernel), axes, strict=True)
    ]
    agree(calls, lambda operation: jax.vmap(gradient_with(operation, strides), in_axes=axes)(*given))


@STRIDES
def test_gradients_of_gradients(strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)

    def penalty(operation):
        def size(x, kernel):
            by_x, by_kernel = gradient_with(operation, strides)(x, kernel)
            return (by_x**2).sum() + (by_kernel**3).sum()

        return jax.jit(jax.grad(size, argnums=(0, 1)))(x, kernel)

    agree(calls, penalty)


def test_within_shard_map(calls):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec
    x, kernel, _ = arrays(4, (6, 6), (16, 16), (3, 3), (1, 1), ONE)

    def gradient(operation):
        def loss(kernel, x):
            y = operation(x, kernel, (1, 1), "SAME", dimension_numbers=IMAGES)
            return lax.pmean((y**2).mean(), "data")

        return jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec())(kernel, x)

    agree(calls, gradient)


@STRIDES
def test_with_a_donated_input(strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)

    def step(operation):
        images, weights = jnp.array(x), jnp.array(kernel)
        found = jax.jit(gradient_with(operation, strides), donate_argnums=(0, 1))(images, weights)
        assert images.is_deleted() and weights.is_deleted()
        return found

    agree(calls, step)


def test_within_loops(calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), (1, 1), ONE)
    xs = np.stack([x, 2 * x, -x])

    def looped(operation):
        def step(kernel, x):
            by_x, by_kernel = gradient_with(operation, (1, 1))(x, kernel)
            return kernel - 1e-4 * by_kernel, by_x

        return lax.scan(step, kernel, xs), lax.map(lambda x: gradient_with(operation, (1, 1))(x, kernel), xs)

    agree(calls, looped)


@STRIDES
def test_forward_mode_and_transposition(strides, calls):
    x, kernel, g = arrays(2, (5, 4), (16, 16), (3, 3), strides, ONE)
    few, weights = x[:1, :, :2, :1], kernel[:, :, :1, :2]

    def transformed(operation):
        def convolved(*arrays):
            return operation(*arrays, strides, ONE, dimension_numbers=IMAGES)

        def size(x):
            return (convolved(x, weights) ** 3).sum()

        return (
            jax.jvp(convolved, (x, kernel), (x + 1, kernel - 1)),
            jax.jvp(jax.grad(lambda k: (convolved(x, k) ** 3).sum()), (kernel,), (kernel,)),
            jax.jacfwd(size)(few),
            jax.hessian(size)(few),
            jax.linear_transpose(lambda x: convolved(x, kernel), x)(g),
            jax.linear_transpose(lambda kernel: convolved(x, kernel), kernel)(g),
            jax.vmap(lambda x: jax.jvp(convolved, (x, kernel), (x, kernel)))(np.stack([x, -x])),
        )

    agree(calls, lambda operation: jax.jit(lambda: transformed(operation))())


@STRIDES
def test_an_exported_program_has_no_kernel(strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)
    gradient = jax.jit(gradient_with(convolve, strides))
    exported = export.export(gradient)(x, kernel)
    assert "@jaxnorm_conv" not in exported.mlir_module()
    expected = gradient(x, kernel)
    assert calls
    # JAX's own convolution has no gradient for an unknown height at stride 2.
    shape = "b, h, 5, 16" if strides == (1, 1) else "b, 6, 5, 16"
    images = jax.ShapeDtypeStruct(export.symbolic_shape(shape), x.dtype)
    symbolic = export.export(gradient)(images, kernel)
    for program in (exported, symbolic):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max()),
            program.call(x, kernel),
            expected,
        )
