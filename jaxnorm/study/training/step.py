"""Training steps: pure functions of the state and of the images on the device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnorm.study.data.augment import augment
from jaxnorm.study.param_groups import project
from jaxnorm.study.schedule import with_progress
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.state import EpochSums, TrainState, random_key


def epoch_order(seed: int, epoch: int, num_images: int) -> jax.Array:
    """The order of the training images in an epoch: a permutation that depends on (seed, epoch) alone.

    Args:
        seed: 0 to 2**32 - 1.
        epoch: counted from 1.
        num_images: of the split.

    Returns:
        int32 (num_images,).

    Examples:
        >>> sorted(epoch_order(0, 1, 4).tolist())
        [0, 1, 2, 3]
    """
    return _epoch_order(jnp.uint32(seed), epoch, num_images)  # uint32: jit would take a large seed for an int32


@functools.partial(jax.jit, static_argnames="num_images")
def _epoch_order(seed: jax.typing.ArrayLike, epoch: int, num_images: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(random_key(seed), 2), epoch)
    return jax.random.permutation(key, num_images)


def train_step(state: TrainState, image: jax.Array, label: jax.Array) -> tuple[TrainState, jax.Array]:
    """One update on a batch: loss, gradients, optimizer, projection to bounds, sums of metrics.

    Args:
        state: before the step.
        image: (B, H, W, 3) float32, augmented and with the mean subtracted.
        label: (B,) int32.

    Returns:
        The state after the step, and the batch's mean cross entropy before it. Where that or a gradient is not finite,
        `diverged_at` is set, and the fields in `TrainState.saved` keep their values in this step and all later ones.
    """
    (loss, (logits, model_state)), gradients = loss_and_gradients(state, image, label)
    updates, opt_state = state.tx.update(gradients, state.opt_state, state.params)
    stepped = state.replace(
        step=state.step + 1,
        params=project(optax.apply_updates(state.params, updates), state.param_groups),
        model_state=model_state,
        opt_state=opt_state,
        sums=EpochSums(
            loss=state.sums.loss + loss * label.size,
            correct=state.sums.correct + (logits.argmax(-1) == label).sum(dtype=jnp.int32),
            count=state.sums.count + label.size,
        ),
    )
    finite = jnp.isfinite(loss) & _all_finite(gradients)
    diverged_at = jnp.where((state.diverged_at < 0) & ~finite, state.step + 1, state.diverged_at)
    good = diverged_at < 0
    saved = jax.tree.map(lambda new, old: jnp.where(good, new, old), stepped.saved, state.saved)
    return stepped.replace(**saved, diverged_at=diverged_at), loss


def _all_finite(tree: Any) -> jax.Array:
    """Whether every number is finite, in one reduction: one for each array would be 50 of 380 kernels on a GPU."""
    # Output channels first, as cuDNN leaves the gradients of kernels: in another order it would transpose each.
    leaves = (jnp.moveaxis(leaf, -1, 0) if leaf.ndim > 1 else leaf for leaf in jax.tree.leaves(tree))
    return jnp.isfinite(jnp.concatenate([leaf.ravel() for leaf in leaves])).all()


def loss_and_gradients(
    state: TrainState, image: jax.Array, label: jax.Array
) -> tuple[tuple[jax.Array, tuple[jax.Array, Any]], Any]:
    """The mean cross entropy of a batch in training mode, and its gradients.

    Args:
        state: before the step.
        image: (B, H, W, 3), augmented and with the mean subtracted.
        label: (B,) int32.

    Returns:
        ((loss, (logits, model state after the batch)), gradients by the parameters).
    """

    def loss_function(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, model_state = _forward(state, {**state.variables, "params": params}, image)
        at_least_float32 = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        losses = optax.softmax_cross_entropy_with_integer_labels(at_least_float32, label)
        return losses.mean(), (logits, model_state)

    return jax.value_and_grad(loss_function, has_aux=True)(state.params)


def _forward(state: TrainState, variables: Any, image: jax.Array) -> tuple[jax.Array, Any]:
    """Logits of a batch in training mode, and the model's new state: with replicas, the mean of theirs."""
    variables = with_progress(variables, state.step / state.num_steps)

    def apply(image: jax.Array) -> tuple[jax.Array, Any]:
        return state.model.apply(variables, image, train=True, mutable=list(state.model_state))

    if state.num_replicas == 1:
        return apply(image)
    logits, model_state = jax.vmap(apply)(image.reshape(state.num_replicas, -1, *image.shape[1:]))
    # Replicas have equally many images, so the plain mean weighs every image alike.
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0, dtype=leaf.dtype), model_state)
    return logits.reshape(image.shape[0], -1), mean


