"""PyTorch's running variance, which is unbiased, and ours, which is biased."""

from typing import Any

import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.interop.tensors import array_of


def biased_variance(
    running_var: Any, values_per_channel: int, *, momentum: float = 0.1, num_batches_tracked: int
) -> np.ndarray:
    """Our running variance from PyTorch's: r + (v - r) * (n - 1) / n.

    n is `values_per_channel` in every training batch. r = (1 - momentum)^num_batches_tracked is the weight of the
    initial variance of 1, which is neither biased nor unbiased.

    Args:
        running_var: PyTorch's, any shape.
        values_per_channel: N * H * W of a training batch; at least 2.
        momentum: PyTorch's, the weight of the new value.
        num_batches_tracked: As in the state dict.

    Returns:
        The biased running variance, of the same shape.

    Raises:
        UserError: If `values_per_channel` is below 2.

    Examples:
        >>> float(biased_variance(2.0, 5, num_batches_tracked=1000))
        1.6
    """
    initial, factor = _initial_and_factor(values_per_channel, momentum, num_batches_tracked)
    return initial + (array_of(running_var) - initial) * factor


def unbiased_variance(
    running_var: Any, values_per_channel: int, *, momentum: float = 0.1, num_batches_tracked: int
) -> np.ndarray:
    """PyTorch's running variance from ours; the inverse of `biased_variance`.

    Args:
        running_var: Ours, any shape.
        values_per_channel: N * H * W of a training batch; at least 2.
        momentum: PyTorch's, the weight of the new value.
        num_batches_tracked: Number of updates.

    Returns:
        The unbiased running variance, of the same shape.

    Raises:
        UserError: If `values_per_channel` is below 2.

    Examples:
        >>> float(unbiased_variance(1.6, 5, num_batches_tracked=1000))
        2.0
    """
    initial, factor = _initial_and_factor(values_per_channel, momentum, num_batches_tracked)
    return initial + (array_of(running_var) - initial) * (1 / factor)


def _initial_and_factor(values_per_channel: int, momentum: float, num_batches_tracked: int) -> tuple[float, float]:
    if values_per_channel < 2:
        raise UserError(
            f"an unbiased variance takes at least 2 values per channel, but there is {values_per_channel}; "
            "give N * H * W of a training batch"
        )
    return (1 - momentum) ** int(num_batches_tracked), (values_per_channel - 1) / values_per_channel
