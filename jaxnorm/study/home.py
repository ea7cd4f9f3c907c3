"""The home directory, which nothing that is made to be shown names: paths in it begin with ``~``."""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any


def hidden(value: Any) -> Any:
    """JSON values whose strings name the home directory as ``~``; a ``command`` stays one that can be typed.

    Example:
        >>> hidden({"source": os.path.expanduser("~/data/cifar10")})  # doctest: +SKIP
        {'source': '~/data/cifar10'}
    """
    if isinstance(value, str):
        for home in _homes():
            value = re.sub(rf"(?<![\w.~/-]){re.escape(home)}(?=/|$|[\s'\":;)\]>]|[.,](?:\s|$))", "~", value)
        return value
    if isinstance(value, dict):
        return {name: retyped(each) if name == "command" else hidden(each) for name, each in value.items()}
    return [hidden(each) for each in value] if isinstance(value, (list, tuple)) else value


def typed(words: Sequence[str]) -> str:
    """A command line of `words`, to be typed in a shell, where ``~`` stands outside of quotes and is expanded.

    A shell does not expand it within ``--flag=~/x``, so that becomes ``--flag ~/x``.

    Example:
        >>> typed(["python", "x.py", "--data-dir=" + os.path.expanduser("~/my data")])
        "python x.py --data-dir ~/'my data'"
    """
    return " ".join(part for word in words for part in _typed(word))


def retyped(command: Any) -> Any:
    """A recorded command, one a line, as `typed` gives it; one that does not name the home directory is left alone."""
    if not isinstance(command, str) or hidden(command) == command:
        return hidden(command)
    return "\n".join(_retyped(line) for line in command.splitlines())


def _retyped(line: str) -> str:
    try:
        return typed(shlex.split(line)) if hidden(line) != line else line
    except ValueError:  # no shell would take it
        return hidden(line)


def _typed(word: str) -> list[str]:
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("--") and (short := _short(value)) is not None:
        return [shlex.quote(flag), short]
    short = _short(word)
    return [shlex.quote(word) if short is None else short]


def _short(path: str) -> str | None:
    """A path in the home directory as a shell takes it; None for any other word."""
    for home in _homes():
        if path == home:
            return "~"
        if path.startswith(f"{home}/"):
            rest = path.removeprefix(f"{home}/").lstrip("/")
            return f"~/{shlex.quote(rest)}" if rest else "~/"
    return None


def _homes() -> list[str]:
    """The home directory as it is called and as it lies on disk, the longer name first; none where it is the root."""
    called = os.path.expanduser("~")  # noqa: PTH111  (Path.home() raises where there is none)
    names = {name.rstrip("/") for name in (called, os.path.realpath(called)) if os.path.isabs(name)}  # noqa: PTH117
    return sorted(filter(None, names), key=len, reverse=True)
