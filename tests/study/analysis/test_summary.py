import csv
import io
import json

from jaxnorm.study.analysis.captions import batch_time_caption
from jaxnorm.study.analysis.comparison import compare
from jaxnorm.study.analysis.runs import read_study
from jaxnorm.study.analysis.summary import summary_csv, summary_json
from jaxnorm.study.analysis.tables import runs_table, time_table


def test_csv_to_the_letter(make_workdir):
    workdir = make_workdir(
        norms=("gn", "bn"), seeds=(1, 0), fates={("gn", 0): ("diverged", 2), ("bn", 0): ("missing", 0)}
    )
    result = json.loads((workdir / "gn-seed1/result.json").read_text())
    lines = summary_csv(read_study(workdir)).split("\n")
    assert lines[0] == (
        "norm,seed,split,accuracy,micro_f1,macro_f1,loss,status,epoch,step,num_images,"
        "batch_size,learning_rate,lr_rule,ghost_batch_size,num_replicas,tags"
    )
    for line, split in zip(lines[1:4], ("train", "validation", "test"), strict=True):
        values = ",".join(repr(result[split][key]) for key in ("accuracy", "micro_f1", "macro_f1", "loss"))
        assert line == f"gn,1,{split},{values},complete,12,396,{result[split]['num_images']},32,0.1,fixed,,1,"
    assert lines[4:7] == [
        f"gn,0,{split},,,,,diverged,2,83,,32,0.1,fixed,,1," for split in ("train", "validation", "test")
    ]
    assert [line.split(",")[:3] for line in lines[7:10]] == [["bn", "1", s] for s in ("train", "validation", "test")]
    assert lines[10:13] == [
        f"bn,0,{split},,,,,missing,,,,32,0.1,fixed,,1," for split in ("train", "validation", "test")
    ]
    assert lines[13:] == [""]


def test_csv_floats_come_back_bit_for_bit_and_odd_names_are_quoted(make_workdir):
    workdir = make_workdir(norms=('a,"b"',))
    study = read_study(workdir)
    (train, *_) = csv.DictReader(io.StringIO(summary_csv(study)))
    assert train["norm"] == 'a,"b"'
    assert float(train["loss"]) == study.runs[0].splits["train"].loss


def test_json_holds_the_means_and_the_comparisons(make_workdir):
    study = read_study(make_workdir(norms=("bn", "gn"), seeds=(0, 1), dataset="cifar10", num_epochs=100))
    found = summary_json(study, compare(study))
    json.dumps(found, allow_nan=False)
    accuracies = [run.splits["test"].accuracy for run in study.of("gn")]
    group = found["variants"][1]
    assert group["test"]["accuracy"]["mean"] == sum(accuracies) / 2
    assert group["published"]["test"] == 0.858 and group["published"]["comparable"] is True
    assert found["comparisons"][0]["seeds"] == [0, 1]
    assert len(found["runs"][0]["splits"]["test"]["class_f1"]) == 10


def test_times_that_seeds_shared_say_so_everywhere(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"), seeds=(0, 1))
    assert read_study(workdir).parallel_seeds == (1,)
    assert "at once" not in time_table(read_study(workdir)).note + runs_table(read_study(workdir)).note
    for run in ("bn-seed0", "bn-seed1"):
        path = workdir / run / "metrics.jsonl"
        rows = [{**json.loads(line), "parallel_seeds": 2} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = read_study(workdir)
    assert study.parallel_seeds == (1, 2)
    assert [variant["parallel_seeds"] for variant in summary_json(study, ())["variants"]] == [2, 1]
    for note in (time_table(study).note, runs_table(study).note, batch_time_caption(study)):
        assert "up to 2 at once, and the time of a run is that of all of them together" in note


def test_json_of_an_empty_study_is_valid(make_workdir):
    study = read_study(make_workdir(norms=("bn",), fates={("bn", 0): ("missing", 0)}))
    found = summary_json(study, compare(study))
    assert found["variants"][0]["test"]["accuracy"] is None
    json.dumps(found, allow_nan=False)


def test_json_without_finite_losses_is_valid(make_workdir):
    workdir = make_workdir(norms=("bn",))
    path = workdir / "bn-seed0/result.json"
    result = json.loads(path.read_text())
    result["test"]["loss"] = float("inf")
    path.write_text(json.dumps(result))
    found = summary_json(read_study(workdir), ())
    assert found["variants"][0]["test"]["loss"] == {"mean": None, "sd": None}
    json.dumps(found, allow_nan=False)
