"""What a person sees while a study runs: a live bar in a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from jaxnorm.study.config import Config


class StudyConsole(Console):
    """A console that falls silent, instead of ending the process, when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Training goes on; what would be printed is dropped."""
        self.quiet = True
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def say(console: Console, line: str) -> None:
    """Prints a line as it stands: a log keeps one line per line, and brackets in a path are no markup."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


class Display:
    """Reports a grid of runs as they go: a line per finished run, and the time left over all of them.

    Args:
        console: where to; a live display if it is a terminal, else one line per epoch.
        total_images: training images still to go through, over all runs: steps of different batches differ in cost.
        num_runs: runs still to do.
    """

    def __init__(self, console: Console, total_images: int, num_runs: int) -> None:
        self.console = console
        self.live = console.is_terminal
        self._total = total_images
        self._done = 0
        self._runs_left = num_runs
        self._runs_begun = 0
        self._latest: float | None = None
        self._steps: dict[Config, int] = {}  # where the runs of the present team stand
        self._moving: set[Config] = set()  # those of them that have taken a first step
        self._gone_through = 0
        self._stepping = 0.0  # seconds between the first step of a run and its latest, evaluation included
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not self.live,
            expand=True,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Display":
        self._started = time.perf_counter()
        self._bar.start()
        self._task = self._bar.add_task("starting", total=self._total, left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, team: Sequence[Config], steps_per_epoch: int) -> None:
        """A run is taken up, or several that train at once."""
        self._team, self._steps_per_epoch = team, steps_per_epoch
        self._steps, self._moving = dict.fromkeys(team, 0), set()
        self._latest, self._result = None, ""
        self._runs_begun += len(team)
        self._runs_left -= len(team)
        self._describe("compiling")
        if not self.live:
            self._say(self._name, "compiling")

    def resume(self, config: Config, step: int) -> None:
        """A run goes on after `step` steps."""
        self._steps[config] = step
        if step and not self.live:
            self._say(config.name, f"going on after step {step}")

    def stepped(self, config: Config, step: int) -> None:
        """A run has done `step` steps; those of a team say so one right after the other."""
        now = time.perf_counter()
        images = (step - self._steps[config]) * config.batch_size
        if config in self._moving:
            self._gone_through += images
            self._stepping += now - (self._latest or now)
        self._moving.add(config)
        self._latest = now
        self._done += images
        self._steps[config] = step
        self._describe(f"epoch {-(-step // self._steps_per_epoch)}/{config.last_epoch}{self._result}")
        if self._task is not None:
            self._bar.update(self._task, completed=self._done, left=self._left())

    def epoch(self, config: Config, row: dict[str, Any]) -> None:
        """A run has finished an epoch."""
        self._result = f"  val {_percent(row['val_accuracy'])}"
        if row["epoch"] == config.last_epoch:
            self._describe(f"final evaluation{self._result}")
        if not self.live:
            words = (
                f"epoch {row['epoch']}/{config.last_epoch}",
                f"train loss {row['train_loss']:.4f}",
                f"train {_percent(row['train_accuracy'])}",
                f"val loss {row['val_loss']:.4f}",
                f"val {_percent(row['val_accuracy'])}",
                f"{row['seconds']:.1f} s",
                self._left(),
            )
            self._say(config.name, "  ".join(words).rstrip())

    def end(self, config: Config, outcome: str) -> None:
        """A run is over; `outcome` says how in a few words."""
        self._say(config.name, outcome)

    def note(self, config: Config, words: str) -> None:
        """A run has met something that its reader should know."""
        self._say(config.name, words)

    def skip(self, steps: int) -> None:
        """`steps` steps of a present run that were planned will not be done: it began later or ended early."""
        self._total -= steps * self._team[0].batch_size
        if self._task is not None:
            self._bar.update(self._task, total=self._total)

    @property
    def _name(self) -> str:
        """One run's, or of several the first's and how many more there are."""
        more = len(self._team) - 1
        return self._team[0].name + (f" and {more} more seed{'s' if more > 1 else ''}" if more else "")

    def _describe(self, words: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, description=escape(f"{self._name}  {words}"))

    def _say(self, name: str, words: str) -> None:
        say(self.console, f"{name}: {words}")

    def _left(self) -> str:
        if self._gone_through == 0:
            return ""
        # Images at the pace so far; and what each run costs besides, such as compiling and the final evaluation.
        besides = (time.perf_counter() - self._started - self._stepping) / self._runs_begun
        seconds = self._stepping / self._gone_through * (self._total - self._done) + besides * self._runs_left
        return f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """A duration in words, to two units.

    Example:
        >>> duration(42), duration(200), duration(7_500)
        ('42 s', '3 min 20 s', '2 h 05 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
