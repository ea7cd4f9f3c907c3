"""Normalizations as pure functions: arrays in, arrays out, and no framework.

The layers of `jaxnorm.norms` (flax.linen) and of `jaxnorm.nnx` call these functions. They work in any other library on
JAX too. All of them differ from Flax's layers in three ways:

- The statistics are correct at any ratio of mean to standard deviation: the error of a float32 output is below 2e-5.
  They take one pass over the input. ``use_fast_variance=False`` takes flax's two passes, operation for operation.
- With `axis_name` every value has the same weight. Devices with different masks therefore give the result of one
  device.
- `mask` may have any shape that broadcasts to the input. It selects the values that the statistics are taken from.
  Every finite value is then normalized with these statistics. Where a value that is not selected is NaN or infinite,
  the output is the bias and the gradient is zero; nothing else changes. Without any selected value, mean and variance
  count as zero.

`moments` holds all numerics. The functions choose the axes.
"""

from jaxnorm.functional.batch import batch_norm
from jaxnorm.functional.batch_group import batch_group_norm
from jaxnorm.functional.batch_instance import batch_instance_norm
from jaxnorm.functional.batch_renorm import batch_renorm
from jaxnorm.functional.dynamic import dynamic_erf, dynamic_tanh
from jaxnorm.functional.evo import evo_norm_b0, evo_norm_s0
from jaxnorm.functional.filter_response import filter_response_norm
from jaxnorm.functional.global_response import global_response_norm
from jaxnorm.functional.group import group_norm
from jaxnorm.functional.instance import instance_norm
from jaxnorm.functional.instance_layer import instance_layer_norm
from jaxnorm.functional.iter_norm import iter_norm
from jaxnorm.functional.layer import layer_norm
from jaxnorm.functional.rms import rms_norm
from jaxnorm.functional.switchable import switchable_norm
from jaxnorm.functional.weight_standardization import standardize_and_scale_weights, standardize_weights

__all__ = [
    "batch_group_norm",
    "batch_instance_norm",
    "batch_norm",
    "batch_renorm",
    "dynamic_erf",
    "dynamic_tanh",
    "evo_norm_b0",
    "evo_norm_s0",
    "filter_response_norm",
    "global_response_norm",
    "group_norm",
    "instance_layer_norm",
    "instance_norm",
    "iter_norm",
    "layer_norm",
    "rms_norm",
    "standardize_and_scale_weights",
    "standardize_weights",
    "switchable_norm",
]
