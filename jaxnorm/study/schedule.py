"""Layers that change during training: what they know of its progress."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnorm.norms import BatchRenorm

COLLECTION = "schedule"
"""In it, a layer declares variables that hold the share of the training's steps that are done, from 0 to 1."""

# Of the 130,000 steps after which the baseline of Ioffe 2017 (https://arxiv.org/abs/1702.03275) is best: to the first
# the limits are those of batch norm, at the others they have risen.
START, R_END, D_END = 5 / 130, 40 / 130, 25 / 130


def with_progress(model_state: Any, progress: jax.Array) -> Any:
    """A model's state in which every variable of the collection `schedule` is the progress.

    Args:
        model_state: Collections by name.
        progress: A number from 0 to 1.

    Returns:
        The state.

    Examples:
        >>> with_progress({"schedule": {"norm": jnp.ones(())}, "batch_stats": {"mean": 2.0}}, jnp.asarray(0.5))
        {'schedule': {'norm': Array(0.5, dtype=float32)}, 'batch_stats': {'mean': 2.0}}
    """
    if COLLECTION not in model_state:
        return model_state
    return {**model_state, COLLECTION: jax.tree.map(lambda old: progress.astype(old.dtype), model_state[COLLECTION])}


class ScheduledBatchRenorm(BatchRenorm):
    """`BatchRenorm` whose limits rise from 1 and 0 to `r_max` and `d_max`, as in the paper.

    The paper's steps are scaled to the run's length. The variable `progress` starts at 1: the limits are the full ones
    where nobody sets it, and where there is none.

    Examples:
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> variables = ScheduledBatchRenorm(use_running_average=False).init(jax.random.key(1), x)
        >>> variables["schedule"]
        {'progress': Array(1., dtype=float32)}
    """

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        """The limits of this step.

        Args:
            shape: Of a parameter; there is none.

        Returns:
            `r_max` and `d_max`.
        """
        declared = self.is_initializing() or self.has_variable(COLLECTION, "progress")
        progress = self.variable(COLLECTION, "progress", jnp.ones, ()).value if declared else 1.0
        r, d = (jnp.clip((progress - START) / (end - START), 0, 1) for end in (R_END, D_END))
        return {"r_max": 1 + (self.r_max - 1) * r, "d_max": self.d_max * d}
