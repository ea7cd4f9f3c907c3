"""Running statistics: the averages over batches that evaluation takes."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnorm.errors import UserError
from jaxnorm.functional.inputs import Input
from jaxnorm.functional.moments import Moments

Running = Mapping[str, ArrayLike]


def start_or_check(
    running: Running | None,
    given: Input,
    feature_axes: tuple[int, ...],
    train: bool,
    names: tuple[str, ...] = ("mean", "var"),
) -> dict[str, jax.Array]:
    """The running statistics; mean 0 and variance 1 if training starts without any.

    Args:
        running: The statistics by name, or None.
        given: The input.
        feature_axes: As from `canonical_axes`.
        train: Whether the batch's statistics are taken.
        names: Those that there are, of `mean` and `var`.

    Returns:
        The statistics of these names.

    Raises:
        UserError: If they are missing.
    """
    if running is None and train:
        shape = tuple(given.x.shape[axis] for axis in feature_axes)
        dtype = given.x.real.dtype
        starts = {"mean": jnp.zeros, "var": jnp.ones}
        return {name: starts[name](shape, dtype) for name in names}
    if running is None or not set(names) <= set(running):
        found = "None" if running is None else f"a dict of {', '.join(sorted(running)) or 'nothing'}"
        raise UserError(
            f"{given.name}'s running statistics must be a dict of {' and '.join(names)}, but are {found}; "
            "give what training returned"
        )
    return {name: jnp.asarray(running[name]) for name in names}


def running_moments(running: dict[str, jax.Array], given: Input, feature_axes: tuple[int, ...]) -> Moments:
    """Running statistics as moments that broadcast to the input, without a count.

    Args:
        running: `mean` and `var`.
        given: The input.
        feature_axes: As from `canonical_axes`.

    Returns:
        The moments.
    """
    mean, var = (given.parameter(running[name], feature_axes, f"running {name}") for name in ("mean", "var"))
    return Moments(mean, jnp.zeros_like(mean), var, None)


def updated(running: dict[str, jax.Array], batch: Moments, momentum: float) -> dict[str, jax.Array]:
    """momentum * running + (1 - momentum) * batch, except in channels without a value.

    Args:
        running: `mean` and `var`.
        batch: Moments of the batch, broadcastable to the input.
        momentum: Weight of the old value.

    Returns:
        The new `mean` and `var`.
    """
    result = {}
    for name, old in running.items():
        value = batch.mean if name == "mean" else batch.var
        result[name] = old
        if isinstance(batch.count, float) and not batch.count:
            continue
        new = momentum * old + (1 - momentum) * value.reshape(old.shape)
        if not isinstance(batch.count, float):
            counts = jnp.broadcast_to(batch.count, value.shape).reshape(old.shape)
            new = jnp.where(counts > 0, new, old)
        result[name] = new
    return result
