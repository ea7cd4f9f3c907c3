"""The documentation of the fields that all layers share."""

import inspect
from typing import TypeVar

Layer = TypeVar("Layer", bound=type)

SHARED_FIELDS = """\
epsilon: Added to the variance before the square root.
dtype: Dtype of the output; None takes the dtype of input and parameters. Statistics are float32 at least.
param_dtype: Dtype of the parameters.
use_bias: Whether the layer has a `bias` (beta).
use_scale: Whether the layer has a `scale` (gamma).
bias_init: Initializer of `bias`, by default zeros.
scale_init: Initializer of `scale`, by default ones.
axis_name: Mapped axis (of vmap, shard_map or pmap) over which statistics are combined. jit needs none.
axis_index_groups: Groups of indices along that axis; each group has its own statistics.
use_fast_variance: One pass over the input; False takes two.
force_float32_reductions: Whether bfloat16 and float16 inputs have float32 statistics; False keeps their precision.
"""


def with_shared_fields(layer: Layer) -> Layer:
    """Class decorator that adds `SHARED_FIELDS` to the end of the docstring's section `Attributes:`.

    Args:
        layer: The class, whose docstring lists its other fields.

    Returns:
        The same class.
    """
    if layer.__doc__:  # python -OO removes docstrings
        head, heading, tail = inspect.cleandoc(layer.__doc__).partition("\nAttributes:")
        own, blank, rest = tail.partition("\n\n")
        shared = "".join(f"\n    {line}" for line in SHARED_FIELDS.splitlines())
        layer.__doc__ = f"{head}{heading}{own}{shared}{blank}{rest}"
    return layer
