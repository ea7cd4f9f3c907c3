"""Filter response normalization."""

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from flax.typing import Initializer
from jax.nn import initializers

from jaxnorm.functional import filter_response_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.norm_layer import Metadata, NormLayer


@document_as(filter_response_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class FilterResponseNorm(NormLayer):
    """`jaxnorm.functional.filter_response_norm` as a module of flax.nnx, with the parameters `scale`, `bias` and
    `threshold`.

    Attributes:
        use_threshold: Whether the layer has a `threshold`, and so includes the activation.
        train_epsilon: Whether the layer has a parameter `learned_epsilon`, from 1e-4, of which the absolute value is
            added to `epsilon`. Inputs with a single position need it.
        threshold_init: Initializer of `threshold`, by default zeros.
        threshold_metadata: Metadata of the variable `threshold`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.FilterResponseNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (2, 8, 8, 3)))
        >>> bool(y.min() >= 0), layer.threshold.shape
        (True, (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(filter_response_norm)
    use_threshold: bool = True
    train_epsilon: bool = False
    threshold_init: InitVar[Initializer] = initializers.zeros
    threshold_metadata: InitVar[Metadata] = None

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        *others, threshold_init, threshold_metadata = arguments
        super().__post_init__(rngs, *others)
        absent: Any = nnx.data(None)
        self.threshold = self.parameter(rngs, threshold_init, threshold_metadata) if self.use_threshold else absent
        self.learned_epsilon = absent
        if self.train_epsilon:
            self.learned_epsilon = self.parameter(rngs, initializers.constant(1e-4), None)

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        own: dict[str, Any] = {} if self.threshold is None else {"threshold": self.threshold[...]}
        if self.learned_epsilon is not None:
            own["epsilon"] = self.epsilon + jnp.abs(self.learned_epsilon[...])
        return own
