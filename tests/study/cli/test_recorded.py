"""--config: what a folder records can be run again. And `report A B`."""

import json
import sys

import pytest

from jaxnorm import Config
from jaxnorm.study.cli import entry
from jaxnorm.study.cli.batch_sizes import BatchSizes
from jaxnorm.study.cli.compare import Compare
from jaxnorm.study.cli.features import Features
from jaxnorm.study.cli.flags import read
from jaxnorm.study.cli.main import main
from tests.drivers import ROOT
from tests.study.report.workdirs import write_batch_workdir, write_workdir

DRIVERS = {"compare_norms": Compare, "batch_size_study": BatchSizes, "feature_evolution": Features}
RESULTS = sorted(
    path.parent
    for path in ROOT.glob("results/*/study.json")
    if json.loads(path.read_text(encoding="utf-8"))["study"] in DRIVERS
)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_every_published_study_can_be_run_again(folder):
    plan = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    command = read(DRIVERS[plan["study"]], ["--config", str(folder)], ["jaxnorm", "x"])
    asked = {config.name: config for config in command.configs()}
    assert command.preset == plan["preset"] and len(plan["runs"]) > 0
    for run in plan["runs"]:
        fields = {key: tuple(v) if isinstance(v, list) else v for key, v in {**plan["recipe"], **run}.items()}
        name = fields.pop("name")
        if fields["batch_size"] == 128 and fields["lr_rule"] == "linear":
            continue  # once trained twice, since both rules give one rate
        assert asked[name] == Config(**fields)


def test_flags_change_what_is_recorded(tmp_path):
    folder = write_workdir(tmp_path / "w", norms=("gn", "ln"), seeds=(4, 5), num_epochs=3, num_filters=8)
    for path in (folder, folder / "study.json"):
        found = read(Compare, [f"--config={path}", "--seeds", "7", "--num-epochs", "2"], ["jaxnorm", "compare"])
        assert (found.norms, found.seeds, found.num_epochs, found.num_filters) == (("gn", "ln"), (7,), 2, 8)
    assert found.workdir != folder


def run(arguments, capsys):
    sys.argv = ["jaxnorm", *map(str, arguments)]
    with pytest.raises(SystemExit) as left:
        entry.run(main)
    return left.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch-sizes", "--config", "compared"], "must be of batch-sizes, but compared/study.json is of compare"),
        (["compare", "--config", "sizes"], "must be of compare, but sizes/study.json is of batch-sizes"),
        (["compare", "--config", "absent"], "there is no file absent"),
        (["compare", "--config", "damaged"], "damaged"),
        (["compare", "--config", "compared", "--preset", "quick"], "exclude each other"),
        (["report", "compared", "sizes"], "a finished variant in common"),
        (["report", "compared", "sizes", "absent"], "is given 3"),
        (["report"], "workdir"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_workdir(tmp_path / "compared", norms=("none",), num_epochs=2)
    write_batch_workdir(tmp_path / "sizes")
    damaged = write_workdir(tmp_path / "damaged", num_epochs=2) / "study.json"
    damaged.write_text(damaged.read_text().replace('"batch_size": 32', '"batch_size": 64'))
    code, shown, errors = run(arguments, capsys)
    assert (code, shown) == (2, "") and words in errors and errors.count("\n") == 1


def test_a_new_study_has_the_recorded_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = ROOT / "results" / "digits_ghosts"
    code, shown, errors = run(["batch-sizes", "--config", folder, "--workdir", "new", "--dry-run"], capsys)
    assert (code, errors) == (0, "")
    assert "Plan: 40 runs of 12 epochs" in shown and "Comparisons: 5 planned ones" in shown


def test_two_folders_are_compared_in_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    first = write_workdir(tmp_path / "a", norms=("bn", "gn"), seeds=range(4), num_epochs=2)
    second = write_workdir(tmp_path / "b", norms=("bn",), seeds=range(4), num_epochs=2, learning_rate=0.05)
    before = sorted((tmp_path).rglob("*"))
    code, shown, errors = run(["report", first, second], capsys)
    assert (code, errors) == (0, "")
    assert "A: " in shown and "8 finished runs" in shown and "Differs: learning_rate: 0.1 -> 0.05" in shown
    assert "Batch norm" in shown and "4 seeds" in shown and "Group norm" not in shown
    assert sorted((tmp_path).rglob("*")) == before
