"""Normalization layers with flax.linen's names, fields and variables.

Replace ``from flax.linen import BatchNorm`` by ``from jaxnorm.norms import BatchNorm`` and change nothing else. What is
better than in Flax is the work of `jaxnorm.functional`, which the layers call.
"""

from jaxnorm.norms.batch_instance_norm import BatchInstanceNorm
from jaxnorm.norms.batch_norm import BatchNorm
from jaxnorm.norms.group_norm import GroupNorm
from jaxnorm.norms.instance_norm import InstanceNorm
from jaxnorm.norms.layer_norm import LayerNorm

__all__ = ["BatchInstanceNorm", "BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm"]
