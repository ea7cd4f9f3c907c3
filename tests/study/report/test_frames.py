import json

import numpy as np
import pandas as pd
import pytest

from jaxnorm import UserError, read_study
from jaxnorm.study.report.frames import finished_rows, under_rule
from tests.study.report.workdirs import QUANTILES

FATES = {
    ("none", 0): ("diverged", 0),
    ("gn", 0): ("diverged", 5),
    ("ln", 0): ("crashed", 3),
    ("in", 0): ("unfinished", 7),
    ("bin", 0): ("missing", 0),
}


def test_a_workdir_as_tables(make_workdir):
    workdir = make_workdir(norms=("gn", "bn"), seeds=(3, 1))
    study = read_study(workdir)
    assert study.runs.name.tolist() == ["gn-seed3", "gn-seed1", "bn-seed3", "bn-seed1"]
    recorded = json.loads((workdir / "bn-seed3/result.json").read_text())
    (row,) = study.final("test").query("run == 'bn-seed3'").to_dict("records")
    assert row["accuracy"] == recorded["test"]["accuracy"] and row["label"] == "Batch norm"
    assert row["confusion_matrix"].tolist() == recorded["test"]["confusion_matrix"]
    lines = [json.loads(line) for line in (workdir / "bn-seed3/metrics.jsonl").read_text().splitlines()]
    epochs = study.epochs[study.epochs.run == "bn-seed3"]
    assert epochs[[f"q{value:g}" for value in QUANTILES]].to_numpy().tolist() == [
        one["feature_quantiles"] for one in lines
    ]
    assert epochs.rate.tolist() == [one["learning_rate"] for one in lines] and set(epochs.learning_rate) == {0.1}
    predictions = study.predictions("bn-seed3")
    assert (predictions.label == predictions.predicted).mean() == pytest.approx(row["accuracy"])
    assert study.data_description == "scikit-learn digits" and list(study.labels.values()) == [
        "Group norm",
        "Batch norm",
    ]


def test_every_table_can_be_grouped_by_any_setting(batches_workdir, features_workdir):
    study = read_study(batches_workdir)
    tables = [study.epochs, study.evaluations, read_study(features_workdir).layers, read_study(features_workdir).gates]
    for table in tables:
        assert {"norm", "label", "seed", "batch_size", "lr_rule", "ghost_batch_size", "status"} <= set(table)
    means = study.final("validation").groupby(["norm", "batch_size", "lr_rule"]).accuracy.mean()
    by_hand = json.loads((batches_workdir / "gn-bs8-linear-seed0/result.json").read_text())
    assert means["gn", 8, "linear"] == by_hand["validation"]["accuracy"]


def test_layers_and_gates_are_those_of_the_files(features_workdir):
    study = read_study(features_workdir)
    with np.load(features_workdir / "bin-seed0/arrays/epoch_0003.npz") as arrays:
        rows = study.layers.query("run == 'bin-seed0' and epoch == 3 and layer == 'pooled'")
        assert rows[["q1", "q20", "q80", "q99"]].to_numpy()[0].tolist() == arrays["quantiles/pooled"].tolist()
        gates = study.gates.query("run == 'bin-seed0' and epoch == 3 and layer == 'stem_norm'")
        assert gates.gate.tolist() == arrays["gate/stem_norm"].tolist()


