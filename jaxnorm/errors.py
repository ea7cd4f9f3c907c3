"""Errors that a user can fix: one exception, one line, exit code 2."""


class UserError(ValueError):
    """A mistake that the user can fix.

    The message is one line. It names the rule, the value found, the value expected and the fix. Programs built on
    `jaxnorm` print it as ``error: MESSAGE`` on standard error and end with exit code 2. In a library call it is an
    ordinary `ValueError`.

    Examples:
        >>> raise UserError("`batch_size` must be at least 1, but is 0; give 1 or more")
        Traceback (most recent call last):
            ...
        jaxnorm.errors.UserError: `batch_size` must be at least 1, but is 0; give 1 or more
    """


class ProcessLost(Exception):
    """Another process of a run is gone, so that this one cannot continue; the message says why."""


def one_line(text: object, limit: int | None = None) -> str:
    """The text, or the text of an error, on one line.

    Args:
        text: anything that `str` accepts.
        limit: the most characters to keep, of the beginning and of the end; None keeps all.

    Returns:
        The text, with every run of white space replaced by one space, and what cannot be printed by `printable`.

    Examples:
        >>> one_line(ValueError("two\\n  lines"))
        'two lines'
        >>> one_line("/data/studies/of/this/year/study.json", limit=21)
        '/data/stud…study.json'
    """
    line = printable(" ".join(str(text).split()))
    if limit is None or len(line) <= limit:
        return line
    return f"{line[: limit // 2]}…{line[len(line) - (limit - 1) // 2 :]}"


def printable(text: str) -> str:
    """The text with every character that cannot be printed written as Python does, so that no terminal obeys it.

    Args:
        text: one line.

    Returns:
        The text; control characters, and those that change the direction of writing, as escapes.

    Examples:
        >>> print(printable("\\x1b[2Jclear"))
        \\x1b[2Jclear
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
