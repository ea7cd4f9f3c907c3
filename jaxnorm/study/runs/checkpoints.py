"""Checkpoints that are complete and verified: orbax writes them, a SHA-256 of every file proves them."""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxnorm import files
from jaxnorm.errors import UserError, one_line
from jaxnorm.study import home
from jaxnorm.study.training.devices import num_processes, process_index

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every save
KEPT = 2
FORMAT = 1
OVERHEAD_BYTES = 256 * 1024  # of orbax and the manifest, with room to spare


class CheckpointError(UserError):
    """No checkpoint of a run can be trusted."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """The content of a checkpoint.

    Attributes:
        saved: the tree of arrays.
        seconds: time that the unfinished epoch had taken.
        problems: of newer checkpoints that cannot be trusted, a line each; they were put aside.
    """

    saved: Any
    seconds: float
    problems: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run: folders ``step_00000312/`` with orbax's arrays and a manifest of hashes.

    A folder gets its name only when all of it is on disk, so that a process killed while it saves leaves nothing that
    looks like a checkpoint. The newest two are kept. ``checkpoints.json`` beside the folder says which was the newest,
    so that an emptied folder is not mistaken for a run that never saved.

    Args:
        folder: of the checkpoints; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # orbax refuses relative paths
        self._newest = self.folder.with_name(f"{folder.name}.json")

    def steps(self) -> list[int]:
        """The steps that have a checkpoint.

        Returns:
            Their numbers, ascending.
        """
        names = (re.fullmatch(r"step_(\d{8,})", path.name) for path in self.folder.glob("step_*"))
        return sorted(int(name[1]) for name in names if name)

    def save(self, step: int, saved: Any, seconds: float) -> None:
        """Writes the checkpoint of `step`; does nothing if it exists.

        Args:
            step: number of updates done.
            saved: a tree of arrays.
            seconds: time that the unfinished epoch has taken.

        Raises:
            OSError: if the disk does not accept it; earlier checkpoints remain.
        """
        path = self.folder / _name(step)
        if path.exists():
            return
        part = self.folder / f".{path.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            _write(part, step, saved, seconds)
            part.rename(path)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            if code := _code_of_disk(error):
                raise OSError(code, os.strerror(code), str(part)) from error
            raise
        files.sync_folder(self.folder)
        files.write_json(self._newest, {"newest": step})
        for old in self.steps()[:-KEPT]:
            shutil.rmtree(self.folder / _name(old))

    def restore(self, like: Any, *, last_step: int | None = None) -> Restored | None:
        """Reads the newest checkpoint that verifies.

        Newer ones that do not verify are put aside as ``damaged_step_...``, so that training writes them again.

        Args:
            like: a tree of arrays with the structure, shapes and dtypes of the saved one.
            last_step: of the training; a checkpoint of a later step is not trusted.

        Returns:
            What it contains; None if no checkpoint was ever saved.

        Raises:
            CheckpointError: if checkpoints were saved and none can be trusted.
            PermissionError: if one may not be read.
        """
        for part in self.folder.glob(".step_*.part"):  # of a process that was killed while it saved
            shutil.rmtree(part, ignore_errors=True)
        problems: list[str] = []
        steps = self.steps()
        for step in reversed(steps):
            try:
                saved, seconds = _read(self.folder / _name(step), like, last_step)
            except PermissionError:  # no damage
                raise
            except Exception as error:  # a damaged file can make orbax raise anything
                problems.append(f"{_name(step)}: {one_line(error, 300) or type(error).__name__}")
                continue
            for untrusted in steps[steps.index(step) + 1 :]:
                aside = self.folder / f"damaged_{_name(untrusted)}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / _name(untrusted)).rename(aside)
            return Restored(saved, seconds, tuple(problems))
        if not problems and self._newest.exists():
            problems = [f"{self._newest.name} names one, but there is none"]
        if problems:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be trusted ({'; '.join(problems)}); restore the folder from a "
                f"backup, or delete {self.folder.parent} to train this run again"
            )
        return None


def _write(part: Path, step: int, saved: Any, seconds: float) -> None:
    # As NumPy arrays: a checkpoint then knows nothing about devices and can be restored on others.
    arrays = jax.device_get(_by_path(saved))
    # A full disk is found here, with one line; within orbax each of its threads would print a traceback.
    room = part / "room"
    with files.naming(part), room.open("wb") as opened:
        opened.write(b"\0" * (sum(array.nbytes for array in arrays.values()) * 5 // 4 + OVERHEAD_BYTES))
        opened.flush()
        os.fsync(opened.fileno())
    room.unlink()
    _orbax().save(part / "arrays", arrays)
    for note in part.rglob("*.txt"):  # orbax's mark that it is complete contains the path
        note.write_text(home.hidden(note.read_text(encoding="utf-8")), encoding="utf-8")
    hashes = {}
    for file in sorted(part.rglob("*")):
        if file.is_file():
            with file.open("rb+") as whole:
                os.fsync(whole.fileno())
            hashes[file.relative_to(part).as_posix()] = files.sha256(file)
    manifest = {"format": FORMAT, "step": step, "seconds": seconds, "sha256": hashes}
    files.write_json(part / "manifest.json", {**manifest, "self": _sha256_of(manifest)})


def _orbax() -> ocp.Checkpointer:
    """Orbax in this process alone: of several that train together only one reads and writes checkpoints."""
    if num_processes() == 1:
        return ocp.PyTreeCheckpointer()
    this = process_index()
    alone = ocp.options.MultiprocessingOptions(this, {this}, barrier_sync_key_prefix="jaxnorm")
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _code_of_disk(error: Exception) -> int | None:
    """The error code of a disk, if orbax raised an error of its own: only its text names the cause then."""
    if isinstance(error, OSError):
        return None
    text = str(error).lower()
    return next((code for code in files.STORAGE_CODES if os.strerror(code).lower() in text), None)


def _read(path: Path, like: Any, last_step: int | None) -> tuple[Any, float]:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or manifest.pop("self", None) != _sha256_of(manifest):
        raise ValueError("manifest.json is damaged: it does not match its own SHA-256")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"has format {manifest.get('format')}, but this version of jaxnorm reads {FORMAT}")
    if last_step is not None and manifest["step"] > last_step:
        raise ValueError(f"is of step {manifest['step']}, but training ends at step {last_step}")
    if path.name != _name(manifest["step"]):
        raise ValueError(f"is the checkpoint of step {manifest['step']} under another name")
    for name, expected in manifest["sha256"].items():
        if files.sha256(path / name) != expected:
            raise ValueError(f"{name} is damaged: its SHA-256 is not the one recorded")
    found = _orbax().restore(path / "arrays")
    expected_arrays = _by_path(like)
    if set(found) != set(expected_arrays):
        raise ValueError(f"holds other arrays than this network: {sorted(set(found) ^ set(expected_arrays))[:3]}")
    for name, value in expected_arrays.items():
        if (np.shape(found[name]), found[name].dtype) != (value.shape, value.dtype):
            raise ValueError(f"{name} is {found[name].dtype}{np.shape(found[name])}, not {value.dtype}{value.shape}")
    leaves = [jax.device_put(np.asarray(found[name])) for name in expected_arrays]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), float(manifest["seconds"])


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _sha256_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their path: orbax then needs no support for our containers, and accepts empty ones."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
