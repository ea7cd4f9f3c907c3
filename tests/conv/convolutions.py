"""Convolutions of random arrays: ours, and their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnorm.conv import kernels
from jaxnorm.conv.convolution import convolve

IMAGES = ("NHWC", "HWIO", "NHWC")
HIGHEST = lax.Precision.HIGHEST
ONE = ((1, 1), (1, 1))


def skip_without_compiler():
    if kernels.is_off():
        pytest.skip(f"{kernels.SWITCH} is off")
    if kernels.compiler() is None:
        pytest.skip("there is no C++ compiler")
    assert kernels.missing() is None


def all_three(exact=False):
    return sorted((name, exact) for name, *_ in kernels.PRODUCTS.values())


def arrays(batch, size, features, kernel, strides, padding, seed=0):
    """Input, kernel and a gradient of the output."""
    rng = np.random.default_rng(seed)
    lengths = [
        (length + sum(edges) - taps) // stride + 1
        for length, edges, taps, stride in zip(size, padding, kernel, strides, strict=True)
    ]
    shapes = (batch, *size, features[0]), (*kernel, *features), (batch, *lengths, features[1])
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def oracle(x, kernel, g, strides, padding):
    """The definition, in float64: output, and gradients by input and kernel."""
    x, kernel, g = (array.astype(np.float64) for array in (x, kernel, g))
    padded = np.pad(x, ((0, 0), *padding, (0, 0)))
    y, by_padded, by_kernel = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(kernel.shape[:2]):
        rows, columns = (
            slice(start, start + stride * (length - 1) + 1, stride)
            for start, stride, length in zip((i, j), strides, g.shape[1:3], strict=True)
        )
        part = padded[:, rows, columns]
        y += part @ kernel[i, j]
        by_kernel[i, j] = np.tensordot(part, g, ((0, 1, 2), (0, 1, 2)))
        by_padded[:, rows, columns] += g @ kernel[i, j].T
    (top, _), (left, _) = padding
    return y, by_padded[:, top : top + x.shape[1], left : left + x.shape[2]], by_kernel


def products(x, kernel, g, strides, padding, precision=None):
    fields = dict(strides=strides, padding=padding, precision=precision)
    arrays = {"y": g, "x": x, "kernel": kernel}
    return [
        np.asarray(kernels.product(of, *(arrays[name] for name in factors), shape=arrays[of].shape, **fields))
        for of, (_, *factors) in kernels.PRODUCTS.items()
    ]


def check(found, expected, tolerance=1e-5):
    for name, value, wanted in zip(("value", "by input", "by kernel"), found, expected, strict=True):
        assert value.shape == wanted.shape, name
        scale = np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def squares(x, kernel, **options):
    def loss(x, kernel):
        y = convolve(x, kernel, (1, 1), "SAME", dimension_numbers=IMAGES, **options)
        return (y.astype(jnp.float32) ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))(x, kernel)
