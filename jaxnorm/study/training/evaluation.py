"""Exact evaluation of a split: every image once, none dropped."""

from typing import Any

import flax.linen as nn
import numpy as np

from jaxnorm.study.training.step import Images, eval_steps

EVAL_BATCH_SIZE = 200
ACCELERATOR_EVAL_BATCH_SIZE = 2000


def evaluate(model: nn.Module, variables: Any, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, classes) and pooled features (N, C), float32, of a split in evaluation mode, in its order.

    Batches have one size, so that one program serves; the last is padded and its surplus cut off. Of a `Team`,
    `variables` and what is returned are stacked.
    """
    num_images, devices = len(images.label), images.devices
    on_cpu = devices.platform == "cpu"
    largest = EVAL_BATCH_SIZE if on_cpu else min(ACCELERATOR_EVAL_BATCH_SIZE, num_images)
    batch_size = -(-largest // devices.count) * devices.count
    # An accelerator takes the whole split in one program. On CPU, where a convolution in a loop crawls, all batches are
    # queued before the first is fetched: the device never waits for the host.
    num_steps = 1 if on_cpu else -(-num_images // batch_size)
    outputs = [
        eval_steps(model, variables, images, start, batch_size=batch_size, num_steps=num_steps)
        for start in range(0, num_images, batch_size * num_steps)
    ]
    logits, pooled = (
        np.concatenate([np.asarray(part) for part in parts], axis=-2) for parts in zip(*outputs, strict=True)
    )
    return logits[..., :num_images, :], pooled[..., :num_images, :]
