"""Time in which this process could run: a process that is suspended, as by Ctrl-Z or `kill -STOP`, does not train."""

import threading
import time

TICK_SECONDS = 0.2
SUSPENDED_SECONDS = 1.0
"""Time without a tick, and without as much processor time, after which the process counts as suspended."""

_lock = threading.Lock()
_latest: tuple[float, float] | None = None  # the time and the processor time of the latest tick
_suspended = 0.0


def seconds() -> float:
    """The time since some moment, without the time for which this process was suspended since the first call.

    Returns:
        Seconds; only differences have a meaning.
    """
    global _latest, _suspended
    with _lock:
        now, processor = time.perf_counter(), time.process_time()
        if _latest is None:
            threading.Thread(target=_tick, daemon=True).start()
        elif now - _latest[0] > SUSPENDED_SECONDS and processor - _latest[1] < (now - _latest[0]) / 2:
            _suspended += now - _latest[0]
        _latest = now, processor
        return now - _suspended


def _tick() -> None:
    while True:
        time.sleep(TICK_SECONDS)
        seconds()
