"""The exit codes of all commands. README and docs list them."""

import enum


class ExitCode(enum.IntEnum):
    """How a command has ended, unless a signal ended it.

    Attributes:
        COMPLETE: everything is done.
        CRASHED: a run crashed, or `doctor` found something wrong.
        MISTAKE: the user can fix what is wrong; one line says what.
        DIVERGED: a run diverged.
    """

    COMPLETE = 0
    CRASHED = 1
    MISTAKE = 2
    DIVERGED = 3


def of_signal(number: int) -> int:
    """The exit code of a process that a signal has ended, as a shell reports it.

    Args:
        number: of the signal.

    Returns:
        128 + the number: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. The run that was training is saved then.

    Examples:
        >>> import signal
        >>> of_signal(signal.SIGINT), of_signal(signal.SIGTERM)
        (130, 143)
    """
    return 128 + number


def is_of_signal(code: int) -> bool:
    """Whether the exit code is one of `of_signal`.

    Args:
        code: an exit code.

    Returns:
        True for 128 + the number of a signal.
    """
    return code > 128


BROKEN_PIPE = of_signal(13)
"""Nobody reads standard output any more: 128 + SIGPIPE, a signal that Windows does not have."""