def test_a_run_that_has_not_begun_has_the_plan_s_label(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"), fates={("gn", 0): ("missing", 0)})
    assert read_study(workdir).labels["gn"] == "Group norm"


def test_runs_that_did_not_finish_are_no_error(make_workdir):
    runs = read_study(make_workdir(fates=FATES)).runs.set_index("norm")
    assert runs.status.to_dict() == {
        "flax_bn": "complete", "none": "diverged", "bn": "complete", "in": "unfinished", "bin": "missing",
        "ln": "crashed", "gn": "diverged",
    }  # fmt: skip
    assert runs.diverged_at_step["none"] == 17 and runs.epoch["in"] == 7 and runs.num_epochs["in"] == 12
    assert runs.error["ln"].startswith("RuntimeError")


def test_an_empty_run_directory_is_unfinished(make_workdir):
    workdir = make_workdir(norms=("bn",), fates={("bn", 0): ("missing", 0)})
    (workdir / "bn-seed0").mkdir()
    (run,) = read_study(workdir).runs.itertuples()
    assert run.status == "unfinished" and pd.isna(run.epoch)


def test_a_line_that_a_kill_cut_off_is_left_out(make_workdir):
    workdir = make_workdir(norms=("bn",), fates={("bn", 0): ("unfinished", 4)})
    path = workdir / "bn-seed0/metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 5, "st')
    assert read_study(workdir).epochs.epoch.tolist() == [1, 2, 3, 4]


def test_finished_runs_stand_for_their_variant_and_share_their_epochs():
    rows = pd.DataFrame(
        [("a", "a-0", "complete", 1), ("a", "a-0", "complete", 2), ("a", "a-1", "complete", 1),
         ("a", "a-2", "crashed", 1), ("b", "b-0", "crashed", 1)],
        columns=["variant", "run", "status", "epoch"],
    )  # fmt: skip
    assert list(zip(*[finished_rows(rows)[name] for name in ("run", "epoch")], strict=True)) == [
        ("a-0", 1), ("a-1", 1), ("b-0", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("both_at_128", [False, True])
def test_at_128_one_run_is_a_point_of_both_rules(make_grid, both_at_128):
    study = read_study(make_grid("batches", both_at_128=both_at_128, ghosts=(8,)))
    for rule in ("fixed", "linear"):
        rows = under_rule(study.final("test"), rule)
        assert sorted(zip(rows.norm, rows.batch_size, strict=True)) == [("bn", 8), ("bn", 128), ("gn", 8), ("gn", 128)]


@pytest.mark.parametrize(
    ("kind", "words"), [("empty", "holds none"), ("file", "is a file"), ("absent", "does not exist")]
)
def test_no_workdir(tmp_path, kind, words):
    path = tmp_path / "w"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match=r"study\.json") as caught:
        read_study(path)
    assert f"{path} {words}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("study.json", "{"),
        ("study.json", "[]"),
        ("study.json", '{"study": "x", "recipe": {}, "runs": [{"name": "../x", "norm": "bn", "seed": 0}]}'),
        ("study.json", '{"study": "x", "recipe": {}, "runs": [{"name": "x", "norm": "a/b", "seed": 0}]}'),
        ("study.json", '{"study": "x", "recipe": {}, "runs": [{"name": "x", "norm": "bn", "seed": "0"}]}'),
        ("study.json", '{"study": "x", "recipe": {}, "runs": [{"name": "x", "norm": "bn", "seed": 0, "tags": 3}]}'),
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


def test_other_quantiles_than_those_of_the_plan_are_damage(make_workdir):
    workdir = make_workdir(norms=("bn",))
    path = workdir / "bn-seed0/metrics.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(line | {"feature_quantiles": [1.0, 2.0]}) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_study(workdir)


LOGITS = np.zeros((3, 10), np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"logits": LOGITS},
        {"logits": LOGITS, "label": np.array([0, 1])},
        {"logits": LOGITS, "label": np.array([0, 1, 10])},
        {"logits": LOGITS[0], "label": np.array([0, 1, 2])},
        {"logits": LOGITS, "label": np.array([0, None, 1])},
    ],
)
def test_damaged_predictions_are_named_in_one_line(make_workdir, arrays):
    workdir = make_workdir(norms=("bn",))
    path = workdir / "bn-seed0/predictions.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError) as caught:
        read_study(workdir).predictions("bn-seed0")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_arrays_are_named_in_one_line(features_workdir, make_workdir):
    workdir = make_workdir(norms=("bin",))
    path = workdir / "bin-seed0/arrays/epoch_0002.npz"
    for damage in (path.read_bytes()[:300], (features_workdir / "study.json").read_bytes()):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"epoch_0002\.npz"):
            _ = read_study(workdir).gates
