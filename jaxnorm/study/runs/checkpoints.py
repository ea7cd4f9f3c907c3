"""Checkpoints that are complete and verified: orbax writes them, a SHA-256 of every file proves them."""

import dataclasses
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
from jaxnorm.study.compact_json import compact_json
from jaxnorm.study.runs.manifest import MANIFEST, Entry, entry, read_sealed, sealed
from jaxnorm.study.training.processes import num_processes, process_index

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every save
KEPT = 2
FORMAT = 2
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
    looks like a checkpoint. The newest two are kept.

    Args:
        folder: of the checkpoints; made when the first is saved.
        run: the run, see `Manifest`. A checkpoint of another one is not trusted.
    """

    def __init__(self, folder: Path, run: str = "") -> None:
        self.folder = folder.absolute()  # orbax refuses relative paths
        self._run = run

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
            files.make_folder(part)
            _write(part, saved)
            about = {"format": FORMAT, "run": self._run, "step": step, "seconds": seconds, "files": _synced(part)}
            files.write_text(part / MANIFEST, compact_json(sealed(about)))
            part.rename(path)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            if code := _code_of_disk(error):
                raise OSError(code, os.strerror(code), str(part)) from error
            raise
        files.sync_folder(self.folder)
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
                saved, seconds = self._read(step, like, last_step)
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
        if problems:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be trusted ({'; '.join(problems)}); restore the folder from a "
                f"backup, or delete {self.folder.parent} to train this run again"
            )
        return None

    def _read(self, step: int, like: Any, last_step: int | None) -> tuple[Any, float]:
        path = self.folder / _name(step)
        manifest = read_sealed(path / MANIFEST)
        if manifest is None:
            raise ValueError(f"{MANIFEST} is gone")
        if manifest.get("format") != FORMAT:
            raise ValueError(f"has format {manifest.get('format')}, but this version of jaxnorm reads {FORMAT}")
        if manifest["run"] != self._run:
            raise ValueError(f"is a checkpoint of the run {manifest['run']}, not of {self._run}")
        if last_step is not None and manifest["step"] > last_step:
            raise ValueError(f"is of step {manifest['step']}, but training ends at step {last_step}")
        if manifest["step"] != step:
            raise ValueError(f"is the checkpoint of step {manifest['step']} under another name")
        for name, known in manifest["files"].items():
            if entry(files.read_bytes(path / name, known["bytes"] + 1)) != known:
                raise ValueError(f"{name} is damaged: its SHA-256 is not the one recorded")
        found = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
        if added := found - {MANIFEST, *manifest["files"]}:
            raise ValueError(f"{min(added)} does not belong to it")
        return _arrays(path / "arrays", like), float(manifest["seconds"])


def _write(part: Path, saved: Any) -> None:
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


def _synced(part: Path) -> dict[str, Entry]:
    """Size and SHA-256 of all files. They are on disk then, and their folders."""
    found = {}
    for path in sorted(part.rglob("*")):
        if path.is_dir():
            files.sync_folder(path)
            continue
        with path.open("rb+") as whole:
            os.fsync(whole.fileno())
        found[path.relative_to(part).as_posix()] = entry(files.read_bytes(path))
    return found


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


def _arrays(path: Path, like: Any) -> Any:
    found, expected = _orbax().restore(path), _by_path(like)
    if set(found) != set(expected):
        raise ValueError(f"holds other arrays than this network: {sorted(set(found) ^ set(expected))[:3]}")
    for name, value in expected.items():
        if (np.shape(found[name]), found[name].dtype) != (value.shape, value.dtype):
            raise ValueError(f"{name} is {found[name].dtype}{np.shape(found[name])}, not {value.dtype}{value.shape}")
    leaves = [jax.device_put(np.asarray(found[name])) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their path: orbax then needs no support for our containers, and accepts empty ones."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
