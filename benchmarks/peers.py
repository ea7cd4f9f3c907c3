"""What public implementations compute where arithmetic is a trap, beside the definition: python benchmarks/peers.py

Writes docs/peers.md. Each number is the largest error of the outputs against NumPy in extended precision, from the same
inputs. Needs PyTorch, timm, Keras, Haiku, Equinox and SBX, which `make peers` installs; about a minute on one core.
"""

import functools
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peer_layers import (  # first: it chooses Keras's backend
    CHANNELS,
    KEY,
    Layer,
    by_root_mean_square,
    equinox_batch_norm,
    images,
    linen,
    of_equinox,
    of_haiku,
    of_nnx,
    of_torch,
    sbx,
    standardized,
    timm,
)

# isort: split
import equinox
import haiku
import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from flax import linen as nn
from flax import nnx

import jaxnorm

PAGE = Path(__file__).resolve().parents[1] / "docs" / "peers.md"
LIBRARIES = ("jax", "flax", "dm-haiku", "equinox", "sbx-rl", "torch", "timm", "keras")


class Trap(NamedTuple):
    """A section of the page.

    Attributes:
        title: Its heading.
        words: What is computed, and from what.
        columns: Headings of the inputs.
        rows: By implementation, a cell for each input.
    """

    title: str
    words: str
    columns: tuple[str, ...]
    rows: dict[str, list[str]]


