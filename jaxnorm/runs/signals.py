"""Ctrl-C and SIGTERM: the first asks to finish the step and save, the second ends at once."""

import signal
from types import FrameType, TracebackType


class StopRequest:
    """While entered, turns the first SIGINT or SIGTERM into a request; a second one has its usual, deadly effect.

    Attributes:
        signal: number of the signal that arrived, or None.

    Example:
        >>> with StopRequest() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop.signal == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports a process that a signal ended: 130 or 143."""
        return 128 + (self.signal or 0)
