"""The normalizations that a run can name, and how to add one."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
from flax import linen as nn

from jaxnorm.conv.convolution import Conv
from jaxnorm.conv.weight_standardization import ScaledWeightStandardizedConv, WeightStandardizedConv
from jaxnorm.errors import UserError
from jaxnorm.norms import (
    BatchGroupNorm,
    BatchInstanceNorm,
    BatchNorm,
    DynamicErf,
    DynamicTanh,
    EvoNormB0,
    EvoNormS0,
    FilterResponseNorm,
    GlobalResponseNorm,
    GroupNorm,
    InstanceLayerNorm,
    InstanceNorm,
    IterNorm,
    LayerNorm,
    RMSNorm,
    SwitchableNorm,
)
from jaxnorm.study.config import GHOST_BATCH_NORMS, nearest
from jaxnorm.study.param_groups import ParamGroup, ParamGroups, checked
from jaxnorm.study.registered import check_registration
from jaxnorm.study.schedule import ScheduledBatchRenorm

EPSILON = 1e-5  # the original paper's, as is the weight of the old running value
MOMENTUM = 0.9


class Identity(nn.Module):
    """y = x, without parameters: the network without normalization.

    Examples:
        >>> Identity().apply({}, 2.0)
        2.0
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer.

        Args:
            x: any value.

        Returns:
            `x`.
        """
        return x


@dataclasses.dataclass(frozen=True)
class Norm:
    """A registered normalization: `norm(train=True)` is a Flax module that is applied to NHWC images.

    Attributes:
        id: as the drivers' `--norms` takes it; part of the names of run directories.
        label: its name in tables and figures.
        build: see `register_norm`.
        activation: see `register_norm`.
        conv: see `register_norm`.
        param_groups: see `register_norm`; pairs of a pattern and a group.

    Examples:
        >>> NORMS["gn"].label, type(NORMS["gn"](train=True)).__name__
        ('Group norm', 'GroupNorm')
    """

    id: str
    label: str
    build: Callable[..., nn.Module]
    activation: Callable[..., nn.Module] | None = None
    conv: Callable[..., nn.Module] = Conv
    param_groups: ParamGroups = ()

    def __call__(self, *, train: bool, axis_name: Any = None, dtype: Any = None, name: str | None = None) -> nn.Module:
        """Builds the layer.

        Args:
            train: False in evaluation.
            axis_name: mapped axis over which to combine statistics, or None.
            dtype: of the computation, or None.
            name: of the module in its parent, or None.

        Returns:
            The module.
        """
        return self.build(train=train, axis_name=axis_name, dtype=dtype, name=name)


NORMS: dict[str, Norm] = {}
"""Every registered normalization by id; the built-in ones first, in the order of the published tables."""


def register_norm(
    id: str,
    build: Callable[..., nn.Module],
    *,
    label: str | None = None,
    activation: Callable[..., nn.Module] | None = None,
    conv: Callable[..., nn.Module] = Conv,
    param_groups: Mapping[str, ParamGroup] = MappingProxyType({}),
) -> None:
    """Adds a normalization to `NORMS`, so that every driver can train it.

    Args:
        id: a new one; lower-case letters, digits and underscores.
        build: called as ``build(train=..., axis_name=..., dtype=..., name=...)`` for each layer; returns a Flax module
            that is applied to an NHWC array. `train` is False in evaluation, where an image's output must not depend
            on the other images of its batch. `axis_name` is the mapped axis over which to combine statistics, or
            None. `dtype` is that of the computation, or None. `name` must be passed on to the module. A layer that
            changes during training declares a variable in the collection ``schedule``: before each step it becomes the
            share of the steps that are done.
        label: name in tables and figures; by default the id.
        activation: like `build`, for a norm that contains the activation: its layer replaces norm and ReLU. Before the
            addition of a block, and in a shortcut, `build` is called. None for a norm that ReLU follows.
        conv: builds each convolution, see `ConvBuilder`.
        param_groups: parameters that are trained in their own way: a `ParamGroup` for each pattern. A pattern is
            compared with the parameter's path, such as "stage1_block1/norm1/alpha"; ``*`` stands for any text. The
            first that fits counts. Parameters named ``gate`` have the learning rate of `gate_lr_multiplier` and are
            kept in [0, 1].

    Raises:
        UserError: if the id is malformed or taken by another build, or a builder cannot be called, or a group is none.

    Examples:
        >>> register_norm("ln_last", lambda *, train, axis_name, dtype, name: LayerNorm(dtype=dtype, name=name))
        >>> NORMS.pop("ln_last").label
        'ln_last'
    """
    label = id if label is None else label
    check_registration("norm", id, label, build, NORMS[id].build if id in NORMS else None)
    builders = {"build": build} if activation is None else {"build": build, "activation": activation}
    for name, builder in builders.items():
        try:
            inspect.signature(builder).bind(train=True, axis_name=None, dtype=None, name=id)
        except TypeError as error:
            raise UserError(
                f"a norm's {name} must take the keywords train, axis_name, dtype and name, but that of {id!r} does not "
                f"({error}); see the docstring of register_norm"
            ) from None
    if not callable(conv):
        raise UserError(f"a norm's conv must build a convolution, but that of {id!r} is {conv!r}; give a Flax class")
    groups = checked(param_groups)
    NORMS[id] = Norm(id, label, build, activation, conv, groups)


def make_norm(id: str, *, train: bool, axis_name: Any = None, dtype: Any = None, name: str | None = None) -> nn.Module:
    """The module of a registered normalization.

    Args:
        id: in `NORMS`.
        train: False in evaluation.
        axis_name: mapped axis over which to combine statistics, or None.
        dtype: of the computation, or None.
        name: of the module in its parent, or None.

    Returns:
        The module.

    Raises:
        UserError: if no such id is registered; the message names the nearest.

    Examples:
        >>> make_norm("bn", train=True).momentum
        0.9
    """
    return norm_of(id)(train=train, axis_name=axis_name, dtype=dtype, name=name)


def norm_of(id: str) -> Norm:
    """A registered normalization.

    Args:
        id: in `NORMS`.

    Returns:
        The norm.

    Raises:
        UserError: if no such id is registered; the message names the nearest.
    """
    if id not in NORMS:
        raise UserError(f"a norm must be registered, but {id!r} is not; {nearest(id, NORMS)}")
    return NORMS[id]


@functools.lru_cache  # equal arguments give the same norm, so that networks with it share compiled programs
def ghost_batch_norm(id: str, ghost_batch_size: int) -> Norm:
    """`NORMS[id]` with batch statistics over parts of each batch (Hoffer et al. 2017, arXiv 1705.08741).

    Args:
        id: one of `GHOST_BATCH_NORMS`.
        ghost_batch_size: images in each part.

    Returns:
        The norm, which is not registered.

    Raises:
        UserError: for any other id.

    Examples:
        >>> ghost_batch_norm("bn", 8)(train=True).ghost_batch_size
        8
    """
    if id not in GHOST_BATCH_NORMS:
        raise UserError(
            f"ghost batches need one of {', '.join(GHOST_BATCH_NORMS)}, but the norm is {id}; choose one of them"
        )
    build = functools.partial(NORMS[id].build, ghost_batch_size=ghost_batch_size)
    return dataclasses.replace(NORMS[id], build=build)


def _batch(cls: Any, **fields: Any) -> Callable[..., nn.Module]:
    def build(*, train: bool, axis_name: Any, dtype: Any, name: str | None, **more: Any) -> nn.Module:
        return cls(
            use_running_average=not train,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            axis_name=axis_name,
            dtype=dtype,
            name=name,
            **fields,
            **more,
        )

    return build


def _sample(cls: Any, **fields: Any) -> Callable[..., nn.Module]:
    # Statistics of one image: the same in training and evaluation, and with any number of devices.
    def build(*, train: bool, axis_name: Any, dtype: Any, name: str | None) -> nn.Module:  # noqa: ARG001
        return cls(epsilon=EPSILON, dtype=dtype, name=name, **fields)

    return build


def _value(cls: Any) -> Callable[..., nn.Module]:
    # No statistics, and so no epsilon.
    def build(*, train: bool, axis_name: Any, dtype: Any, name: str | None) -> nn.Module:  # noqa: ARG001
        return cls(dtype=dtype, name=name)

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

GROUPS = dict(num_groups=None, group_size=4)
register_norm("rms", _sample(RMSNorm, reduction_axes=(1, 2, 3)), label="RMS norm")
register_norm("brn", _batch(ScheduledBatchRenorm), label="Batch renorm")
register_norm(
    "frn",
    _sample(FilterResponseNorm, use_threshold=False),
    label="Filter response norm",
    activation=_sample(FilterResponseNorm),
)
register_norm("gn_ws", NORMS["gn"].build, label="Group norm, standardized weights", conv=WeightStandardizedConv)
register_norm("bn_ws", NORMS["bn"].build, label="Batch norm, standardized weights", conv=WeightStandardizedConv)
register_norm(
    "sws",
    _identity,
    label="Scaled standardized weights",
    conv=ScaledWeightStandardizedConv,
    param_groups={"*conv*/kernel": ParamGroup(clipping=0.01)},
)
register_norm("sn", _batch(SwitchableNorm), label="Switchable norm")
register_norm("evo_b0", _batch(EvoNormB0, use_slope=False), label="EvoNorm-B0", activation=_batch(EvoNormB0))
register_norm(
    "evo_s0",
    _sample(EvoNormS0, use_slope=False, **GROUPS),
    label="EvoNorm-S0",
    activation=_sample(EvoNormS0, **GROUPS),
)
register_norm("dyt", _value(DynamicTanh), label="Dynamic tanh")
register_norm("derf", _value(DynamicErf), label="Dynamic erf")
register_norm("grn", _sample(GlobalResponseNorm), label="Global response norm")
register_norm("iln", _sample(InstanceLayerNorm), label="Instance-layer norm")
register_norm("bgn", _batch(BatchGroupNorm, group_size=4), label="Batch-group norm")
register_norm("iter", _batch(IterNorm), label="Iterative norm")