def errors(layers: dict[str, Layer], inputs: dict[str, np.ndarray], exact: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The largest error of each layer for each input."""

    def cell(layer: Layer, x: np.ndarray) -> str:
        y, expected = np.asarray(layer(x), np.longdouble), exact(np.asarray(x, np.longdouble))
        if not np.isfinite(y).all():
            return f"{100 * np.mean(~np.isfinite(y)):.0f} % nan or inf"
        if not y.any() and expected.any():
            return f"{np.abs(y - expected).max():.1e} (all zero)"
        return f"{np.abs(y - expected).max():.1e}"

    return {name: [cell(layer, x) for x in inputs.values()] for name, layer in layers.items()}


MEANS = {"mean 0": images(0), "mean 100": images(100), "mean 10,000": images(1e4)}
E5 = dict(epsilon=1e-5)


def batch() -> Trap:
    """Batch norm in training."""
    layers = {
        "jaxnorm": linen(jaxnorm.BatchNorm(False)),
        "jaxnorm.nnx": of_nnx(functools.partial(jaxnorm.nnx.BatchNorm, CHANNELS)),
        "flax.linen": linen(nn.BatchNorm(False)),
        "flax.linen, use_fast_variance=False": linen(nn.BatchNorm(False, use_fast_variance=False)),
        "flax.nnx": of_nnx(functools.partial(nnx.BatchNorm, CHANNELS)),
        "Haiku": of_haiku(lambda: haiku.BatchNorm(True, True, 0.9), True),
        "Equinox": equinox_batch_norm,
        "PyTorch": of_torch(torch.nn.BatchNorm2d(CHANNELS)),
        "Keras": of_torch(lambda x: keras.layers.BatchNormalization(epsilon=1e-5)(x, training=True), first=False),
    }
    words = "Batch norm in training, float32, standard deviation 1. E[x^2] - E[x]^2 cancels where the mean is large."
    return Trap("Variance far from zero: batch norm", words, (*MEANS,), errors(layers, MEANS, _batch))


def _batch(x: np.ndarray) -> np.ndarray:
    return standardized(x, (0, 1, 2), 1e-5)


def layer() -> Trap:
    """Layer norm over the channels."""
    layers = {
        "jaxnorm": linen(jaxnorm.LayerNorm(**E5)),
        "flax.linen": linen(nn.LayerNorm(**E5)),
        "flax.nnx": of_nnx(functools.partial(nnx.LayerNorm, CHANNELS, **E5)),
        "Haiku": of_haiku(lambda: haiku.LayerNorm(-1, True, True)),
        "Equinox": of_equinox(lambda: equinox.nn.LayerNorm(CHANNELS)),
        "PyTorch": of_torch(torch.nn.LayerNorm(CHANNELS), first=False),
        "timm": of_torch(timm.LayerNorm2d(CHANNELS, eps=1e-5)),
        "Keras": of_torch(keras.layers.LayerNormalization(**E5), first=False),
    }
    words = f"Layer norm over {CHANNELS} channels, float32, standard deviation 1."
    return Trap("Variance far from zero: layer norm", words, (*MEANS,), errors(layers, MEANS, _layer))


def _layer(x: np.ndarray) -> np.ndarray:
    return standardized(x, (3,), 1e-5)


def group() -> Trap:
    """Group norm, two groups."""
    layers = {
        "jaxnorm": linen(jaxnorm.GroupNorm(2, **E5)),
        "flax.linen": linen(nn.GroupNorm(2, **E5)),
        "flax.nnx": of_nnx(functools.partial(nnx.GroupNorm, CHANNELS, 2, **E5)),
        "Haiku": of_haiku(lambda: haiku.GroupNorm(2)),
        "Equinox": of_equinox(lambda: equinox.nn.GroupNorm(2, CHANNELS), last=3),
        "PyTorch": of_torch(torch.nn.GroupNorm(2, CHANNELS)),
        "timm": of_torch(timm.GroupNorm(CHANNELS, num_groups=2)),
        "Keras": of_torch(keras.layers.GroupNormalization(2, **E5), first=False),
    }
    words = "Group norm of two groups, float32, standard deviation 1."
    return Trap("Variance far from zero: group norm", words, (*MEANS,), errors(layers, MEANS, _group))


def _group(x: np.ndarray) -> np.ndarray:
    return standardized(x.reshape(16, 8, 8, 2, -1), (1, 2, 4), 1e-5).reshape(x.shape)


LARGE = {f"deviation {size}": images(0, size, np.float16) for size in (30, 300)}
HALF = dict(dtype=jnp.float16)


def mean_square() -> Trap:
    """RMS norm in float16."""
    layers = {
        "jaxnorm": linen(jaxnorm.RMSNorm(**HALF)),
        "flax.linen": linen(nn.RMSNorm(**HALF)),
        "flax.nnx": of_nnx(functools.partial(nnx.RMSNorm, CHANNELS, **HALF)),
        "Haiku": of_haiku(lambda: haiku.RMSNorm(-1, eps=1e-6)),
        "Equinox": of_equinox(lambda: equinox.nn.RMSNorm(CHANNELS, eps=1e-6, use_bias=False)),
        "PyTorch": of_torch(torch.nn.RMSNorm(CHANNELS, eps=1e-6, dtype=torch.float16), first=False),
        "timm": of_torch(timm.RmsNorm(CHANNELS, dtype=torch.float16), first=False),
        "Keras": of_torch(keras.layers.RMSNormalization(epsilon=1e-6, dtype="float16"), first=False),
    }
    words = (
        "RMS norm over the channels in float16, whose largest number is 65,504, of values with mean 0. Rounding the "
        "output alone gives 9.8e-04."
    )
    rows = errors(layers, LARGE, lambda x: by_root_mean_square(x, (3,), 1e-6))
    return Trap("Squares in float16: RMS norm", words, (*LARGE,), rows)


def filter_response() -> Trap:
    """Filter response norm in float16."""
    layers = {
        "jaxnorm": linen(jaxnorm.FilterResponseNorm(**HALF)),
        "timm": of_torch(timm.FilterResponseNormTlu2d(CHANNELS).half()),
    }
    words = "Filter response norm with its thresholded unit in float16, of values with mean 0."
    rows = errors(layers, LARGE, lambda x: np.maximum(by_root_mean_square(x, (1, 2), 1e-6), 0))
    return Trap("Squares in float16: filter response norm", words, (*LARGE,), rows)


def bfloat16() -> Trap:
    """Evaluation with running statistics in bfloat16."""
    x = np.asarray(jnp.asarray(images(30, 0.1), jnp.bfloat16))
    mean, var = (np.asarray(value, np.float64) for value in (np.full(CHANNELS, 30.06), np.full(CHANNELS, 0.01)))
    running = {"mean": jnp.asarray(mean, jnp.float32), "var": jnp.asarray(var, jnp.float32)}
    half = dict(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)

    def with_running(cls: Any) -> Layer:
        def build(rngs: Any) -> Any:
            layer = cls(CHANNELS, use_running_average=True, **half, rngs=rngs)
            for name, value in running.items():
                getattr(layer, name)[...] = value
            return layer

        return of_nnx(build)

    layers = {
        "jaxnorm": linen(jaxnorm.BatchNorm(True, **half), batch_stats=running),
        "jaxnorm.nnx": with_running(jaxnorm.nnx.BatchNorm),
        "flax.linen": linen(nn.BatchNorm(True, **half), batch_stats=running),
        "flax.nnx": with_running(nnx.BatchNorm),
    }
    rows = errors(layers, {"error": x}, lambda x: (x - mean) / np.sqrt(var + 1e-5))
    words = (
        "Batch norm in evaluation with dtype and param_dtype bfloat16: inputs of mean 30 and standard deviation 0.1, "
        "running mean 30.06, which bfloat16 does not have. Rounding an output between 2 and 4 alone gives 7.8e-03."
    )
    return Trap("Running statistics in bfloat16", words, ("error",), rows)


def float64() -> Trap:
    """A layer that is told to compute in float64."""
    inputs = {name: images(mean, 1.0, np.float64) for name, mean in (("mean 0", 0), ("mean 100", 100))}

    def ours(x: np.ndarray) -> Any:
        with jax.enable_x64(True):
            return np.asarray(linen(jaxnorm.BatchNorm(False, dtype=jnp.float64, param_dtype=jnp.float64))(x))

    def theirs(x: Any) -> Any:
        return keras.layers.BatchNormalization(epsilon=1e-5, dtype="float64")(x, training=True)

    layers = {
        "jaxnorm": ours,
        "PyTorch": of_torch(torch.nn.BatchNorm2d(CHANNELS, dtype=torch.float64)),
        "Keras": of_torch(theirs, first=False),
    }
    words = "Batch norm in training, dtype float64, standard deviation 1. An error of 1e-07 is float32's."
    return Trap("float64", words, (*inputs,), errors(layers, inputs, _batch))


def renorm() -> Trap:
    """Batch renorm with running statistics that are not the batch's."""
    inputs = {f"deviation {size:g}": images(0, size) for size in (1, 0.1, 0.01)}

    def running(x: np.ndarray) -> Any:
        mean, var = x.mean((0, 1, 2)) + 0.3 * x.std((0, 1, 2)), 1.5 * x.var((0, 1, 2))
        return {"mean": mean, "var": var}

    def exact(x: np.ndarray) -> np.ndarray:  # within the limits it is the norm by running statistics
        found = running(x)
        return (x - found["mean"]) / np.sqrt(found["var"] + 1e-3)

    def with_running(layer: nn.Module, **limits: int) -> Layer:
        return lambda x: linen(layer, batch_stats={**running(x), **limits})(x)

    layers = {
        "jaxnorm": with_running(jaxnorm.BatchRenorm(False, epsilon=1e-3)),
        "SBX": with_running(sbx.BatchRenorm(False, warmup_steps=0), r_max=3, d_max=5, steps=0),
    }
    words = (
        "Batch renorm in training after the warm-up, epsilon 0.001, float32. The running mean is 0.3 deviations off, "
        "the running variance 1.5 times the batch's: within the limits the output is that of the running statistics."
    )
    return Trap("Epsilon in batch renorm", words, (*inputs,), errors(layers, inputs, exact))


def masks() -> Trap:
    """Gradients where masked positions hold NaN."""
    x, mask = images(0), np.ones((16, 8, 8, 1), bool)
    mask[:, 4:] = False
    x[:, 4:] = np.nan

    def gradients(layer: nn.Module) -> list[str]:
        params = layer.init(KEY, jnp.ones(x.shape))["params"]

        def loss(params: Any, x: Any) -> Any:
            y = layer.apply({"params": params}, x, mask=mask)
            return jnp.sum(jnp.where(mask, y, 0) ** 3)

        found = jax.jit(jax.grad(loss, (0, 1)))(params, x)
        return ["finite" if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(each)) else "nan" for each in found]

    rows = {
        f"{name} {cls}": gradients(getattr(module, cls)())
        for cls in ("LayerNorm", "InstanceNorm")
        for name, module in (("jaxnorm", jaxnorm), ("flax.linen", nn))
    }
    words = "Masked positions hold NaN, as padding may. The loss is a sum over the other positions. Its gradients by"
    return Trap("NaN under a mask", f"{words}:", ("scale and bias", "the input"), rows)


