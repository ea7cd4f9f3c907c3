"""Weight standardization: kernels of convolutions and dense layers, normalized before they are used."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnorm.errors import UserError
from jaxnorm.functional.moments import Moments, compute_moments, normalize


def standardize_weights(kernel: ArrayLike, *, epsilon: float = 1e-5, unbiased: bool = True) -> jax.Array:
    """(W - E[W]) / (std(W) + epsilon), with E and std of each output channel over all other axes.

    The standard deviation is unbiased, as in the paper. ``unbiased=False`` computes (W - E[W]) / sqrt(Var[W] + epsilon)
    with the biased variance, as timm does (with ``epsilon=1e-6``).

    References:
        Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
        https://arxiv.org/abs/1903.10520

    Args:
        kernel: Shape (..., I, O), real.
        epsilon: Added to the standard deviation, or to the biased variance.
        unbiased: Whether to follow the paper.

    Returns:
        The standardized kernel, in the kernel's dtype.

    Raises:
        UserError: If an output channel has a single weight.

    Examples:
        >>> import jax
        >>> from jaxnorm.functional import standardize_weights
        >>> kernel = standardize_weights(jax.random.normal(jax.random.key(0), (3, 3, 4, 8)))
        >>> bool(abs(kernel.mean((0, 1, 2))).max() < 1e-6)
        True
    """
    values, moments, count = _moments(kernel, "standardize_weights")
    if not unbiased:
        return normalize(values, moments, None, None, epsilon).astype(jnp.result_type(kernel))
    var = moments.var * (count / (count - 1))
    positive = var > 0  # the square root has no derivative at zero
    std = jnp.where(positive, jnp.sqrt(jnp.where(positive, var, 1)), 0)
    return (((values - moments.shift) - moments.offset) / (std + epsilon)).astype(jnp.result_type(kernel))


def standardize_and_scale_weights(
    kernel: ArrayLike, gain: ArrayLike | None = None, *, epsilon: float = 1e-4
) -> jax.Array:
    """gain * (W - E[W]) / sqrt(max(n Var[W], epsilon)), with E and Var of each output channel over its n weights.

    The variance is biased. The output of a convolution with this kernel has the variance of a normalized input, so that
    a network needs no other normalization.

    References:
        Brock, De and Smith 2021, "Characterizing signal propagation to close the performance gap in unnormalized
        ResNets", https://arxiv.org/abs/2101.08692

    Args:
        kernel: Shape (..., I, O), real.
        gain: Shape (O,); None for 1.
        epsilon: The least n Var[W].

    Returns:
        The kernel, in the kernel's dtype.

    Raises:
        UserError: If an output channel has a single weight.

    Examples:
        >>> import jax
        >>> from jaxnorm.functional import standardize_and_scale_weights
        >>> kernel = standardize_and_scale_weights(jax.random.normal(jax.random.key(0), (3, 3, 4, 8)))
        >>> bool(abs((kernel**2).sum((0, 1, 2)) - 1).max() < 1e-5)
        True
    """
    values, moments, count = _moments(kernel, "standardize_and_scale_weights")
    factor = lax.rsqrt(jnp.maximum(count * moments.var, epsilon))
    factor = factor if gain is None else factor * gain
    return (((values - moments.shift) - moments.offset) * factor).astype(jnp.result_type(kernel))


def _moments(kernel: ArrayLike, name: str) -> tuple[jax.Array, Moments, int]:
    """The kernel in float32 at least, its moments, and the number of weights of an output channel."""
    values = jnp.asarray(kernel, jnp.promote_types(jnp.result_type(kernel), jnp.float32))
    count = math.prod(values.shape[:-1])
    if count < 2:
        raise UserError(
            f"{name} needs more than one weight per output channel, but a kernel of shape {values.shape} has {count}; "
            "use a larger kernel or more input channels"
        )
    return values, compute_moments(values, tuple(range(values.ndim - 1))), count
