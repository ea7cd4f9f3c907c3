"""Exact evaluation of a split: every image once, none dropped."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.study.training.images import Images

EVAL_BATCH_SIZE = 200
ACCELERATOR_EVAL_BATCH_SIZE = 2000


def evaluate(model: nn.Module, variables: Any, images: Images) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits and pooled features of a split in evaluation mode, in the split's order.

    All batches have one size, so that one program serves; the last one is padded and its surplus cut off.

    Args:
        model: the network.
        variables: its variables.
        images: the split.

    Returns:
        Logits, float32 (N, classes), and pooled features, float32 (N, C). The latter are None for a network that does
        not sow ``pooled`` in ``intermediates``.
    """
    num_images, devices = len(images.label), images.devices
    on_cpu = devices.platform == "cpu"
    largest = EVAL_BATCH_SIZE if on_cpu else min(ACCELERATOR_EVAL_BATCH_SIZE, num_images)
    batch_size = -(-largest // devices.count) * devices.count
    # An accelerator takes the whole split in one program. On CPU a convolution in a loop is slow; instead all batches
    # are queued before the first one is fetched, so that the device never waits for the host.
    num_steps = 1 if on_cpu else -(-num_images // batch_size)
    outputs = [
        eval_steps(model, variables, images, start, batch_size=batch_size, num_steps=num_steps)
        for start in range(0, num_images, batch_size * num_steps)
    ]
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:num_images], *outputs)


@functools.partial(jax.jit, static_argnames=("model", "batch_size", "num_steps"))
def eval_steps(
    model: nn.Module, variables: Any, images: Images, start: jax.Array | int, *, batch_size: int, num_steps: int = 1
) -> tuple[jax.Array, jax.Array | None]:
    """As `evaluate`, of the N = `batch_size` * `num_steps` images from `start` on, in one dispatch.

    Args:
        model: the network (static).
        variables: its variables.
        images: the split.
        start: the first image; the last one fills the places beyond the split.
        batch_size: images in a forward pass (static).
        num_steps: forward passes (static).

    Returns:
        Logits and pooled features.
    """

    def step(start: jax.Array | int) -> tuple[jax.Array, jax.Array | None]:
        logits, sown = model.apply(variables, images.batch(start, batch_size), train=False, mutable=["intermediates"])
        (pooled,) = sown.get("intermediates", {}).get("pooled", (None,))
        return logits.astype(jnp.float32), None if pooled is None else pooled.astype(jnp.float32)

    if num_steps == 1:
        outputs = step(start)
    else:
        parts = jax.lax.map(step, start + batch_size * jnp.arange(num_steps))
        outputs = jax.tree.map(lambda part: part.reshape(-1, part.shape[-1]), parts)
    return images.devices.gather(outputs)
