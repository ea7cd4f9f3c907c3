import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import jax.numpy as jnp
import pytest

from jaxnorm import files
from jaxnorm.study.runs.checkpoints import CheckpointError, Checkpoints
from jaxnorm.study.runs.manifest import read_sealed, sealed

TREE = {"step": jnp.asarray(7, jnp.int32), "params": {"conv/1": {"kernel": jnp.arange(6.0).reshape(2, 3)}}, "empty": {}}


def tree_at(step):
    return {**TREE, "step": jnp.asarray(step, jnp.int32)}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def test_what_is_restored_is_what_was_saved(checkpoints):
    checkpoints.save(7, TREE, 1.25)
    restored = checkpoints.restore(TREE)
    chex.assert_trees_all_equal(restored.saved, TREE)
    chex.assert_trees_all_equal_dtypes(restored.saved, TREE)
    assert restored.seconds == 1.25
    assert restored.problems == ()


def test_without_any_there_is_nothing_to_restore(checkpoints):
    assert checkpoints.restore(TREE) is None
    assert not checkpoints.folder.exists()


def test_the_newest_two_are_kept(checkpoints):
    for step in (1, 2, 10):
        checkpoints.save(step, tree_at(step), 0.0)
    assert checkpoints.steps() == [2, 10]
    assert int(checkpoints.restore(TREE).saved["step"]) == 10


def files_of(checkpoints, step):
    folder = checkpoints.folder / f"step_{step:08d}"
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_damage_to_any_file_is_found_and_the_older_checkpoint_used(checkpoints, tmp_path, how):
    checkpoints.save(1, tree_at(1), 0.0)
    checkpoints.save(2, tree_at(2), 0.0)
    # Orbax does not always write the same number of files: each copy is of one and the same save.
    for path in files_of(checkpoints, 2):
        copy = Checkpoints(tmp_path / "copy")
        shutil.copytree(checkpoints.folder, copy.folder)
        damage(copy.folder / path.relative_to(checkpoints.folder), how)
        restored = copy.restore(TREE)
        assert int(restored.saved["step"]) == 1, path
        assert len(restored.problems) == 1
        assert restored.problems[0].startswith("step_00000002: ")
        # Training then comes to step 2 again, and what it saves there counts.
        copy.save(2, tree_at(2), 0.0)
        assert int(copy.restore(TREE).saved["step"]) == 2
        shutil.rmtree(copy.folder)


def test_if_none_can_be_trusted_it_stops_and_says_which_file(checkpoints):
    checkpoints.save(1, tree_at(1), 0.0)
    path = files_of(checkpoints, 1)[0]
    damage(path, "flip")
    with pytest.raises(CheckpointError, match=f"step_00000001: .*{path.name} is damaged.*delete"):
        checkpoints.restore(TREE)


@pytest.mark.parametrize(
    "like, words",
    [
        ({**TREE, "more": jnp.ones(1)}, "other arrays"),
        ({**TREE, "params": {"conv/1": {"kernel": jnp.zeros((3, 2))}}}, r"float32\(2, 3\), not float32\(3, 2\)"),
        ({**TREE, "step": jnp.asarray(1.0)}, "int32.*not float32"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(checkpoints, like, words):
    checkpoints.save(7, TREE, 0.0)
    with pytest.raises(CheckpointError, match=words):
        checkpoints.restore(like)


def test_a_process_killed_while_it_saves_leaves_no_checkpoint_behind(checkpoints):
    program = (
        "import os, sys, signal, jax.numpy as jnp\n"
        "from pathlib import Path\n"
        "from jaxnorm.study.runs import checkpoints as module\n"
        "saved = module.Checkpoints(Path(sys.argv[1]))\n"
        "tree = {'step': jnp.asarray(1)}\n"
        "saved.save(1, tree, 0.0)\n"
        "module.files.write_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "saved.save(2, tree, 0.0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "XLA_FLAGS": ""}
    command = [sys.executable, "-c", program, str(checkpoints.folder)]
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == -9
    assert (checkpoints.folder / ".step_00000002.part").exists(), "it was killed in the middle of the save"
    assert checkpoints.steps() == [1]
    like = {"step": jnp.asarray(1)}
    assert checkpoints.restore(like) is not None
    assert not (checkpoints.folder / ".step_00000002.part").exists()
    checkpoints.save(2, like, 0.0)
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.restore(like) is not None


def test_a_checkpoint_under_the_name_of_a_later_step_is_not_believed(checkpoints):
    checkpoints.save(1, TREE, 0.0)
    (checkpoints.folder / "step_00000001").rename(checkpoints.folder / "step_00000009")
    with pytest.raises(CheckpointError, match="of step 1 under another name"):
        checkpoints.restore(TREE)


def test_a_checkpoint_from_the_future_is_not_believed(checkpoints):
    checkpoints.save(9, TREE, 0.0)
    with pytest.raises(CheckpointError, match="is of step 9, but training ends at step 8"):
        checkpoints.restore(TREE, last_step=8)
    path = checkpoints.folder / "step_00000009" / "manifest.json"
    files.write_json(path, sealed({**read_sealed(path), "format": 1}))
    with pytest.raises(CheckpointError, match="has format 1, but this version of jaxnorm reads 2"):
        checkpoints.restore(TREE)


def test_a_checkpoint_of_another_run_is_not_believed(checkpoints):
    Checkpoints(checkpoints.folder, "bn-seed1/7").save(1, TREE, 0.0)
    with pytest.raises(CheckpointError, match="is a checkpoint of the run bn-seed1/7, not of bn-seed0/7"):
        Checkpoints(checkpoints.folder, "bn-seed0/7").restore(TREE)


def test_a_disk_that_refuses_leaves_the_older_checkpoint_and_nothing_else(checkpoints, monkeypatch):
    checkpoints.save(1, tree_at(1), 0.0)

    def full(*_):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [source locations=...]")

    monkeypatch.setattr("orbax.checkpoint.PyTreeCheckpointer.save", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        checkpoints.save(2, tree_at(2), 0.0)
    assert raised.value.errno == errno.ENOSPC
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step_00000001"]
    assert int(checkpoints.restore(TREE).saved["step"]) == 1


def test_folders_with_other_names_are_no_checkpoints(checkpoints):
    checkpoints.save(1, TREE, 0.0)
    for name in ("step_00000002.bak", "step_00000003 (copy)", "step_x"):
        (checkpoints.folder / name).mkdir()
    assert checkpoints.steps() == [1]


def test_the_manifest_has_a_hash_of_every_file_and_no_other_is_accepted(checkpoints):
    checkpoints.save(1, TREE, 0.0)
    folder = checkpoints.folder / "step_00000001"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*read_sealed(folder / "manifest.json")["files"], "manifest.json"}
    (folder / "arrays" / "more").write_text("")
    with pytest.raises(CheckpointError, match="arrays/more does not belong to it"):
        checkpoints.restore(TREE)
