"""Batch-instance normalization."""

from flax import linen as nn
from flax.typing import Array, Initializer
from jax.nn import initializers

from jaxnorm.functional import batch_instance_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.batch_norm import BatchNorm
from jaxnorm.norms.variables import normalize_batch


@document_as(batch_instance_norm)
class BatchInstanceNorm(BatchNorm):
    """`jaxnorm.functional.batch_instance_norm` as a module of flax.linen, with the parameters `scale`, `bias` and
    `gate`. The running `mean` and `var` are the collection `batch_stats`.

    Attributes:
        gate_init: Initializer of `gate`, by default ones: batch norm.

    Examples:
        >>> import jax
        >>> from jaxnorm import BatchInstanceNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> layer = BatchInstanceNorm(use_running_average=False)
        >>> y, variables = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape, variables["params"]["gate"].shape
        ((8, 4, 4, 3), (3,))
    """

    train_gate: bool = True
    gate_init: Initializer = initializers.ones

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            use_running_average: Whether to take the running statistics, unless the field says so.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        return normalize_batch(self, batch_instance_norm, x, use_running_average, mask, gate=self.gate_init)
