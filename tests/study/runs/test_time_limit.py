"""Which run begins next when time is limited, with a clock that the test moves."""

import collections
import math

import pytest

from jaxnorm import Config
from jaxnorm.study.runs.time_limit import GRACE_SECONDS, TimeLimit


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


RUNS = [Config(norm=norm, seed=seed) for seed in (0, 1) for norm in ("bn", "gn")]


def take_all(limit, waiting):
    return [limit.take(waiting).name for _ in range(len(waiting))]


def test_without_a_known_pace_and_without_a_limit_runs_begin_in_order(clock):
    for seconds in (1.0, math.inf):
        limit = TimeLimit(seconds, dict.fromkeys(RUNS, 100), clock)
        assert take_all(limit, collections.deque(RUNS)) == [config.name for config in RUNS]
        assert not limit.is_over


def test_a_run_that_cannot_end_in_time_waits_for_those_that_can(clock):
    limit = TimeLimit(25, dict.fromkeys(RUNS, 100), clock)
    waiting = collections.deque(RUNS)
    first, second = limit.take(waiting), limit.take(waiting)
    clock.now = 10
    limit.ended(first, complete=True)
    clock.now = 20  # gn takes 20 s, bn 10, and 5 are left for bn-seed1 or gn-seed1
    limit.ended(second, complete=True)
    assert limit.take(waiting) == RUNS[2]  # none fits: the first one begins all the same
    assert list(waiting) == [RUNS[3]]


def test_the_pace_of_its_own_norm_counts_and_a_resumed_run_has_fewer_steps(clock):
    limit = TimeLimit(45, {RUNS[0]: 100, RUNS[1]: 100, RUNS[2]: 300, RUNS[3]: 60}, clock)
    waiting = collections.deque(RUNS)
    first, second = limit.take(waiting), limit.take(waiting)
    clock.now = 10
    limit.ended(first, complete=True)  # bn: 0.1 s a step
    clock.now = 20
    limit.ended(second, complete=True)  # gn: 0.2 s a step
    assert limit.take(waiting) == RUNS[3]  # 12 s of 25; bn-seed1 would take 30


def test_a_run_that_is_stopped_or_has_crashed_tells_no_pace(clock):
    limit = TimeLimit(10, dict.fromkeys(RUNS, 100), clock)
    waiting = collections.deque(RUNS)
    first = limit.take(waiting)
    clock.now = 10
    assert limit.is_over
    limit.ended(first, complete=False)
    assert limit.take(waiting) == RUNS[1]
    assert not limit.is_overdue
    clock.now += GRACE_SECONDS
    assert limit.is_overdue
