"""Layer normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.norms.input_statistics import normalize_by_input_statistics
from jaxnorm.norms.moments import canonical_axes
from jaxnorm.norms.shared_fields import with_shared_fields


@with_shared_fields
class LayerNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var over `reduction_axes`.

    `scale` and `bias` have the shape of the feature axes. The default reduces the last axis. For images (N, H, W, C)
    with one mean and variance per sample, give ``reduction_axes=(1, 2, 3)``, which equals `GroupNorm` with one group.
    Training and evaluation are the same.

    References:
        Ba, Kiros and Hinton 2016, "Layer Normalization", https://arxiv.org/abs/1607.06450

    Attributes:
        reduction_axes: Axes over which statistics are taken, by default the last.
        feature_axes: Axes of `scale` and `bias`, by default the last.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import LayerNorm
        >>> x = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])
        >>> y, _ = LayerNorm().init_with_output(jax.random.key(0), x)
        >>> print(*(f"{value:.3f}" for value in y[0]))
        -1.342 -0.447 0.447 1.342
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Any shape that has the axes.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        axes = canonical_axes(jnp.ndim(x), self.reduction_axes)
        feature_axes = canonical_axes(jnp.ndim(x), self.feature_axes)
        return normalize_by_input_statistics(self, x, mask, axes, feature_axes)
