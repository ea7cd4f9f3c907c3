"""Errors about fields that name the flags that set them."""

import contextlib
import re
from collections.abc import Collection, Iterator

from jaxnorm.errors import UserError


@contextlib.contextmanager
def naming_flags(known: Collection[str], several: Collection[str] = ()) -> Iterator[None]:
    """Within it, a `UserError` about fields, in backquotes, names flags.

    Args:
        known: the fields that have flags.
        several: those whose flags are plurals.

    Yields:
        None.

    Raises:
        UserError: the same error, with flags.

    Examples:
        >>> with naming_flags(["seed"], ["seed"]):
        ...     raise UserError("`seed` must be 0")
        Traceback (most recent call last):
            ...
        jaxnorm.errors.UserError: --seeds must be 0
    """

    def flag(match: re.Match[str]) -> str:
        ending = "s" if match[1] in several else ""
        return f"--{match[1].replace('_', '-')}{ending}" if match[1] in known else match[0]

    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"`(\w+)`", flag, str(error))) from error
