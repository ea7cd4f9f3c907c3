"""The files of one run: its configuration, provenance, epochs, checkpoints and outcome."""

import io
import json
import os
import secrets
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
from jaxnorm.study.runs.agreement import PREDICTIONS, SPLITS, read_run
from jaxnorm.study.runs.checkpoints import CheckpointError, Checkpoints
from jaxnorm.study.runs.manifest import METRICS, Manifest
from jaxnorm.study.runs.progress import Progress
from jaxnorm.study.runs.provenance import config_differences, differences
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.runs.trained import MODEL, model_bytes
from jaxnorm.study.training.record import Record, Row
from jaxnorm.study.training.run import Result
from jaxnorm.study.words import duration

SAVE_COST_FACTOR = 50
"""Checkpoints are this many times their own cost apart, so that they take at most 2 % of the time."""


class RunDirectory(Record):
    """The directory of one run, such as ``bn-seed0/``, and the run's `Record` while it trains.

    ``config.json`` contains the `Config`, ``provenance.json`` what the run was trained on, ``metrics.jsonl`` one line
    per epoch, ``arrays/`` the arrays of each epoch, ``result.json`` the outcome, ``predictions.npz`` the test logits,
    ``model.safetensors`` the final variables, ``crash.txt`` the traceback of a crash, and ``manifest.json`` the hashes
    of all these but the last, see `Manifest`.

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
        self._progress, self._stop = progress or Progress(), stop
        self._every_seconds = checkpoint_every_seconds
        self._saved_at, self._save_cost = time.monotonic(), 1.0
        self._has_stepped = False
        self._rows: list[Row] | None = None
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest | None:
        """The hashes of its files; None for a run that never began.

        Raises:
            UserError: if it is damaged, or gone.
        """
        if self._manifest is None:
            self._manifest = Manifest.read(self.path)
        return self._manifest

    @property
    def checkpoints(self) -> Checkpoints:
        """Its checkpoints."""
        return Checkpoints(self.path / "checkpoints", self.manifest.run if self.manifest else "")

    @property
    def provenance(self) -> dict[str, Any] | None:
        """The content of ``provenance.json``; None for a run that never began."""
        return self._json("provenance.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of ``result.json``; None while there is no outcome."""
        return self._json("result.json")

    @property
    def rows(self) -> list[Row]:
        """The lines of ``metrics.jsonl`` that count, read once."""
        if self._rows is None:
            self._rows = self.manifest.lines() if self.manifest else []
        return self._rows

    @property
    def is_finished(self) -> bool:
        """Whether the run needs nothing more: it is trained as far as asked and evaluated, or it diverged."""
        result = self.result
        if result is None or result["status"] == "crashed":
            return False
        return bool(result["status"] == "diverged" or result["epoch"] >= self.config.last_epoch)

    def check(self) -> None:
        """Checks all files of a run that has begun, and that it is not trained further than asked.

        Raises:
            UserError: naming the file that is missing, damaged or of another run, or the epoch.
        """
        if self.manifest is not None:
            read_run(self.manifest, self.config.to_json() | {"name": self.config.name})
        if len(self.rows) > self.config.last_epoch:
            raise self._is_further(f"epoch {len(self.rows)}")

    def begin(self, dataset: Dataset, provenance: dict[str, Any]) -> None:
        """Makes the directory, or takes up an unfinished one. An older outcome remains until `restore`.

        ``provenance.json`` contains the configuration, and what the run was trained on before under ``earlier``. Under
        ``changes`` it lists what decides the run's numbers and has changed.

        Args:
            dataset: what the run trains on.
            provenance: what it is trained on now, as JSON values.
        """
        self._dataset = dataset
        self._steps_per_epoch = len(dataset.train) // self.config.batch_size
        self._progress.begin(self.config, self._steps_per_epoch)
        files.make_folder(self.path)
        before, config = self.provenance, self.config.to_json()
        if before is not None:
            changed = differences(before, provenance)[0]
            changed += config_differences(before["config"], self.config).values()
            place = f"after epoch {len(self.rows)}"
            provenance = {
                **provenance,
                "changes": [*before.pop("changes", []), *(f"{text} ({place})" for text in changed)],
                "earlier": [*before.pop("earlier", []), before],
            }
        if self._manifest is None:
            self._manifest = Manifest(self.path, f"{self.config.name}/{secrets.token_hex(8)}")
        recorded = home.hidden({**provenance, "config": config})
        self._manifest.replace({"provenance.json": files.json_bytes(recorded), "config.json": files.json_bytes(config)})

    def restore(self, saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The newest checkpoint that verifies; if there never was one, the run starts over.

        An older outcome is removed, and so are the lines and arrays of later epochs.

        Args:
            saved: a tree of arrays, the state before the first step.

        Returns:
            The tree of the checkpoint, or `saved`; and the seconds that the unfinished epoch has taken.

        Raises:
            UserError: if there are checkpoints but none can be trusted, if the run is trained further than asked, or if
                lines of epochs before the checkpoint are missing. Nothing is changed then.
        """
        found = self.checkpoints.restore(saved, last_step=self.config.num_epochs * self._steps_per_epoch)
        if found is None and self._begun.is_saved:
            raise CheckpointError(
                f"{self.config.name} was saved, but {self.path / 'checkpoints'} is empty; {self._fix}"
            )
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
        self._begun.is_saved = True
        self._begun.write()
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - started

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Writes the arrays of an epoch to ``arrays/epoch_0001.npz``; no file if there are none.

        Args:
            epoch: counted from 1.
            arrays: by name.
        """
        if arrays:
            self._write(_name(epoch), _packed(arrays))

    def append(self, row: Row) -> None:
        """Adds the line of an epoch to ``metrics.jsonl``, on disk. From then on its arrays count, too.

        Args:
            row: JSON values by name.
        """
        path = self.path / METRICS
        with files.naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._begun.add(METRICS)
        self._begun.write()
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
            self._write(PREDICTIONS, _packed({"logits": result.test_logits, "label": label}))
            self._write(MODEL, model_bytes(result.variables, self._dataset))
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
        for name in (PREDICTIONS, MODEL):  # of an earlier outcome
            self._begun.files.pop(name, None)
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

    @property
    def _begun(self) -> Manifest:
        if self.manifest is None:
            raise ValueError(f"{self.config.name} has not begun")
        return self.manifest

    def _json(self, name: str) -> dict[str, Any] | None:
        return self.manifest.json(name) if self.manifest else None

    def _write(self, name: str, content: bytes) -> None:
        files.write_bytes(self.path / name, content)
        self._begun.add(name)

    def _cut_back(self, step: int) -> None:
        """Removes an older outcome, and the lines and arrays of epochs after `step`."""
        kept = [row for row in self.rows if row["step"] <= step]
        epochs, (done, into_epoch) = [row["epoch"] for row in kept], divmod(step, self._steps_per_epoch)
        # At the very end of an epoch its line may not have been written yet.
        if epochs != list(range(1, done + 1)) and (into_epoch or epochs != list(range(1, done))):
            raise UserError(
                f"{self.path / METRICS} must hold epochs 1 to {done}, since there is a checkpoint of step "
                f"{step}, but holds {str(epochs)[:40]}; {self._fix}"
            )
        content = self._begun.content(METRICS) if self.rows else b""
        known = ["config.json", "provenance.json", *map(_name, epochs)]
        # First what counts, then the files: a power cut in between brings nothing back.
        self._begun.keep(known, b"".join(content.splitlines(keepends=True)[: len(kept)]))
        for stale in (
            *map(self.path.joinpath, ("result.json", PREDICTIONS, MODEL, "crash.txt")),
            *self.path.glob("arrays/*"),
        ):
            if stale.relative_to(self.path).as_posix() not in self._begun.files:
                stale.unlink(missing_ok=True)
        self.rows[:] = kept

    def _write_result(self, **fields: Any) -> None:
        best = max(self.rows, key=lambda row: row["val_accuracy"], default={})
        common = {
            "norm": self.config.norm,
            "label": NORMS[self.config.norm].label,
            "seed": self.config.seed,
            "num_epochs": self.config.num_epochs,
            **dict.fromkeys(("num_params", "seconds", "diverged_at_step", "error")),
            "best_val_accuracy": best.get("val_accuracy"),
            "best_val_epoch": best.get("epoch"),
            **dict.fromkeys(("statistics", *SPLITS)),
        }
        self._begun.replace({"result.json": files.json_bytes({**common, **fields})})


def _name(epoch: int) -> str:
    return f"arrays/epoch_{epoch:04d}.npz"


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
