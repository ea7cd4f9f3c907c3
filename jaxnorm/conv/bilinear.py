"""A convolution of images as primitives of JAX, with their derivatives, batches and programs for each platform.

A convolution is linear in its input and in its kernel. Output, gradient by input and gradient by kernel are three
bilinear functions, and the derivatives and transposes of each are the two others. So JAX differentiates them as often
as it likes, in either mode, and each is one of our kernels on CPU.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from jaxnorm.conv import kernels, operations
from jaxnorm.conv.kernels import PRODUCTS

Form = Callable[..., jax.Array]
JAX_FORMS: dict[str, Form] = {
    "y": operations.convolution,
    "x": operations.jax_input_gradient,
    "kernel": operations.jax_kernel_gradient,
}
CPU_FORMS: dict[str, Form] = {
    "y": operations.convolution,
    "x": operations.input_gradient,
    "kernel": operations.kernel_gradient,
}
_PRIMITIVES = {of: Primitive(f"jaxnorm_conv_{name}") for of, (name, *_) in PRODUCTS.items()}


def convolve(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int], padding: operations.Padding, precision: Any
) -> jax.Array:
    """The convolution of images, both arrays of one dtype and not empty.

    Args:
        x: Input, (N, H, W, C).
        kernel: Weights, (h, w, C, O).
        strides: Of the convolution.
        padding: In pixels; the kernel fits into the padded input.
        precision: Of JAX.

    Returns:
        The output, (N, H', W', O).
    """
    positions = (
        (length + low + high - taps) // stride + 1
        for length, (low, high), taps, stride in zip(x.shape[1:3], padding, kernel.shape[:2], strides, strict=True)
    )
    settings = dict(strides=strides, padding=padding, precision=precision, ours=kernels.supports(x, padding))
    x, kernel = operations.varying_alike(x, kernel)
    return _product("y", (len(x), *positions, kernel.shape[3]), x, kernel, **settings)


def _product(of: str, shape: tuple[int, ...], a: Any, b: Any, **settings: Any) -> jax.Array:
    """The product `of` in `PRODUCTS`, of this shape."""
    return _PRIMITIVES[of].bind(a, b, shape=shape, **settings)


def _type_of(a: Any, b: Any, *, shape: tuple[int, ...], **settings: Any) -> Any:  # noqa: ARG001
    return a.update(shape=shape, weak_type=False)


def _transposed(of: str, at: int, cotangent: Any, a: Any, b: Any, *, shape: Any, **settings: Any) -> jax.Array:
    """The cotangent of the factor number `at`, from the cotangent of the product `of` and the other factor."""
    del shape  # of the product
    names = PRODUCTS[of][1:]
    unknown = (a, b)[at]
    arrays = {of: cotangent, names[1 - at]: (a, b)[1 - at]}
    return _product(names[at], unknown.aval.shape, *(arrays[name] for name in PRODUCTS[names[at]][1:]), **settings)


def _batched(
    of: str, arrays: Any, axes: Any, *, shape: tuple[int, ...], ours: bool, **settings: Any
) -> tuple[jax.Array, int]:
    a, b = (each if axis is None else jnp.moveaxis(each, axis, 0) for each, axis in zip(arrays, axes, strict=True))
    product: Form = functools.partial(_product, of, ours=ours, **settings)
    if of != "kernel" and axes[1] is None:  # more images
        found = product((len(a) * shape[0], *shape[1:]), a.reshape(-1, *a.shape[2:]), b)
        return found.reshape(len(a), *shape), 0
    mapped = tuple(None if axis is None else 0 for axis in axes)
    side_by_side = jax.vmap(functools.partial(JAX_FORMS[of], shape=shape, **settings), mapped)

    def in_turn(a: jax.Array, b: jax.Array) -> jax.Array:
        def one(each: Any) -> jax.Array:
            return product(shape, each.get("a", a), each.get("b", b))

        return lax.map(
            one, {name: each for name, each, axis in zip("ab", (a, b), axes, strict=True) if axis is not None}
        )

    return lax.platform_dependent(a, b, cpu=in_turn, default=side_by_side) if ours else side_by_side(a, b), 0


def _program_for_cpu(of: str, context: Any, a: Any, b: Any, *, ours: bool, **settings: Any) -> Any:
    # A program of `jax.export` runs where our kernels may not be.
    ours = ours and not context.module_context.lowering_parameters.for_export
    form: Form = functools.partial(kernels.product, of) if ours else CPU_FORMS[of]
    return mlir.lower_fun(functools.partial(form, **settings), multiple_results=False)(context, a, b)


def _program(of: str, context: Any, a: Any, b: Any, *, ours: bool, **settings: Any) -> Any:  # noqa: ARG001
    return mlir.lower_fun(functools.partial(JAX_FORMS[of], **settings), multiple_results=False)(context, a, b)


for _of, _primitive in _PRIMITIVES.items():
    _primitive.def_impl(functools.partial(xla.apply_primitive, _primitive))
    _primitive.def_abstract_eval(_type_of)
    ad.defbilinear(_primitive, functools.partial(_transposed, _of, 0), functools.partial(_transposed, _of, 1))
    batching.primitive_batchers[_primitive] = functools.partial(_batched, _of)
    mlir.register_lowering(_primitive, functools.partial(_program, _of))
    mlir.register_lowering(_primitive, functools.partial(_program_for_cpu, _of), platform="cpu")
