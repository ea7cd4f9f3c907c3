"""Batch statistics of a whole model, computed anew from data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.functional import iter_norm
from jaxnorm.functional.group import count_groups
from jaxnorm.functional.inputs import Axes, prepare
from jaxnorm.functional.moments import Moments, compute_moments
from jaxnorm.tools.observed_models import (
    BATCH_GROUP_NORMS,
    ITER_NORMS,
    RUNNING_NORMS,
    LayerCall,
    ObservedModel,
    Values,
    observed,
)


def recompute_statistics(model: Any, variables: Any = None, batches: Any = None, **call: Any) -> Any:
    """Running statistics that are the mean and variance over all given batches, under fixed weights.

    Moving averages of training mix the statistics of many different weights. Here every `BatchNorm` of jaxnorm or flax
    gets the exact mean and variance of all values that it normalizes while the model goes through the batches in
    training mode: E[Var] + Var[E] over batches, not an average of their variances. So do `BatchInstanceNorm`,
    `SwitchableNorm`, `EvoNormB0` (the variance), `BatchGroupNorm` (of each group) and `IterNorm` (the covariance).
    Masked values do not count. Outside of a mapped axis, build the model without `axis_name`: the new variables fit
    both.

    A `BatchRenorm` is refused: in training, its output depends on the running values that are to be computed.

    Args:
        model: A linen or an NNX model.
        variables: The variables of a linen model. An NNX model has none: the batches follow it.
        batches: An iterable of the model's inputs, each an array or a tuple of positional arguments.
        call: Keyword arguments of the model's call; for linen also `rngs`. ``train=True`` is passed to a model that
            takes `train`, and so are `training`, `is_training` and ``use_running_average=False``.

    Returns:
        The variables, or a copy of the NNX model, with the new running values. A channel without any value keeps its
        own.

    Raises:
        UserError: If there is no batch or none of these layers, if another layer has running values, or if the output
            in training mode depends on running values (batch renormalization, frozen statistics). If the mask of an
            `IterNorm` differs by channel.

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
    """Count, mean and biased variance of sets of values, in float64; for `IterNorm` the covariance as `var`."""

    count: np.ndarray
    mean: np.ndarray
    var: np.ndarray

    def union(self, other: "_Pool") -> "_Pool":
        count = self.count + other.count
        weight = other.count / np.maximum(count, 1)
        difference = other.mean - self.mean
        mean, square = self.mean + weight * difference, np.abs(difference) ** 2
        if self.is_covariance:
            weight, difference = (each.reshape(self.var.shape[:-1])[..., None] for each in (weight, difference))
            square = difference * difference.swapaxes(-1, -2)
        return _Pool(count, mean, (1 - weight) * self.var + weight * other.var + weight * (1 - weight) * square)

    @property
    def is_covariance(self) -> bool:
        return self.var.ndim > self.count.ndim

    def statistics(self, old: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The running values in the dtype of the old ones, which remain where there was no value."""
        some = {"mean": self.count > 0, "var": self.count > 0}
        new = {"mean": self.mean, "var": self.var}
        if self.is_covariance:
            some["cov"], new["cov"] = some["var"].reshape(self.var.shape[:-1])[..., None], self.var
        names = [name for name in new if name in old]
        return {name: jnp.where(some[name], jnp.asarray(new[name], old[name].dtype), old[name]) for name in names}


def _pool(moments: Moments) -> _Pool:
    shift, offset, var, count = (np.asarray(each, np.promote_types(each.dtype, float)) for each in moments)
    return _Pool(count, shift + offset, var)


def _visit(call: LayerCall) -> tuple[jax.Array, Moments | None]:
    """Records the moments of a layer's input, as its running values are."""
    layer = call.layer
    if not isinstance(layer, RUNNING_NORMS):
        return call.run(call.x), None
    moments = channel_moments(call.x, getattr(layer, "axis", -1), call.mask, groups_of(layer, call.x))
    if isinstance(layer, ITER_NORMS):
        if call.mask is not None and jnp.ndim(call.mask) and jnp.shape(call.mask)[-1] != 1:
            raise UserError(
                "`recompute_statistics` needs masks of an IterNorm that are the same for all channels, but the last "
                f"axis of that of `{call.path}` has length {jnp.shape(call.mask)[-1]}; give one of length 1"
            )
        statistics = iter_norm(call.x, train=True, group_size=layer.group_size, momentum=0.0, mask=call.mask)[1]
        moments = moments._replace(var=statistics["cov"])
    return call.run(call.x), moments


def groups_of(layer: Any, x: jax.Array) -> int | None:
    """The number of groups of channels over which a layer takes batch statistics.

    Args:
        layer: Any.
        x: Its input.

    Returns:
        The number for a `BatchGroupNorm`, or None.
    """
    if not isinstance(layer, BATCH_GROUP_NORMS):
        return None
    return count_groups(x.shape[-1], layer.num_groups, layer.group_size, "batch_group_norm")


def channel_moments(x: jax.Array, channels: Axes, mask: jax.Array | None, num_groups: int | None = None) -> Moments:
    """Mean and variance of each channel, in float32 at least.

    Args:
        x: Any numeric array.
        channels: Axis or axes of the channels.
        mask: Broadcastable to x; False excludes a value. None excludes none.
        num_groups: With it, a channel has the mean and variance of its group.

    Returns:
        Arrays with the axes of the channels alone, `count` too.
    """
    given = prepare(x, mask, None, True, "batch_norm")
    axes = given.other_axes(given.axes(channels, "axis"))
    reduced = axes if num_groups is None else tuple(range(x.ndim))
    moments = compute_moments(given.x, reduced, num_groups=num_groups, mask=given.mask)
    count = jnp.broadcast_to(jnp.asarray(moments.count, moments.var.dtype), moments.var.shape)
    return Moments(*(each.squeeze(axes) for each in moments._replace(count=count)))


def _check(given: ObservedModel, run: Callable[[Any, Any], Any], batch: Any, output: Any) -> None:
    """Checks that running values are those of batch norms, and that the output in training mode has none in it."""
    paths = output[1].keys()
    if others := sorted(given.running() - paths):
        raise UserError(
            "`recompute_statistics` computes the running values of the layers of jaxnorm and of flax's BatchNorm that "
            f"the model calls, but `{others[0]}` has some and is none of these; take one of them there"
        )
    if not paths:
        raise UserError(
            "`recompute_statistics` needs a layer with running values, such as BatchNorm of jaxnorm or flax, but the "
            "model calls none; give one"
        )
    old = given.values()
    values = {path: {name: old[path][name] for name in ("mean", "var", "cov") if name in old[path]} for path in paths}
    unknown = jax.tree.map(lambda value: jnp.full_like(value, jnp.nan), values)

    def spreads(values: Values) -> bool:
        found = run(given.replace(values).variables, batch)
        pairs = zip(jax.tree.leaves(output), jax.tree.leaves(found), strict=True)
        return any(bool((jnp.isnan(after) & ~jnp.isnan(before)).any()) for before, after in pairs)

    if spreads(unknown):
        layers = ", ".join(f"`{path}`" for path in paths if spreads({path: unknown[path]}))
        raise UserError(
            "`recompute_statistics` needs layers that normalize by the batch in training, but the output in training "
            f"mode depends on running values of {layers}; unfreeze these, and take BatchNorm in place of BatchRenorm"
        )
