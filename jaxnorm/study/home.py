"""What files that others may see do not tell: the home directory, other absolute paths, orders to a terminal."""

import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from jaxnorm.errors import printable

_START = r"(?:\bfile:)?(?<![\w.~/\\-])(?:/|[A-Za-z]:[\\/]|\\\\)"
_REST = r"[^\s'\":;,)\]>]"
_URL = r"(?P<url>\b(?!file:)[A-Za-z][\w+.-]*://[^\s'\"]*)"
_QUOTED = rf"(?P<quote>['\"])(?P<flag>[\w-]+=)?(?P<quoted>{_START}[^'\"\n]+)(?P=quote)"
_WORD = re.compile(rf"{_URL}|{_QUOTED}|{_START}{_REST}+")
_PROSE = re.compile(rf"{_WORD.pattern}(?:[ ][^\s/'\"=-][^\s/'\"=]*/{_REST}*)*")  # a path may have blanks


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
    return _mapped(value, _hidden_text, _hidden_line)


def published(value: Any) -> Any:
    """JSON values without any absolute path, see also `hidden` and `printed`. Of a Python file, the name remains.

    Args:
        value: JSON values.

    Returns:
        The values, with ``...`` in place of each path; lists in place of tuples.

    Examples:
        >>> published({"command": "python /opt/x/compare_norms.py --data-dir '/data/my own'", "at": "https://x.org/y"})
        {'command': "python .../compare_norms.py --data-dir '...'", 'at': 'https://x.org/y'}
    """
    words, prose = ((lambda text, of=of: of.sub(_without_path, text)) for of in (_WORD, _PROSE))
    return printed(_mapped(hidden(value), prose, words))


def printed(value: Any) -> Any:
    """JSON values whose texts are `printable`, line by line.

    Args:
        value: JSON values.

    Returns:
        The values; lists in place of tuples.

    Examples:
        >>> printed(["a\\x1b[2J", 1])
        ['a\\\\x1b[2J', 1]
    """
    return _mapped(value, lambda text: "\n".join(map(printable, text.split("\n"))), printable)


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


def _mapped(value: Any, change: Callable[[str], str], change_line: Callable[[str], str]) -> Any:
    """JSON values with other texts; `change_line` is for each line of a command."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            change(name): "\n".join(map(change_line, each.split("\n")))
            if name == "command" and isinstance(each, str)
            else _mapped(each, change, change_line)
            for name, each in value.items()
        }
    return [_mapped(each, change, change_line) for each in value] if isinstance(value, (list, tuple)) else value


def _hidden_text(text: str) -> str:
    for home in _homes():
        text = re.sub(rf"(?<![\w.~/-]){re.escape(home)}(?=/|$|[\s'\":;)\]>]|[.,](?:\s|$))", "~", text)
    return text


def _hidden_line(line: str) -> str:
    try:
        return typed(shlex.split(line)) if _hidden_text(line) != line else line
    except ValueError:  # no shell would accept it
        return _hidden_text(line)


def _without_path(found: re.Match[str]) -> str:
    if found["url"]:
        return found[0]
    quote, flag = found["quote"] or "", found["flag"] or ""
    name = re.split(r"[\\/]", found["quoted"] or found[0])[-1]
    return f"{quote}{flag}...{f'/{name}' if name.endswith('.py') else ''}{quote}"


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
