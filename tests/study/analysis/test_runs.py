import json

import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.analysis.runs import SplitResult, read_study

FATES = {
    ("none", 0): ("diverged", 0),
    ("gn", 0): ("diverged", 5),
    ("ln", 0): ("crashed", 3),
    ("in", 0): ("unfinished", 7),
    ("bin", 0): ("missing", 0),
}


def test_reads_what_the_drivers_wrote(make_workdir):
    workdir = make_workdir(norms=("gn", "bn"), seeds=(3, 1))
    study = read_study(workdir)
    assert [run.name for run in study.runs] == ["gn-seed3", "gn-seed1", "bn-seed3", "bn-seed1"]
    run = study.of("bn")[0]
    recorded = json.loads((workdir / "bn-seed3/result.json").read_text())
    assert run.complete and run.label == "Batch norm" and len(run.epochs) == 12
    assert run.splits["test"].accuracy == recorded["test"]["accuracy"]
    assert run.predictions.correct.mean() == pytest.approx(run.splits["test"].accuracy)
    assert study.data_description == "scikit-learn digits"
    assert study.label("gn") == "Group norm" and study.of("ln") == ()


def test_a_run_that_has_not_begun_has_the_plan_s_label(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"), fates={("gn", 0): ("missing", 0)})
    assert read_study(workdir).label("gn") == "gn"
    plan = json.loads((workdir / "study.json").read_text())
    (workdir / "study.json").write_text(json.dumps(plan | {"labels": {"gn": "Group norm"}}))
    assert read_study(workdir).label("gn") == "Group norm"


def test_runs_that_did_not_finish_are_no_error(make_workdir):
    study = read_study(make_workdir(fates=FATES))
    assert {run.norm: run.status for run in study.runs} == {
        "flax_bn": "complete", "none": "diverged", "bn": "complete", "in": "unfinished", "bin": "missing",
        "ln": "crashed", "gn": "diverged",
    }  # fmt: skip
    by_norm = {run.norm: run for run in study.runs}
    assert by_norm["none"].epochs == () and by_norm["none"].diverged_at_step == 17
    assert by_norm["in"].epoch == 7 and by_norm["in"].num_epochs == 12
    assert by_norm["ln"].error.startswith("RuntimeError") and not by_norm["ln"].splits
    assert study.label("bin") == "bin"


def test_an_empty_run_directory_is_unfinished(make_workdir):
    workdir = make_workdir(norms=("bn",), fates={("bn", 0): ("missing", 0)})
    (workdir / "bn-seed0").mkdir()
    (run,) = read_study(workdir).runs
    assert run.status == "unfinished" and run.epoch is None


def test_a_line_cut_off_by_a_kill_is_left_out(make_workdir):
    workdir = make_workdir(norms=("bn",), fates={("bn", 0): ("unfinished", 4)})
    path = workdir / "bn-seed0/metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 5, "st')
    assert [epoch.epoch for epoch in read_study(workdir).runs[0].epochs] == [1, 2, 3, 4]


def test_an_epoch_recorded_twice_counts_once_and_last(make_workdir):
    workdir = make_workdir(norms=("bn",))
    path = workdir / "bn-seed0/metrics.jsonl"
    again = json.loads(path.read_text().splitlines()[-1]) | {"val_accuracy": 0.5}
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    epochs = read_study(workdir).runs[0].epochs
    assert len(epochs) == 12 and epochs[-1].val_accuracy == 0.5


@pytest.mark.parametrize("kind", ["empty", "file", "absent"])
def test_no_workdir(tmp_path, kind):
    path = tmp_path / "w"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match=r"study\.json") as caught:
        read_study(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("study.json", "{"),
        ("study.json", "[]"),
        ("study.json", '{"study": "compare_norms", "recipe": {}, "norms": ["../x"], "seeds": [0]}'),
        ("study.json", '{"study": "compare_norms", "recipe": {}, "norms": ["bn"], "seeds": ["0"]}'),
        ("bn-seed0/result.json", ""),
        ("bn-seed0/result.json", '{"status": "odd"}'),
        ("bn-seed0/result.json", '{"status": "complete"}'),
        ("bn-seed0/result.json", '{"status": "complete", "train": 1, "validation": 1, "test": 1}'),
        ("bn-seed0/metrics.jsonl", "nonsense\n"),
        ("bn-seed0/metrics.jsonl", '{"epoch": 1}\n'),
        ("bn-seed0/provenance.json", "[1]"),
        ("bn-seed0/provenance.json", '{"data": 3}'),
        ("bn-seed0/config.json", "\udcff"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(make_workdir, file, content):
    workdir = make_workdir(norms=("bn",))
    (workdir / file).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        read_study(workdir)
    assert str(workdir / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_f1_by_hand():
    matrix = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    found = SplitResult(0.7, 0.7, 0.5, 1.0, 10, matrix).class_f1
    np.testing.assert_allclose(found, [2 * 3 / (4 + 5), 2 * 4 / (6 + 5), 0])
