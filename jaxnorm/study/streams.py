"""The standard streams, whatever the caller made of them. Needs Python's own modules only."""

import codecs
import contextlib
import os
import sys

from jaxnorm.errors import printable

PLAIN = {"−": "-", "–": "-", "…": "...", "·": ".", "✓": "+", "✗": "x"}
"""What we print beyond ASCII, as terminals without UTF-8 show it."""


def open_streams() -> None:
    """Makes standard output take every text: a character that its encoding lacks becomes that in `PLAIN`, or ``?``.

    Standard streams that the caller has closed lead nowhere. Without that, the next file would get the number of one,
    and with it all that a library prints.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    while nowhere <= 2:
        os.set_inheritable(nowhere, True)
        nowhere = os.open(os.devnull, os.O_RDWR)
    os.close(nowhere)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    if hasattr(sys.stdout, "reconfigure"):
        codecs.register_error("plain", _plain)
        sys.stdout.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def discard_output() -> None:
    """Discards standard output from now on, and what it still buffers, which would fail when the process ends."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def tell(words: str) -> None:
    """Prints something on standard error. Nothing happens if nobody reads that any more, as after a closed terminal.

    Args:
        words: one line or several, without the last line feed; see `printable` for what becomes of other characters.
    """
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(map(printable, words.split("\n"))), file=sys.stderr, flush=True)
