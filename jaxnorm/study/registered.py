"""What can be registered under an id: its checks, and the keywords that a builder of the user takes."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxnorm.errors import UserError, one_line


def check_registration(
    kind: str, id: str, words: str, build: Callable[..., Any], before: Any, *, most: int = 60
) -> None:
    """Checks an id, the words that describe what it names, and that it is free.

    A function of the same name in the same module replaces an earlier one: a cell of a notebook may run again.

    Args:
        kind: such as "norm", for the message.
        id: as flags take it.
        words: shown beside it.
        build: the builder.
        before: the builder that has the id; None if it is free.
        most: letters that the words may have.

    Raises:
        UserError: if the id or the words are malformed, the builder cannot be called, or the id is taken.

    Examples:
        >>> check_registration("norm", "mine", "My norm", print, None)
    """
    check_id(kind, id)
    if not isinstance(words, str) or not words.isprintable() or not 1 <= len(words) <= most:
        raise UserError(
            f"what describes the {kind} {id!r} must be one line of 1 to {most} printable characters, but is {words!r}; "
            "change it"
        )
    if not callable(build):
        raise UserError(
            f"the {kind} {id!r} must have a function that builds it, but has {one_line(repr(build), 80)}; give one"
        )
    if before is not None and before is not build and _origin(before) != _origin(build):
        raise UserError(f"a {kind}'s id must be new, but {id!r} is registered; choose another id")


def check_id(kind: str, id: str) -> None:
    """Checks that an id can be a part of a file's name.

    Args:
        kind: such as "norm", for the message.
        id: the id.

    Raises:
        UserError: if it cannot.

    Examples:
        >>> check_id("norm", "my_norm")
    """
    if not isinstance(id, str) or not re.fullmatch("[a-z0-9_]{1,40}", id):
        raise UserError(
            f"a {kind}'s id must be 1 to 40 lower-case letters, digits and underscores, but is {id!r}; rename it"
        )


def taken(build: Callable[..., Any], names: Iterable[str]) -> frozenset[str]:
    """The keywords that a builder has parameters for.

    Args:
        build: a function or a class.
        names: of the keywords that are offered to it.

    Returns:
        Some of `names`; all of them if it takes any keyword.

    Examples:
        >>> sorted(taken(lambda a, *, b: None, ["a", "b", "c"]))
        ['a', 'b']
    """
    parameters = inspect.signature(build).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return frozenset(names)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(name for name in names if name in parameters and parameters[name].kind in by_name)


def call(build: Callable[..., Any], offered: Mapping[str, Any]) -> Any:
    """Calls a builder with the keywords that it takes.

    Args:
        build: a function or a class.
        offered: keywords.

    Returns:
        What it returns.

    Examples:
        >>> call(lambda *, a: a, {"a": 1, "b": 2})
        1
    """
    return build(**{name: offered[name] for name in taken(build, offered)})


def check_call(kind: str, id: str, build: Callable[..., Any], needed: Iterable[str], offered: Iterable[str]) -> None:
    """Checks that a builder can be called with the keywords that are offered.

    Args:
        kind: such as "model", for the message.
        id: its id.
        build: a function or a class.
        needed: keywords that it must take.
        offered: keywords that it may take.

    Raises:
        UserError: naming a keyword that it does not take, or one that it needs and does not get.
    """
    needed, keywords = frozenset(needed), taken(build, {*needed, *offered})
    try:
        inspect.signature(build).bind(**dict.fromkeys(keywords))
        missing = sorted(needed - keywords)
        problem = f"it does not take {' and '.join(missing)}" if missing else ""
    except TypeError as error:
        problem = str(error)
    if problem:
        optional = f", and may take {', '.join(sorted(frozenset(offered) - needed))}"
        raise UserError(
            f"a {kind}'s function must take {'the keywords ' + ' and '.join(sorted(needed)) if needed else 'no others'}"
            f"{optional}, but that of {id!r} does not fit ({problem}); see the docstring of register_{kind}"
        )


def is_own(build: Callable[..., Any]) -> bool:
    """Whether a builder is this package's.

    Args:
        build: a function or a class.

    Returns:
        Whether its module is one of jaxnorm.
    """
    module = _origin(build)[0] or type(build).__module__
    return str(module).startswith("jaxnorm.")


def _origin(build: Callable[..., Any]) -> tuple[Any, Any]:
    while isinstance(build, functools.partial):
        build = build.func
    return getattr(build, "__module__", None), getattr(build, "__qualname__", id(build))
