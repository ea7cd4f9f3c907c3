"""A convolution that is fast on CPU too."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import ConvGeneralDilatedT
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxnorm.conv import bilinear
from jaxnorm.conv.operations import IMAGES
from jaxnorm.functional.meshes import explicit_mesh, spec_on, with_auto_axes


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
    Everything else, symbolic sizes, and every other platform use JAX's convolution.

    In float32 on a single CPU device, output and both gradients are kernels of our own (`jaxnorm.conv.kernels`), in
    forward mode and in higher derivatives too. A process that loads a serialized executable must call
    `jaxnorm.conv.kernels.missing` first. Programs of `jax.export` hold no kernel. There, without a C++ compiler, in
    float64, and with several CPU devices, the gradients consist of operations that XLA does well:

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
    mesh = explicit_mesh((lhs, rhs))
    if mesh is not None and settings.get("out_sharding") is None:
        options: Any = (window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count)

        def operation(arrays: tuple[jax.Array, jax.Array]) -> jax.Array:
            return convolve(*arrays, *options, **settings)

        numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
        spec = _output_spec(mesh, operation, lhs, rhs, numbers)
        # XLA gives a multiple of the right gradients where positions are sharded, or the batch with groups, and a mesh
        # has other axes too. So each device has all of those.
        grouped = feature_group_count * settings.get("batch_group_count", 1) > 1
        kept = () if grouped else numbers.lhs_spec[:2]
        lhs = _resharded(mesh, lhs, [names if at in kept else None for at, names in enumerate(spec_on(mesh, lhs))])
        kept = () if grouped else numbers.out_spec[:2]
        whole = PartitionSpec(*[names if at in kept else None for at, names in enumerate(spec)])
        return _resharded(mesh, with_auto_axes(mesh, operation, (lhs, rhs), whole), spec)
    plain = (
        set(lhs_dilation or (1,)) | set(rhs_dilation or (1,)) == {1}
        and feature_group_count == 1
        and settings.get("batch_group_count", 1) == 1
        and settings.get("preferred_element_type") is None
        and settings.get("out_sharding") is None
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
    edges: Any = tuple((int(low), int(high)) for low, high in padding)
    if any(
        size + low + high < length or min(low, high) <= -size
        for size, length, (low, high) in zip(lhs.shape[1:3], rhs.shape[:2], edges, strict=True)
    ):  # no output, or only padding in it
        return lax.conv_general_dilated(lhs, rhs, window_strides, edges, dimension_numbers=IMAGES, **settings)
    precision = settings.get("precision")
    if precision is None:  # the default here, so that gradients taken elsewhere have the same
        precision = getattr(jax.config, "jax_default_matmul_precision", None)
    strides: Any = tuple(map(int, window_strides))
    return bilinear.convolve(lhs, rhs, strides=strides, padding=edges, precision=precision)


def _resharded(mesh: Any, array: jax.Array, spec: Iterable[Any]) -> jax.Array:
    wanted = PartitionSpec(*spec)
    return array if spec_on(mesh, array) == wanted else jax.reshard(array, NamedSharding(mesh, wanted))


def _output_spec(
    mesh: Any, operation: Callable[..., jax.Array], lhs: jax.Array, rhs: jax.Array, numbers: lax.ConvDimensionNumbers
) -> PartitionSpec:
    """Batch and positions sharded as those of `lhs`, and features as those of `rhs`, where it is possible."""
    shape = jax.eval_shape(operation, tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (lhs, rhs))).shape
    of_lhs, of_rhs = spec_on(mesh, lhs), spec_on(mesh, rhs)
    batch, features, *positions = numbers.out_spec
    wanted = dict(
        zip((batch, *positions), [of_lhs[at] for at in (numbers.lhs_spec[0], *numbers.lhs_spec[2:])], strict=True)
    )
    wanted[features] = of_rhs[numbers.rhs_spec[0]]
    spec: list[Any] = [None] * len(shape)
    used: set[str] = set()
    for at, names in wanted.items():
        of_axis = {names} if isinstance(names, str) else set(names or ())
        if not of_axis & used and shape[at] % math.prod(mesh.shape[name] for name in of_axis) == 0:
            spec[at] = names
            used |= of_axis
    return PartitionSpec(*spec)


def _are_images(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    """Whether both are float32 or both float64, not empty, of known sizes, (N, H, W, C) and (h, w, C, O)."""
    if not all(isinstance(length, int) for length in (*lhs.shape, *rhs.shape)):  # symbolic, see `jax.export`
        return False
    if lhs.ndim != 4 or lhs.dtype != rhs.dtype or lhs.dtype not in (jnp.float32, jnp.float64):
        return False
    numbers, images = (lax.conv_dimension_numbers(lhs.shape, rhs.shape, each) for each in (dimension_numbers, IMAGES))
    return numbers == images and 0 not in (*lhs.shape, *rhs.shape)


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
