"""Batch statistics of a whole model, computed anew from data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.functional.inputs import Axes, prepare
from jaxnorm.functional.moments import Moments, compute_moments
from jaxnorm.tools.observed_models import BATCH_NORMS, LayerCall, ObservedModel, Values, observed


def recompute_statistics(model: Any, variables: Any = None, batches: Any = None, **call: Any) -> Any:
    """Running statistics that are the mean and variance over all given batches, under fixed weights.

    Moving averages of training mix the statistics of many different weights. Here every `BatchNorm` of jaxnorm or flax
    gets the exact mean and variance of all values that it normalizes while the model goes through the batches in
    training mode: E[Var] + Var[E] over batches, not an average of their variances. Masked values do not count. Outside
    of a mapped axis, build the model without `axis_name`: the new variables fit both.

    Args:
        model: A linen or an NNX model.
        variables: The variables of a linen model. An NNX model has none: the batches follow it.
        batches: An iterable of the model's inputs, each an array or a tuple of positional arguments.
        call: Keyword arguments of the model's call; for linen also `rngs`. ``train=True`` is passed to a model that
            takes `train`, and so are `training`, `is_training` and ``use_running_average=False``.

    Returns:
        The variables, or a copy of the NNX model, with the new `mean` and `var`. A channel without any value keeps its
        own.

    Raises:
        UserError: If there is no batch or no `BatchNorm`, if another layer has running values, or if the output in
            training mode depends on running values (batch renormalization, frozen statistics).

    References:
        Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", https://arxiv.org/abs/2105.07576

    Examples:
        >>> import jax
        >>> import flax.linen as nn
        >>> from jaxnorm import BatchNorm, recompute_statistics
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train):
        ...         return BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        >>> x = 3 + jax.random.normal(jax.random.key(0), (6, 32, 8))
        >>> variables = Net().init(jax.random.key(1), x[0], train=True)
        >>> variables = recompute_statistics(Net(), variables, x)  # six batches of 32
        >>> y = Net().apply(variables, x.reshape(-1, 8), train=False)
        >>> print(f"{abs(y.mean()):.3f} {y.std():.3f}")
        0.000 1.000

        In NNX:

        >>> from flax import nnx
        >>> net = nnx.Sequential(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
        >>> net = recompute_statistics(net, x)
        >>> net.eval()
        >>> print(f"{net(x.reshape(-1, 8)).std():.3f}")
        1.000
    """
    given, batches = observed(model, variables, batches, train=True, call=call)

    @jax.jit
    def run(variables: Any, batch: Any) -> Any:
        return given.run(variables, batch, _visit)

    total: dict[str, _Pool] = {}
    for batch in batches:
        output = run(given.variables, batch)
        if not total:
            _check(given, run, batch, output)
        for path, calls in jax.device_get(output[1]).items():
            for moments in calls:
                total[path] = total[path].union(_pool(moments)) if path in total else _pool(moments)
    if not total:
        raise UserError("`recompute_statistics` needs at least one batch, but found none; give an iterable of batches")
    old = given.values()
    return given.replace({path: pool.statistics(old[path]) for path, pool in total.items()}).result


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Count, mean and biased variance of sets of values, in float64."""

    count: np.ndarray
    mean: np.ndarray
    var: np.ndarray

    def union(self, other: "_Pool") -> "_Pool":
        count = self.count + other.count
        weight = other.count / np.maximum(count, 1)
        difference = other.mean - self.mean
        var = (1 - weight) * self.var + weight * other.var + weight * (1 - weight) * np.abs(difference) ** 2
        return _Pool(count, self.mean + weight * difference, var)

    def statistics(self, old: Mapping[str, Any]) -> dict[str, jax.Array]:
        """`mean` and `var` in the dtype of the old ones, which remain where there was no value."""
        new = {"mean": self.mean, "var": self.var}
        return {name: jnp.where(self.count > 0, jnp.asarray(new[name], old[name].dtype), old[name]) for name in new}


def _pool(moments: Moments) -> _Pool:
    shift, offset, var, count = (np.asarray(each, np.promote_types(each.dtype, float)) for each in moments)
    return _Pool(count, shift + offset, var)


def _visit(call: LayerCall) -> tuple[jax.Array, Moments | None]:
    """Records the moments of a batch norm's input."""
    if not isinstance(call.layer, BATCH_NORMS):
        return call.run(call.x), None
    return call.run(call.x), channel_moments(call.x, call.layer.axis, call.mask)


def channel_moments(x: jax.Array, channels: Axes, mask: jax.Array | None) -> Moments:
    """Mean and variance of each channel, in float32 at least.

    Args:
        x: Any numeric array.
        channels: Axis or axes of the channels.
        mask: Broadcastable to x; False excludes a value. None excludes none.

    Returns:
        Arrays with the axes of the channels alone, `count` too.
    """
    given = prepare(x, mask, None, True, "batch_norm")
    axes = given.other_axes(given.axes(channels, "axis"))
    moments = compute_moments(given.x, axes, mask=given.mask)
    count = jnp.broadcast_to(jnp.asarray(moments.count, moments.var.dtype), moments.var.shape)
    return Moments(*(each.squeeze(axes) for each in moments._replace(count=count)))


def _check(given: ObservedModel, run: Callable[[Any, Any], Any], batch: Any, output: Any) -> None:
    """Checks that running values are those of batch norms, and that the output in training mode has none in it."""
    paths = output[1].keys()
    if others := sorted(given.running() - paths):
        raise UserError(
            "`recompute_statistics` computes the running values of each BatchNorm that the model calls, but "
            f"`{others[0]}` has some and is none of these; take a BatchNorm of jaxnorm or flax there"
        )
    if not paths:
        raise UserError(
            "`recompute_statistics` needs a BatchNorm of jaxnorm or flax, but the model calls none; give one"
        )
    old = given.values()
    unknown = {path: {name: jnp.full_like(old[path][name], jnp.nan) for name in ("mean", "var")} for path in paths}

    def spreads(values: Values) -> bool:
        found = run(given.replace(values).variables, batch)
        pairs = zip(jax.tree.leaves(output), jax.tree.leaves(found), strict=True)
        return any(bool((jnp.isnan(after) & ~jnp.isnan(before)).any()) for before, after in pairs)

    if spreads(unknown):
        layers = ", ".join(f"`{path}`" for path in paths if spreads({path: unknown[path]}))
        raise UserError(
            "`recompute_statistics` needs layers that normalize by the batch in training, but the output in training "
            f"mode depends on running values of {layers}; unfreeze these, and take no batch renormalization"
        )
