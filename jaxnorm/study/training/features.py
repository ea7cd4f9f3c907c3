"""How features are distributed: exact quantiles of every layer over a whole split, in little memory.

Ten thousand images give 5.7 GB of activations in the study's network. Instead of keeping them, the values are counted:
a float32, its bits reordered so that they sort as integers, falls into one of 65,536 buckets by its upper half. The
counts of a first pass tell the bucket that holds a wanted order statistic; those of a second pass, by the lower half
within such buckets, tell the value itself. Two forward passes and a few tables of 65,536 counts a layer: exact, and the
first table is the layer's histogram.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.study.training.step import Images

BUCKETS = 2**16
Features = dict[str, jax.Array]


def feature_quantiles(features: np.ndarray, percentages: Sequence[float]) -> list[float]:
    """Exact quantiles of all values of `features` together, linear between neighbours.

    Args:
        features: activations of any shape; the study takes the pooled ones, (images, 64), in evaluation mode.
        percentages: within 0..100.

    Example:
        >>> feature_quantiles(np.arange(101.0), (1, 50))
        [1.0, 50.0]
    """
    with np.errstate(invalid="ignore"):  # features that are not finite: so are their quantiles
        return [float(value) for value in np.quantile(features.astype(np.float64), np.asarray(percentages) / 100)]


def capture(model: nn.Module, variables: Any, image: jax.Array) -> Features:
    """The outputs of all convolutions, before norm and ReLU, and the pooled features, by layer, in evaluation mode.

    Layers are named by their path, such as "stage1_block1/conv1".
    """
    _, captured = model.apply(
        variables,
        image,
        train=False,
        capture_intermediates=lambda module, _: isinstance(module, nn.Conv),
        mutable=["intermediates"],
    )
    features = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(captured["intermediates"]):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey) and key.key != "__call__"]
        features["/".join(names)] = leaf.astype(jnp.float32)
    return features


def layer_quantiles(
    model: nn.Module, variables: Any, images: Images, percentages: Sequence[float], batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Exact quantiles and a histogram of every captured layer over a split, in evaluation mode.

    Args:
        model: the network.
        variables: its variables.
        images: the split.
        percentages: within 0..100.
        batch_size: images in a forward pass.

    Returns:
        By layer, in the order in which the network applies them: quantiles, float64 (len(percentages),), linear between
        neighbours as `numpy.quantile`'s; and counts of the split's values by bucket, int64 (65536,). A value that is
        not finite makes a layer's quantiles NaN.
    """
    starts = range(0, images.label.shape[0], batch_size)
    num_slots = 2 * len(percentages) + 1

    def count(slots: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        total: dict[str, Any] = {}
        for start in starts:
            counted = _count(model, variables, images, start, slots, batch_size=batch_size, num_slots=num_slots)
            for name, counts in counted.items():
                # A batch has less than 2^31 values of a layer, a split may have more.
                total[name] = total.get(name, 0) + np.asarray(counts, np.int64)
        return {name: total[name] for name in sorted(total, key=_depth)}  # jit returns them by name

    upper = count(None)
    places, slots = {}, {}
    for name, counts in upper.items():
        places[name] = place = _Place.of(np.asarray(percentages) / 100 * (counts.sum() - 1), counts)
        distinct = np.unique(place.bucket)
        slots[name] = np.full(BUCKETS, num_slots - 1, np.int32)  # the last slot takes what is not wanted
        slots[name][distinct] = np.arange(len(distinct))
    lower = count(slots)

    quantiles = {}
    for name, place in places.items():
        if upper[name][_NOT_FINITE].any():
            quantiles[name] = np.full(len(percentages), np.nan)
            continue
        within = lower[name].reshape(num_slots, BUCKETS)[slots[name][place.bucket]].cumsum(axis=-1)
        low = (within <= place.rank_in_bucket[..., None]).sum(axis=-1)
        below, above = _value((place.bucket << 16 | low).astype(np.uint32)).astype(np.float64)
        quantiles[name] = below + (above - below) * place.fraction
    return quantiles, upper


class _Place(NamedTuple):
    """Where the two neighbours of each quantile lie: arrays of (2, quantiles), and how far between them it is."""

    bucket: np.ndarray
    rank_in_bucket: np.ndarray
    fraction: np.ndarray

    @classmethod
    def of(cls, rank: np.ndarray, counts: np.ndarray) -> "_Place":
        ranks = np.stack([np.floor(rank), np.ceil(rank)]).astype(np.int64)
        until = counts.cumsum()
        bucket = np.searchsorted(until, ranks, side="right")
        return cls(bucket, ranks - (until - counts)[bucket], rank - ranks[0])


@functools.partial(jax.jit, static_argnames=("model", "batch_size", "num_slots"))
def _count(
    model: nn.Module,
    variables: Any,
    images: Images,
    start: jax.Array | int,
    slots: Mapping[str, jax.Array] | None,
    *,
    batch_size: int,
    num_slots: int,
) -> Features:
    """Counts of a batch's values by layer: by bucket, or by lower half within the buckets that have a slot."""
    valid = start + jnp.arange(batch_size) < images.label.shape[0]

    def counts(name: str, values: jax.Array) -> jax.Array:
        key = _key(values)
        weight = jnp.broadcast_to(valid.reshape(-1, *[1] * (values.ndim - 1)), values.shape).astype(jnp.int32)
        if slots is None:
            return jnp.zeros(BUCKETS, jnp.int32).at[key >> 16].add(weight)
        place = slots[name][key >> 16] * BUCKETS + (key & 0xFFFF).astype(jnp.int32)
        return jnp.zeros(num_slots * BUCKETS, jnp.int32).at[place].add(weight)

    features = capture(model, variables, images.batch(start, batch_size))
    return {name: counts(name, values) for name, values in features.items()}


def _key(values: jax.Array) -> jax.Array:
    """The float32's bits as uint32, reordered so that keys sort as their values do."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _value(key: np.ndarray) -> np.ndarray:
    """The float32 that a key stands for."""
    bits = np.where(key >> 31 == 1, key & np.uint32(2**31 - 1), ~key)
    return bits.astype(np.uint32).view(np.float32)


def _depth(name: str) -> tuple[int, ...]:
    """Sorts layers as the network applies them: stem, stages, blocks, their convolutions, pooling."""
    if name == "stem_conv":
        return (0,)
    if name == "pooled":
        return (99,)
    place, conv = name.split("/")
    stage, block = (int(part.strip("stageblock")) for part in place.split("_"))
    return (1, stage, block, ("conv1", "conv2", "conv_proj").index(conv))


_BUCKET_VALUES = _value(np.arange(BUCKETS, dtype=np.uint32) << 16)
_NOT_FINITE = ~np.isfinite(_BUCKET_VALUES)
