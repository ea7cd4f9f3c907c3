"""Normalization layers with flax.nnx's names, constructors and variables.

Replace ``nnx.BatchNorm`` of flax by ``jaxnorm.nnx.BatchNorm`` and change nothing else. The layers work in `nnx.jit`,
`nnx.vmap`, `nnx.scan` and checkpoints, and follow `train()` and `eval()`. What is better than in Flax is the work of
`jaxnorm.functional`, which the layers call. In bfloat16, too, running statistics are float32 and used as they are.
"""

from jaxnorm.nnx.batch_group_norm import BatchGroupNorm
from jaxnorm.nnx.batch_instance_norm import BatchInstanceNorm
from jaxnorm.nnx.batch_norm import BatchNorm
from jaxnorm.nnx.batch_renorm import BatchRenorm
from jaxnorm.nnx.dynamic import DynamicErf, DynamicTanh
from jaxnorm.nnx.evo_norm import EvoNormB0, EvoNormS0
from jaxnorm.nnx.filter_response_norm import FilterResponseNorm
from jaxnorm.nnx.global_response_norm import GlobalResponseNorm
from jaxnorm.nnx.group_norm import GroupNorm
from jaxnorm.nnx.instance_layer_norm import InstanceLayerNorm
from jaxnorm.nnx.instance_norm import InstanceNorm
from jaxnorm.nnx.iter_norm import IterNorm
from jaxnorm.nnx.layer_norm import LayerNorm
from jaxnorm.nnx.rms_norm import RMSNorm
from jaxnorm.nnx.switchable_norm import SwitchableNorm
from jaxnorm.nnx.weight_standardization import ScaledWeightStandardizedConv, WeightStandardizedConv

__all__ = [
    "BatchGroupNorm",
    "BatchInstanceNorm",
    "BatchNorm",
    "BatchRenorm",
    "DynamicErf",
    "DynamicTanh",
    "EvoNormB0",
    "EvoNormS0",
    "FilterResponseNorm",
    "GlobalResponseNorm",
    "GroupNorm",
    "InstanceLayerNorm",
    "InstanceNorm",
    "IterNorm",
    "LayerNorm",
    "RMSNorm",
    "ScaledWeightStandardizedConv",
    "SwitchableNorm",
    "WeightStandardizedConv",
]
