"""Convolution kernels of our own for CPU: compiled once by the machine's C++ compiler, called through `jax.ffi`.

The library is kept in the cache folder under a name made of all that decides it, so that another processor, compiler
or jaxlib gets its own. ``JAXNORM_KERNELS=off`` leaves them out.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

from jaxnorm import files

SOURCES = Path(__file__).with_name("cpu")
SWITCH = "JAXNORM_KERNELS"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
COST = "training takes about twice the time without them"
TRUSTED = (0,)  # users whose libraries are loaded beside one's own: root can do anything already
LIMIT = 300  # seconds for the compiler, which takes about 4

# A convolution is linear in its input, its kernel and whatever its output is multiplied by: each is the gradient with
# respect to it of the other two's product. What is computed from what, and the name of the function that does it.
PRODUCTS = {
    "y": ("forward", "x", "kernel"),
    "x": ("input_gradient", "y", "kernel"),
    "kernel": ("kernel_gradient", "x", "y"),
}
_LOADING = threading.Lock()


def take(x: jax.Array, padding: Sequence[tuple[int, int]]) -> bool:
    """Whether a convolution of `x` on CPU is ours to compute."""
    return x.dtype == jnp.float32 and min(map(min, padding)) >= 0 and alone() and missing() is None


def description() -> str:
    """Whose convolutions the network has: "jaxnorm" or "XLA", which agree but for their last bits."""
    return "jaxnorm" if jax.default_backend() == "cpu" and alone() and missing() is None else "XLA"


def alone() -> bool:
    """Whether there is but one CPU device: XLA cannot divide a call of ours, and would bring all images to each."""
    try:
        return jax.device_count("cpu") == 1
    except RuntimeError:  # JAX_PLATFORMS may leave the CPU out
        return False


def forward(y: Any, x: jax.Array, kernel: jax.Array, **settings: Any) -> jax.Array:
    """The convolution of x (N, H, W, C) and kernel (h, w, C, O), in the shape of `y`; `settings` as in `gradients`."""
    return _product("y", y, _attributes(**settings), x, kernel)


def gradients(x: jax.Array, kernel: jax.Array, g: jax.Array, **settings: Any) -> tuple[jax.Array, jax.Array]:
    """With respect to x and kernel, where the output's gradient is g.

    `settings` are the convolution's `strides`, its `padding` in pixels and `precision`. Unless that is the highest, 3x3
    convolutions of stride 1 whose channels fill vectors take half the multiplications, by Winograd's minimal filtering:
    as exact on the whole, but an output's error is relative to its largest input times its largest weight, what is not
    finite spreads over tiles of 2x2 outputs and may turn from inf to nan, and inputs above 8e37 overflow.
    """
    attributes = _attributes(**settings)
    by_input = _product("x", jax.typeof(x), attributes, g, kernel)
    return by_input, _product("kernel", jax.typeof(kernel), attributes, x, g)


def _attributes(
    *, strides: tuple[int, int], padding: Sequence[tuple[int, int]], precision: Any
) -> tuple[tuple[str, Any], ...]:
    """As the functions take them."""
    (top, _), (left, _) = padding  # below and to the right the shapes tell
    names = ("stride_y", "stride_x", "pad_y", "pad_x")
    numbers = zip(names, map(np.int64, (*strides, top, left)), strict=True)
    return (*numbers, ("exact", _is_highest(precision)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(of: str, like: Any, attributes: tuple[tuple[str, Any], ...], a: jax.Array, b: jax.Array) -> jax.Array:
    """What `PRODUCTS` names `of`, in the shape of `like`."""
    call = jax.ffi.ffi_call(f"jaxnorm_conv_{PRODUCTS[of][0]}", like, vmap_method="sequential")
    return call(a, b, **dict(attributes))


def _keep(
    of: str, like: Any, attributes: tuple[tuple[str, Any], ...], a: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(of, like, attributes, a, b), (a, b)


def _by_factors(
    of: str,
    like: Any,  # noqa: ARG001
    attributes: tuple[tuple[str, Any], ...],
    kept: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, ...]:
    _, *factors = PRODUCTS[of]
    given = {of: cotangent, **dict(zip(factors, kept, strict=True))}
    return tuple(
        _product(name, jax.typeof(given[name]), attributes, *(given[each] for each in PRODUCTS[name][1:]))
        for name in factors
    )


_product.defvjp(_keep, _by_factors)


def _is_highest(precision: Any) -> bool:
    """Whether every digit is asked for."""
    return bool({"highest", "float32"} & {str(each).rpartition(".")[2].lower() for each in np.atleast_1d(precision)})


def missing() -> str | None:
    """Loads the kernels, and compiles them where that has not been done before.

    Returns:
        None, or why there are none, in a few words: XLA's ways to the same numbers then take their place.
    """
    with _LOADING:  # two threads may ask at once, and XLA takes each name only once
        return _missing()


@functools.cache
def _missing() -> str | None:
    if is_off():
        return f"{SWITCH} is off"
    found = compiler()
    if found is None:
        return "there is no C++ compiler"
    names = [f"jaxnorm_conv_{name}" for name, *_ in PRODUCTS.values()]
    try:
        library = _library(found)
        functions = [getattr(library, name) for name in names]
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return f"{found} does not compile them: {_said(error)}"
    for name, function in zip(names, functions, strict=True):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    return None


def is_off() -> bool:
    """Whether the user wants none."""
    return os.environ.get(SWITCH, "").lower() in ("off", "0")


def compiler() -> str | None:
    """Path of the C++ compiler: `$CXX`, or the first on the PATH."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _said(error: Exception) -> str:
    """One line of what a compiler, or loading, says went wrong."""
    said = getattr(error, "stderr", None) or ""
    said = said.decode(errors="replace") if isinstance(said, bytes) else said  # what a timeout leaves
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines and isinstance(error, subprocess.CalledProcessError):
        lines = [f"it ends with code {error.returncode}"]
    elif not lines and isinstance(error, subprocess.TimeoutExpired):
        lines = [f"it takes more than {LIMIT} seconds"]
    line = next((line for line in lines if "error" in line), lines[0] if lines else str(error))
    return " ".join(line.split())[:200]


