"""Root mean square normalization."""

import dataclasses
from dataclasses import InitVar
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Array, Axes, Dtype, Initializer, PromoteDtypeFn
from jax.nn import initializers

from jaxnorm.functional import rms_norm
from jaxnorm.functional.fields import at_call, document_as, fields_of
from jaxnorm.nnx.norm_layer import Metadata


@document_as(rms_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class RMSNorm(nnx.Module):
    """`jaxnorm.functional.rms_norm` as a module of flax.nnx, with the parameter `scale`.

    Attributes:
        scale_init: Initializer of `scale`; None for 1 - `scale_offset`, so that the layer starts with a factor of 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.RMSNorm(2, scale_offset=1.0, rngs=Rngs(0))
        >>> print(*(f"{value:.4f}" for value in layer(jnp.asarray([[3.0, 4.0]]))[0]), *layer.scale[...])
        0.8485 1.1314 0.0 0.0
    """

    num_features: int = dataclasses.field(kw_only=False)
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_offset: float = 0.0
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    force_float32_reductions: bool = True
    promote_dtype: PromoteDtypeFn | None = None
    rngs: InitVar[nnx.Rngs]
    scale_init: InitVar[Initializer | None] = None
    scale_metadata: InitVar[Metadata] = None

    def __post_init__(self, rngs: nnx.Rngs, scale_init: Initializer | None, scale_metadata: Metadata) -> None:
        """Makes the parameter."""
        self.scale: Any = nnx.data(None)
        if self.use_scale:
            init = scale_init or initializers.constant(1 - self.scale_offset)
            value = init(rngs.params(), (self.num_features,), self.param_dtype)
            self.scale = nnx.Param(value, **(scale_metadata or {}))

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
        scale = at_call(rms_norm, "scale", scale, self.scale is not None)
        scale = scale if self.scale is None else self.scale[...]
        if self.promote_dtype is not None:
            x, scale = self.promote_dtype((x, scale), dtype=self.dtype)
        return rms_norm(x, scale, mask=mask, **fields_of(self, rms_norm))
