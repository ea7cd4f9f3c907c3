"""The networks that a run can name, and how to add one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxnorm.errors import UserError
from jaxnorm.study import registered
from jaxnorm.study.config import Config, nearest
from jaxnorm.study.models.resnet import ResNet, Weights
from jaxnorm.study.registry import Norm

_OFFERED = ("dtype", "num_blocks", "num_filters", "init")


@dataclasses.dataclass(frozen=True)
class Model:
    """A registered network.

    Attributes:
        id: as ``--model`` takes it.
        description: what it is, in one line.
        build: see `register_model`.
    """

    id: str
    description: str
    build: Callable[..., nn.Module]


MODELS: dict[str, Model] = {}
"""Every registered network by id; the built-in one first."""


def register_model(id: str, build: Callable[..., nn.Module], *, description: str | None = None) -> None:
    """Adds a network to `MODELS`, so that every driver can train it with every norm.

    Args:
        id: a new one; lower-case letters, digits and underscores.
        build: a function, or a class of Flax modules, that is called with keywords and returns the network. `norm` is a
            `Norm`: ``norm(train=..., dtype=..., name=...)`` is a layer, ``norm.conv`` builds convolutions, and
            ``norm.activation`` takes the place of norm and ReLU if it is not None. `num_classes` is the number of
            logits. It may also have parameters for `dtype` (None, or "bfloat16"), `num_blocks`, `num_filters` and
            `init`, the fields of `Config`; a run that changes one that it does not have is refused. The network is
            applied as `train` applies one of your own, see there.
        description: one line for ``--list models``; by default the id.

    Raises:
        UserError: if the id is malformed or taken by another function, or `build` needs other keywords.

    Examples:
        >>> register_model("small", lambda *, norm, num_classes: ResNet(1, norm, num_classes=num_classes))
        >>> MODELS.pop("small").description
        'small'
    """
    words = id if description is None else description
    if isinstance(build, nn.Module):
        raise UserError(
            f"the model {id!r} must have a function or a class that builds it with any norm, but has a "
            f"{type(build).__name__} that is built; give what builds it"
        )
    registered.check_registration("model", id, words, build, MODELS[id].build if id in MODELS else None, most=100)
    registered.check_call("model", id, build, ("norm", "num_classes"), _OFFERED)
    MODELS[id] = Model(id, words, build)


def check_model(config: Config) -> None:
    """Checks that a configuration's network is registered, and takes what the configuration says of it.

    Args:
        config: the run.

    Raises:
        UserError: naming the field.
    """
    if config.model not in MODELS:
        raise UserError(f"`model` must name a network, but names {config.model!r}; {nearest(config.model, MODELS)}")
    takes = registered.taken(MODELS[config.model].build, _OFFERED)
    fields = {"num_blocks": "num_blocks", "num_filters": "num_filters", "init": "init", "compute_dtype": "dtype"}
    for field, keyword in fields.items():
        value, usual = getattr(config, field), getattr(Config(), field)
        if value != usual and keyword not in takes:
            raise UserError(
                f"`{field}` needs a network with a parameter {keyword}, but is {value} with {config.model}, which has "
                f"none; leave it at {usual}, or change `model`"
            )


def build_model(config: Config, norm: Norm, num_classes: int) -> nn.Module:
    """The network that a configuration describes.

    Args:
        config: gives its id, size, initial weights and precision.
        norm: builds its norms.
        num_classes: number of logits.

    Returns:
        The network.

    Raises:
        UserError: as `check_model`; also if what is built is no Flax module.
    """
    check_model(config)
    offered: dict[str, Any] = {
        "norm": norm,
        "num_classes": num_classes,
        "dtype": None if config.compute_dtype == "float32" else config.compute_dtype,
        "num_blocks": config.num_blocks,
        "num_filters": config.num_filters,
        "init": config.init,
    }
    model = registered.call(MODELS[config.model].build, offered)
    if not isinstance(model, nn.Module):
        raise UserError(
            f"the function of the model {config.model!r} must return a Flax module, but returns "
            f"{type(model).__name__}; see the docstring of register_model"
        )
    return model


def _resnet(
    *, norm: Norm, num_classes: int, num_blocks: int, num_filters: int, init: Weights, dtype: str | None
) -> ResNet:
    return ResNet(
        num_blocks=num_blocks,
        norm=norm,
        conv=norm.conv,
        num_classes=num_classes,
        num_filters=num_filters,
        weights=init,
        dtype=dtype,
    )


register_model("resnet", _resnet, description="residual network of 6n+2 layers for small images; ResNet-14 by default")
