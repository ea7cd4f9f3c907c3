"""One step of training and one of evaluation: pure functions of the state and the data on the device."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxnorm.study.data.augment import augment
from jaxnorm.study.training.optimizer import project_gates
from jaxnorm.study.training.parallel import Devices


class Images(struct.PyTreeNode):
    """A split on the device, with what a step must know of its data set.

    Attributes:
        image: (N, H, W, 3) uint8.
        label: (N,) int32.
        mean: per channel, subtracted from image/255.
        pad: black pixels around an image before it is cropped in training.
        flip: whether training mirrors images.
        devices: where they lie, and batches of them.
    """

    image: jax.Array
    label: jax.Array
    mean: tuple[float, float, float] = struct.field(pytree_node=False)
    pad: int = struct.field(pytree_node=False)
    flip: bool = struct.field(pytree_node=False)
    devices: Devices = struct.field(pytree_node=False, default=Devices())

    def normalized(self, image: jax.Array) -> jax.Array:
        """image/255 - mean, float32."""
        return image.astype(jnp.float32) / 255 - jnp.asarray(self.mean, jnp.float32)

    @functools.partial(jax.jit, static_argnames="size")
    def batch(self, start: jax.Array | int, size: int) -> jax.Array:
        """The `size` normalized images from `start` on; the last image stands for those beyond the split."""
        index = jnp.minimum(start + jnp.arange(size), self.label.shape[0] - 1)
        return self.normalized(self.image[self.devices.share(index)])

    def on_one_device(self) -> "Images":
        """The same images for work that is not shared."""
        return self.devices.local(self).replace(devices=Devices())


class EpochSums(struct.PyTreeNode):
    """Sums over the training batches of the current epoch; part of the state, so that a resumed epoch adds up."""

    loss: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def zero(cls) -> "EpochSums":
        """Nothing summed yet."""
        return cls(loss=jnp.zeros((), jnp.float32), correct=jnp.zeros((), jnp.int32), count=jnp.zeros((), jnp.int32))


class TrainState(struct.PyTreeNode):
    """All that a run carries from step to step; `step` alone says where it is in its epochs.

    Attributes:
        step: updates so far, int32.
        params: the parameters.
        model_state: every other collection of the model, such as ``{"batch_stats": ...}``; ``{}`` without any.
        opt_state: of `tx`.
        sums: metrics of the epoch so far.
        diverged_at: the step (counted from 1) whose loss or gradient was not finite, else -1. That update and all
            later ones are left out, so that the state stays the last good one.
        key: of the augmentation; constant.
        model: the network (static).
        tx: the optimiser (static).
        num_replicas: parts of the batch with batch statistics of their own (static).
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    sums: EpochSums
    diverged_at: jax.Array
    key: jax.Array
    model: nn.Module = struct.field(pytree_node=False)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    num_replicas: int = struct.field(pytree_node=False, default=1)

    @property
    def numbers(self) -> dict[str, Any]:
        """The fields that a step changes and a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("step", "params", "model_state", "opt_state", "sums")}

    @property
    def variables(self) -> dict[str, Any]:
        """The model's variables, as `model.apply` takes them."""
        return {"params": self.params, **self.model_state}


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seed: int,
    image_shape: tuple[int, ...],
    *,
    num_replicas: int = 1,
) -> TrainState:
    """The state before the first step: weights from fold_in(key(seed), 0), augmentation from fold_in(key(seed), 1).

    Equally named layers of different variants start with identical weights, since Flax derives a parameter's key from
    its path alone.
    """
    key = jax.random.key(seed)
    # Not under jit: drawing the weights is slow to compile, and outside of it compiled once for all variants.
    variables = model.lazy_init(
        jax.random.fold_in(key, 0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), train=False
    )
    # Initialization also returns what the model sows, which is no state.
    model_state = {name: tree for name, tree in variables.items() if name not in ("params", "intermediates")}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        model_state=model_state,
        opt_state=tx.init(variables["params"]),
        sums=EpochSums.zero(),
        diverged_at=jnp.full((), -1, jnp.int32),
        key=jax.random.fold_in(key, 1),
        model=model,
        tx=tx,
        num_replicas=num_replicas,
    )


def epoch_order(seed: int, epoch: int, num_images: int) -> jax.Array:
    """The order of the training images in an epoch: a permutation that depends on (seed, epoch) alone."""
    return _epoch_order(jnp.uint32(seed), epoch, num_images)  # or jit takes it for an int32


@functools.partial(jax.jit, static_argnames="num_images")
def _epoch_order(seed: jax.typing.ArrayLike, epoch: int, num_images: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), epoch)
    return jax.random.permutation(key, num_images)


