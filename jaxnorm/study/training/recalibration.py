"""The same weights under other batch statistics: separates what training causes from what running averages cause."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm import UserError, recompute_statistics
from jaxnorm.study.config import REFERENCE_BATCH_SIZE
from jaxnorm.study.data.augment import augment
from jaxnorm.study.training.evaluation import evaluate
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.metrics import measure

PRECISE_IMAGES = 10_000
HELD_OUT = ("validation", "test")
Order = TypeVar("Order", jax.Array, np.ndarray)


def evaluate_statistics(
    model: nn.Module, variables: Any, splits: Mapping[str, Images], batch_size: int, key: jax.Array
) -> dict[str, Any] | None:
    """Validation and test metrics of the same weights under four kinds of batch statistics.

    ``running``: the moving averages of training. ``precise``: `precise_statistics` from batches of `batch_size`.
    ``precise_128``: the same from batches of 128. ``evaluation_batch``: those of each evaluated batch, as in training
    mode, with `batch_size` images a batch in one random order. The weights never change.

    Args:
        model: the network.
        variables: its variables.
        splits: "train", "validation" and "test", each on one device.
        batch_size: images whose statistics were taken together in training.
        key: decides augmentation and the order of the evaluated images.

    Returns:
        ``{kind: {split: {"accuracy", "loss", "num_images"}}}``, or None if the network keeps no batch statistics. A
        loss that is not finite is None.
    """
    if "batch_stats" not in variables:
        return None
    kinds = {
        "running": variables["batch_stats"],
        "precise": precise_statistics(model, variables, splits["train"], batch_size, key),
        "precise_128": precise_statistics(model, variables, splits["train"], REFERENCE_BATCH_SIZE, key),
    }
    results: dict[str, Any] = {kind: {} for kind in (*kinds, "evaluation_batch")}
    for name in HELD_OUT:
        label = np.asarray(splits[name].label)
        for kind, statistics in kinds.items():
            logits, _ = evaluate(model, {**variables, "batch_stats": statistics}, splits[name])
            results[kind][name] = _summary(logits, label)
        logits, order = batch_statistics_logits(model, variables, splits[name], batch_size, key)
        results["evaluation_batch"][name] = _summary(logits, label[order])
    return results


def check_recomputable(model: nn.Module, variables: Any, images: Images) -> None:
    """Checks before training that `evaluate_statistics` will be possible after it.

    Args:
        model: the network.
        variables: its variables.
        images: the training split, on one device.

    Raises:
        UserError: if the network keeps running statistics that `recompute_statistics` refuses.
    """
    if "batch_stats" in variables:
        try:
            recompute_statistics(model, variables, [images.normalized(images.image[:2])], train=True)
        except UserError as error:
            raise UserError(f"{error}; or turn `evaluate_statistics` off") from None


def precise_statistics(model: nn.Module, variables: Any, images: Images, batch_size: int, key: jax.Array) -> Any:
    """The collection ``batch_stats`` from `recompute_statistics` of up to 10,000 augmented training images.

    A layer whose input does not depend on the batches, such as the first one, gets the same moments for every batch
    size.

    Args:
        model: the network.
        variables: its variables.
        images: the training split.
        batch_size: images a batch; the last one may be smaller.
        key: decides augmentation and the order of the images.

    Returns:
        The collection, with every ``mean`` and ``var`` replaced and all else unchanged.
    """
    order_key, augment_key = jax.random.split(key)
    order = jax.random.permutation(order_key, images.label.shape[0])[:PRECISE_IMAGES]
    batches = (_augmented(images, index, augment_key) for index in _batches(order, batch_size))
    return recompute_statistics(model, variables, batches, train=True)["batch_stats"]


def batch_statistics_logits(
    model: nn.Module, variables: Any, images: Images, batch_size: int, key: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a split normalized by the statistics of its own batches.

    Args:
        model: the network.
        variables: its variables.
        images: the split.
        batch_size: images a batch; the last one may be smaller.
        key: decides the order.

    Returns:
        Logits, float32 (N, classes), and their images' numbers in the split, a random permutation (N,).
    """
    order = np.asarray(jax.random.permutation(key, images.label.shape[0]))
    logits = [_logits_in_training(model, variables, images, index) for index in _batches(order, batch_size)]
    return np.concatenate([np.asarray(part) for part in logits]), order


@jax.jit
def _augmented(images: Images, index: jax.Array, key: jax.Array) -> jax.Array:
    """Augmented images. An image's number decides its draws, not its place in a batch: batches may be cut anyhow."""

    def one(number: jax.Array) -> jax.Array:
        image = images.image[number][None]
        return augment(jax.random.fold_in(key, number), image, pad=images.pad, flip=images.flip)[0]

    return images.normalized(jax.vmap(one)(index))


def _batches(order: Order, batch_size: int) -> Iterator[Order]:
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


@functools.partial(jax.jit, static_argnames="model")
def _logits_in_training(model: nn.Module, variables: Any, images: Images, index: np.ndarray) -> jax.Array:
    image = images.normalized(images.image[index])
    logits, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
    return logits.astype(jnp.float32)


def _summary(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    metrics = measure(logits, label)
    loss = metrics.loss if np.isfinite(metrics.loss) else None
    return {"accuracy": metrics.accuracy, "loss": loss, "num_images": metrics.num_images}
