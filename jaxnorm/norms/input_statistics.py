"""Statistics of the input itself, and the layers that use nothing else."""

from typing import Any

from flax.typing import Array

from jaxnorm.norms.inputs import cast_output, promote_input
from jaxnorm.norms.moments import Moments, compute_moments, normalize
from jaxnorm.norms.variables import NormLayer, scale_and_bias


def active_axis_name(layer: NormLayer) -> str | None:
    """The layer's mapped axis. During `init` it need not exist, and this is None.

    Args:
        layer: The layer, within its `__call__`.

    Returns:
        Its `axis_name`, or None.
    """
    return None if layer.is_initializing() else layer.axis_name


def input_moments(
    layer: NormLayer,
    x: Array,
    axes: tuple[int, ...],
    mask: Array | None,
    axis_name: Any = None,
    num_groups: int | None = None,
) -> Moments:
    """`compute_moments` with the layer's own `use_fast_variance` and `axis_index_groups`.

    Args:
        layer: The layer, within its `__call__`.
        x: The input, as from `promote_input`.
        axes: Axes to reduce.
        mask: Booleans of x's rank, broadcastable to x, or None.
        axis_name: Mapped axis along which the sets continue, or None.
        num_groups: Number of groups of the last axis, or None.

    Returns:
        The moments of each set.
    """
    return compute_moments(
        x,
        axes,
        num_groups=num_groups,
        mask=mask,
        axis_name=axis_name,
        axis_index_groups=layer.axis_index_groups,
        use_fast_variance=layer.use_fast_variance,
    )


def normalize_by_input_statistics(
    layer: NormLayer,
    x: Array,
    mask: Array | None,
    axes: tuple[int, ...],
    feature_axes: tuple[int, ...],
    num_groups: int | None = None,
) -> Array:
    """The output of a layer that is the same in training and evaluation.

    Args:
        layer: The layer, within its `__call__`.
        x: The input.
        mask: Broadcastable to x, or None.
        axes: Axes to reduce.
        feature_axes: Axes of `scale` and `bias`.
        num_groups: Groups of the last axis, or None.

    Returns:
        The output, of x's shape.
    """
    promoted, mask, invalid = promote_input(
        x,
        mask,
        dtype=layer.dtype,
        force_float32_reductions=layer.force_float32_reductions,
        name=type(layer).__name__,
    )
    moments = input_moments(layer, promoted, axes, mask, active_axis_name(layer), num_groups)
    scale, bias = scale_and_bias(layer, promoted, feature_axes)
    y = normalize(promoted, moments, scale, bias, layer.epsilon)
    return cast_output(y, x, scale, bias, dtype=layer.dtype, invalid=invalid)
