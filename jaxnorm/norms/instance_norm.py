"""Instance normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.norms.input_statistics import normalize_by_input_statistics
from jaxnorm.norms.inputs import check_feature_axes
from jaxnorm.norms.moments import canonical_axes
from jaxnorm.norms.shared_fields import with_shared_fields


@with_shared_fields
class InstanceNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each sample and channel over positions.

    The input has shape (N, ..., C). `scale` and `bias` have the shape of the feature axes, (C,). Training and
    evaluation are the same. A single position has variance 0, and the output is the bias, as in flax; PyTorch raises an
    error in training.

    References:
        Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization", https://arxiv.org/abs/1607.08022

    Attributes:
        feature_axes: Axes of `scale` and `bias`, by default the last. All others but the first are reduced.

    Raises:
        ValueError: If `feature_axes` includes the leading axis, which holds the samples.

    Examples:
        >>> import jax
        >>> from jaxnorm import InstanceNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = InstanceNorm().init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 3), (3,))
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1
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
        """
        feature_axes = canonical_axes(jnp.ndim(x), self.feature_axes)
        check_feature_axes(feature_axes, type(self).__name__)
        axes = tuple(axis for axis in range(1, jnp.ndim(x)) if axis not in feature_axes)
        return normalize_by_input_statistics(self, x, mask, axes, feature_axes)
