"""Layers of public packages called alike, from a NumPy array with the channels last; and what defines them."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # not the library whose numerics are tested here
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jaxnorm  # noqa: F401, before jax, for the flag that one jaxlib needs

# isort: split
import equinox
import haiku
import jax
import jax.numpy as jnp
import keras  # noqa: F401, after its backend is chosen
import numpy as np
import torch
from flax import linen as nn
from flax import nnx

KEY = jax.random.key(0)
CHANNELS = 8
Layer = Callable[[np.ndarray], Any]


def timm_layers() -> Any:
    """`timm.layers`. It imports torchvision, whose wheels on PyPI lack two operators beside PyTorch for CPUs."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm.layers

    return timm.layers


def sbx_layers() -> Any:
    """`sbx.common.jax_layers` alone: the package would import all of Stable Baselines."""
    root = importlib.util.find_spec("sbx")
    if root is None or root.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'sbx'")
    path = Path(root.submodule_search_locations[0]) / "common" / "jax_layers.py"
    spec = importlib.util.spec_from_file_location("sbx_jax_layers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


timm, sbx = timm_layers(), sbx_layers()


def linen(layer: nn.Module, **variables: Any) -> Layer:
    """A layer of flax.linen or jaxnorm with its initial variables, or with other ones."""

    def run(x: np.ndarray) -> Any:
        found = {**layer.init(KEY, jnp.asarray(x)), **variables}
        return jax.jit(lambda x: layer.apply(found, x, mutable=["batch_stats"])[0])(jnp.asarray(x))

    return run


def of_nnx(build: Callable[..., Any]) -> Layer:
    """A layer of flax.nnx or jaxnorm.nnx."""
    return lambda x: nnx.jit(lambda layer, x: layer(x))(build(rngs=nnx.Rngs(0)), jnp.asarray(x))


def of_haiku(build: Callable[[], Any], *arguments: Any) -> Layer:
    """A layer of Haiku."""

    def run(x: np.ndarray) -> Any:
        function = haiku.transform_with_state(lambda x: build()(x, *arguments))
        return jax.jit(function.apply)(*function.init(KEY, jnp.asarray(x)), None, jnp.asarray(x))[0]

    return run


def of_equinox(build: Callable[[], Any], last: int = 1) -> Layer:
    """A layer of Equinox, which takes one example without its batch: `last` axes of it, channels first."""

    def run(x: np.ndarray) -> Any:
        call: Any = build()
        for _ in range(x.ndim - last):
            call = jax.vmap(call)
        return jnp.moveaxis(jax.jit(call)(jnp.moveaxis(jnp.asarray(x), -1, -last)), -last, -1)

    return run


def equinox_batch_norm(x: np.ndarray) -> Any:
    """Equinox's batch norm in training, in its mode "batch"."""
    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(CHANNELS, "batch", mode="batch")
    call = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    return jnp.moveaxis(jax.jit(lambda x: call(x, state)[0])(jnp.moveaxis(jnp.asarray(x), -1, 1)), 1, -1)


def of_torch(layer: Any, first: bool = True) -> Layer:
    """A layer of PyTorch, timm or Keras; `first` has the channels first."""

    def run(x: np.ndarray) -> Any:
        given = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1) if first else x))
        y = layer(given).detach().numpy()
        return np.moveaxis(y, 1, -1) if first else y

    return run


def standardized(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """The definition of every norm with a mean."""
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def by_root_mean_square(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """The definition of every norm without a mean."""
    return x / np.sqrt((x**2).mean(axes, keepdims=True) + epsilon)


def images(mean: float, deviation: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
    """Random images, (16, 8, 8, C)."""
    return (np.random.default_rng(0).normal(size=(16, 8, 8, CHANNELS)) * deviation + mean).astype(dtype)
