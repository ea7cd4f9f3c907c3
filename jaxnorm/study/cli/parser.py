"""Errors of the command line's parser, in one line."""

import contextlib
import io
import re
from collections.abc import Callable
from typing import TypeVar

from jaxnorm.errors import UserError, one_line
from jaxnorm.study.exit_codes import ExitCode

Parsed = TypeVar("Parsed")


def parsed(parse: Callable[[], Parsed]) -> Parsed:
    """What a call of tyro returns. tyro prints a mistake in a box of several lines and exits; here it is an error.

    Args:
        parse: the call.

    Returns:
        Its result.

    Raises:
        UserError: if the command line is wrong, with the first paragraph in tyro's box.

    Examples:
        >>> import tyro
        >>> def main(epochs: int): ...
        >>> parsed(lambda: tyro.cli(main, args=["--epochs", "x"]))
        Traceback (most recent call last):
            ...
        jaxnorm.errors.UserError: --epochs: invalid literal for int() with base 10: 'x'; see --help
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return parse()
    except SystemExit as left:
        if left.code != ExitCode.MISTAKE:
            raise
        raise UserError(f"{_first_paragraph(printed.getvalue())}; see --help") from None


def _first_paragraph(box: str) -> str:
    """The text between the title of a box and the next rule. A box is drawn with lines, or in ASCII with dashes."""
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    ends = [place for place, line in enumerate(lines) if (line and not line.strip("─-╭╮╰╯")) or line.startswith("╭")]
    first, last = ([*ends, len(lines), len(lines)])[:2]
    return one_line(" ".join(lines[first + 1 : last])).removeprefix("Error parsing ").rstrip(".")
