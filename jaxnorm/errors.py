"""What a user can mend: one exception, one line, exit code 2."""


class UserError(ValueError):
    """A mistake that the person at the keyboard can mend.

    The message is one line that names the rule, the value found, the value expected and the mend. Programs built on
    `jaxnorm` print it as ``error: MESSAGE`` on standard error and leave with exit code 2; as a library call it is an
    ordinary `ValueError`.

    Example:
        >>> raise UserError("batch_size must be at least 1, but is 0; give --batch-size 1 or more")
        Traceback (most recent call last):
            ...
        jaxnorm.errors.UserError: batch_size must be at least 1, but is 0; give --batch-size 1 or more
    """


class ProcessLost(Exception):
    """The processes that train a run do so no longer together, so that this one cannot go on; the message says why."""
