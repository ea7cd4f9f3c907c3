"""A limit of time for a grid of runs: which run begins next, so that as many as possible end in time."""

import collections
import time
from collections.abc import Callable, Mapping

from jaxnorm.study.config import Config

GRACE_SECONDS = 6.0
"""For runs to save after their time is over. A call of an epoch's steps may have to end first."""


class TimeLimit:
    """Chooses the next run of a grid. Nothing begins that cannot end in time, unless nothing else is left.

    A run's time is guessed from the runs that have ended: its steps at their pace, that of its own norm if there is
    one, else the slowest. Until a run has ended, all are taken to fit.

    Args:
        seconds: from now on; may be infinite.
        steps_left: steps that each run still has to do.
        clock: the time in seconds.

    Examples:
        >>> runs = [Config(norm="bn"), Config(norm="gn"), Config(norm="gn", seed=1)]
        >>> limit = TimeLimit(10, {runs[0]: 60, runs[1]: 600, runs[2]: 30}, iter([0.0, 0.0, 6.0, 6.0]).__next__)
        >>> waiting = collections.deque(runs)
        >>> limit.take(waiting).name
        'bn-seed0'
        >>> limit.ended(runs[0], complete=True)  # after 6 s: 0.1 s a step
        >>> limit.take(waiting).name  # gn-seed0 would take 60 s, and 4 are left
        'gn-seed1'
    """

    def __init__(
        self, seconds: float, steps_left: Mapping[Config, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._steps = steps_left
        self._began: dict[Config, float] = {}
        self._pace: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        """Whether the time has passed."""
        return self._clock() >= self._end

    @property
    def is_overdue(self) -> bool:
        """Whether the time has passed by so much that nobody can be waited for any more."""
        return self._clock() >= self._end + GRACE_SECONDS

    def take(self, waiting: "collections.deque[Config]") -> Config:
        """Takes the run that begins now.

        Args:
            waiting: runs that have not begun, at least one; the run is removed from it.

        Returns:
            The run.
        """
        now = self._clock()
        fitting = (config for config in waiting if now + self._guess(config) <= self._end)
        config = next(fitting, waiting[0])
        waiting.remove(config)
        self._began[config] = now
        return config

    def ended(self, config: Config, *, complete: bool) -> None:
        """A run is over.

        Args:
            config: the run.
            complete: whether it did all its steps; only then its pace is known.
        """
        if complete and self._steps[config]:
            pace = (self._clock() - self._began[config]) / self._steps[config]
            self._pace[config.norm] = max(pace, self._pace.get(config.norm, 0.0))

    def _guess(self, config: Config) -> float:
        pace = self._pace.get(config.norm, max(self._pace.values(), default=0.0))
        return pace * self._steps[config]
