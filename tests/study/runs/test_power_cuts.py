"""A power cut, or a kill, between any two system calls: what is on disk then goes on to the end of a whole run."""

import dataclasses
import hashlib
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxnorm import Config
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.training.metrics import measure
from jaxnorm.study.training.run import Result
from tests.study.report.workdirs import DIGITS, exact_confusion, metrics_of, provenance_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it reads what a file handle refers to")

FULL = Config(norm="bn", batch_size=107, num_epochs=2)  # ten steps an epoch
SHORT = dataclasses.replace(FULL, stop_after_epoch=1)
CALLS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


class Disk:
    """What of a folder has reached the disk. Before each system call it makes copies as a power cut would leave them.

    A file has the content of its last fsync, a folder the entries of its own last fsync. Attributes: `saved` is the
    last step of which a checkpoint was promised; `states` are the copies, with that step.
    """

    def __init__(self, folder, copies, monkeypatch):
        self.folder, self.copies, self.saved, self.states = folder, copies, 0, {}
        self._content, self._entries, self._held, self._is_copying = {}, {}, [], False
        for name in CALLS:
            call = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *args, call=call, **more: self._called(call, args, more))

    def _called(self, call, args, more):
        self.cut()
        result = call(*args, **more)
        if call.__name__ == "fsync":
            self._synced(args[0])
        return result

    def _synced(self, handle):
        self._held.append(os.dup(handle))  # its number is not given out again
        path, status = Path(f"/proc/self/fd/{handle}"), os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            self._entries[status.st_ino] = {entry.name: entry.stat() for entry in os.scandir(handle)}
        else:
            self._content[status.st_ino] = path.read_bytes()

    def cut(self):
        """Copies what is left after a power cut now: at least what was synced; or all names, but files half-written."""
        if self._is_copying:
            return
        self._is_copying = True
        for number, copy in enumerate((self._only_what_was_synced, self._with_all_names)):
            target = self.copies / f"{len(self.states)}-{number}"
            target.mkdir(parents=True)
            copy(target)
            tree = sorted(
                (str(p.relative_to(target)), p.read_bytes() if p.is_file() else b"") for p in target.rglob("*")
            )
            key = hashlib.sha256(repr(tree).encode()).digest()
            if key in self.states:
                shutil.rmtree(target)
            else:
                self.states[key] = target, self.saved
            # The same files after a later promise: the promise was broken.
            self.states[key] = self.states[key][0], max(self.saved, self.states[key][1])
        self._is_copying = False

    def _only_what_was_synced(self, target, inode=None):
        for name, status in self._entries.get(inode or self.folder.stat().st_ino, {}).items():
            if stat.S_ISDIR(status.st_mode):
                (target / name).mkdir()
                self._only_what_was_synced(target / name, status.st_ino)
            else:
                (target / name).write_bytes(self._content.get(status.st_ino, b""))

    def _with_all_names(self, target):
        for path in sorted(self.folder.rglob("*")):
            copy = target / path.relative_to(self.folder)
            if path.is_dir():
                copy.mkdir()
            else:
                content = path.read_bytes()
                is_synced = self._content.get(path.stat().st_ino) == content
                copy.write_bytes(content if is_synced else content[: len(content) // 2])

    def close(self):
        for handle in self._held:
            os.close(handle)


class Plain(ocp.PyTreeCheckpointer):
    """Instead of orbax, which takes long: one file."""

    def save(self, directory, item):
        directory.mkdir()
        np.savez(directory / "arrays.npz", **item)

    def restore(self, directory):
        with np.load(directory / "arrays.npz") as arrays:
            return dict(arrays)


def state_at(step):
    return {"step": np.int32(step), "weight": np.full(3, step, np.float32)}


def train(workdir, config, digits, *, disk=None):
    """A run as `jaxnorm.study.training.run` tells it, with a checkpoint after every fifth step and no network."""
    run = RunDirectory(workdir / config.name, config)
    run.check()
    if run.is_finished:
        return None
    run.begin(digits, provenance_of(config, DIGITS, ""))
    state, _ = run.restore(state_at(0))
    began = step = int(state["step"])
    assert state["weight"].tolist() == [step] * 3
    while True:
        epoch, into = divmod(step, 10)
        if into == 0 and epoch > len(run.rows):
            run.keep(epoch, {"gate/stem": np.full(3, epoch, np.float32)})
            run.append(row(epoch))
        if epoch >= config.last_epoch:
            break
        step += 5
        run.save(state_at(step), 0.0)
        if disk is not None:
            disk.saved = step
    run.complete(outcome(run.rows, digits))
    return began


def row(epoch):
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate", "seconds")
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        **dict.fromkeys(names, 0.5),
        "feature_quantiles": [0.0, 0.1, 0.2, epoch],
    }


def outcome(rows, digits):
    label = digits.test.label
    logits = np.eye(10, dtype=np.float32)[(label + (np.arange(len(label)) % (2 * len(rows)) == 0)) % 10]
    sizes = {"train": DIGITS["num_train"], "validation": DIGITS["num_validation"]}
    splits = {name: metrics_of(exact_confusion(0.5, size), 0.7) for name, size in sizes.items()}
    return Result(
        status="complete", step=10 * len(rows), epoch=len(rows), diverged_at_step=None, num_params=3,
        seconds=0.5 * len(rows), rows=rows, splits=splits | {"test": measure(logits, label)}, statistics=None,
        test_logits=logits, variables={},
    )  # fmt: skip


def contents(workdir):
    """All that a run leaves but the manifest, what names its start, and what a kill left half-written."""
    found = {path.relative_to(workdir): path for path in workdir.rglob("[!.]*") if path.is_file()}
    own = {name: path for name, path in found.items() if "checkpoints" not in name.parts}
    return {
        str(name): dict(np.load(path)) if path.suffix == ".npz" else path.read_bytes()
        for name, path in own.items()
        if path.name not in ("manifest.json", "provenance.json")
    }


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.durability)])
def test_a_power_cut_anywhere_loses_nothing_that_was_saved(tmp_path, digits, monkeypatch, every):
    monkeypatch.setattr(ocp, "PyTreeCheckpointer", Plain)
    train(tmp_path / "whole", FULL, digits)
    whole = contents(tmp_path / "whole")
    workdir = tmp_path / "w"
    workdir.mkdir()
    with monkeypatch.context() as recorded:
        disk = Disk(workdir, tmp_path / "copies", recorded)
        train(workdir, SHORT, digits, disk=disk)
        train(workdir, FULL, digits, disk=disk)
        disk.cut()
    disk.close()
    assert len(disk.states) > 50
    states = [*disk.states.values()]
    for state, saved in [states[0], *states[::-every]]:  # the first is what is left where nothing is ever synced
        began = train(state, FULL, digits)
        assert began is None or began >= saved, state.name
        np.testing.assert_equal(contents(state), whole, err_msg=state.name)
