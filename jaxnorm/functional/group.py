"""Group normalization."""

from typing import Any

import jax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.errors import UserError
from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Axes, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import compute_moments, normalize


@document
@on_any_mesh
def group_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    num_groups: int | None = 32,
    group_size: int | None = None,
    reduction_axes: Axes | None = None,
    epsilon: float = 1e-6,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each sample over positions and a group.

    The input has shape (N, ..., C). `scale` and `bias` have shape (C,). A group consists of neighbouring channels. Give
    either `num_groups` or `group_size`, and None for the other. Training and evaluation are the same.

    References:
        Wu and He 2018, "Group Normalization", https://arxiv.org/abs/1803.08494

    Args:
        x: Shape (N, ..., C).
        num_groups: Number of groups, by default 32.
        group_size: Number of channels in a group.
        reduction_axes: Axes over which statistics are taken, which include the last; by default all but the first.

    Returns:
        The normalized array, of x's shape.

    Raises:
        UserError: If both or none of `num_groups` and `group_size` are given, if they do not divide the channels, or
            if `reduction_axes` does not include the last axis. If an array or an axis does not fit the input.

    Examples:
        >>> import jax
        >>> from jaxnorm.functional import group_norm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
        >>> bool(abs(group_norm(x, num_groups=3)[..., :2].mean((1, 2, 3))).max() < 1e-6)
        True
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "group_norm")
    last = given.x.ndim - 1
    axes = given.axes((*range(1, last), -1) if reduction_axes is None else reduction_axes, "reduction_axes")
    if last not in axes:
        raise UserError(
            f"group_norm's reduction_axes must include the last axis, {last}, but are {reduction_axes}; add -1"
        )
    moments = compute_moments(
        given.x,
        axes,
        num_groups=count_groups(given.x.shape[-1], num_groups, group_size),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        use_fast_variance=use_fast_variance,
    )
    scale, bias = given.scale_and_bias(scale, bias, (last,))
    return given.output(normalize(given.x, moments, scale, bias, epsilon), scale, bias)


def count_groups(channels: int, num_groups: int | None, group_size: int | None, function: str = "group_norm") -> int:
    """The number of groups.

    Args:
        channels: Length of the last axis.
        num_groups: As in `group_norm`.
        group_size: As in `group_norm`.
        function: Which function asks, for error messages.

    Returns:
        `num_groups`, or channels / group_size.

    Raises:
        UserError: If both or none of the two are given, or if one does not divide the channels.
    """
    if (num_groups is None) == (group_size is None):
        raise UserError(
            f"{function} takes num_groups or group_size, but was given num_groups={num_groups} and "
            f"group_size={group_size}; set one of them to None"
        )
    name, divisor = ("group_size", group_size) if num_groups is None else ("num_groups", num_groups)
    if divisor is None or divisor <= 0 or channels % divisor:
        raise UserError(f"{function}'s {name} must divide the {channels} channels, but is {divisor}; choose a divisor")
    return channels // divisor if num_groups is None else divisor
