"""Ctrl-C and SIGTERM: the first asks to finish the step and save, a second one ends the process at once."""

import os
import signal
import sys
import threading
import time
from types import TracebackType

SAME_REQUEST_SECONDS = 0.5
"""Signals so close together are one request: `timeout` and process groups send theirs twice."""


class StopRequest:
    """While entered, turns the first SIGINT or SIGTERM into a request; a later one ends the process with 130 or 143.

    A thread of its own hears the signals, through the pipe into which Python's handler writes them at once, so that
    both are answered even while the main thread is inside a long compilation. Enter it in the main thread.

    Attributes:
        signal: number of the signal that arrived, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous_fd = signal.set_wakeup_fd(self._writer)
        self._previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.write(self._writer, b"\0")  # no signal: the thread's word to end
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _listen(self) -> None:
        requested_at = 0.0
        while number := os.read(self._reader, 1)[0]:
            if number not in self._previous:
                continue
            if self.signal is None:
                requested_at = time.monotonic()
                self.signal = number
                print("\nStopping after this step, then saving; once more ends at once.", file=sys.stderr, flush=True)
            elif time.monotonic() - requested_at > SAME_REQUEST_SECONDS:
                os._exit(128 + number)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports a process that a signal ended: 130 or 143.

        143 as well where none came here, but to another process of the run.
        """
        return 128 + (self.signal or signal.SIGTERM)
