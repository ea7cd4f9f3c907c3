"""Checkpoints that are whole and verified: orbax writes, our own SHA-256 vouches."""

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
from jaxnorm.errors import UserError
from jaxnorm.study import home

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every save
KEPT = 2
FORMAT = 1
OVERHEAD_BYTES = 256 * 1024  # of orbax and the manifest, with room to spare


class CheckpointError(UserError):
    """No checkpoint of a run can be trusted."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held.

    Attributes:
        numbers: the tree.
        seconds: that the unfinished epoch had taken.
        problems: of newer checkpoints that could not be trusted, a line each; they were put aside.
    """

    numbers: Any
    seconds: float
    problems: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run: folders ``step_00000312/`` with orbax's arrays and a manifest of hashes.

    A folder appears under its name only when all of it is on disk, so a process killed while it saves leaves nothing
    that could be mistaken for a checkpoint. The newest two are kept. ``checkpoints.json`` beside the folder says which
    was the newest, so that a folder that somebody emptied is not taken for a run that never saved.

    Args:
        folder: where the checkpoints lie; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # orbax refuses relative paths
        self._newest = self.folder.with_name(f"{folder.name}.json")

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        names = (re.fullmatch(r"step_(\d{8,})", path.name) for path in self.folder.glob("step_*"))
        return sorted(int(name[1]) for name in names if name)

    def save(self, step: int, numbers: Any, seconds: float) -> None:
        """Writes the arrays of the tree `numbers` as the checkpoint of `step`; does nothing if that one exists.

        Raises:
            OSError: if the disk does not take it; the checkpoints before it stand.
        """
        path = self.folder / _name(step)
        if path.exists():
            return
        part = self.folder / f".{path.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            _write(part, step, numbers, seconds)
            part.rename(path)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            if code := _disk_said(error):
                raise OSError(code, os.strerror(code), str(part)) from error
            raise
        files.sync_folder(self.folder)
        files.write_json(self._newest, {"newest": step})
        for old in self.steps()[:-KEPT]:
            shutil.rmtree(self.folder / _name(old))

    def restore(self, like: Any, *, last_step: int | None = None) -> Restored | None:
        """The newest checkpoint that verifies, in the shape of the tree `like`; None if none was ever saved.

        Newer ones that do not verify are put aside as ``damaged_step_...``, so that training writes them anew.

        Args:
            like: a tree of arrays.
            last_step: of the training; a checkpoint of a later step is not trusted.

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
                numbers, seconds = _read(self.folder / _name(step), like, last_step)
            except PermissionError:  # no damage
                raise
            except Exception as error:  # whatever a damaged file makes orbax say
                problems.append(f"{_name(step)}: {' '.join(str(error).split())[:300] or type(error).__name__}")
                continue
            for untrusted in steps[steps.index(step) + 1 :]:
                aside = self.folder / f"damaged_{_name(untrusted)}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / _name(untrusted)).rename(aside)
            return Restored(numbers, seconds, tuple(problems))
        if not problems and self._newest.exists():
            problems = [f"{self._newest.name} tells of one, but there is none"]
        if problems:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be trusted ({'; '.join(problems)}); restore the folder from a "
                f"backup, or delete {self.folder.parent} to train this run again"
            )
        return None


def _write(part: Path, step: int, numbers: Any, seconds: float) -> None:
    # As NumPy arrays: a checkpoint then knows nothing of devices and can be restored on others.
    arrays = jax.device_get(_by_path(numbers))
    # A disk that refuses says so here in one line; inside orbax, its threads would each print a traceback.
    room = part / "room"
    with files.naming(part), room.open("wb") as opened:
        opened.write(b"\0" * (sum(array.nbytes for array in arrays.values()) * 5 // 4 + OVERHEAD_BYTES))
        opened.flush()
        os.fsync(opened.fileno())
    room.unlink()
    _orbax().save(part / "arrays", arrays)
    for note in part.rglob("*.txt"):  # orbax's word that it is whole, with the path
        note.write_text(home.hidden(note.read_text()))
    hashes = {}
    for file in sorted(part.rglob("*")):
        if file.is_file():
            with file.open("rb+") as whole:
                os.fsync(whole.fileno())
            hashes[file.relative_to(part).as_posix()] = files.sha256(file)
    manifest = {"format": FORMAT, "step": step, "seconds": seconds, "sha256": hashes}
    files.write_json(part / "manifest.json", {**manifest, "self": _sha256_of(manifest)})


def _orbax() -> ocp.Checkpointer:
    """Orbax, in this process alone: of several that train together only one reads and writes checkpoints."""
    if jax.process_count() == 1:
        return ocp.PyTreeCheckpointer()
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(this, {this}, barrier_sync_key_prefix="jaxnorm")
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _disk_said(error: Exception) -> int | None:
    """The error code of a disk that refused, where orbax wrapped it in an error of its own, whose text alone tells."""
    if isinstance(error, OSError):
        return None
    text = str(error).lower()
    return next((code for code in files.STORAGE_CODES if os.strerror(code).lower() in text), None)


def _read(path: Path, like: Any, last_step: int | None) -> tuple[Any, float]:
    manifest = json.loads((path / "manifest.json").read_text())
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
    """The leaves by their path: orbax then needs to know none of our containers, and empty ones do no harm."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
