"""What a person sees while runs train: a live bar in a terminal, plain lines elsewhere."""

import dataclasses
import errno
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.style import Style
from rich.text import Text

from jaxnorm.study import clock
from jaxnorm.study.config import Config
from jaxnorm.study.streams import discard_output
from jaxnorm.study.words import duration

RECENT_SECONDS = 300.0
"""Steps count less for the time left the longer ago they were: this long ago, a third."""
TRIAL_STEPS, TRIAL_SECONDS = 5, 10.0
"""After so many steps, and so much time, a log says for the first time how much is left."""


class StudyConsole(Console):
    """A console that becomes silent, instead of ending the process, when nobody reads it any more."""

    def __exit__(self, *raised: Any) -> None:
        """Prints what the block has left; every other method prints through this one."""
        try:
            super().__exit__(*raised)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.on_broken_pipe()  # the terminal was closed

    def on_broken_pipe(self) -> None:
        """Drops what would be printed; training continues."""
        self.quiet = True
        discard_output()


def say(console: Console, line: str) -> None:
    """Prints a line without markup and without wrapping, so that a log has one line per line.

    Args:
        console: where to print.
        line: the text.
    """
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def say_page(console: Console, page: Path) -> None:
    """Prints where a page is. In a terminal the path is a link that opens it.

    Args:
        console: where to print.
        page: the file.
    """
    link = Style(link=page.resolve().as_uri()) if console.file.isatty() else ""
    console.print(Text("Report: ").append(str(page), link), highlight=False, soft_wrap=True)


class Progress:
    """What a run reports while it trains. This class ignores it; `Display` shows it."""

    def begin(self, config: Config, steps_per_epoch: int) -> None:
        """A run begins, or begins again where it was interrupted.

        Args:
            config: the run.
            steps_per_epoch: batches in an epoch.
        """

    def resume(self, config: Config, step: int) -> None:
        """A run continues.

        Args:
            config: the run.
            step: updates done.
        """

    def stepped(self, config: Config, step: int) -> None:
        """A run has done another step, or several.

        Args:
            config: the run.
            step: updates done.
        """

    def epoch(self, config: Config, row: dict[str, Any]) -> None:
        """A run has finished an epoch.

        Args:
            config: the run.
            row: its line of ``metrics.jsonl``.
        """

    def note(self, config: Config, words: str) -> None:
        """Something happened to a run that its reader should know.

        Args:
            config: the run.
            words: what happened.
        """

    def end(self, config: Config, outcome: str) -> None:
        """A run is over.

        Args:
            config: the run.
            outcome: how, in a few words.
        """


@dataclasses.dataclass
class _Run:
    """A run that is training now."""

    steps_per_epoch: int
    began: float
    step: int = 0
    latest: float | None = None  # time of the latest step
    stage: str = "compiling"
    accuracy: str = ""


