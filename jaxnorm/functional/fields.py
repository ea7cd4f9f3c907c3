"""What a function and its layers share: arguments that are fields, and their documentation."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from jaxnorm.errors import UserError

Documented = TypeVar("Documented", bound=Callable[..., Any])

SHARED = """\
scale: Factor (gamma), of the feature axes' shape or broadcastable to x with x's rank; None for 1.
bias: Summand (beta), of a shape like `scale`'s; None for 0.
epsilon: Added to the variance before the square root.
mask: Booleans, broadcastable to x; False excludes a value from the statistics.
axis_name: Mapped axis (of vmap, shard_map or pmap) over which statistics are combined. jit needs none.
axis_index_groups: Groups of indices along that axis; each group has its own statistics.
use_fast_variance: One pass over the input; False takes two.
dtype: Dtype of the output; None takes the dtype of input and parameters. Statistics are float32 at least. A real dtype
    normalizes the real part of complex input.
force_float32_reductions: Whether bfloat16 and float16 inputs have float32 statistics; False keeps their precision.
use_running_average: Whether to take the running statistics (evaluation). May be given at the call instead.
param_dtype: Dtype of the parameters.
use_bias: Whether the layer has a `bias` (beta).
use_scale: Whether the layer has a `scale` (gamma).
bias_init: Initializer of `bias`, by default zeros.
scale_init: Initializer of `scale`, by default ones.
num_features: Number of values in each parameter, usually the length of the last axis.
promote_dtype: Casts input, statistics and parameters before the computation, as in flax.nnx; None does nothing.
rngs: Random keys of flax.nnx; `params` makes the parameters.
bias_metadata: Metadata of the variable `bias`.
scale_metadata: Metadata of the variable `scale`.
"""
"""One line for each argument or field that several functions or layers have."""

_HEADINGS = ("References", "Args", "Attributes", "Returns", "Raises", "Examples")
_INHERITED = ("self", "parent", "name")  # of every module of flax.linen
_ENTRY = re.compile(r"^(\w+): (?:.*\n?)(?:    .*\n?)*", re.M)


def fields_of(layer: Any, function: Callable[..., Any]) -> dict[str, Any]:
    """The fields of a layer that are keyword arguments of a function.

    Args:
        layer: A dataclass.
        function: A function of this package.

    Returns:
        The values by name.
    """
    names = _common_names(layer.__class__, function)
    return {name: getattr(layer, name) for name in names}


def at_call(function: Callable[..., Any], name: str, value: Any, owned: bool) -> Any:
    """A parameter that is given at the call of a layer.

    Args:
        function: The layer's.
        name: `scale` or `bias`.
        value: As it is given, or None.
        owned: Whether the layer has this parameter itself.

    Returns:
        The value.

    Raises:
        UserError: If there are both.
    """
    if value is not None and owned:
        raise UserError(
            f"{function.__name__}'s {name} must be a parameter of the layer or an argument of the call, but is both; "
            f"make the layer with use_{name}=False"
        )
    return value


def document(thing: Documented) -> Documented:
    """Decorator of a function or class: lists the shared arguments or fields too.

    Args:
        thing: The function or class, whose docstring lists its own.

    Returns:
        The same.
    """
    if thing.__doc__:  # python -OO removes docstrings
        intro, sections = _parts(thing.__doc__)
        heading = "Attributes" if inspect.isclass(thing) else "Args"
        sections[heading] = _list(_names(thing), sections.get(heading, ""))
        thing.__doc__ = _joined(intro, sections)
    return thing


def document_as(function: Callable[..., Any]) -> Callable[[Documented], Documented]:
    """Decorator of a layer's class: completes its docstring with that of the function that the layer computes.

    Args:
        function: A documented function.

    Returns:
        The decorator. The class's docstring has the text about the layer, its own fields and an example.
    """

    def decorate(layer: Documented) -> Documented:
        if layer.__doc__ and function.__doc__:
            (intro, sections), (own_intro, own) = _parts(function.__doc__), _parts(layer.__doc__)
            known = f"{own.get('Attributes', '')}\n{sections['Args']}"
            both = {"References": sections.get("References"), "Attributes": _list(_names(layer), known)}
            both |= {"Raises": own.get("Raises") or sections.get("Raises"), "Examples": own.get("Examples")}
            layer.__doc__ = _joined(f"{intro}\n\n{own_intro}", both)
        return layer

    return decorate


@functools.cache
def _common_names(layer: Any, function: Callable[..., Any]) -> list[str]:
    keywords = [each.name for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY]
    return [field.name for field in dataclasses.fields(layer) if field.name in keywords]


def _parts(docstring: str) -> tuple[str, dict[str, Any]]:
    """The text before the first section, and the sections by heading, without their indentation."""
    pieces = re.split(rf"^({'|'.join(_HEADINGS)}):$\n?", inspect.cleandoc(docstring), flags=re.M)
    return pieces[0].strip(), dict(zip(pieces[1::2], map(inspect.cleandoc, pieces[2::2]), strict=True))


def _joined(intro: str, sections: dict[str, Any]) -> str:
    pieces = [intro.strip()]
    for heading in _HEADINGS:
        if text := sections.get(heading):
            indented = "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
            pieces.append(f"{heading}:\n{indented.rstrip()}")
    return "\n\n".join(pieces) + "\n"


def _names(thing: Any) -> list[str]:
    # flax.nnx hides the signature of the class itself.
    parameters = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing).parameters
    return [name for name in parameters if name not in _INHERITED and not name.startswith("_")]


def _list(names: list[str], own: str) -> str:
    """An entry for each name, from `own` or else from `SHARED`."""
    entries: dict[str, str] = {}
    for match in _ENTRY.finditer(f"{own}\n{SHARED}"):
        entries.setdefault(match[1], match[0].rstrip())
    return "\n".join(entries[name] for name in names if name in entries)
