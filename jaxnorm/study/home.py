"""The home directory: files that others may see write it as ``~``."""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any


def hidden(value: Any) -> Any:
    """JSON values in which every path below the home directory begins with ``~``.

    Args:
        value: JSON values. The text of a key ``command`` is a command per line, and remains one that a shell accepts.

    Returns:
        The values; lists in place of tuples.

    Examples:
        >>> hidden({"source": os.path.expanduser("~/data/cifar10")})
        {'source': '~/data/cifar10'}
    """
    if isinstance(value, str):
        for home in _homes():
            value = re.sub(rf"(?<![\w.~/-]){re.escape(home)}(?=/|$|[\s'\":;)\]>]|[.,](?:\s|$))", "~", value)
        return value
    if isinstance(value, dict):
        return {name: _hidden_command(each) if name == "command" else hidden(each) for name, each in value.items()}
    return [hidden(each) for each in value] if isinstance(value, (list, tuple)) else value


def typed(words: Sequence[str]) -> str:
    """A command line for a shell. A ``~`` is outside of quotes, so that the shell expands it.

    A shell does not expand it within ``--flag=~/x``, so that becomes ``--flag ~/x``.

    Args:
        words: the program and its arguments.

    Returns:
        One line.

    Examples:
        >>> typed(["python", "x.py", "--data-dir=" + os.path.expanduser("~/my data")])
        "python x.py --data-dir ~/'my data'"
    """
    return " ".join(part for word in words for part in _typed(word))


def _hidden_command(command: Any) -> Any:
    if not isinstance(command, str):
        return hidden(command)
    return "\n".join(_hidden_line(line) for line in command.splitlines())


def _hidden_line(line: str) -> str:
    try:
        return typed(shlex.split(line)) if hidden(line) != line else line
    except ValueError:  # no shell would accept it
        return str(hidden(line))


def _typed(word: str) -> list[str]:
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("--") and (short := _short(value)) is not None:
        return [shlex.quote(flag), short]
    short = _short(word)
    return [shlex.quote(word) if short is None else short]


def _short(path: str) -> str | None:
    """A path in the home directory as a shell accepts it; None for any other word."""
    for home in _homes():
        if path == home:
            return "~"
        if path.startswith(f"{home}/"):
            rest = path.removeprefix(f"{home}/").lstrip("/")
            return f"~/{shlex.quote(rest)}" if rest else "~/"
    return None


def _homes() -> list[str]:
    """The home directory's name and the path it resolves to, the longer one first; none if it is the root."""
    called = os.path.expanduser("~")  # noqa: PTH111  (Path.home() raises where there is none)
    names = {name.rstrip("/") for name in (called, os.path.realpath(called)) if os.path.isabs(name)}  # noqa: PTH117
    return sorted(filter(None, names), key=len, reverse=True)
