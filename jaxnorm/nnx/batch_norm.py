"""Batch normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import canonicalize_dtype
from flax.typing import Array, Axes
from jax import lax

from jaxnorm.errors import UserError
from jaxnorm.functional import batch_norm
from jaxnorm.functional.fields import document_as, fields_of
from jaxnorm.nnx.norm_layer import NormLayer


@document_as(batch_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class BatchNorm(NormLayer):
    """`jaxnorm.functional.batch_norm` as a module of flax.nnx, with the parameters `scale` and `bias`. The running
    `mean` and `var` are of type `nnx.BatchStat`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> x = jnp.arange(8.0).reshape(4, 2)
        >>> layer = nnx.BatchNorm(2, momentum=0.9, rngs=Rngs(0))
        >>> y = layer(x)
        >>> print(*(f"{value:.3f}" for value in [*y[:, 0], *layer.mean[...]]))
        -1.342 -0.447 0.447 1.342 0.300 0.400
        >>> layer.eval()
        >>> y = layer(x)
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_norm)
    use_running_average: bool | None = False
    axis: Axes = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    ghost_batch_size: int | None = None

    def __post_init__(self, *arguments: Any) -> None:
        """Makes the parameters and the running statistics."""
        super().__post_init__(*arguments)
        dtype = jnp.float32 if self.force_float32_reductions else self.param_dtype
        self.mean = nnx.BatchStat(jnp.zeros((self.num_features,), dtype))
        self.var = nnx.BatchStat(jnp.ones((self.num_features,), dtype))

    def __call__(self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Array:
        """Normalizes an array, and updates the running statistics in training.

        Args:
            x: Shape (N, ..., C).
            use_running_average: Whether to take the running statistics (evaluation); None for what the layer says.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average is None:
            raise UserError(
                f"{self._function.__name__}'s use_running_average must be True or False, but is None in layer and in "
                "call; call train() or eval()"
            )
        mean, var = self.mean[...], self.var[...]
        running = {"mean": mean, "var": var}
        x, mean, var, scale, bias = arrays = self.arrays(x, mean, var)
        if use_running_average:
            running = {"mean": mean, "var": var}
        settings = fields_of(self, self._function)
        if self.dtype is None:  # flax.nnx takes the running statistics' dtype into account too
            settings["dtype"] = canonicalize_dtype(*arrays)
        y, running = self._function(
            x, scale, bias, running, train=not use_running_average, mask=mask, **self.own_parameters(), **settings
        )
        if not use_running_average:
            self.mean[...], self.var[...] = (lax.stop_gradient(running[name]) for name in ("mean", "var"))
        return y

    set_view = nnx.BatchNorm.set_view

    def own_parameters(self) -> dict[str, Array]:
        """The parameters of the function besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {}
