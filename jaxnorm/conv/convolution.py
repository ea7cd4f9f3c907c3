"""A convolution that is fast on CPU too."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import ConvGeneralDilatedT
from jax import lax

from jaxnorm.conv import kernels

SLICE_BYTES = 4 * 2**20
"""Size of the two matrices of a weight gradient's product. Measured: 2 and 4 MiB take the same time, 8 MiB 8 % more."""
IMAGES = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **settings: Any,
) -> jax.Array:
    """y[n,h,w,o] = sum over i,j,c of x[n, h*s+i-p, w*t+j-q, c] * kernel[i,j,c,o]: `lax.conv_general_dilated`.

    On CPU, images (N, H, W, C) in float32 or float64, without dilation and groups, have faster values and gradients.
    Everything else, and every other platform, uses JAX's convolution. For such images, forward-mode differentiation and
    transposition are not possible on any platform: `jax.jvp`, `jax.jacfwd`, `jax.hessian` and `jax.linear_transpose`
    raise an error.

    In float32 on a single CPU device, output and both gradients are kernels of our own (`jaxnorm.conv.kernels`). These
    cannot be exported: `jax.export` needs ``JAXNORM_KERNELS=off``. A process that loads a serialized executable must
    call `jaxnorm.conv.kernels.missing` first. Without a C++ compiler, in float64, and with several CPU devices, the
    gradients consist of operations that XLA does well:

    - The gradient with respect to the kernel is a product of two matrices: shifted copies of the input along the width
      and of the output's gradient along the height, for as many images at a time as fit into the cache. JAX's own
      transposes both to put the batch last, which took most of a training step.
    - The gradient with respect to the input at stride s is s*s interleaved convolutions of the output's gradient, one
      for each position within a stride. JAX's own multiplies by the zeros between them.

    Args:
        lhs: Input, usually (N, H, W, C).
        rhs: Kernel, usually (h, w, C, O).
        window_strides: Strides s and t.
        padding: "SAME", "VALID", or pairs of numbers of pixels before and after each spatial axis.
        lhs_dilation: As in `lax.conv_general_dilated`.
        rhs_dilation: As in `lax.conv_general_dilated`.
        dimension_numbers: As in `lax.conv_general_dilated`.
        feature_group_count: As in `lax.conv_general_dilated`.
        **settings: Other arguments of `lax.conv_general_dilated`.

    Returns:
        The output, usually (N, H', W', O).

    Examples:
        >>> import jax.numpy as jnp
        >>> x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
        >>> float(convolve(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")).sum())
        36.0
    """
    plain = (
        set(lhs_dilation or (1,)) | set(rhs_dilation or (1,)) == {1}
        and feature_group_count == 1
        and settings.get("batch_group_count", 1) == 1
        and settings.get("preferred_element_type") is None
    )
    if not plain or not _are_images(lhs, rhs, dimension_numbers):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **settings,
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    edges = tuple((int(low), int(high)) for low, high in padding)
    if any(
        size + low + high < length or min(low, high) <= -size
        for size, length, (low, high) in zip(lhs.shape[1:3], rhs.shape[:2], edges, strict=True)
    ):  # no output, or only padding in it
        return lax.conv_general_dilated(lhs, rhs, window_strides, edges, dimension_numbers=IMAGES, **settings)
    lhs, rhs = _varying_alike(lhs, rhs)
    precision = settings.get("precision")
    if precision is None:  # the default here, so that gradients taken elsewhere have the same
        precision = getattr(jax.config, "jax_default_matmul_precision", None)
    return _convolve(lhs, rhs, tuple(map(int, window_strides)), edges, precision)