def train_step(state: TrainState, image: jax.Array, label: jax.Array) -> tuple[TrainState, jax.Array]:
    """One update on a batch: loss, gradients, optimiser, projection of the gates, sums of metrics.

    Args:
        state: before the step.
        image: (B, H, W, 3) float32, augmented and with the mean subtracted.
        label: (B,) int32.

    Returns:
        The state after the step and the batch's mean cross entropy before it. Where that or a gradient is not finite,
        `diverged_at` is set and parameters and statistics keep their values, in this step and all later ones.
    """

    def loss_function(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, model_state = _forward(state, {**state.variables, "params": params}, image)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label)
        return losses.mean(), (logits, model_state)

    (loss, (logits, model_state)), gradients = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = state.tx.update(gradients, state.opt_state, state.params)
    stepped = state.replace(
        step=state.step + 1,
        params=project_gates(optax.apply_updates(state.params, updates)),
        model_state=model_state,
        opt_state=opt_state,
        sums=EpochSums(
            loss=state.sums.loss + loss * label.size,
            correct=state.sums.correct + (logits.argmax(-1) == label).sum(dtype=jnp.int32),
            count=state.sums.count + label.size,
        ),
    )
    finite = jnp.isfinite(loss)
    for gradient in jax.tree.leaves(gradients):
        finite &= jnp.isfinite(gradient).all()
    diverged_at = jnp.where((state.diverged_at < 0) & ~finite, state.step + 1, state.diverged_at)
    keep = diverged_at < 0
    kept = jax.tree.map(lambda new, old: jnp.where(keep, new, old), stepped.numbers, state.numbers)
    return stepped.replace(**kept, diverged_at=diverged_at), loss


def _forward(state: TrainState, variables: Any, image: jax.Array) -> tuple[jax.Array, Any]:
    """Logits of a batch in training mode, and the model's new state: with replicas, the mean of theirs."""

    def apply(image: jax.Array) -> tuple[jax.Array, Any]:
        return state.model.apply(variables, image, train=True, mutable=list(state.model_state))

    if state.num_replicas == 1:
        return apply(image)
    logits, model_state = jax.vmap(apply)(image.reshape(state.num_replicas, -1, *image.shape[1:]))
    # Replicas have equally many images, so the plain mean weighs every image alike.
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0, dtype=leaf.dtype), model_state)
    return logits.reshape(image.shape[0], -1), mean


@functools.partial(jax.jit, static_argnames=("batch_size", "num_steps"), donate_argnames="state")
def train_steps(
    state: TrainState, images: Images, order: jax.Array, *, batch_size: int, num_steps: int = 1
) -> tuple[TrainState, jax.Array]:
    """The next `num_steps` steps of the epoch, one dispatch: batch out of `order`, crop and flip, `train_step`.

    The batch is found from `state.step` alone, so a run goes on from any step. The last, partial batch of an epoch is
    not used. `state` is donated: its buffers are gone after the call. Of a `Team`, `state` and `order` are stacked.

    Returns:
        The state after the steps, and `diverged_at` once more as an array of its own, that stays readable after the
        state has been donated to the next call.
    """

    def steps(run: tuple[TrainState, jax.Array], images: Images) -> TrainState:
        state, order = run
        steps_per_epoch = order.shape[0] // batch_size

        def one(state: TrainState) -> TrainState:
            position = state.step % steps_per_epoch
            index = images.devices.share(jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,)))
            image = augment(
                jax.random.fold_in(state.key, state.step), images.image[index], pad=images.pad, flip=images.flip
            )
            return train_step(state, images.normalized(image), images.label[index])[0]

        # A convolution inside a loop is 10 to 40 times slower on CPU, so a single step goes without one.
        return one(state) if num_steps == 1 else jax.lax.fori_loop(0, num_steps, lambda _, each: one(each), state)

    state = images.devices.unite(images.devices.each(steps)((state, order), images))
    return state, state.diverged_at + 0


@functools.partial(jax.jit, static_argnames=("model", "batch_size", "num_steps"))
def eval_steps(
    model: nn.Module, variables: Any, images: Images, start: jax.Array | int, *, batch_size: int, num_steps: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Logits (N, classes) and pooled features (N, C), float32, in evaluation mode, of the N images from `start` on.

    N is `batch_size` times `num_steps`; the last image stands for those beyond the split. Of a `Team`, `variables` and
    what is returned are stacked.
    """

    def steps(variables: Any, shared: tuple[Images, jax.Array | int]) -> tuple[jax.Array, jax.Array]:
        images, start = shared

        def one(start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
            image = images.batch(start, batch_size)
            logits, captured = model.apply(variables, image, train=False, mutable=["intermediates"])
            return logits.astype(jnp.float32), captured["intermediates"]["pooled"][0].astype(jnp.float32)

        if num_steps == 1:
            return one(start)
        parts = jax.lax.map(one, start + batch_size * jnp.arange(num_steps))
        return jax.tree.map(lambda part: part.reshape(-1, part.shape[-1]), parts)

    return images.devices.unite(images.devices.each(steps)(variables, (images, start)))
