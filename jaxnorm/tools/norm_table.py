"""A table of a model's norm layers: what to look at when training or evaluation goes wrong."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.functional.inputs import canonical_axes
from jaxnorm.functional.moments import Moments
from jaxnorm.tools.batch_statistics import channel_moments, groups_of
from jaxnorm.tools.observed_models import (
    BATCH_GROUP_NORMS,
    BATCH_INSTANCE_NORMS,
    ITER_NORMS,
    NORMS,
    LayerCall,
    observed,
)

FEW = 16
"""From fewer values a variance has a relative standard deviation above 1/3."""
STALE_MEAN = 0.5
"""Standard deviations between the running mean and the mean of the batch."""
STALE_VAR = 2.0
"""Ratio of the running variance and the variance of the batch, or its inverse."""
DEAD = 1e-3
"""Standard deviation of the output of a channel that tells the next layer nothing."""
EXPLODING = 100.0
"""Root mean square of the output, which is about 1 when training begins."""


HEADING = ("layer", "class", "input", "values", "mean shift", "var ratio", "dead", "<= 0", "exploding", "gate", "")


@dataclasses.dataclass(frozen=True)
class NormReport:
    """One call of a norm layer.

    Attributes:
        path: Path of the layer in the model.
        layer: Name of its class.
        shape: Shape of its input.
        channels: Number of channels.
        values: Number of values from which one mean and variance is taken in training; the smallest, with a mask or
            where a layer mixes several. None for a layer without statistics.
        mean_shift: Distance between the running mean and the mean of the batch, in standard deviations of the batch;
            the largest of all channels. None without running values.
        var_ratio: The running variance over the variance of the batch, or its inverse where that is larger; the largest
            of all channels, epsilon added to both. None without running values.
        dead: Number of channels whose output has a standard deviation below `DEAD`.
        negative: Number of other channels whose output is nowhere above zero: dead, if a ReLU follows.
        exploding: Number of channels whose output is not finite or has a root mean square above `EXPLODING`.
        gate: Smallest, mean and largest gate: 1 is batch norm and 0 instance norm in a batch-instance norm, 1 is
            instance norm and 0 layer norm in an instance-layer norm. None without gates.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    channels: int
    values: int | None
    mean_shift: float | None
    var_ratio: float | None
    dead: int
    negative: int
    exploding: int
    gate: tuple[float, float, float] | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, in words.

        Returns:
            A few words for each fault.
        """
        limits = ((self.mean_shift, STALE_MEAN), (self.var_ratio, STALE_VAR))
        stale = any(found is not None and not found <= limit for found, limit in limits)  # NaN is stale, too
        faults = {
            "few values": self.values is not None and self.values < FEW,
            "stale": stale,
            "dead": self.dead > 0,
            "exploding": self.exploding > 0,
        }
        return tuple(name for name, found in faults.items() if found)


class NormTable(list[NormReport]):
    """A list of `NormReport` in the order of the calls; `print` shows it as a table."""

    def __str__(self) -> str:
        rows = [HEADING, *(_cells(row) for row in self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def inspect_norms(model: Any, variables: Any = None, batch: Any = None, **call: Any) -> NormTable:
    """A table of every norm layer of jaxnorm and flax in a model: one row for each call of a layer.

    The model runs once, in evaluation mode. Each row compares the running values of a layer with the mean and variance
    of what it really gets there, counts the values from which it takes a mean and variance in training, and counts the
    channels whose output is constant, nowhere positive, or far too large.

    Args:
        model: A linen or an NNX model.
        variables: The variables of a linen model. An NNX model has none: the batch follows it.
        batch: An input of the model, or a tuple of its positional arguments; as in training.
        call: Keyword arguments of the model's call; for linen also `rngs`. ``train=False`` is passed to a model that
            takes `train`, and so are `training`, `is_training` and ``use_running_average=True``.

    Returns:
        The rows, a list.

    Examples:
        >>> import jax
        >>> import flax.linen as nn
        >>> from jaxnorm import BatchNorm, inspect_norms
        >>> net = nn.Sequential([nn.Dense(4), BatchNorm(use_running_average=True), nn.relu, nn.LayerNorm()])
        >>> x = 3 + jax.random.normal(jax.random.key(0), (32, 8))
        >>> variables = net.init(jax.random.key(1), x)
        >>> variables["params"]["layers_1"]["scale"] *= jax.numpy.array([1, 0, 1, 1])
        >>> table = inspect_norms(net, variables, x)
        >>> table[0].warnings, table[0].dead, table[1].values
        (('stale', 'dead'), 1, 4)
        >>> print(table)  # doctest: +NORMALIZE_WHITESPACE
        layer     class      input    values  mean shift  var ratio  dead  <= 0  exploding  gate
        layers_1  BatchNorm  (32, 4)  32 ... stale, dead
        layers_3  LayerNorm  (32, 4)  4 ... few values...

        In NNX:

        >>> from flax import nnx
        >>> net = nnx.Sequential(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
        >>> [row.path for row in inspect_norms(net, x)]
        ['layers/1']
    """
    given, batch = observed(model, variables, batch, train=False, call=call)
    facts: dict[str, list[dict[str, Any]]] = {}  # the last ones count: nn.scan traces its layers several times

    def visit(call: LayerCall) -> tuple[jax.Array, Any]:
        y, layer = call.run(call.x), call.layer
        if not isinstance(layer, NORMS):
            return y, None
        channels = canonical_axes(y.ndim, getattr(layer, "axis", getattr(layer, "feature_axes", -1)), "axis")
        fact = dict(layer=type(layer).__name__, shape=y.shape, values=_set_size(layer, y.shape, channels))
        facts.setdefault(call.path, []).append({**fact, "epsilon": getattr(layer, "epsilon", 0)})
        largest = jnp.max(y.real, [axis for axis in range(y.ndim) if axis not in channels])
        x = channel_moments(call.x, channels, call.mask, groups_of(layer, call.x))
        return y, (x, channel_moments(y, channels, None), largest)

    found = jax.jit(lambda variables, batch: given.run(variables, batch, visit)[1])(given.variables, batch)
    values = given.values()
    return NormTable(
        _report(path, values.get(path, {}), *record, **fact)
        for path, calls in facts.items()
        for fact, record in zip(calls[-len(found[path]) :], jax.device_get(found[path]), strict=True)
    )


def _set_size(layer: Any, shape: tuple[int, ...], channels: tuple[int, ...]) -> int | None:
    """The number of values from which a layer takes one mean and variance in training."""
    if not hasattr(layer, "epsilon"):
        return None
    axes, sizes = {*range(len(shape))} - {*channels}, list(shape)
    if getattr(layer, "ghost_batch_size", None):
        sizes[0] = layer.ghost_batch_size
    if getattr(layer, "reduction_axes", None) is not None:
        axes = {*canonical_axes(len(shape), layer.reduction_axes, "reduction_axes")}
    elif hasattr(layer, "num_groups"):
        axes = {*range(len(shape))} - ({0} if not isinstance(layer, BATCH_GROUP_NORMS) else set())
    elif not (hasattr(layer, "axis") or isinstance(layer, ITER_NORMS)) or isinstance(layer, BATCH_INSTANCE_NORMS):
        axes -= {0}
    groups = 1
    if hasattr(layer, "num_groups"):
        groups = layer.num_groups or shape[-1] // layer.group_size
    return math.prod(sizes[axis] for axis in axes) // groups


def _report(
    path: str, own: Mapping[str, Any], x: Moments, y: Moments, largest: np.ndarray, *, epsilon: float, **fact: Any
) -> NormReport:
    mean_shift = var_ratio = gate = None
    spread = np.asarray(x.var, float) + epsilon
    var = np.diagonal(own["cov"], axis1=-2, axis2=-1).reshape(spread.shape) if "cov" in own else own.get("var")
    if "mean" in own:
        mean_shift = float(np.max(np.abs(own["mean"] - x.shift - x.offset) / np.sqrt(spread)))
    if var is not None:
        fact["values"] = min(fact["values"], int(x.count.min()))
        ratio = (np.asarray(var, float) + epsilon) / spread
        var_ratio = float(np.max(np.maximum(ratio, 1 / ratio)))
    if "gate" in own:
        gate = (float(own["gate"].min()), float(own["gate"].mean()), float(own["gate"].max()))
    dead = y.var < DEAD**2
    sound = np.abs(y.mean) ** 2 + y.var <= EXPLODING**2  # False where not finite, too
    return NormReport(
        path=path,
        channels=y.var.size,
        mean_shift=mean_shift,
        var_ratio=var_ratio,
        dead=int(dead.sum()),
        negative=int((~dead & (largest <= 0)).sum()),
        exploding=int((~sound).sum()),
        gate=gate,
        **fact,
    )


def _cells(row: NormReport) -> tuple[str, ...]:
    numbers = ("" if each is None else f"{each:.2g}" for each in (row.mean_shift, row.var_ratio))
    gate = "" if row.gate is None else "/".join(f"{each:.2f}" for each in row.gate)
    counts = (f"{count}/{row.channels}" for count in (row.dead, row.negative, row.exploding))
    values = "" if row.values is None else str(row.values)
    return (row.path, row.layer, str(row.shape), values, *numbers, *counts, gate, ", ".join(row.warnings))
