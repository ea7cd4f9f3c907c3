"""How smooth the loss is along the gradient while a network trains."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnorm.study.config import Config
from jaxnorm.study.training.devices import Devices
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.state import TrainState
from jaxnorm.study.training.step import next_gradients

LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Steps against the gradient that are tried, in multiples of the rate before the schedule lowers it."""
COLUMNS = ("loss", "gradient", *(f"loss_{one:g}" for one in LENGTHS), *(f"change_{one:g}" for one in LENGTHS))
"""What is recorded of each probed step, see `Along`."""
KEPT = "smoothness"
"""The entry of `TrainState.probes`: float32 (probed steps of an epoch, `COLUMNS`), nan before a step was probed."""


class Along(NamedTuple):
    """A function along the negative gradient g at a point x. The norm of a tree is that of all its numbers.

    Attributes:
        loss: f(x).
        gradient: |g|.
        losses: for each length t, f(x - t g).
        changes: for each length t, the norm of the gradient at x - t g less g.
    """

    loss: jax.Array
    gradient: jax.Array
    losses: list[jax.Array]
    changes: list[jax.Array]


def along_gradient(
    value_and_gradient: Callable[[Any], tuple[jax.Array, Any]], point: Any, lengths: Sequence[float]
) -> Along:
    """Probes a function along its gradient, by one gradient at the point and one more for each length.

    Args:
        value_and_gradient: gives f(x) and its gradient, a tree as the point.
        point: x, a tree of arrays.
        lengths: t, of x - t g.

    Returns:
        What was found. changes / (lengths * gradient) is the effective beta-smoothness at each length.

    References:
        Santurkar et al. 2018, arXiv 1805.11604.

    Examples:
        >>> bowl = jax.value_and_grad(lambda x: 3 * jnp.sum(x**2))
        >>> found = along_gradient(bowl, jnp.array([1.0, 2.0]), [0.5])
        >>> round(float(found.changes[0] / (0.5 * found.gradient)), 5)
        6.0
    """
    loss, gradient = value_and_gradient(point)
    losses, changes = [], []
    for length in lengths:
        there, other = value_and_gradient(_moved(point, gradient, length))
        losses.append(there)
        changes.append(_distance(other, gradient))
    return Along(loss, _norm(gradient), losses, changes)


def places(config: Config, steps_per_epoch: int) -> range:
    """The steps of an epoch before which the loss is probed.

    Args:
        config: the run.
        steps_per_epoch: batches in an epoch.

    Returns:
        Places in the epoch, from 0: the same in every epoch. None where the configuration asks for no probe.

    Examples:
        >>> list(places(Config(probe_smoothness=20), 33))
        [0, 20]
    """
    return range(0, steps_per_epoch, config.probe_smoothness) if config.probe_smoothness else range(0)


def unprobed(config: Config, steps_per_epoch: int) -> jax.Array:
    """What `TrainState.probes` keeps at the start of an epoch.

    Args:
        config: the run, with a probe.
        steps_per_epoch: batches in an epoch.

    Returns:
        Float32 nan, a row for each of the `places`.
    """
    return jnp.full((len(places(config, steps_per_epoch)), len(COLUMNS)), jnp.nan, jnp.float32)


def probed(state: TrainState, images: Images, order: jax.Array, config: Config, place: int) -> TrainState:
    """The state with its loss probed on the batch of the step that follows.

    Args:
        state: before the step.
        images: the training split.
        order: of the epoch, from `epoch_order`.
        config: the run.
        place: of the step in its epoch, one of `places`.

    Returns:
        The state; only its `probes` differ.
    """

    def value_and_gradient(params: Any) -> tuple[jax.Array, Any]:
        return next_gradients(state.replace(params=params), images, order, batch_size=config.batch_size)

    lengths = [config.peak_learning_rate * one for one in LENGTHS]
    found = along_gradient(value_and_gradient, state.params, lengths)
    row = [found.loss, found.gradient, *found.losses, *found.changes]
    every = config.probe_smoothness or 1
    kept = _with_row(state.probes[KEPT], place // every, row, images.devices)
    return state.replace(probes={**state.probes, KEPT: kept})


def smoothness_arrays(
    state: TrainState, config: Config, steps_per_epoch: int, devices: Devices
) -> dict[str, np.ndarray]:
    """What was probed in an epoch.

    Args:
        state: after the epoch.
        config: the run, with a probe.
        steps_per_epoch: batches in an epoch.
        devices: those of the run.

    Returns:
        ``step``: how many updates had been done, int32 (probed steps,); and float32 of the same shape for each of
        `COLUMNS`.
    """
    before = int(state.step) - steps_per_epoch
    table = np.asarray(devices.local(state.probes[KEPT]))
    steps = np.array([before + place for place in places(config, steps_per_epoch)], np.int32)
    return {"step": steps, **dict(zip(COLUMNS, table.T, strict=True))}


@jax.jit
def _moved(point: Any, gradient: Any, length: float) -> Any:
    return jax.tree.map(lambda x, g: x - length * g, point, gradient)


@jax.jit
def _distance(one: Any, other: Any) -> jax.Array:
    return optax.tree.norm(jax.tree.map(jnp.subtract, one, other))


@jax.jit
def _norm(tree: Any) -> jax.Array:
    return optax.tree.norm(tree)


@functools.partial(jax.jit, static_argnames="devices")
def _with_row(table: jax.Array, at: int, row: list[jax.Array], devices: Devices) -> jax.Array:
    return devices.gather(table.at[at].set(jnp.stack(row)))