def next_batch(state: TrainState, images: Images, order: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """The batch of the step that follows a state, cropped and flipped. `state.step` alone decides it.

    Args:
        state: before the step.
        images: the training split.
        order: of the step's epoch, from `epoch_order`.
        batch_size: images a step.

    Returns:
        Images, float32 (batch_size, H, W, 3), and labels, int32 (batch_size,).
    """
    position = state.step % (order.shape[0] // batch_size)
    index = images.devices.shard(jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,)))
    image = augment(jax.random.fold_in(state.key, state.step), images.image[index], pad=images.pad, flip=images.flip)
    return images.normalized(image), images.label[index]


@functools.partial(jax.jit, static_argnames="batch_size")
def next_gradients(state: TrainState, images: Images, order: jax.Array, *, batch_size: int) -> tuple[jax.Array, Any]:
    """The loss and the gradients of the step that follows a state, for probes: no step uses them.

    Args:
        state: before the step.
        images: the training split.
        order: of the step's epoch, from `epoch_order`.
        batch_size: images a step (static).

    Returns:
        The batch's mean cross entropy in training mode, and its gradients by the parameters.
    """
    (loss, _), gradients = loss_and_gradients(state, *next_batch(state, images, order, batch_size))
    return images.devices.gather((loss, gradients))


@functools.partial(jax.jit, static_argnames=("batch_size", "num_steps"), donate_argnames="state")
def train_steps(
    state: TrainState, images: Images, order: jax.Array, *, batch_size: int, num_steps: int = 1
) -> tuple[TrainState, jax.Array]:
    """The next `num_steps` steps of an epoch in one dispatch: `next_batch`, `train_step`.

    A run goes on from any step. The last, partial batch of an epoch is not used.

    Args:
        state: before the steps. It is donated: its buffers are gone after the call.
        images: the training split.
        order: of the epoch, from `epoch_order`.
        batch_size: images a step (static).
        num_steps: steps in this call, all of one epoch (static).

    Returns:
        The state after the steps, and a copy of its `diverged_at` that remains readable after the state is donated to
        the next call.
    """

    def step(state: TrainState) -> TrainState:
        return train_step(state, *next_batch(state, images, order, batch_size))[0]

    # A convolution inside a loop is 10 to 40 times slower on CPU, so a single step goes without one.
    state = step(state) if num_steps == 1 else jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)
    state = images.devices.gather(state)
    return state, state.diverged_at + 0


def call_sizes(step: int, last_epoch: int, steps_per_epoch: int, steps_per_call: int) -> list[int]:
    """The numbers of steps that the calls of `train_steps` after `step` have, each once.

    Args:
        step: steps done.
        last_epoch: after which training ends, counted from 1.
        steps_per_epoch: batches in an epoch.
        steps_per_call: steps a call at most.

    Returns:
        The sizes, in the order of their first calls.

    Examples:
        >>> call_sizes(0, 100, steps_per_epoch=312, steps_per_call=100)
        [100, 12]
    """
    epochs_done, into_epoch = divmod(step, steps_per_epoch)
    lengths = [steps_per_epoch - into_epoch, steps_per_epoch][: max(last_epoch - epochs_done, 0)]
    full = [steps_per_call for length in lengths if length >= steps_per_call]
    return list(dict.fromkeys([*full, *(rest for length in lengths if (rest := length % steps_per_call))]))
