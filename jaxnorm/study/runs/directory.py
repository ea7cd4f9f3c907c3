"""The files of one run: its configuration, provenance, epochs, checkpoints and outcome."""

import functools
import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm import files
from jaxnorm.errors import UserError, one_line
from jaxnorm.study import home
from jaxnorm.study.allocator import keep_freed_memory
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.checkpoints import Checkpoints
from jaxnorm.study.runs.progress import Progress
from jaxnorm.study.runs.provenance import differences
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.training.record import Record, Row
from jaxnorm.study.training.run import Result
from jaxnorm.study.words import duration

SAVE_COST_FACTOR = 50
"""Checkpoints are this many times their own cost apart, so that they take at most 2 % of the time."""


class RunDirectory(Record):
    """The directory of one run, such as ``bn-seed0/``, and the run's `Record` while it trains.

    ``config.json`` contains the `Config`, ``provenance.json`` what the run was trained on, ``metrics.jsonl`` one line
    per epoch, ``arrays/`` the arrays of each epoch, ``result.json`` the outcome (present only once there is one),
    ``predictions.npz`` the test logits and ``crash.txt`` the traceback of a crash.

    Args:
        path: the directory; `begin` makes it.
        config: the run.
        progress: where the run reports; by default nowhere.
        stop: the request to stop that the run obeys; by default none.
        checkpoint_every_seconds: time between checkpoints; by default `SAVE_COST_FACTOR` times what one costs.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        progress: Progress | None = None,
        stop: StopRequest | None = None,
        checkpoint_every_seconds: float | None = None,
    ) -> None:
        self.path, self.config = path, config
        self.checkpoints = Checkpoints(path / "checkpoints")
        self._progress, self._stop = progress or Progress(), stop
        self._every_seconds = checkpoint_every_seconds
        self._saved_at, self._save_cost = time.monotonic(), 1.0
        self._has_stepped = False

    # What the directory contains.

    @property
    def recorded_config(self) -> dict[str, Any] | None:
        """The content of ``config.json``; None for a run that never began."""
        return files.read_json(self.path / "config.json")

    @property
    def provenance(self) -> dict[str, Any] | None:
        """The content of ``provenance.json``; None for a run that never began."""
        return files.read_json(self.path / "provenance.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of ``result.json``; None while there is no outcome.

        Raises:
            UserError: if it is damaged.
        """
        path = self.path / "result.json"
        result = files.read_json(path)
        if result is not None and not (isinstance(result.get("status"), str) and isinstance(result.get("epoch"), int)):
            raise UserError(f"{path} must hold a status and an epoch, but is damaged; {self._fix}")
        return result

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The lines of ``metrics.jsonl``, read once. A line that a crash cut short does not count.

        Raises:
            UserError: if a line is no object with an epoch and a step.
        """
        path = self.path / "metrics.jsonl"
        try:
            rows = files.read_lines(path)
            if not all(isinstance(row.get(name), int) for row in rows for name in ("epoch", "step")):
                raise ValueError("a line lacks its epoch or step")
            return rows
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} must hold JSON lines, but is damaged ({one_line(error)}); {self._fix}") from None

    @property
    def is_finished(self) -> bool:
        """Whether the run needs nothing more: it is trained as far as asked and evaluated, or it diverged."""
        result = self.result
        if result is None or result["status"] == "crashed":
            return False
        return result["status"] == "diverged" or result["epoch"] >= self.config.last_epoch

    def check(self) -> None:
        """Checks that a complete run still has all its files, and that no run is trained further than asked.

        Raises:
            UserError: naming the file that is missing or damaged, or the epoch.
        """
        result = self.result
        epochs = [row["epoch"] for row in self.rows]
        if result is not None and result["status"] == "complete":
            if epochs != list(range(1, result["epoch"] + 1)):
                raise UserError(
                    f"{self.path / 'metrics.jsonl'} must hold epochs 1 to {result['epoch']}, but holds "
                    f"{str(epochs)[:40]}; {self._fix}"
                )
            if not (self.path / "predictions.npz").is_file():
                raise UserError(f"{self.path / 'predictions.npz'} must be beside result.json, but is gone; {self._fix}")
        if max(epochs, default=0) > self.config.last_epoch:
            raise self._is_further(f"epoch {max(epochs)}")

    # A run's life: it begins, trains as a `Record`, and is complete, crashed or stopped.

    def begin(self, dataset: Dataset, provenance: dict[str, Any]) -> None:
        """Makes the directory, or takes up an unfinished one. An older outcome remains until `restore`.

        ``provenance.json`` keeps what the run was trained on before under ``earlier``. Under ``changes`` it lists what
        decides the run's numbers and has changed.

        Args:
            dataset: what the run trains on.
            provenance: what it is trained on now, as JSON values.
        """
        self._dataset = dataset
        self._steps_per_epoch = len(dataset.train) // self.config.batch_size
        self._progress.begin(self.config, self._steps_per_epoch)
        self.path.mkdir(parents=True, exist_ok=True)
        before = self.provenance
        if before is not None:
            changed = differences(before, provenance)[0]
            changed += config_differences(self.recorded_config or {}, self.config).values()
            place = f"after epoch {max((row['epoch'] for row in self.rows), default=0)}"
            provenance = {
                **provenance,
                "changes": [*before.pop("changes", []), *(f"{text} ({place})" for text in changed)],
                "earlier": [*before.pop("earlier", []), before],
            }
        files.write_json(self.path / "config.json", self.config.to_json())
        files.write_json(self.path / "provenance.json", home.hidden(provenance))

    def restore(self, saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The newest checkpoint that verifies; if there never was one, the run starts over.

        An older outcome is removed, and so are the lines of later epochs.

        Args:
            saved: a tree of arrays, the state before the first step.

        Returns:
            The tree of the checkpoint, or `saved`; and the seconds that the unfinished epoch has taken.

        Raises:
            UserError: if there are checkpoints but none can be trusted, if the run is trained further than asked, or if
                lines of epochs before the checkpoint are missing. Nothing is changed then.
        """
        found = self.checkpoints.restore(saved, last_step=self.config.num_epochs * self._steps_per_epoch)
        restored, seconds = (found.saved, found.seconds) if found else (saved, 0.0)
        step = int(restored["step"])
        for problem in found.problems if found else ():
            self._progress.note(self.config, f"{problem}; put aside, going on from step {step}")
        if step > self.config.last_epoch * self._steps_per_epoch:
            raise self._is_further(f"step {step}")
        self._cut_back(step)
        self._progress.resume(self.config, step)
        return restored, seconds

    def save(self, saved: dict[str, Any], seconds: float) -> None:
        """Writes a checkpoint and measures what it costs.

        Args:
            saved: fields of the state, a tree of arrays.
            seconds: time that the unfinished epoch has taken.

        Raises:
            OSError: if the disk does not accept it; earlier checkpoints remain.
        """
        step = int(saved["step"])  # waits for the device, which is no cost of saving
        started = time.monotonic()
        self.checkpoints.save(step, saved, seconds)
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - started

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Writes the arrays of an epoch to ``arrays/epoch_0001.npz``; no file if there are none.

        Args:
            epoch: counted from 1.
            arrays: by name.
        """
        if arrays:
            _write_arrays(self.path / "arrays" / f"epoch_{epoch:04d}.npz", arrays)

    def append(self, row: Row) -> None:
        """Adds the line of an epoch to ``metrics.jsonl`` and flushes it to disk.

        Args:
            row: JSON values by name.
        """
        path = self.path / "metrics.jsonl"
        with files.naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self._progress.epoch(self.config, row)

    def stepped(self, step: int) -> None:
        if not self._has_stepped:  # all is compiled, and what a step frees is kept for the next one
            self._has_stepped = True
            keep_freed_memory()
        self._progress.stepped(self.config, step)

    def should_save(self) -> bool:
        wait = SAVE_COST_FACTOR * self._save_cost if self._every_seconds is None else self._every_seconds
        return time.monotonic() - self._saved_at > wait

    def should_stop(self) -> bool:
        return self._stop is not None and self._stop.is_set

    def complete(self, result: Result) -> None:
        """Writes the outcome of a run that is complete or has diverged, ``result.json`` last.

        Args:
            result: what `train` has returned.
        """
        if result.test_logits is not None:
            label = np.asarray(self._dataset.test.label, np.int32)
            _write_arrays(self.path / "predictions.npz", {"logits": result.test_logits, "label": label})
        self._write_result(
            status=result.status,
            epoch=result.epoch,
            step=result.step,
            num_params=result.num_params,
            seconds=result.seconds,
            diverged_at_step=result.diverged_at_step,
            statistics=result.statistics,
            **{name: metrics.to_json() for name, metrics in result.splits.items()},
        )
        if result.status == "diverged":
            self._progress.end(self.config, f"diverged at step {result.diverged_at_step}")
        else:
            accuracy = f"{100 * result.splits['test'].accuracy:.2f} %"
            self._progress.end(self.config, f"test accuracy {accuracy}  ({duration(result.seconds)})")

    def crash(self, error: BaseException) -> None:
        """Writes the outcome of a run that `error` has ended.

        Args:
            error: what has ended it.
        """
        words = one_line(f"{type(error).__name__}: {error}")
        files.write_text(self.path / "crash.txt", home.hidden("".join(traceback.format_exception(error))))
        last = self.rows[-1] if self.rows else {"epoch": 0, "step": 0}
        self._write_result(status="crashed", epoch=last["epoch"], step=last["step"], error=home.hidden(words))
        self._progress.end(self.config, f"crashed: {words} (traceback in {self.path / 'crash.txt'})")

    def stopped(self) -> None:
        """Reports that the run has ended early, with a checkpoint of its last step."""
        self._progress.end(self.config, "stopped and saved")

    @property
    def _fix(self) -> str:
        return f"restore it, or delete the folder {self.path} to train this run again"

    def _is_further(self, place: str) -> UserError:
        return UserError(
            f"{self.config.name} in {self.path.parent} is trained to {place}, but --stop-after-epoch "
            f"{self.config.stop_after_epoch} asks for less; raise it or choose another --workdir"
        )

    def _cut_back(self, step: int) -> None:
        """Removes an older outcome and the lines of epochs after `step`."""
        kept = [row for row in self.rows if row["step"] <= step]
        epochs, (done, into_epoch) = [row["epoch"] for row in kept], divmod(step, self._steps_per_epoch)
        # At the very end of an epoch its line may not have been written yet.
        if epochs != list(range(1, done + 1)) and (into_epoch or epochs != list(range(1, done))):
            raise UserError(
                f"{self.path / 'metrics.jsonl'} must hold epochs 1 to {done}, since there is a checkpoint of step "
                f"{step}, but holds {str(epochs)[:40]}; {self._fix}"
            )
        files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        self.rows[:] = kept
        for stale in ("result.json", "predictions.npz", "crash.txt"):
            (self.path / stale).unlink(missing_ok=True)

    def _write_result(self, **fields: Any) -> None:
        best = max(self.rows, key=lambda row: row["val_accuracy"], default=None)
        common = {
            "norm": self.config.norm,
            "label": NORMS[self.config.norm].label,
            "seed": self.config.seed,
            "num_epochs": self.config.num_epochs,
            "num_params": None,
            "seconds": None,
            "diverged_at_step": None,
            "error": None,
            "best_val_accuracy": best and best["val_accuracy"],
            "best_val_epoch": best and best["epoch"],
            "statistics": None,
            "train": None,
            "validation": None,
            "test": None,
        }
        files.write_json(self.path / "result.json", {**common, **fields})


def config_differences(found: dict[str, Any], wanted: Config) -> dict[str, str]:
    """The fields of a configuration on disk in which `wanted` differs.

    Args:
        found: the fields that the file has.
        wanted: the run as it is asked for.

    Returns:
        By name, texts such as ``batch_size: 32 -> 64``. ``stop_after_epoch`` is left out, since it may grow.
    """
    now = wanted.to_json()
    return {
        name: f"{name}: {value} -> {now.get(name)}"
        for name, value in found.items()
        if name != "stop_after_epoch" and now.get(name) != value
    }


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
