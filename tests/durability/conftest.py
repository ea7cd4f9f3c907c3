"""The table that `make test-durability` ends with: what was done, how many times, what was lost."""

import pytest

from tests.drivers import STARTED

DONE: list[tuple[str, int, str]] = []


@pytest.fixture
def report():
    """Adds a line to the table: what was done, how many times, what was lost."""
    return lambda what, times, lost: DONE.append((what, times, lost))


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """Ends what a failed test has left: it would slow down the others."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()


def pytest_terminal_summary(terminalreporter):
    if not DONE:
        return
    terminalreporter.section("durability")
    width = max(len(what) for what, _, _ in DONE)
    terminalreporter.write_line(f"{'what was done':{width}}  {'times':>6}  lost")
    for what, times, lost in DONE:
        terminalreporter.write_line(f"{what:{width}}  {times:>6}  {lost}")
