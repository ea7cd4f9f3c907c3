"""How fast each layer learns: norms of its kernel and gradient, and the angle by which an epoch turns the kernel."""

from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxnorm.study.training.images import Images
from jaxnorm.study.training.state import TrainState
from jaxnorm.study.training.step import next_gradients

KEPT = "kernels"
"""The entry of `TrainState.probes`: the kernels at the start of the epoch, by layer."""


def kernels(params: Any) -> dict[str, jax.Array]:
    """Every parameter named ``kernel``: the weights of convolutions and dense layers.

    Args:
        params: the network's parameters.

    Returns:
        By the path of their layer, such as "stage1_block1/conv1".

    Examples:
        >>> kernels({"stem_conv": {"kernel": 1.0, "bias": 2.0}})
        {'stem_conv': 1.0}
    """
    return {"/".join(path[:-1]): leaf for path, leaf in flatten_dict(params).items() if path[-1] == "kernel"}


def angle(before: np.ndarray, after: np.ndarray) -> float:
    """The angle between two arrays as vectors, by Kahan's formula, which loses no digits where it is small.

    Args:
        before: of any shape.
        after: of the same shape.

    Returns:
        2 atan2(|u - v|, |u + v|) of the unit vectors u and v, from 0 to pi; nan where an array is zero or not finite.

    Examples:
        >>> round(angle(np.array([1.0, 0.0]), np.array([2.0, 2.0])) / np.pi, 6)
        0.25
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = (x / _norm(x) for x in (np.asarray(before, np.float64), np.asarray(after, np.float64)))
    return float(2 * np.arctan2(_norm(u - v), _norm(u + v)))


def layer_rates(state: TrainState, images: Images, order: jax.Array, batch_size: int) -> dict[str, np.ndarray]:
    """What an epoch has done to each layer.

    Args:
        state: after the epoch; its `probes` hold the kernels from before it.
        images: the training split.
        order: of the next epoch, from `epoch_order`.
        batch_size: images a step.

    Returns:
        By layer, float32 (3,): the norm of its kernel, the norm of the gradient by it in the step that follows, and
        the angle in radians by which the kernel has turned in the epoch.
    """
    _, gradients = next_gradients(state, images, order, batch_size=batch_size)
    trees = state.probes[KEPT], kernels(state.params), kernels(gradients)
    before, after, gradient = (
        {layer: np.asarray(one, np.float64) for layer, one in images.devices.local(tree).items()} for tree in trees
    )
    return {
        layer: np.array([_norm(now), _norm(gradient[layer]), angle(before[layer], now)], np.float32)
        for layer, now in after.items()
    }


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(x.ravel()))
