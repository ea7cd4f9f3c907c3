"""The batch-size study as a person runs it."""

import json
import re

import pytest

from jaxnorm.study.cli.batch_sizes import BatchSizes
from tests.drivers import content, drive, driver_here, summary


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("studied")
    arguments = ["--batch-sizes", "64", "--num-epochs", "1", "--lr-rules", "linear", "--ghost-batch-sizes", "16"]
    finished = drive("batch_size_study", tmp_path, *arguments)
    assert finished.returncode == 0, finished.stderr
    return tmp_path / "runs" / "batch_size_study", finished


def test_every_side_of_the_study_has_its_run(studied):
    workdir, finished = studied
    runs = {"bn-bs64-linear-seed0", "gn-bs64-linear-seed0", "bn-bs64-ghost16-seed0"}
    assert {path.name for path in workdir.glob("*-seed0")} == runs
    assert len(summary(workdir)) == 9
    for run, rate in (("bn-bs64-linear-seed0", 0.05), ("bn-bs64-ghost16-seed0", 0.1)):
        rows, _ = content(workdir, run)
        assert rows[0]["learning_rate"] == pytest.approx(rate)
        assert rows[0]["step"] == 1077 // 64
    assert (workdir / "report.html").read_text().count("<svg") >= 3
    assert "Batch norm" in finished.stdout


def test_batch_norms_are_evaluated_under_other_statistics_and_group_norm_has_none(studied):
    workdir, _ = studied
    result = json.loads((workdir / "bn-bs64-linear-seed0" / "result.json").read_text())
    assert set(result["statistics"]) == {"running", "precise", "precise_128", "evaluation_batch"}
    assert not json.loads((workdir / "gn-bs64-linear-seed0" / "result.json").read_text())["statistics"]


def test_a_workdir_of_another_study_is_refused(studied, tmp_path):
    workdir, _ = studied
    before = sorted(path.name for path in workdir.rglob("*"))
    finished = drive("feature_evolution", tmp_path, "--workdir", workdir, timeout=60)
    assert finished.returncode == 2
    assert "must belong to feature_evolution, but" in finished.stderr
    assert sorted(path.name for path in workdir.rglob("*")) == before


BAD_INPUT = [
    (["--ghost-batch-sizes", "24"], "--ghost-batch-sizes must divide .*128.*but name 24"),
    (["--ghost-batch-sizes", "0"], "ghost.*0"),
    (["--ghost-batch-sizes", "8", "--norms", "gn"], "ghost.*bn, bin.*gn"),
    (["--ghost-batch-sizes", "8", "8"], "names 8 2 times"),
    (["--batch-sizes", "128", "128"], "names 128 2 times"),
    (["--batch-sizes", "0"], "--batch-sizes must be at least 1, but name 0"),
    (["--batch-sizes"], "--batch-sizes must name at least one value"),
    (["--batch-sizes", "1078"], "error: --batch-sizes must not exceed the 1077"),
    (["--ghost-batch-sizes"], "--ghost-batch-sizes must name at least one value"),
    (["--lr-rules", "linear", "linear"], "names linear 2 times"),
    (["--lr-rules"], "--lr-rules must name at least one value"),
    (["--seeds", "3", "3"], "names 3 2 times"),
    (["--quantiles", "1", "101"], "quantiles.*101"),
]


@pytest.mark.parametrize(
    "options, points",
    [
        ({}, [(128, "fixed"), (8, "fixed"), (8, "linear")]),
        ({"lr_rules": ("linear",)}, [(128, "linear"), (8, "linear")]),
        ({"batch_sizes": (64, 8)}, [(64, "fixed"), (8, "fixed"), (64, "linear"), (8, "linear")]),
    ],
)
def test_at_128_both_rules_are_one_run(options, points):
    study = BatchSizes(norms=("gn",), **options)
    assert [(config.batch_size, config.lr_rule) for config in study.configs()] == points
    computed = {(config.batch_size, config.peak_learning_rate) for config in study.configs()}
    assert len(computed) == len(points)
    assert len(study.notes()) == (1 if options == {} else 0)


@pytest.mark.parametrize("arguments, words", BAD_INPUT, ids=[" ".join(each[0])[:40] for each in BAD_INPUT])
def test_a_mistake_leaves_nothing_behind(tmp_path, monkeypatch, capsys, arguments, words):
    code, errors, left_behind = driver_here("batch_size_study", tmp_path, monkeypatch, capsys)(*arguments)
    assert code == 2
    assert re.search(words, errors), errors
    assert left_behind == []
