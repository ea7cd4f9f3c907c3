"""The state that a run carries from step to step, and how it begins."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.models.registry import build_model
from jaxnorm.study.param_groups import ParamGroups
from jaxnorm.study.registry import NORMS, ghost_batch_norm
from jaxnorm.study.training.optimizer import Rule, make_optimizer


class EpochSums(struct.PyTreeNode):
    """Sums over the training batches of the current epoch; part of the state, so that a resumed epoch adds up.

    Attributes:
        loss: sum of the images' cross entropies, float32.
        correct: images whose largest logit is their label's, int32.
        count: images, int32.
    """

    loss: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def zero(cls) -> "EpochSums":
        """The sums at the start of an epoch.

        Returns:
            Zeros.
        """
        return cls(loss=jnp.zeros((), jnp.float32), correct=jnp.zeros((), jnp.int32), count=jnp.zeros((), jnp.int32))


class TrainState(struct.PyTreeNode):
    """All that a run carries from step to step; `step` alone gives its position in its epochs.

    Attributes:
        step: updates so far, int32.
        params: the parameters.
        model_state: every other collection of the model, such as ``{"batch_stats": ...}``; ``{}`` without any.
        opt_state: state of `tx`.
        sums: metrics of the epoch so far.
        diverged_at: the step, counted from 1, whose loss or gradient was not finite; -1 before that, int32. That
            update and all later ones are left out, so that the state remains the last good one.
        key: of the augmentation; constant.
        model: the network (static).
        tx: the optimizer (static).
        num_replicas: parts of the batch with batch statistics of their own (static).
        param_groups: parameters of the norm that are trained in their own way (static).
        num_steps: length of the schedule (static).
        probes: what the probes of training have kept since the epoch began, by name; ``{}`` without any. No step
            changes it.
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
    param_groups: ParamGroups = struct.field(pytree_node=False, default=())
    num_steps: int = struct.field(pytree_node=False, default=1)
    probes: dict[str, Any] = struct.field(default_factory=dict)

    @property
    def saved(self) -> dict[str, Any]:
        """The fields that a checkpoint holds, by name."""
        probes = ["probes"] if self.probes else []
        return {name: getattr(self, name) for name in ("step", "params", "model_state", "opt_state", "sums", *probes)}

    @property
    def variables(self) -> dict[str, Any]:
        """The model's variables, as `model.apply` takes them."""
        return {"params": self.params, **self.model_state}


def random_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """The key that all random numbers of a run come from, of one implementation whatever JAX's default is.

    Args:
        seed: 0 to 2**32 - 1.

    Returns:
        The key.
    """
    return jax.random.key(seed, impl="threefry2x32")


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seed: int,
    image_shape: tuple[int, ...],
    *,
    num_replicas: int = 1,
    param_groups: ParamGroups = (),
    num_steps: int = 1,
) -> TrainState:
    """The state before the first step: weights from fold_in(key(seed), 0), augmentation from fold_in(key(seed), 1).

    Layers of the same name start with identical weights in all variants, since Flax derives a parameter's key from its
    path alone.

    Args:
        model: the network, called as ``model.apply(variables, image, train=...)``.
        tx: the optimizer.
        seed: 0 to 2**32 - 1.
        image_shape: (H, W, C).
        num_replicas: parts of the batch with batch statistics of their own.
        param_groups: those that `tx` was made with.
        num_steps: length of the schedule.

    Returns:
        The state, on the default device.
    """
    key = random_key(seed)
    # Without jit: it would compile the random numbers anew for each variant, which takes long.
    variables = model.lazy_init(
        jax.random.fold_in(key, 0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), train=False
    )
    # Initialization also returns what the model sows; that is not state.
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
        param_groups=param_groups,
        num_steps=num_steps,
    )


def build_network(config: Config, num_classes: int) -> nn.Module:
    """The network that a configuration describes.

    Args:
        config: gives network, size, norm, ghost batch size, initial weights and precision.
        num_classes: number of logits.

    Returns:
        The network; equal configurations give equal networks, which share compiled programs.

    Raises:
        UserError: if the network is not registered, or does not take what the configuration says of it.

    Examples:
        >>> type(build_network(Config(norm="gn"), num_classes=10)).__name__
        'ResNet'
    """
    norm = NORMS[config.norm]
    if config.ghost_batch_size is not None:
        norm = ghost_batch_norm(config.norm, config.ghost_batch_size)
    return build_model(config, norm, num_classes)


def initial_state(config: Config, dataset: Dataset, model: nn.Module | None = None) -> TrainState:
    """The state of a run before its first step.

    Args:
        config: the run.
        dataset: what it trains on.
        model: the network; None for the one that `config` describes.

    Returns:
        The state, on the default device.
    """
    steps_per_epoch = len(dataset.train) // config.batch_size
    groups = NORMS[config.norm].param_groups if model is None else ()
    model = build_network(config, dataset.num_classes) if model is None else model
    momentum = 0.9 if config.momentum is None else config.momentum
    rule = Rule(config.optimizer, momentum, config.weight_decay, config.schedule)
    tx = make_optimizer(
        config.peak_learning_rate, config.gate_lr_multiplier, config.num_epochs, steps_per_epoch, groups, rule
    )
    return create_state(
        model,
        tx,
        config.seed,
        dataset.image_shape,
        num_replicas=config.num_replicas or 1,
        param_groups=groups,
        num_steps=config.num_epochs * steps_per_epoch,
    )
