"""Our own convolution kernels for CPU, compiled at first use and called through `jax.ffi`.

``JAXNORM_KERNELS=off`` turns them off.
"""

import functools
import os
import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm import files
from jaxnorm.conv import library

SWITCH = "JAXNORM_KERNELS"
COST = "training takes about twice the time without them"

# A convolution is linear in its input and in its kernel. Output, gradient by input and gradient by kernel are each a
# product of two of the arrays x, kernel and y (or its gradient): of which two, and which function computes it.
PRODUCTS = {
    "y": ("forward", "x", "kernel"),
    "x": ("input_gradient", "y", "kernel"),
    "kernel": ("kernel_gradient", "x", "y"),
}
Attributes = tuple[tuple[str, Any], ...]
_LOADING = threading.Lock()


def supports(x: jax.Array, padding: Sequence[tuple[int, int]]) -> bool:
    """Whether our kernels compute a convolution of `x` on CPU.

    Args:
        x: Input, (N, H, W, C).
        padding: Pixels before and after each image axis.

    Returns:
        True for float32 on a single CPU device and padding that is not negative, if the kernels can be had.
    """
    return x.dtype == jnp.float32 and min(map(min, padding)) >= 0 and alone() and missing() is None


def description() -> str:
    """Whose convolutions a network uses. They differ in the last bits only.

    Returns:
        "jaxnorm" or "XLA".
    """
    return "jaxnorm" if jax.default_backend() == "cpu" and alone() and missing() is None else "XLA"


def alone() -> bool:
    """Whether there is only one CPU device. XLA cannot divide our calls: it would copy all images to every device.

    Returns:
        False with several CPU devices or none.
    """
    try:
        return jax.device_count("cpu") == 1
    except RuntimeError:  # JAX_PLATFORMS may leave out the CPU
        return False


def missing() -> str | None:
    """Loads the kernels, and compiles them the first time.

    Returns:
        None, or the reason why there are none, in a few words. XLA's convolutions are then used.
    """
    if is_off():
        return f"{SWITCH} is off"
    with _LOADING:  # XLA accepts each name once, and two threads may come at the same time
        return _missing()


def is_off() -> bool:
    """Whether the user has turned the kernels off.

    Returns:
        True if `JAXNORM_KERNELS` is "off" or "0".
    """
    return os.environ.get(SWITCH, "").lower() in ("off", "0")


def compiler() -> str | None:
    """Finds the C++ compiler.

    Returns:
        Path of `$CXX`, or of the first on the PATH; None without one.
    """
    return library.find_compiler()


def product(of: str, a: jax.Array, b: jax.Array, *, shape: tuple[int, ...], **settings: Any) -> jax.Array:
    """One of the three products, as a call of a kernel, without derivatives.

    Unless the precision is the highest, gradients of 3x3 convolutions of stride 1 whose channels fill vectors need half
    the multiplications, by Winograd's minimal filtering. On the whole this is as exact. But the error of an output is
    relative to its largest input times its largest weight, a value that is not finite spreads to a tile of 2x2 outputs
    and may change from inf to nan, and inputs above 8e37 overflow.

    Args:
        of: Which: a name in `PRODUCTS`.
        a: The first factor; images (N, H, W, C).
        b: The second factor; images or weights (h, w, C, O).
        shape: Of the product.
        **settings: The convolution's `strides`, its `padding` in pixels and its `precision`.

    Returns:
        The product.
    """
    like = jax.typeof(a).update(shape=shape)
    call = jax.ffi.ffi_call(f"jaxnorm_conv_{PRODUCTS[of][0]}", like, vmap_method="sequential")
    return call(a, b, **dict(_attributes(**settings)))


def _attributes(*, strides: tuple[int, int], padding: Sequence[tuple[int, int]], precision: Any) -> Attributes:
    """The arguments of the C++ functions."""
    (top, _), (left, _) = padding  # the padding below and on the right follows from the shapes
    names = ("stride_y", "stride_x", "pad_y", "pad_x")
    numbers = zip(names, map(np.int64, (*strides, top, left)), strict=True)
    return (*numbers, ("exact", _is_highest(precision)))


def _is_highest(precision: Any) -> bool:
    return bool({"highest", "float32"} & {str(each).rpartition(".")[2].lower() for each in np.atleast_1d(precision)})


@functools.cache
def _missing() -> str | None:
    found = compiler()
    if found is None:
        return "there is no C++ compiler"
    names = [f"jaxnorm_conv_{name}" for name, *_ in PRODUCTS.values()]
    try:
        functions = library.load(names, found, files.cache_folder() / "kernels")
    except library.Unavailable as error:
        return str(error)
    for name, function in zip(names, functions, strict=True):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    return None