def devices() -> Trap:
    """Statistics over devices with unequal masks."""
    x = images(0).reshape(2, 8, 8, 8, CHANNELS) + np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1, 1)
    mask = np.ones((2, 8, 8, 8, 1), bool)
    mask[1, 1:] = False  # the second device has one image
    values = np.asarray(x, np.float64)[np.broadcast_to(mask, x.shape)].reshape(-1, CHANNELS)

    def running_mean(layer: nn.Module) -> list[str]:
        variables = layer.init(KEY, x[0])
        call = functools.partial(layer.apply, variables, mutable=["batch_stats"])
        _, found = jax.vmap(lambda x, mask: call(x, mask=mask), axis_name="device")(x, mask)
        return [f"{np.abs(np.asarray(found['batch_stats']['mean'][0]) - values.mean(0)).max():.1e}"]

    given = dict(axis_name="device", momentum=0.0)
    modules = {"jaxnorm": jaxnorm, "flax.linen": nn}
    rows = {name: running_mean(each.BatchNorm(False, **given)) for name, each in modules.items()}
    words = "Batch norm over two devices (`axis_name`), the second with one image and seven masked: error of the mean."
    return Trap("Devices with unequal masks", words, ("error",), rows)


def single() -> Trap:
    """Training with one value per channel."""

    def outcome(call: Callable[[], Any]) -> list[str]:
        try:
            y = np.asarray(call())
        except ValueError:
            return ["refused"]
        return ["0 for any input" if not y.any() else "other"]

    x = images(3)[:1, :1, :1]
    rows = {
        "jaxnorm": outcome(lambda: jaxnorm.functional.batch_norm(x, train=True)[0]),
        "flax.linen": outcome(lambda: linen(nn.BatchNorm(False))(x)),
        "flax.nnx": outcome(lambda: of_nnx(functools.partial(nnx.BatchNorm, CHANNELS))(x)),
        "Haiku": outcome(lambda: of_haiku(lambda: haiku.BatchNorm(True, True, 0.9), True)(x)),
        "Equinox": outcome(lambda: equinox_batch_norm(x)),
        "PyTorch": outcome(lambda: of_torch(torch.nn.BatchNorm2d(CHANNELS))(x)),
        "Keras": outcome(
            lambda: of_torch(lambda x: keras.layers.BatchNormalization()(x, training=True), first=False)(x)
        ),
    }
    words = "Batch norm in training on one image of one pixel: the output does not depend on the input."
    return Trap("One value per channel", words, ("result",), rows)


TRAPS = (batch, layer, group, mean_square, filter_response, bfloat16, float64, renorm, masks, devices, single)


def page(traps: list[Trap]) -> str:
    """The page, in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    text = [
        "# What public implementations compute\n",
        "Where arithmetic is a trap, beside the definition. Each number is the largest error of an output against "
        "NumPy in\nextended precision, from the same inputs; outputs are about 1. Rebuilt by `make peers` (`python\n"
        "benchmarks/peers.py`); only what was run is here.\n",
        f"Versions: {versions};\nPython {sys.version.split()[0]}, CPU. Keras computes with PyTorch.\n",
    ]
    for trap in traps:
        lines = [f"## {trap.title}\n", f"{trap.words}\n", f"| | {' | '.join(trap.columns)} |"]
        lines += ["|---|" + "---:|" * len(trap.columns)]
        lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in trap.rows.items()]
        text.append("\n".join(lines) + "\n")
    return "\n".join(text)


if __name__ == "__main__":
    PAGE.write_text(page([trap() for trap in TRAPS]), encoding="utf-8")
    print(PAGE)
