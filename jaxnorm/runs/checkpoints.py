"""Checkpoints that are whole and verified: orbax writes, our own SHA-256 vouches."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxnorm import files
from jaxnorm.errors import UserError

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every save
KEPT = 2


class CheckpointError(UserError):
    """No checkpoint of a run can be trusted."""


class Checkpoints:
    """The checkpoints of one run: folders ``step_00000312/`` with orbax's arrays and a manifest of hashes.

    A folder appears under its name only when all of it is on disk, so a process killed while it saves leaves nothing
    that could be mistaken for a checkpoint. The newest two are kept.

    Args:
        folder: where the checkpoints lie; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # orbax refuses relative paths

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(int(path.name.removeprefix("step_")) for path in self.folder.glob("step_[0-9]*"))

    def save(self, step: int, numbers: Any, seconds: float) -> None:
        """Writes the arrays of the tree `numbers` as the checkpoint of `step`; does nothing if that one exists."""
        path = self.folder / _name(step)
        if path.exists():
            return
        part = self.folder / f".{path.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        # As NumPy arrays: a checkpoint then knows nothing of devices and can be restored on others.
        ocp.PyTreeCheckpointer().save(part / "arrays", jax.device_get(_by_path(numbers)))
        hashes = {}
        for file in sorted(part.rglob("*")):
            if file.is_file():
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
                hashes[file.relative_to(part).as_posix()] = files.sha256(file)
        manifest = {"step": step, "seconds": seconds, "sha256": hashes}
        files.write_json(part / "manifest.json", {**manifest, "self": _sha256_of(manifest)})
        part.rename(path)
        files.sync_folder(self.folder)
        for old in self.steps()[:-KEPT]:
            shutil.rmtree(self.folder / _name(old))

    def restore(self, like: Any) -> tuple[Any, float] | None:
        """The newest checkpoint that verifies, in the shape of the tree `like`, with its seconds; None if none exists.

        Raises:
            CheckpointError: if checkpoints exist and none can be trusted.
        """
        problems = []
        for step in reversed(self.steps()):
            path = self.folder / _name(step)
            try:
                return _read(path, like)
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"{path.name}: {error}")
        if problems:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be trusted ({'; '.join(problems)}); restore the folder from a "
                f"backup, or delete {self.folder.parent} to train this run again"
            )
        return None


def _read(path: Path, like: Any) -> tuple[Any, float]:
    manifest = json.loads((path / "manifest.json").read_text())
    if manifest.pop("self") != _sha256_of(manifest):
        raise ValueError("manifest.json is damaged: it does not match its own SHA-256")
    if path.name != _name(manifest["step"]):
        raise ValueError(f"is the checkpoint of step {manifest['step']} under another name")
    for name, expected in manifest["sha256"].items():
        if files.sha256(path / name) != expected:
            raise ValueError(f"{name} is damaged: its SHA-256 is not the one recorded")
    found = ocp.PyTreeCheckpointer().restore(path / "arrays")
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
