"""Thousands of bad inputs: each ends in one clear line or in the right numbers, never in a traceback."""

import pickle
import random
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxnorm import UserError
from jaxnorm.study.report.write import write_report
from jaxnorm.study.runs.checkpoints import CheckpointError, Checkpoints
from jaxnorm.study.runs.plan import Machine
from tests.drivers import driver_here
from tests.study.report.workdirs import edit, write_workdir

pytestmark = pytest.mark.durability

MANY = settings(
    max_examples=1000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

VALUES = st.one_of(
    st.integers(-3, 300).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", " ", "bn", "gn", "BN", "none", "None", "true", "quick", "short", "digits", "cifar10", "linear", "he"]
    ),
    st.sampled_from(
        ["all", "../..", "/proc/1/x", "/dev/null", "w" * 300, "<script>", "[red]", "-", "--", "é", "=1", "~", "*"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
FLAGS = [
    *("--preset", "--norms", "--seeds", "--workdir", "--data-dir", "--import", "--dataset", "--batch-size"),
    *("--num-epochs", "--stop-after-epoch", "--learning-rate", "--learning-rates", "--lr-rule", "--init"),
    *("--quantiles", "--gate-lr-multiplier", "--ghost-batch-size", "--record-features", "--allow-changes"),
    *("--checkpoint-every-seconds", "--jobs", "--bogus"),
]
ARGUMENTS = st.lists(st.tuples(st.sampled_from(FLAGS), st.lists(VALUES, max_size=3)), max_size=4)


def test_command_lines(tmp_path, monkeypatch, capsys, report):
    run = driver_here("compare_norms", tmp_path, monkeypatch, capsys)
    trained = []

    def pretend(configs, *_, **__):
        trained.append(configs)
        return 0

    machine = Machine({"device": {"platform": "cpu", "cores": 2}}, 1, 1e-4, None)
    monkeypatch.setattr("jaxnorm.study.cli.grid.train_grid", pretend)
    monkeypatch.setattr("jaxnorm.study.runs.jobs.train_side_by_side", pretend)
    monkeypatch.setattr("jaxnorm.study.runs.jobs.examine_elsewhere", lambda *_: machine)
    monkeypatch.setattr("jaxnorm.study.runs.plan.examine", lambda *_: machine)
    monkeypatch.setattr("jaxnorm.study.cli.grid.show_report", lambda *_: None)
    monkeypatch.setenv("JAXNORM_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    counts = {0: 0, 2: 0}

    @MANY
    @given(ARGUMENTS)
    def check(arguments):
        for path in Path.cwd().iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        words = [word for flag, values in arguments for word in (flag, *values)]
        code, errors, left_behind = run(*words)
        assert code in (0, 2), (words, errors)
        assert "Traceback" not in errors, words
        if code == 2:
            assert errors.startswith("error: "), words
            assert errors.count("\n") == 1, words
            assert left_behind == [], words
        counts[code] += 1

    check()
    assert trained
    report(f"command lines, {counts[0]} of them sound", sum(counts.values()), "nothing written for a bad one")


def refuse(*_, **__):
    raise urllib.error.URLError("no network here")


class Bomb:
    def __reduce__(self):
        return (Path("/tmp/jaxnorm-bomb").touch, ())


def test_pickles_are_never_loaded(tmp_path, report):
    workdir = write_workdir(tmp_path / "w", norms=("bn", "gn"), seeds=(0,))
    for content in (pickle.dumps(Bomb()), None):
        path = workdir / "bn-seed0" / "predictions.npz"
        if content is None:
            np.savez(path, logits=np.array([Bomb()], object), label=np.array([Bomb()], object))
        else:
            path.write_bytes(content)
        edit(workdir, "bn-seed0", "predictions.npz")
        with pytest.raises(UserError, match=r"bn-seed0 is damaged .*(pickle|zip)"):
            write_report(workdir)
        assert not Path("/tmp/jaxnorm-bomb").exists()
    report("pickle bombs in predictions.npz", 2, "no code run")


TREE = {"step": jnp.asarray(1, jnp.int32), "params": {"kernel": jnp.arange(40.0).reshape(8, 5)}, "opt": (jnp.ones(3),)}


def tree_at(step):
    return {**TREE, "step": jnp.asarray(step, jnp.int32)}


def test_checkpoint_folders(tmp_path, report):
    """One random change to one random file of the newest: the older one is used, or none; wrong numbers never."""
    made = Checkpoints(tmp_path / "made" / "checkpoints")
    made.save(1, tree_at(1), 1.0)
    made.save(2, tree_at(2), 2.0)
    draw = random.Random(0)
    counts = {1: 0, 2: 0}
    for _ in range(300):
        copy = Checkpoints(tmp_path / "copy" / "checkpoints")
        shutil.copytree(made.folder.parent, copy.folder.parent)
        files = [path for path in (copy.folder / "step_00000002").rglob("*") if path.is_file()]
        how = spoil(draw.choice(files), draw)
        restored = copy.restore(TREE, last_step=2)
        step = int(restored.saved["step"])
        counts[step] += 1
        np.testing.assert_array_equal(restored.saved["params"]["kernel"], TREE["params"]["kernel"])
        assert restored.seconds == step
        assert (step == 2) == (how == "nothing"), how
        spoil(draw.choice([path for path in (copy.folder / "step_00000001").rglob("*") if path.is_file()]), draw, True)
        if step == 1:
            with pytest.raises(CheckpointError, match="can be trusted"):
                copy.restore(TREE)
        shutil.rmtree(copy.folder.parent)
    report(f"damaged checkpoints, {counts[1]} times the older one used", sum(counts.values()), "nothing")


def spoil(path, draw, surely=False):
    content = bytearray(path.read_bytes())
    how = draw.choice(["flip", "cut", "grow", "delete", "replace"] + ([] if surely else ["nothing"]))
    if how == "flip" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif how == "cut" and content:
        del content[draw.randrange(len(content)) :]
    elif how == "delete":
        path.unlink()
        return how
    elif how == "replace":
        content = bytearray(draw.randbytes(draw.randrange(1, 50)))
    elif how != "nothing":
        content += b"\0"
    path.write_bytes(content)
    return how


def test_names_that_are_markup_stay_text(tmp_path, report):
    workdir = write_workdir(tmp_path / "<img src=x onerror=alert(1)>", norms=("bn",), seeds=(0,))
    edit(workdir, "bn-seed0", "provenance.json", label="<script>alert(1)</script>")
    write_report(workdir)
    page = (workdir / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<img src=x" not in page
    report("names that are markup", 2, "no code on the page")
