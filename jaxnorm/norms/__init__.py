"""Normalization layers with flax.linen's names, fields and variables.

Replace ``from flax.linen import BatchNorm`` by ``from jaxnorm.norms import BatchNorm`` and change nothing else. What is
better than in Flax is the work of `jaxnorm.functional`, which the layers call.
"""

from jaxnorm.norms.batch_group_norm import BatchGroupNorm
from jaxnorm.norms.batch_instance_norm import BatchInstanceNorm
from jaxnorm.norms.batch_norm import BatchNorm
from jaxnorm.norms.batch_renorm import BatchRenorm
from jaxnorm.norms.dynamic import DynamicErf, DynamicTanh
from jaxnorm.norms.evo_norm import EvoNormB0, EvoNormS0
from jaxnorm.norms.filter_response_norm import FilterResponseNorm
from jaxnorm.norms.global_response_norm import GlobalResponseNorm
from jaxnorm.norms.group_norm import GroupNorm
from jaxnorm.norms.instance_layer_norm import InstanceLayerNorm
from jaxnorm.norms.instance_norm import InstanceNorm
from jaxnorm.norms.iter_norm import IterNorm
from jaxnorm.norms.layer_norm import LayerNorm
from jaxnorm.norms.rms_norm import RMSNorm
from jaxnorm.norms.switchable_norm import SwitchableNorm

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
    "SwitchableNorm",
]