def _library(compiler: str) -> ctypes.CDLL:
    """The compiled kernels: from the cache, else compiled there, or in a folder of the moment if it takes none."""
    cache, name = files.cache_folder() / "kernels", _fingerprint(compiler)
    for kept in cache.glob(f"{name}-*.so"):
        with contextlib.suppress(OSError):
            # To load a damaged library would end the process, and one of another user's could do anything.
            if kept.stem == f"{name}-{_digest(kept)}" and _is_trusted(kept):
                return _loaded(kept)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        moment, takes_files = tempfile.TemporaryDirectory(dir=cache), True
    except OSError:
        moment, takes_files = tempfile.TemporaryDirectory(), False
    with moment as place:
        part = Path(place) / "kernels.so"
        command = [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCES / "kernels.cc"), "-o", str(part)]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=LIMIT)
        library = _loaded(part)
        if takes_files:
            with contextlib.suppress(OSError):  # where something else has the name
                part.replace(cache / f"{name}-{_digest(part)}.so")
    return library


def _loaded(file: Path) -> ctypes.CDLL:
    """The library in a file, or in a copy of it: its disk may run no programs."""
    try:
        return ctypes.CDLL(str(file))
    except OSError as refused:
        try:
            with tempfile.TemporaryDirectory() as moment:
                return ctypes.CDLL(shutil.copy(file, moment))
        except OSError:
            raise refused from None


def _is_trusted(file: Path) -> bool:
    """Whether nobody has made it but this user, or the machine's own."""
    return not hasattr(os, "getuid") or file.stat().st_uid in (*TRUSTED, os.getuid())


def _digest(path: Path) -> str:
    return files.sha256(path)[:32]


def _fingerprint(compiler: str) -> str:
    """Of source, flags, compiler, headers and processor."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=LIMIT).stdout
    names = "\n".join([*FLAGS, jaxlib.version.__version__, *processor().values()])
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]*")))
    return hashlib.sha256(sources + version + names.encode()).hexdigest()[:32]


def processor() -> dict[str, str]:
    """Name and instruction sets of the processor, as the operating system calls them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"model name": platform.processor(), "machine": platform.machine()}
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "flags", "Features", "CPU part"):  # what ``-march=native`` looks at
            found.setdefault(name.strip(), value.strip())
    return found
