"""SGD on the original paper's stepped schedule, or another rule; groups of parameters are trained in their own way."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxnorm.study.param_groups import GATE, ParamGroup, ParamGroups, group_names

Params = Any


def schedule_epochs(num_epochs: int) -> tuple[int, int]:
    """Epochs, counted from 1, at whose start the rate falls to a tenth and to a hundredth: ceil(.75 E), ceil(.95 E).

    Args:
        num_epochs: E, the length of the schedule.

    Returns:
        The two epochs.

    Examples:
        >>> schedule_epochs(100)
        (75, 95)
    """
    return -(-75 * num_epochs // 100), -(-95 * num_epochs // 100)


def learning_rate_in(
    epoch: int, learning_rate: float, num_epochs: int, schedule: Literal["step", "cosine"] = "step"
) -> float:
    """The learning rate in an epoch: x1, then x0.1 and x0.01 from the epochs of `schedule_epochs`.

    On a cosine it is the rate of the epoch's first step.

    Args:
        epoch: counted from 1.
        learning_rate: the rate of the first epoch.
        num_epochs: length of the schedule; in steps, the rate does not fall if that is below four.
        schedule: how the rate falls.

    Returns:
        The rate.

    Examples:
        >>> [learning_rate_in(epoch, 1.0, num_epochs=4) for epoch in (1, 2, 3, 4)]
        [1.0, 1.0, 0.1, 0.01]
    """
    if schedule == "cosine":
        return learning_rate * (1 + math.cos(math.pi * (epoch - 1) / num_epochs)) / 2
    first, second = schedule_epochs(num_epochs)
    if num_epochs < 4 or epoch < first:
        return learning_rate
    return learning_rate / (10 if epoch < second else 100)


def stepped_schedule(learning_rate: float, num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """`learning_rate_in` as a function of the step.

    Args:
        learning_rate: the rate of the first epoch.
        num_epochs: length of the schedule.
        steps_per_epoch: batches in an epoch.

    Returns:
        The rate at a step, counted from 0; after the schedule, its last rate.

    Examples:
        >>> rate = stepped_schedule(0.1, num_epochs=4, steps_per_epoch=10)
        >>> [round(float(rate(step)), 6) for step in (0, 19, 20, 29, 30)]
        [0.1, 0.1, 0.01, 0.01, 0.001]
    """
    rates = [learning_rate_in(epoch, learning_rate, num_epochs) for epoch in range(1, num_epochs + 1)]
    return lambda step: jnp.asarray(rates)[jnp.minimum(step // steps_per_epoch, num_epochs - 1)]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What updates the weights.

    Attributes:
        optimizer: "sgd", "momentum" or "adamw".
        momentum: of "momentum": weight of the earlier updates.
        weight_decay: of parameters with more than one axis, the kernels; decoupled from the gradient with "adamw".
        schedule: how the learning rate falls.
    """

    optimizer: Literal["sgd", "momentum", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["step", "cosine"] = "step"

    def descent(
        self, learning_rate: float, num_epochs: int, steps_per_epoch: int
    ) -> list[optax.GradientTransformation]:
        """The transformations of the gradient into an update.

        Args:
            learning_rate: the rate of the first step.
            num_epochs: length of the schedule.
            steps_per_epoch: batches in an epoch.

        Returns:
            One transformation, or two.
        """
        rate = stepped_schedule(learning_rate, num_epochs, steps_per_epoch)
        if self.schedule == "cosine":
            rate = optax.cosine_decay_schedule(learning_rate, num_epochs * steps_per_epoch)
        if self.optimizer == "adamw":
            return [optax.adamw(rate, weight_decay=self.weight_decay, mask=_kernels)]
        sgd = optax.sgd(rate, momentum=self.momentum if self.optimizer == "momentum" else None)
        return [optax.add_decayed_weights(self.weight_decay, mask=_kernels), sgd] if self.weight_decay else [sgd]


def _kernels(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@functools.lru_cache  # jit compiles once for runs whose optimizer is the same object
def make_optimizer(
    learning_rate: float,
    gate_lr_multiplier: float,
    num_epochs: int,
    steps_per_epoch: int,
    param_groups: ParamGroups = (),
    rule: Rule = Rule(),
) -> optax.GradientTransformation:
    """Plain SGD or another rule; parameters named ``gate`` learn at `gate_lr_multiplier` times the rate.

    By default there is no momentum, and no weight decay outside of `param_groups`, as in the original paper. The gate's
    faster rate is that of Nam & Kim 2018 (arXiv 1805.07925); keep parameters within bounds with `project` after each
    update.

    Args:
        learning_rate: the rate of the first epoch.
        gate_lr_multiplier: factor for gates.
        num_epochs: length of the schedule.
        steps_per_epoch: batches in an epoch.
        param_groups: of the norm, see `register_norm`.
        rule: what updates the weights.

    Returns:
        The optimizer; the same object for equal arguments.

    Examples:
        >>> make_optimizer(0.1, 10.0, 4, 5) is make_optimizer(0.1, 10.0, 4, 5)
        True
    """

    def descent(group: ParamGroup, factor: float) -> optax.GradientTransformation:
        parts = rule.descent(learning_rate * factor, num_epochs, steps_per_epoch)
        if group.weight_decay:
            parts.insert(0, optax.add_decayed_weights(group.weight_decay))
        if group.clipping is not None:
            parts.insert(0, optax.adaptive_grad_clip(group.clipping))
        return parts[0] if len(parts) == 1 else optax.chain(*parts)

    descents = {"weight": descent(ParamGroup(), 1.0), "gate": descent(GATE, gate_lr_multiplier)}
    descents |= {name: descent(group, group.learning_rate) for name, group in param_groups}
    return optax.multi_transform(descents, functools.partial(group_names, groups=param_groups))


def gates(params: Params) -> dict[str, jax.Array]:
    """Every parameter named ``gate``.

    Args:
        params: the network's parameters.

    Returns:
        The gates, (C,), by the path of their layer such as "stage1_block1/norm1".

    Examples:
        >>> import jax.numpy as jnp
        >>> gates({"stem_norm": {"gate": jnp.ones(2), "scale": jnp.ones(2)}})
        {'stem_norm': Array([1., 1.], dtype=float32)}
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(key.key for key in path[:-1]): leaf for path, leaf in leaves if _is_gate(path)}


def _is_gate(path: tuple[Any, ...]) -> bool:
    return getattr(path[-1], "key", None) == "gate"
