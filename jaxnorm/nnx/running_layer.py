"""What all layers with running statistics have."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import canonicalize_dtype
from flax.typing import Array
from jax import lax

from jaxnorm.errors import UserError
from jaxnorm.functional.fields import document
from jaxnorm.nnx.norm_layer import NormLayer


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class RunningLayer(NormLayer):
    """A layer with running statistics, which follow `train()` and `eval()`. A subclass names its
    function and adds fields.

    Attributes:
        momentum: Weight of the old running value.
    """

    use_running_average: bool | None = False
    momentum: float = 0.99
    epsilon: float = 1e-5

    def __post_init__(self, *arguments: Any) -> None:
        """Makes the parameters and the running statistics."""
        super().__post_init__(*arguments)
        self.mean: nnx.BatchStat[Array]  # for type checkers: what `starts` names is made below
        self.var: nnx.BatchStat[Array]
        dtype = jnp.float32 if self.force_float32_reductions else self.param_dtype
        for name, start in self.starts().items():
            setattr(self, name, nnx.BatchStat(start((self.num_features,), dtype)))

    def starts(self) -> dict[str, Callable[..., Array]]:
        """The running statistics by name, each as a function of shape and dtype.

        Returns:
            `mean` from zeros and `var` from ones.
        """
        return {"mean": jnp.zeros, "var": jnp.ones}

    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        scale: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Normalizes an array, and updates the running statistics in training.

        Args:
            x: Shape (N, ..., C).
            use_running_average: Whether to take the running statistics (evaluation); None for what the layer says.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.
            scale: In place of the parameter, which the layer must not have; of the feature axes' shape, or with a value
                for each sample, (N, C).
            bias: As `scale`.

        Returns:
            The output, of x's shape.

        Raises:
            UserError: If neither the layer nor the call says whether to take the running statistics.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average is None:
            raise UserError(
                f"{self._function.__name__}'s use_running_average must be True or False, but is None in layer and in "
                "call; call train() or eval()"
            )
        variables: dict[str, nnx.BatchStat[Array]] = {name: getattr(self, name) for name in self.starts()}
        running = {name: variable[...] for name, variable in variables.items()}
        x, *cast, scale, bias = arrays = self.arrays(x, *running.values(), scale=scale, bias=bias)
        if use_running_average:
            running = dict(zip(running, cast, strict=True))
        settings = self.settings()
        if self.dtype is None:  # flax.nnx takes the running statistics' dtype into account too
            settings["dtype"] = canonicalize_dtype(*arrays)
        y, running = self._function(x, scale, bias, running, train=not use_running_average, mask=mask, **settings)
        if not use_running_average:
            for name, variable in variables.items():
                variable[...] = lax.stop_gradient(running[name])
        return y

    set_view = nnx.BatchNorm.set_view
