"""Parameters that a norm wants to be trained in their own way."""

import dataclasses
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import optax

from jaxnorm.errors import UserError

Params = Any


@dataclasses.dataclass(frozen=True)
class ParamGroup:
    """How the parameters of a group are trained. The defaults are those of all other parameters.

    Attributes:
        learning_rate: Factor of the run's learning rate.
        bounds: The least and the greatest value, to which every update is projected, or None.
        weight_decay: Added to the gradient: this factor times the parameter.
        clipping: The largest ratio of a gradient's norm to its parameter's norm, for each output channel
            (`optax.adaptive_grad_clip`, Brock et al. 2021, https://arxiv.org/abs/2102.06171), or None.

    Raises:
        UserError: If a number is not finite or out of range.

    Examples:
        >>> ParamGroup(learning_rate=10.0, bounds=(0.0, 1.0)).bounds
        (0.0, 1.0)
    """

    learning_rate: float = 1.0
    bounds: tuple[float, float] | None = None
    weight_decay: float = 0.0
    clipping: float | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, least in (("learning_rate", 0.0), ("weight_decay", 0.0), ("clipping", 0.0)):
            value = getattr(self, name)
            if value is None and name == "clipping":
                continue
            if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
                raise UserError(f"a ParamGroup's {name} must be a number from {least:g}, but is {value!r}; change it")
        if self.bounds is not None and not (len(self.bounds) == 2 and self.bounds[0] <= self.bounds[1]):
            raise UserError(
                f"a ParamGroup's bounds must be the least and the greatest value, but are {self.bounds!r}; give two"
            )


GATE = ParamGroup(bounds=(0.0, 1.0))
"""Parameters named ``gate``. The factor of their learning rate is the run's `gate_lr_multiplier`."""

ParamGroups = tuple[tuple[str, ParamGroup], ...]


def checked(groups: Mapping[str, ParamGroup]) -> ParamGroups:
    """Groups in a form that can be hashed.

    Args:
        groups: See `register_norm`.

    Returns:
        Patterns and groups.

    Raises:
        UserError: If a pattern is no text or would take gates, or if a group is no `ParamGroup`.
    """
    for pattern, group in groups.items():
        if not isinstance(pattern, str) or not isinstance(group, ParamGroup):
            raise UserError(
                f"a norm's param_groups must map patterns to ParamGroup, but have {pattern!r}: {group!r}; see "
                "register_norm"
            )
        if fnmatchcase("layer/gate", pattern):
            raise UserError(
                f"a parameter named gate has a group already, but the pattern {pattern!r} takes it; choose a pattern "
                "that does not"
            )
    return tuple(groups.items())


def group_names(params: Params, groups: ParamGroups) -> Params:
    """The group of each parameter: "gate", the first pattern that takes it, or "weight".

    Args:
        params: The network's parameters.
        groups: As from `checked`.

    Returns:
        Names in the structure of the parameters.

    Examples:
        >>> group_names({"norm1": {"gate": 0.5, "alpha": 0.5, "scale": 1.0}}, (("*/alpha", ParamGroup()),))
        {'norm1': {'alpha': '*/alpha', 'gate': 'gate', 'scale': 'weight'}}
    """

    def name(path: tuple[Any, ...], _: jax.Array) -> str:
        words = "/".join(str(getattr(key, "key", key)) for key in path)
        if words.split("/")[-1] == "gate":
            return "gate"
        return next((pattern for pattern, _ in groups if fnmatchcase(words, pattern)), "weight")

    return jax.tree_util.tree_map_with_path(name, params)


def project(params: Params, groups: ParamGroups = ()) -> Params:
    """Clips gates to [0, 1] and every parameter of a group to its bounds, and leaves the rest unchanged.

    Args:
        params: The network's parameters.
        groups: As from `checked`.

    Returns:
        The parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> project({"norm1": {"gate": jnp.array([-0.5, 0.5, 1.5]), "scale": jnp.array([2.0])}})["norm1"]["gate"]
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    bounds = {"gate": GATE.bounds, **{pattern: group.bounds for pattern, group in groups}}

    def projected(name: str, leaf: jax.Array) -> jax.Array:
        box = bounds.get(name)
        return leaf if box is None else optax.projections.projection_box(leaf, *box)

    return jax.tree.map(projected, group_names(params, groups), params)
