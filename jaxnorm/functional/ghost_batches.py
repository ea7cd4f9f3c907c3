"""Ghost batches: statistics over equal parts of a batch (Hoffer et al. 2017, https://arxiv.org/abs/1705.08741)."""

import jax
import jax.numpy as jnp

from jaxnorm.errors import UserError
from jaxnorm.functional.moments import Moments, combine


def split_batch(array: jax.Array, size: int, axis_name: str | None = None) -> jax.Array:
    """The ghost batches of an array.

    Args:
        array: Shape (N, ...).
        size: Samples in a ghost batch.
        axis_name: The layer's mapped axis, which must be None.

    Returns:
        Shape (N / size, size, ...).

    Raises:
        UserError: If `size` does not divide N, or if statistics are to be combined over devices too.
    """
    if size < 1 or array.shape[0] % size:
        raise UserError(f"ghost_batch_size must divide the batch of {array.shape[0]}, but is {size}; choose a divisor")
    if axis_name is not None:
        raise UserError(
            f"a ghost batch must be on one device, but axis_name is {axis_name!r}; set it or ghost_batch_size to None"
        )
    return array.reshape(-1, size, *array.shape[1:])


def ghost_moments(samples: Moments, size: int, axis_name: str | None = None) -> Moments:
    """The moments of each ghost batch from those of its samples.

    Args:
        samples: Of each sample, shape (N, ...).
        size: Samples in a ghost batch.
        axis_name: The layer's mapped axis, which must be None.

    Returns:
        Shape (N / size, 1, ...).

    Raises:
        UserError: As `split_batch`.
    """

    def split(leaf: jax.Array) -> jax.Array:
        return split_batch(leaf, size, axis_name)

    counts = split(samples.count) if jnp.ndim(samples.count) else samples.count
    return combine(Moments(split(samples.shift), split(samples.offset), split(samples.var), counts), (1,))


def repeat_for_samples(moments: Moments, size: int) -> Moments:
    """The moments of each sample's ghost batch.

    Args:
        moments: Of each ghost batch, shape (N / size, 1, ...).
        size: Samples in a ghost batch.

    Returns:
        Shape (N, ...).
    """

    def repeat(leaf: jax.Array) -> jax.Array:
        return jnp.repeat(jnp.squeeze(leaf, 1), size, axis=0)

    return Moments(repeat(moments.shift), repeat(moments.offset), repeat(moments.var), moments.count)


def average(moments: Moments) -> Moments:
    """Mean of the ghost batches' means and mean of their variances, weighted by their counts.

    Args:
        moments: Of each ghost batch, shape (N / size, ...).

    Returns:
        Shape (...), with the total count.
    """
    count = jnp.broadcast_to(jnp.asarray(moments.count, moments.var.dtype), moments.var.shape)
    total = count.sum(axis=0)
    mean, var = ((count * leaf).sum(axis=0) / jnp.maximum(total, 1) for leaf in (moments.mean, moments.var))
    return Moments(mean, jnp.zeros_like(mean), var, total)
