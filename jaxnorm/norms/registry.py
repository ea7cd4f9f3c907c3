"""The normalizations of the study by id, and the way to add one."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from jaxnorm.config import nearest
from jaxnorm.errors import UserError
from jaxnorm.norms.layers import BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm


class Identity(nn.Module):
    """y = x, without parameters: the network without normalization."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x


@dataclasses.dataclass(frozen=True)
class Norm:
    """How the study builds a normalization: `norm(train=True)` is a Flax module that is applied to NHWC images."""

    id: str
    label: str
    build: Callable[..., nn.Module]

    def __call__(self, *, train: bool, axis_name: Any = None, dtype: Any = None, name: str | None = None) -> nn.Module:
        return self.build(train=train, axis_name=axis_name, dtype=dtype, name=name)


NORMS: dict[str, Norm] = {}
"""Every normalization the drivers can name, by id, in the order of the study."""


def register_norm(id: str, build: Callable[..., nn.Module], *, label: str | None = None) -> None:
    """Adds a normalization to `NORMS`."""
    if not isinstance(id, str) or not re.fullmatch("[a-z0-9_]+", id):
        raise UserError(f"a norm's id must be lower-case letters, digits and underscores, but is {id!r}; rename it")
    if not callable(build):
        raise UserError(
            f"a norm's build must be callable, but {id!r} has {build!r}; see the docstring of register_norm"
        )
    if id in NORMS and NORMS[id].build is not build:
        raise UserError(f"a norm's id must be new, but {id!r} is registered as {NORMS[id].label!r}; choose another id")
    NORMS[id] = Norm(id, id if label is None else label, build)


def make_norm(id: str, *, train: bool, axis_name: Any = None, dtype: Any = None, name: str | None = None) -> nn.Module:
    """The module of the normalization `id`."""
    if id not in NORMS:
        raise UserError(f"a norm must be registered, but {id!r} is not; {nearest(id, NORMS)}")
    return NORMS[id](train=train, axis_name=axis_name, dtype=dtype, name=name)


def _batch(cls: Any, **fields: Any) -> Callable[..., nn.Module]:
    def build(*, train: bool, axis_name: Any, dtype: Any, name: str | None) -> nn.Module:
        return cls(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=axis_name,
            dtype=dtype,
            name=name,
            **fields,
        )

    return build


def _sample(cls: Any, **fields: Any) -> Callable[..., nn.Module]:
    # Statistics of one sample: alike in training and evaluation, and on one device wherever the batch is split.
    def build(*, train: bool, axis_name: Any, dtype: Any, name: str | None) -> nn.Module:  # noqa: ARG001
        return cls(epsilon=1e-5, dtype=dtype, name=name, **fields)

    return build


def _identity(*, train: bool, axis_name: Any, dtype: Any, name: str | None) -> nn.Module:  # noqa: ARG001
    return Identity(name=name)


register_norm("flax_bn", _batch(nn.BatchNorm), label="Flax batch norm")
register_norm("none", _identity, label="No normalization")
register_norm("bn", _batch(BatchNorm), label="Batch norm")
register_norm("in", _sample(InstanceNorm), label="Instance norm")
register_norm("bin", _batch(BatchInstanceNorm), label="Batch-instance norm")
register_norm("ln", _sample(LayerNorm, reduction_axes=(1, 2, 3)), label="Layer norm")
register_norm("gn", _sample(GroupNorm, num_groups=None, group_size=4), label="Group norm")
register_norm("bin_frozen", _batch(BatchInstanceNorm, train_gate=False), label="Batch-instance norm, frozen gate")
