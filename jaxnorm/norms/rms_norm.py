"""Root mean square normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import rms_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import NormLayer


@document_as(rms_norm)
class RMSNorm(NormLayer):
    """`jaxnorm.functional.rms_norm` as a module of flax.linen, with the parameter `scale`.

    Attributes:
        scale_init: Initializer of `scale`; None for 1 - `scale_offset`, so that the layer starts with a factor of 1.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import RMSNorm
        >>> y, variables = RMSNorm(scale_offset=1.0).init_with_output(jax.random.key(0), jnp.asarray([[3.0, 4.0]]))
        >>> print(*(f"{value:.4f}" for value in y[0]), *variables["params"]["scale"])
        0.8485 1.1314 0.0 0.0
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(rms_norm)
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_init: Initializer | None = None
    scale_offset: float = 0.0
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None, scale: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Any shape that has the axes.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.
            scale: In place of the parameter, which the layer must not have; of the feature axes' shape, or with a value
                for each sample, (N, C).

        Returns:
            The output, of x's shape.
        """
        return self._function(x, mask=mask, **self.arguments(x, scale=scale))

    @nn.nowrap
    def initializer(self, name: str) -> Initializer:  # noqa: ARG002
        return self.scale_init or initializers.constant(1 - self.scale_offset)
