"""The original paper's network in plain Flax, as a Flax user writes it: compared in benchmarks."""

from typing import Any

import flax.linen as nn
import jax

from jaxnorm import ResNet14
from jaxnorm.study.registry import Identity


class BatchInstanceNorm(nn.Module):
    """Both of Flax's layers, mixed by the gate; Flax has no such layer."""

    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.param("gate", nn.initializers.ones, x.shape[-1:])
        batch = nn.BatchNorm(self.use_running_average, use_scale=False, use_bias=False)(x)
        instance = nn.InstanceNorm(use_scale=False, use_bias=False)(x)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        return scale * (gate * batch + (1 - gate) * instance) + self.param("bias", nn.initializers.zeros, x.shape[-1:])


def norm(id: str) -> Any:
    """Builds the layers of a variant, by its id."""

    def build(*, train: bool, axis_name: Any, dtype: Any, name: str) -> nn.Module:  # noqa: ARG001
        match id:
            case "none":
                return Identity(name=name)
            case "bin":
                return BatchInstanceNorm(not train, name=name)
            case "in":
                return nn.InstanceNorm(name=name)
            case "ln":
                return nn.LayerNorm(reduction_axes=(1, 2, 3), name=name)
            case "gn":
                return nn.GroupNorm(num_groups=None, group_size=4, name=name)
            case _:
                return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)

    return build


def resnet(id: str) -> nn.Module:
    """The network of a variant, with Flax's convolutions and norms."""
    return ResNet14(norm=norm(id), conv=nn.Conv)
