"""Normalization layers with flax.linen's names, fields and variables.

Replace ``from flax.linen import BatchNorm`` by ``from jaxnorm.norms import BatchNorm`` and change nothing else. All
layers differ from flax.linen in three ways:

- The statistics are correct at any ratio of mean to standard deviation: the error of a float32 output is below 2e-5.
  They take one pass over the input. ``use_fast_variance=False`` takes flax's two passes, operation for operation.
- With `axis_name` every value has the same weight. Devices with different masks therefore give the result of one
  device.
- `mask` may have any shape that broadcasts to the input, in `GroupNorm` too. It selects the values that the statistics
  are taken from. Every finite value is then normalized with these statistics. Where a value that is not selected is NaN
  or infinite, the output is the bias and the gradient is zero; nothing else changes. Without any selected value, mean
  and variance count as zero.

`moments` holds all numerics. The layers choose the axes.
"""

from jaxnorm.norms.batch_instance_norm import BatchInstanceNorm
from jaxnorm.norms.batch_norm import BatchNorm
from jaxnorm.norms.group_norm import GroupNorm
from jaxnorm.norms.instance_norm import InstanceNorm
from jaxnorm.norms.layer_norm import LayerNorm

__all__ = ["BatchInstanceNorm", "BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm"]