def _are_images(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    """Whether both are float32 or both float64, not empty, (N, H, W, C) and (h, w, C, O)."""
    if lhs.ndim != 4 or lhs.dtype != rhs.dtype or lhs.dtype not in (jnp.float32, jnp.float64):
        return False
    numbers, images = (lax.conv_dimension_numbers(lhs.shape, rhs.shape, each) for each in (dimension_numbers, IMAGES))
    return numbers == images and 0 not in (*lhs.shape, *rhs.shape)


def _varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays that vary over the same axes of shard_map. A batch varies, weights do not; our gradients need both to."""

    def axes_of(array: jax.Array) -> frozenset[str]:
        aval: Any = jax.typeof(array)
        return aval.vma if hasattr(aval, "vma") else aval.mat.varying  # the name before and after jax 0.10

    every = frozenset().union(*map(axes_of, arrays))
    return tuple(
        lax.pcast(array, missing, to="varying") if (missing := tuple(every - axes_of(array))) else array
        for array in arrays
    )


class Conv(nn.Conv):
    """y = x * kernel + bias: `flax.linen.Conv` with the same fields and variables, and fast on CPU.

    Replace the import and change nothing else. `convolve` describes when it is faster, and what it cannot do.

    Attributes:
        conv_general_dilated: The convolution, by default `convolve`. All other fields are those of `flax.linen.Conv`.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import Conv
        >>> layer = Conv(8, (3, 3), strides=2, padding=1)
        >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 9, 9, 3)))
        >>> y.shape, variables["params"]["kernel"].shape
        ((2, 5, 5, 8), (3, 3, 3, 8))
    """

    conv_general_dilated: ConvGeneralDilatedT | None = convolve


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding, precision: Any) -> jax.Array:
    settings: dict[str, Any] = dict(strides=strides, padding=padding, precision=precision)
    jax_convolution: Callable[..., jax.Array] = functools.partial(_jax_convolution, **settings)
    if not kernels.supports(x, padding):
        return jax_convolution(x, kernel)
    ours = functools.partial(kernels.forward, jax.eval_shape(jax_convolution, x, kernel), **settings)
    return lax.platform_dependent(x, kernel, cpu=ours, default=jax_convolution)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding, precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, strides, padding, precision), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: Padding, precision: Any, inputs: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    settings: dict[str, Any] = dict(strides=strides, padding=padding, precision=precision)
    ours = functools.partial(kernels.gradients if kernels.supports(inputs[0], padding) else _gradients, **settings)
    return lax.platform_dependent(*inputs, g, cpu=ours, default=functools.partial(_jax_gradients, **settings))


_convolve.defvjp(_forward, _backward)


def _jax_convolution(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=IMAGES, precision=precision)


def _jax_gradients(x: jax.Array, kernel: jax.Array, g: jax.Array, **settings: Any) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(functools.partial(_jax_convolution, **settings), x, kernel)[1](g)


def _gradients(
    x: jax.Array, kernel: jax.Array, g: jax.Array, *, strides: tuple[int, int], padding: Padding, precision: Any
) -> tuple[jax.Array, jax.Array]:
    """The gradients with respect to input and kernel, from operations that are fast in XLA on CPU."""
    # Without the barrier XLA computes the normalization and ReLU before x again for every copy of x.
    x, g = lax.optimization_barrier((x, g))
    settings = dict(strides=strides, padding=padding, precision=precision)
    by_input = (
        _jax_gradients(x, kernel, g, **settings)[0] if strides == (1, 1) else _input_gradient(x, kernel, g, **settings)
    )
    return by_input, _kernel_gradient(x, kernel, g, **settings)


def _input_gradient(
    x: jax.Array, kernel: jax.Array, g: jax.Array, *, strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    """dx[s*q + a - p] = sum over j of g[q - j] * kernel[s*j + a]: a convolution for all a at once, then interleaved."""
    (height, width), (in_features, out_features) = x.shape[1:3], kernel.shape[2:]
    taps = [-(-size // stride) for size, stride in zip(kernel.shape[:2], strides, strict=True)]
    lengths = [
        (size - 1 + low) // stride + 1 for size, stride, (low, _) in zip(x.shape[1:3], strides, padding, strict=True)
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


def _kernel_gradient(
    x: jax.Array, kernel: jax.Array, g: jax.Array, *, strides: tuple[int, int], padding: Padding, precision: Any
) -> jax.Array:
    """dkernel[i,j] = sum over n,h,w of x[n, h*s+i-p, w*t+j-q]^T g[n,h,w], a few images at a time."""
    settings: dict[str, Any] = dict(shape=kernel.shape, padding=padding, precision=precision)
    product: Callable[[jax.Array, jax.Array], jax.Array]
    if strides == (1, 1):
        product = functools.partial(_stride_one_product, **settings)
    else:
        product = functools.partial(_product, **settings, strides=strides)
    size = _slice_size(len(x), _unrolled_bytes(x, kernel, g, strides))
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


def _unrolled_bytes(x: jax.Array, kernel: jax.Array, g: jax.Array, strides: tuple[int, int]) -> int:
    """Size in bytes of the two matrices whose product is one image's weight gradient."""
    height, width, in_features, out_features = kernel.shape
    positions = g.shape[1] * g.shape[2]
    if strides == (1, 1):
        numbers = x.shape[1] * g.shape[2] * (width * in_features + height * out_features)
    else:
        numbers = positions * (height * width * in_features + out_features)
    return numbers * x.dtype.itemsize
