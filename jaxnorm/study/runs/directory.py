"""One run on disk: its configuration, provenance, epochs, checkpoints and result."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.config import Config
from jaxnorm.study.runs.provenance import differences

Row = dict[str, Any]
YOUNGER = ("bn_statistics", "num_replicas", "compute_dtype")
"""Fields that folders made before they existed do not have."""

OF_AN_OUTCOME = ("metrics.jsonl", "crash.txt", "predictions.npz", "result.json")
"""The last one last: it says that the others are there."""


class RunDirectory:
    """The directory of one run, such as ``bn-seed0/``.

    ``config.json`` holds the `Config`, ``provenance.json`` what it ran on, ``metrics.jsonl`` a line per epoch,
    ``result.json`` the outcome (present only once there is one), ``predictions.npz`` the test logits.

    Args:
        path: the directory; made by `begin`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> dict[str, Any] | None:
        """What ``config.json`` says; None for a run that never began."""
        return read_json(self.path / "config.json")

    @property
    def provenance(self) -> dict[str, Any] | None:
        """What ``provenance.json`` says; None for a run that never began."""
        return read_json(self.path / "provenance.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """What ``result.json`` says; None while the run is not finished.

        Raises:
            UserError: if it is damaged.
        """
        result = read_json(self.path / "result.json")
        if result is not None and not (isinstance(result.get("status"), str) and isinstance(result.get("epoch"), int)):
            raise UserError(
                f"{self.path / 'result.json'} must hold a status and an epoch, but is damaged; {self._mend}"
            )
        return result

    def check_whole(self) -> None:
        """Checks that a complete run still has all it was written with.

        Raises:
            UserError: naming the file that is missing or damaged.
        """
        result = self.result
        if result is None or result["status"] != "complete":
            return
        epochs = [row.get("epoch") for row in self.rows]
        if epochs != list(range(1, result["epoch"] + 1)):
            raise UserError(
                f"{self.path / 'metrics.jsonl'} must hold epochs 1 to {result['epoch']}, but holds "
                f"{str(epochs)[:40]}; {self._mend}"
            )
        if not (self.path / "predictions.npz").is_file():
            raise UserError(f"{self.path / 'predictions.npz'} must stand beside result.json, but is gone; {self._mend}")

    @property
    def _mend(self) -> str:
        return f"restore it, or delete the folder {self.path} to train this run again"

    @property
    def rows(self) -> list[Row]:
        """The lines of ``metrics.jsonl``; a line cut short by a crash counts as not written.

        Raises:
            UserError: if a line is no object with an epoch and a step.
        """
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_text().splitlines(keepends=True)
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            for row in rows:
                if not isinstance(row, dict) or not all(isinstance(row.get(name), int) for name in ("epoch", "step")):
                    raise ValueError("a line lacks its epoch or step")
            return rows
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{path} must hold JSON lines, but is damaged ({error}); {self._mend}") from None

    def begin(self, config: Config, provenance: dict[str, Any]) -> None:
        """Makes the directory, or takes an unfinished one up again; an older outcome stands until `reopen`.

        What the run was taken up with before stays in its provenance, under ``earlier``; under ``changes`` stands what
        decides its numbers and was not the same all along.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        before, found = self.provenance, self.config
        if before is not None:
            changed = differences(before, provenance)[0] + list(config_differences(found or {}, config).values())
            place = f"after epoch {max((row['epoch'] for row in self.rows), default=0)}"
            provenance = {
                **provenance,
                "changes": [*before.pop("changes", []), *(f"{text} ({place})" for text in changed)],
                "earlier": [*before.pop("earlier", []), before],
            }
        files.write_json(self.path / "config.json", config.to_json())
        files.write_json(self.path / "provenance.json", home.hidden(provenance))

    def reopen(self, step: int, steps_per_epoch: int) -> None:
        """Training goes on from `step`: an older outcome no longer stands, nor do the lines of later epochs.

        Raises:
            UserError: if lines of epochs up to there are missing; nothing is changed then.
        """
        kept = [row for row in self.rows if row["step"] <= step]
        epochs, (done, into_epoch) = [row["epoch"] for row in kept], divmod(step, steps_per_epoch)
        # At the very end of an epoch its line may not have been written yet.
        if epochs != list(range(1, done + 1)) and (into_epoch or epochs != list(range(1, done))):
            raise UserError(
                f"{self.path / 'metrics.jsonl'} must hold epochs 1 to {done}, which the checkpoint of step {step} has "
                f"behind it, but holds {str(epochs)[:40]}; {self._mend}"
            )
        files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        for stale in ("result.json", "predictions.npz", "crash.txt"):
            (self.path / stale).unlink(missing_ok=True)

    def append(self, row: Row) -> None:
        """Adds a line to ``metrics.jsonl`` and flushes it to disk."""
        path = self.path / "metrics.jsonl"
        with files.naming(path), path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Writes the arrays of an epoch to ``arrays/epoch_0001.npz``; nothing where there are none."""
        if arrays:
            with files.replacing(self.path / "arrays" / f"epoch_{epoch:04d}.npz") as part, part.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

    def adopt(self, other: "RunDirectory", config: Config) -> None:
        """Takes over the outcome of a run that computes the same, and all that led to it, but for the checkpoints."""
        self.path.mkdir(parents=True, exist_ok=True)
        for stale in reversed(OF_AN_OUTCOME):
            (self.path / stale).unlink(missing_ok=True)
        files.write_json(self.path / "config.json", config.to_json())
        files.write_json(self.path / "provenance.json", {**(other.provenance or {}), "same_as": other.path.name})
        for path in (*other.path.glob("arrays/epoch_*.npz"), *map(other.path.joinpath, OF_AN_OUTCOME)):
            if path.exists():
                files.write_bytes(self.path / path.relative_to(other.path), path.read_bytes())

    def finish(self, result: dict[str, Any], predictions: dict[str, np.ndarray] | None = None) -> None:
        """Writes the outcome, last of all: a run with a ``result.json`` has everything."""
        if predictions is not None:
            with files.replacing(self.path / "predictions.npz") as part, part.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **predictions)
        files.write_json(self.path / "result.json", result)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None if there is no such file.

    Raises:
        UserError: if the file cannot be read or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must be JSON, but is damaged or unreadable ({error}); restore it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, but holds {str(content)[:20]!r}; restore it")
    return content


def config_differences(found: dict[str, Any], wanted: Config) -> dict[str, str]:
    """By name the fields of `found`, read from disk, in which `wanted` differs, as ``name: found -> wanted``.

    ``stop_after_epoch`` is left out: it may grow. A field that is younger than the file had its default then.
    """
    now = wanted.to_json()
    found = {**{name: value for name, value in Config().to_json().items() if name in YOUNGER}, **found}
    return {
        name: f"{name}: {value} -> {now.get(name)}"
        for name, value in found.items()
        if name != "stop_after_epoch" and now.get(name) != value
    }