class Display(Progress):
    """Shows a grid of runs: a line per finished run, and the time left over all of them.

    Args:
        console: where to print. In a terminal there is a live bar, elsewhere one line per epoch.
        steps_left: steps that each run still has to do.
        jobs: runs that train at the same time.
    """

    def __init__(self, console: Console, steps_left: Mapping[Config, int], jobs: int = 1) -> None:
        self._console = console
        # With FORCE_COLOR or in a notebook the console says that it is a terminal, whatever reads it.
        self._live = console.is_terminal and console.file.isatty() and not console.quiet
        self._jobs = jobs
        # Images, and not steps: steps of different batch sizes take different times.
        self._images_left = {config: steps * config.batch_size for config, steps in steps_left.items()}
        self._images_done = 0
        self._runs_begun = 0
        self._training: dict[Config, _Run] = {}
        self._steps_timed, self._is_estimated = 0, False
        self._recent_images = self._recent_seconds = 0.0
        self._stepping = 0.0  # seconds between the first and the latest step of every run, evaluation included
        self._training_of_ended = 0.0  # seconds of the runs that are over, all in all
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not self._live,
            get_time=clock.seconds,
            expand=True,
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("starting", total=sum(self._images_left.values()), left="")

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, config: Config, steps_per_epoch: int) -> None:
        self._training[config] = _Run(steps_per_epoch, clock.seconds())
        self._runs_begun += 1
        self._update()
        self._line(config, "compiling")

    def resume(self, config: Config, step: int) -> None:
        run = self._training[config]
        run.step = step
        self._images_left[config] = (config.last_epoch * run.steps_per_epoch - step) * config.batch_size
        if step:
            self._line(config, f"going on after step {step}")

    def stepped(self, config: Config, step: int) -> None:
        run, now = self._training[config], clock.seconds()
        images = (step - run.step) * config.batch_size
        if run.latest is not None:  # the first step includes compilation
            self._time(step - run.step, images, now - run.latest)
        run.step, run.latest = step, now
        self._images_done += images
        self._images_left[config] -= images
        run.stage = f"epoch {-(-step // run.steps_per_epoch)}/{config.last_epoch}"
        self._update()
        if not self._is_estimated and self._steps_timed >= TRIAL_STEPS and self._stepping >= TRIAL_SECONDS:
            self._is_estimated = True
            self._line(config, f"{self._time_left()}, by the first {self._steps_timed} steps")

    def epoch(self, config: Config, row: dict[str, Any]) -> None:
        run = self._training[config]
        run.accuracy, self._is_estimated = f"  val {_percent(row['val_accuracy'])}", True
        if row["epoch"] == config.last_epoch:
            run.stage = "final evaluation"
        self._update()
        words = (
            f"epoch {row['epoch']}/{config.last_epoch}",
            f"train loss {row['train_loss']:.4f}",
            f"train {_percent(row['train_accuracy'])}",
            f"val loss {row['val_loss']:.4f}",
            f"val {_percent(row['val_accuracy'])}",
            f"{row['seconds']:.1f} s",
            self._time_left(),
        )
        self._line(config, "  ".join(words).rstrip())

    def note(self, config: Config, words: str) -> None:
        say(self._console, f"{config.name}: {words}")

    def end(self, config: Config, outcome: str) -> None:
        if (run := self._training.pop(config, None)) is not None:
            self._training_of_ended += clock.seconds() - run.began
        self._images_left[config] = 0
        self._update()
        say(self._console, f"{config.name}: {outcome}")

    def _time(self, steps: int, images: int, seconds: float) -> None:
        """Adds the time of some steps."""
        kept = math.exp(-seconds / (RECENT_SECONDS * self._jobs))
        self._recent_images = kept * self._recent_images + images
        self._recent_seconds = kept * self._recent_seconds + seconds
        self._stepping += seconds
        self._steps_timed += steps

    def _line(self, config: Config, words: str) -> None:
        """A line of its own, where there is no live bar."""
        if not self._live:
            say(self._console, f"{config.name}: {words}")

    def _update(self) -> None:
        if self._live:
            description = ", ".join(
                f"{config.name}  {run.stage}{run.accuracy}" for config, run in self._training.items()
            )
            total = self._images_done + sum(self._images_left.values())
            self._bar.update(
                self._task,
                description=escape(description),
                completed=self._images_done,
                total=total,
                left=self._time_left(),
            )

    def _time_left(self) -> str:
        if self._recent_images == 0:
            return ""
        # Images at the recent pace; and what each run costs besides, such as compiling and the final evaluation.
        now = clock.seconds()
        training = self._training_of_ended + sum(now - run.began for run in self._training.values())
        besides = (training - self._stepping) / self._runs_begun
        runs_left = sum(images > 0 for images in self._images_left.values()) - len(self._training)
        images_left = sum(self._images_left.values())
        seconds = self._recent_seconds / self._recent_images * images_left + besides * max(runs_left, 0)
        return f"{duration(seconds / self._jobs)} left"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
