"""Signals that ask the program to finish the step, save and end; a second Ctrl-C or SIGTERM ends it at once."""

import os
import signal
import threading
import time
from types import TracebackType

from jaxnorm.study.exit_codes import of_signal
from jaxnorm.study.streams import tell

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
    if hasattr(signal, name)
)
"""Ctrl-C; `kill`; a terminal that is closed; what schedulers send some time before they end a job; Ctrl-Break."""
URGENT = (signal.SIGINT, signal.SIGTERM)
"""Those of which a second one ends the program at once. The system itself may repeat any other."""
SAME_REQUEST_SECONDS = 0.5
"""Signals that arrive within this time are one request: `timeout` and process groups send theirs twice."""


def heeded() -> list[int]:
    """The signals that ask this process to stop.

    Returns:
        Those of `SIGNALS` that it does not ignore. `nohup` makes a process ignore SIGHUP, and a shell may ignore SIGINT
        in the background.
    """
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class StopRequest:
    """While entered, makes the first of the `heeded` signals a request; a later `URGENT` one ends the process at once.

    Python writes every signal into a pipe at once, and a thread reads that pipe. So signals are answered even while the
    main thread is in a long compilation. Enter it in the main thread.

    Args:
        quiet: print nothing; for a process whose parent prints the message.

    Attributes:
        signal: number of the signal that arrived, or None.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.signal: int | None = None
        self._quiet = quiet
        self._requested_at = 0.0

    def __enter__(self) -> "StopRequest":
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous_fd = signal.set_wakeup_fd(self._writer)
        self._previous = {number: signal.signal(number, lambda *_: None) for number in heeded()}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.write(self._writer, b"\0")  # not a signal: it ends the thread
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def request(self, number: int) -> None:
        """Makes the request as if a signal had arrived.

        Args:
            number: of the signal.
        """
        self._requested_at = time.monotonic()
        self.signal = number

    @property
    def is_set(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code for the signal that arrived; that for SIGTERM if it reached only another process."""
        return of_signal(self.signal or signal.SIGTERM)

    def _listen(self) -> None:
        while number := os.read(self._reader, 1)[0]:
            if number not in self._previous:
                continue
            if self.signal is None:
                self.request(number)
                if not self._quiet:
                    tell("\nStopping after this step, then saving; once more ends at once.")
            elif number in URGENT and time.monotonic() - self._requested_at > SAME_REQUEST_SECONDS:
                os._exit(of_signal(number))
