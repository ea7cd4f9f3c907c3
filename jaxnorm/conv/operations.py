"""A convolution of images and its gradients, from operations that XLA does well on CPU, and from JAX's own."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

SLICE_BYTES = 4 * 2**20
"""Size of the two matrices of a weight gradient's product. Measured: 2 and 4 MiB take the same time, 8 MiB 8 % more."""
IMAGES = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]
Shape = tuple[int, ...]


def convolution(
    x: jax.Array, kernel: jax.Array, *, shape: Shape = (), strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    """JAX's convolution.

    Args:
        x: Input, (N, H, W, C).
        kernel: Weights, (h, w, C, O).
        shape: Of the result; it follows from the others.
        strides: Of the convolution.
        padding: In pixels.
        precision: Of JAX.

    Returns:
        The output, (N, H', W', O).
    """
    del shape
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=IMAGES, precision=precision)


def jax_input_gradient(g: jax.Array, kernel: jax.Array, *, shape: Shape, **settings: Any) -> jax.Array:
    """JAX's gradient with respect to the input.

    Args:
        g: Gradient with respect to the output, (N, H', W', O).
        kernel: Weights, (h, w, C, O).
        shape: Of the input.
        **settings: As for `convolution`.

    Returns:
        The gradient, (N, H, W, C).
    """
    x = varying_alike(jnp.zeros(shape, g.dtype), g)[0]
    return jax.vjp(lambda x: convolution(x, kernel, **settings), x)[1](g)[0]


def jax_kernel_gradient(x: jax.Array, g: jax.Array, *, shape: Shape, **settings: Any) -> jax.Array:
    """JAX's gradient with respect to the kernel.

    Args:
        x: Input, (N, H, W, C).
        g: Gradient with respect to the output, (N, H', W', O).
        shape: Of the kernel.
        **settings: As for `convolution`.

    Returns:
        The gradient, (h, w, C, O).
    """
    kernel = varying_alike(jnp.zeros(shape, g.dtype), g)[0]
    return jax.vjp(lambda kernel: convolution(x, kernel, **settings), kernel)[1](g)[0]


def varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays that vary over the same axes of shard_map. A batch varies, weights do not; our products need both to.

    Args:
        *arrays: The arrays.

    Returns:
        The same values.
    """

    def axes_of(array: jax.Array) -> frozenset[str]:
        aval: Any = jax.typeof(array)
        return aval.vma if hasattr(aval, "vma") else aval.mat.varying  # the name before and after jax 0.10

    every = frozenset().union(*map(axes_of, arrays))
    return tuple(
        lax.pcast(array, missing, to="varying") if (missing := tuple(every - axes_of(array))) else array
        for array in arrays
    )


def input_gradient(
    g: jax.Array, kernel: jax.Array, *, shape: Shape, strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    """dx[s*q + a - p] = sum over j of g[q - j] * kernel[s*j + a]: a convolution for all a at once, then interleaved.

    Args:
        g: As in `jax_input_gradient`.
        kernel: As in `jax_input_gradient`.
        shape: As in `jax_input_gradient`.
        strides: As in `convolution`.
        padding: As in `convolution`.
        precision: As in `convolution`.

    Returns:
        As `jax_input_gradient`.
    """
    g = lax.optimization_barrier(g)
    if strides == (1, 1):
        return jax_input_gradient(g, kernel, shape=shape, strides=strides, padding=padding, precision=precision)
    (height, width), (in_features, out_features) = shape[1:3], kernel.shape[2:]
    taps = [-(-size // stride) for size, stride in zip(kernel.shape[:2], strides, strict=True)]
    lengths = [
        (size - 1 + low) // stride + 1 for size, stride, (low, _) in zip(shape[1:3], strides, padding, strict=True)
    ]
    short = [(0, tap * stride - size) for tap, stride, size in zip(taps, strides, kernel.shape[:2], strict=True)]
    phases = jnp.pad(kernel, (*short, (0, 0), (0, 0)))
    phases = phases.reshape(taps[0], strides[0], taps[1], strides[1], in_features, out_features)
    # To (taps, taps, out_features, strides, strides, in_features), the taps in reverse.
    phases = phases.transpose(0, 2, 5, 1, 3, 4)[::-1, ::-1].reshape(*taps, out_features, -1)
    edges = [(tap - 1, length - size) for tap, length, size in zip(taps, lengths, g.shape[1:3], strict=True)]
    found = lax.conv_general_dilated(g, phases, (1, 1), edges, dimension_numbers=IMAGES, precision=precision)
    found = found.reshape(-1, *lengths, *strides, in_features).transpose(0, 1, 3, 2, 4, 5)
    found = found.reshape(-1, lengths[0] * strides[0], lengths[1] * strides[1], in_features)
    (top, _), (left, _) = padding
    return found[:, top : top + height, left : left + width]


def kernel_gradient(
    x: jax.Array, g: jax.Array, *, shape: Shape, strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    """dkernel[i,j] = sum over n,h,w of x[n, h*s+i-p, w*t+j-q]^T g[n,h,w], a few images at a time.

    Args:
        x: As in `jax_kernel_gradient`.
        g: As in `jax_kernel_gradient`.
        shape: As in `jax_kernel_gradient`.
        strides: As in `convolution`.
        padding: As in `convolution`.
        precision: As in `convolution`.

    Returns:
        As `jax_kernel_gradient`.
    """
    # Without the barrier XLA computes the normalization and ReLU before x again for every copy of x.
    x, g = lax.optimization_barrier((x, g))
    settings: dict[str, Any] = dict(shape=shape, padding=padding, precision=precision)
    product: Callable[[jax.Array, jax.Array], jax.Array]
    if strides == (1, 1):
        product = functools.partial(_stride_one_product, **settings)
    else:
        product = functools.partial(_product, **settings, strides=strides)
    size = _slice_size(len(x), _unrolled_bytes(x, shape, g, strides))
    num_slices = math.ceil(len(x) / size)
    if num_slices == 1:
        return product(x, g)
    # Zeros fill the last slice. Neighbouring images are in different slices, so that each of several devices keeps its
    # part of every slice.
    x, g = (
        jnp.pad(array, ((0, size * num_slices - len(array)), *[(0, 0)] * 3)).reshape(size, num_slices, *array.shape[1:])
        for array in (x, g)
    )

    def of_slice(index: jax.Array | int) -> jax.Array:
        return product(*(lax.dynamic_index_in_dim(array, index, axis=1, keepdims=False) for array in (x, g)))

    return lax.fori_loop(1, num_slices, lambda index, total: total + of_slice(index), of_slice(0))


def _slice_size(num_images: int, bytes_per_image: int) -> int:
    """Images in a slice: as many as fit; a power of two if it divides the batch, so that devices can divide both."""
    most = max(1, SLICE_BYTES // bytes_per_image)
    if num_images <= most:
        return num_images
    even = 1 << (most.bit_length() - 1)
    return even if num_images % even == 0 else math.ceil(num_images / math.ceil(num_images / most))


def _stride_one_product(
    x: jax.Array, g: jax.Array, *, shape: tuple[int, ...], padding: Padding, precision: Any
) -> jax.Array:
    """The product of x shifted along the width and g shifted along the height. Both matrices are wide."""
    (height, width), (in_features, out_features) = shape[:2], shape[2:]
    vertical, horizontal = padding
    columns = _shifted(_padded(x, 2, horizontal), 2, width, g.shape[2])
    # g[h - i + p] meets x[h], so the last row of the kernel comes first.
    edges = (height - 1 - vertical[0], x.shape[1] - g.shape[1] + vertical[0])
    rows = _shifted(_padded(g, 1, edges), 1, height, x.shape[1])
    found = _contract(columns, rows, precision).reshape(width, in_features, height, out_features)
    return found[:, :, ::-1].transpose(2, 0, 1, 3)


def _product(
    x: jax.Array, g: jax.Array, *, shape: tuple[int, ...], strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    """The product of the patches of x and g."""
    rows = _shifted(_padded(x, 1, padding[0]), 1, shape[0], g.shape[1], strides[0])
    patches = _shifted(_padded(rows, 2, padding[1]), 2, shape[1], g.shape[2], strides[1])
    found = _contract(patches, g, precision).reshape(shape[1], shape[0], *shape[2:])
    return found.transpose(1, 0, 2, 3)


def _contract(a: jax.Array, b: jax.Array, precision: Any) -> jax.Array:
    a, b = (array.reshape(-1, array.shape[-1]) for array in (a, b))
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), precision=precision)


def _shifted(array: jax.Array, axis: int, count: int, length: int, stride: int = 1) -> jax.Array:
    """As features side by side: the `length` entries along `axis` that begin at 0, 1, ... `count` - 1, by stride."""
    views = [lax.slice_in_dim(array, start, start + (length - 1) * stride + 1, stride, axis) for start in range(count)]
    return jnp.concatenate(views, axis=-1) if count > 1 else views[0]


def _padded(array: jax.Array, axis: int, edges: tuple[int, int]) -> jax.Array:
    """The array with zeros before and after `axis`. Negative edges cut, like negative padding of a convolution."""
    return lax.pad(array, jnp.zeros((), array.dtype), [(*edges, 0) if at == axis else (0, 0, 0) for at in range(4)])


def _unrolled_bytes(x: jax.Array, shape: Shape, g: jax.Array, strides: tuple[int, int]) -> int:
    """Size in bytes of the two matrices whose product is one image's weight gradient."""
    height, width, in_features, out_features = shape
    positions = g.shape[1] * g.shape[2]
    if strides == (1, 1):
        numbers = x.shape[1] * g.shape[2] * (width * in_features + height * out_features)
    else:
        numbers = positions * (height * width * in_features + out_features)
    return numbers * x.dtype.itemsize
