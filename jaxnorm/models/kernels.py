"""Convolution kernels of our own for CPU: compiled once by the machine's C++ compiler, called through `jax.ffi`.

The library is kept in the cache folder under a name made of all that decides it, so that another processor, compiler
or jaxlib gets its own. ``JAXNORM_KERNELS=off`` leaves them out.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

from jaxnorm.files import cache_folder

SOURCES = Path(__file__).with_name("cpu")
SWITCH = "JAXNORM_KERNELS"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
TARGETS = ("forward", "input_gradient", "kernel_gradient")
LIMIT = 300  # seconds for the compiler, which takes about 4


def take(x: jax.Array, padding: Sequence[tuple[int, int]]) -> bool:
    """Whether a convolution of `x` on CPU is ours to compute."""
    return x.dtype == jnp.float32 and min(map(min, padding)) >= 0 and _alone() and missing() is None


def description() -> str:
    """Whose convolutions the network has: "jaxnorm" or "XLA", which agree but for their last bits."""
    return "jaxnorm" if jax.default_backend() == "cpu" and _alone() and missing() is None else "XLA"


def _alone() -> bool:
    """Whether there is but one CPU device: XLA cannot divide a call of ours, and would bring all images to each."""
    return jax.device_count("cpu") == 1


def forward(y: Any, x: jax.Array, kernel: jax.Array, **settings: Any) -> jax.Array:
    """The convolution of x (N, H, W, C) and kernel (h, w, C, O), in the shape of `y`; `settings` as in `gradients`."""
    return _call("forward", y, x, kernel, **settings)


def gradients(x: jax.Array, kernel: jax.Array, g: jax.Array, **settings: Any) -> tuple[jax.Array, jax.Array]:
    """With respect to x and kernel, where the output's gradient is g.

    `settings` are the convolution's `strides`, its `padding` in pixels and `precision`. Unless that is the highest, 3x3
    convolutions of stride 1 whose channels fill vectors take half the multiplications, by Winograd's minimal filtering,
    and lose about one more bit.
    """
    by_input = _call("input_gradient", jax.typeof(x), g, kernel, **settings)
    return by_input, _call("kernel_gradient", jax.typeof(kernel), x, g, **settings)


def _call(
    name: str,
    like: Any,
    a: jax.Array,
    b: jax.Array,
    *,
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
    precision: Any,
) -> jax.Array:
    call = jax.ffi.ffi_call(f"jaxnorm_conv_{name}", like, vmap_method="sequential")
    (top, _), (left, _) = padding  # below and to the right the shapes tell
    stride_y, stride_x, pad_y, pad_x = map(np.int64, (*strides, top, left))
    return call(a, b, stride_y=stride_y, stride_x=stride_x, pad_y=pad_y, pad_x=pad_x, exact=_is_highest(precision))


def _is_highest(precision: Any) -> bool:
    """Whether every digit is asked for, of this operation or of all."""
    if precision is None:
        precision = getattr(jax.config, "jax_default_matmul_precision", None)
    return bool({"highest", "float32"} & {str(each).rpartition(".")[2].lower() for each in np.atleast_1d(precision)})


@functools.cache
def missing() -> str | None:
    """Loads the kernels, and compiles them where that has not been done before.

    Returns:
        None, or why there are none, in a few words: XLA's ways to the same numbers then take their place.
    """
    if os.environ.get(SWITCH, "").lower() in ("off", "0"):
        return f"{SWITCH} is off"
    compiler = _compiler()
    if compiler is None:
        return "there is no C++ compiler"
    try:
        library = _library(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        reason = next((line for line in said.splitlines() if "error" in line), said).strip()
        return f"{compiler} does not compile them: {reason[:200]}"
    for name in TARGETS:
        name = f"jaxnorm_conv_{name}"
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return None


def _compiler() -> str | None:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _library(compiler: str) -> ctypes.CDLL:
    """The compiled kernels: from the cache, else compiled there, or in a folder of the moment if it is read-only."""
    folder = cache_folder() / "kernels"
    kept = folder / f"{_fingerprint(compiler)}.so"
    if kept.is_file():
        return ctypes.CDLL(str(kept))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        moment = tempfile.TemporaryDirectory(dir=folder)
    except OSError:
        moment = tempfile.TemporaryDirectory()
    with moment as name:
        part = Path(name) / kept.name
        command = [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCES / "kernels.cc"), "-o", str(part)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT)
        library = ctypes.CDLL(str(part))
        if part.parent.parent == folder:
            part.replace(kept)
    return library


def _fingerprint(compiler: str) -> str:
    """Of source, flags, compiler, headers and processor."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=LIMIT).stdout
    names = "\n".join([*FLAGS, jaxlib.version.__version__, _processor()])
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]*")))
    return hashlib.sha256(sources + version + names.encode()).hexdigest()[:32]


def _processor() -> str:
    """What ``-march=native`` looks at."""
    names = ("model name", "flags", "Features", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))
