"""Normalization layers with flax.nnx's names, constructors and variables.

Replace ``nnx.BatchNorm`` of flax by ``jaxnorm.nnx.BatchNorm`` and change nothing else. The layers work in `nnx.jit`,
`nnx.vmap`, `nnx.scan` and checkpoints, and follow `train()` and `eval()`. What is better than in Flax is the work of
`jaxnorm.functional`, which the layers call. In bfloat16, too, running statistics are float32 and used as they are.
"""

from jaxnorm.nnx.batch_instance_norm import BatchInstanceNorm
from jaxnorm.nnx.batch_norm import BatchNorm
from jaxnorm.nnx.group_norm import GroupNorm
from jaxnorm.nnx.instance_norm import InstanceNorm
from jaxnorm.nnx.layer_norm import LayerNorm

__all__ = ["BatchInstanceNorm", "BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm"]
