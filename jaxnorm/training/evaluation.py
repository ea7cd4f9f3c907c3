"""Exact evaluation of a split: every image once, none dropped."""

from typing import Any

import flax.linen as nn
import numpy as np

from jaxnorm.training.step import Images, eval_step

EVAL_BATCH_SIZE = 200


def evaluate(model: nn.Module, variables: Any, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, classes) and pooled features (N, C), float32, of a split in evaluation mode, in its order.

    Batches have one size, so that one program serves; the last is padded and its surplus cut off.
    """
    num_images = images.label.shape[0]
    # All batches are queued before the first is fetched: the device never waits for the host.
    outputs = [
        eval_step(model, variables, images.batch(start, EVAL_BATCH_SIZE))
        for start in range(0, num_images, EVAL_BATCH_SIZE)
    ]
    logits, pooled = (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*outputs, strict=True))
    return logits[:num_images], pooled[:num_images]
