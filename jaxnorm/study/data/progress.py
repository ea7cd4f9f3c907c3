"""Progress of long work on standard error: a bar on a terminal, a few plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Literal

from jaxnorm.study.streams import tell


@contextlib.contextmanager
def progress_bar(
    title: str, total: int, *, unit: Literal["bytes", "images"] = "images", enabled: bool = True
) -> Iterator[Callable[[int], None]]:
    """Shows how much of some work is done.

    Args:
        title: what is being done.
        total: bytes or images in all.
        unit: of the numbers.
        enabled: False shows nothing.

    Yields:
        A function to call with the number of bytes or images that were done since its last call.

    Examples:
        >>> with progress_bar("counting", 3, enabled=False) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    if not enabled:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _rich_bar(title, total, unit) as advance:
            yield advance
    else:
        yield _plain_lines(title, total, unit)


@contextlib.contextmanager
def _rich_bar(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console

    amount = progress.DownloadColumn() if unit == "bytes" else progress.MofNCompleteColumn()
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), amount, progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _plain_lines(title: str, total: int, unit: str) -> Callable[[int], None]:
    size = f"{total / 1e6:.0f} MB" if unit == "bytes" else f"{total:,} {unit}"
    tell(f"{title} ({size})")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        quarters = 4 * done // total
        done += count
        if 4 * done // total > quarters:
            tell(f"{title}: {100 * done // total} %")

    return advance
