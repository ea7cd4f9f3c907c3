"""Group normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.norms.input_statistics import normalize_by_input_statistics
from jaxnorm.norms.moments import canonical_axes
from jaxnorm.norms.shared_fields import with_shared_fields


@with_shared_fields
class GroupNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each sample over positions and a group.

    The input has shape (N, ..., C). `scale` and `bias` have shape (C,). A group consists of neighbouring channels. Give
    either `num_groups` or `group_size`, and None for the other. Training and evaluation are the same.

    References:
        Wu and He 2018, "Group Normalization", https://arxiv.org/abs/1803.08494

    Attributes:
        num_groups: Number of groups, by default 32.
        group_size: Number of channels in a group.
        reduction_axes: Axes over which statistics are taken, which include the last; by default all but the first.

    Raises:
        ValueError: If both or none of `num_groups` and `group_size` are given, if they do not divide the channels, or
            if `reduction_axes` does not include the last axis.

    Examples:
        >>> import jax
        >>> from jaxnorm import GroupNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
        >>> y, variables = GroupNorm(num_groups=None, group_size=2).init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 6), (6,))
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes | None = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.

        Raises:
            ValueError: If a field of the layer does not fit the input, see the class.
        """
        ndim = jnp.ndim(x)
        given = self.reduction_axes
        axes = canonical_axes(ndim, (*range(1, ndim - 1), ndim - 1) if given is None else given)
        if ndim - 1 not in axes:
            raise ValueError(
                f"GroupNorm's reduction_axes must include the last axis, {ndim - 1}, but are {given}; add -1"
            )
        num_groups = count_groups(jnp.shape(x)[-1], self.num_groups, self.group_size)
        return normalize_by_input_statistics(self, x, mask, axes, (ndim - 1,), num_groups)


def count_groups(channels: int, num_groups: int | None, group_size: int | None) -> int:
    """The number of groups.

    Args:
        channels: Length of the last axis.
        num_groups: As the layer's field.
        group_size: As the layer's field.

    Returns:
        `num_groups`, or channels / group_size.

    Raises:
        ValueError: If both or none of the two are given, or if one does not divide the channels.
    """
    if (num_groups is None) == (group_size is None):
        raise ValueError(
            f"GroupNorm takes num_groups or group_size, but was given num_groups={num_groups} and "
            f"group_size={group_size}; set one of them to None"
        )
    name, divisor = ("group_size", group_size) if num_groups is None else ("num_groups", num_groups)
    if divisor is None or divisor <= 0 or channels % divisor:
        raise ValueError(f"GroupNorm's {name} must divide the {channels} channels, but is {divisor}; choose a divisor")
    return channels // divisor if num_groups is None else divisor
