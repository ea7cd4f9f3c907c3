"""The epochs of runs as TensorBoard events, beside their own files."""

import contextlib
import functools
import importlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.runs.progress import Progress
from jaxnorm.study.runs.workdir import Workdir

FOLDER = "tensorboard"
"""The folder in a workdir, with one of each run."""
FLUSH_SECONDS = 5
SCALARS = {
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "validation/loss": "val_loss",
    "validation/accuracy": "val_accuracy",
    "validation/macro_f1": "val_macro_f1",
    "learning_rate": "learning_rate",
    "seconds_per_epoch": "seconds",
}
"""The field of a row by the scalar's tag."""


def writer_package() -> ModuleType:
    """Loads the package that writes events.

    Returns:
        tensorboardX.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module("tensorboardX")
    except ImportError as error:
        raise UserError(
            f"--tensorboard needs tensorboardX, but it cannot be imported ({error}); pip install tensorboardX, or drop "
            "the flag"
        ) from error


class TensorBoard(Progress):
    """Hands on what runs report, and writes each epoch to ``WORKDIR/tensorboard/RUN``.

    A run that continues is written again from its first epoch, so that epochs that were lost are not there twice.

    Args:
        shown: gets all that is reported.
        workdir: the study's folder.
    """

    def __init__(self, shown: Progress, workdir: Workdir) -> None:
        self._shown = shown
        self._workdir = workdir
        self._writers: dict[Config, Any] = {}

    def begin(self, config: Config, steps_per_epoch: int) -> None:
        self._shown.begin(config, steps_per_epoch)

    def resume(self, config: Config, step: int) -> None:
        self._shown.resume(config, step)
        self.rewrite(config)

    def stepped(self, config: Config, step: int) -> None:
        self._shown.stepped(config, step)

    def epoch(self, config: Config, row: dict[str, Any]) -> None:
        self._shown.epoch(config, row)
        self._write(config, row)

    def note(self, config: Config, words: str) -> None:
        self._shown.note(config, words)

    def end(self, config: Config, outcome: str) -> None:
        self._shown.end(config, outcome)
        self.close(config)

    def rewrite(self, config: Config) -> None:
        """Writes all epochs of a run that are on disk, in place of what was there.

        Args:
            config: the run.
        """
        self.close(config)
        if (folder := self._folder(config)).exists():
            shutil.rmtree(folder)
        self._writers[config] = writer_package().SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
        for row in self._workdir.directory(config).rows:
            self._write(config, row)

    def close(self, config: Config) -> None:
        """Writes what is left of a run.

        Args:
            config: the run.
        """
        if writer := self._writers.pop(config, None):
            writer.close()

    def has(self, config: Config) -> bool:
        """Whether a run has been written.

        Args:
            config: the run.

        Returns:
            Whether its folder is there.
        """
        return self._folder(config).exists()

    def _folder(self, config: Config) -> Path:
        return self._workdir.path / FOLDER / config.name

    def _write(self, config: Config, row: dict[str, Any]) -> None:
        writer = self._writers[config]
        for tag, name in SCALARS.items():
            writer.add_scalar(tag, row[name], row["step"])
        for percent, value in zip(config.quantiles, row["feature_quantiles"] or (), strict=False):
            writer.add_scalar(f"features/quantile_{percent:g}", value, row["step"])


@contextlib.contextmanager
def also_tensorboard(shown: Progress, configs: Sequence[Config], workdir: Workdir) -> Iterator[Progress]:
    """Within it, what runs report is also written for TensorBoard.

    Args:
        shown: gets all that is reported.
        configs: the runs; those that are finished and were never written are written now.
        workdir: the study's folder.

    Yields:
        What runs report to.
    """
    board = TensorBoard(shown, workdir)
    with contextlib.ExitStack() as stack:
        for config in configs:
            stack.callback(functools.partial(board.close, config))
            if workdir.directory(config).is_finished and not board.has(config):
                board.rewrite(config)
                board.close(config)
        yield board
