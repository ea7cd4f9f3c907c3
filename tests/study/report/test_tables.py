import json
import re

import numpy as np
import pandas as pd
import pytest

from jaxnorm import read_study
from jaxnorm.study.report import batch_sizes, compare_norms, features, tables
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.formats import number, p_value, points, spread
from tests.study.report.workdirs import edit, write_batch_workdir

PAPER = "Original paper, accuracy, %"


def numbers(sentence):
    return [float(number.replace("−", "-")) for number in re.findall(r"[−+]?\d+(?:\.\d+)?", sentence)]


def column(table, title, group=""):
    place = table.columns.index((group, title))
    return [cells[place] for _, cells in table.rows]


def test_results_are_means_and_deviations_over_the_seeds(make_workdir):
    study = read_study(make_workdir(norms=("bn", "gn"), seeds=range(4)))
    table = tables.results(study)
    accuracy = 100 * study.final("test").query("norm == 'gn'").accuracy
    assert column(table, "Variant") == ["Batch norm", "Group norm"] and [norm for norm, _ in table.rows] == ["bn", "gn"]
    assert column(table, "Test", "Accuracy, %")[1] == f"{np.mean(accuracy):.2f} ± {np.std(accuracy, ddof=1):.2f}"
    assert column(table, "Status") == ["4 seeds", "4 seeds"]


def test_the_original_paper_is_beside_ours_on_its_own_terms(make_workdir):
    options = dict(norms=("bn", "gn"), dataset="cifar10")
    full = tables.results(read_study(make_workdir("full", num_epochs=100, **options)))
    for split, values in (("Test", ["87.8", "85.8"]), ("Validation", ["88.0", "86.1"]), ("Train", ["97.7", "93.7"])):
        assert column(full, split, PAPER) == values
    assert all(cell[0] in "+−0" for cell in column(full, "Difference", PAPER))
    for name, changes in {"short": {"num_epochs": 10}, "stopped": {"num_epochs": 100, "stop_after_epoch": 80}}.items():
        table = tables.results(read_study(make_workdir(name, **options, **changes)))
        assert (PAPER, "Test") in table.columns
        assert (PAPER, "Difference") not in table.columns
    digits = tables.results(read_study(make_workdir("digits", norms=("bn",))))
    assert PAPER not in [group for group, _ in digits.columns]


def test_the_last_word_on_every_run(make_workdir):
    fates = {
        ("none", 0): ("diverged", 5),
        ("ln", 0): ("crashed", 3),
        ("in", 0): ("unfinished", 7),
        ("bn", 0): ("missing", 0),
    }
    words = " | ".join(column(tables.runs(read_study(make_workdir(fates=fates))), "Status"))
    for part in ("diverged at step 182, after 5 of 12 epochs", "crashed after 3 of 12 epochs: RuntimeError",
                 "unfinished, 7 of 12 epochs", "not started", "complete, 12 of 12 epochs"):  # fmt: skip
        assert part in words


def test_rates_show_test_accuracy_of_the_chosen_rate_alone(make_grid):
    study = read_study(make_grid("rates", norms=("bn", "gn"), seeds=(0, 1), fates={"bn-lr0.3-seed1": ("diverged", 2)}))
    table, group = tables.rates(study, chosen(study)), "Validation, %, at learning rate"
    assert [name for name in table.columns if name[0] == group] == [(group, rate) for rate in ("0.03", "0.1", "0.3")]
    assert column(table, "0.3", group)[0].endswith(", 1 diverged") and "diverged" not in column(table, "0.3", group)[1]
    assert column(table, "rate", "Chosen")[0] in ("0.03", "0.1")


def test_one_rate_is_no_control(make_workdir):
    page = compare_norms.page(read_study(make_workdir(norms=("bn",))))
    assert [section.empty for section in page.sections if section.title == "Learning rates"] == [True]


def test_growth_is_against_the_first_epoch(features_workdir):
    study = read_study(features_workdir)
    grown = features.growth(study)
    rows = study.layers.query("layer == 'pooled' and norm == 'none'").sort_values("epoch").q99
    expected = rows.iloc[-1] / rows.iloc[0]
    assert grown.query("layer == 'pooled' and variant == 'none'").ratio.tolist() == [expected]


@pytest.mark.parametrize("both_at_128", [False, True])
def test_batches_in_order_and_the_run_at_128_once(make_grid, both_at_128):
    study = batch_sizes.in_order(chosen(read_study(make_grid("batches", sizes=(128, 8, 2), both_at_128=both_at_128))))
    table = batch_sizes.by_batch_size(study)
    rows = list(zip(column(table, "Variant"), column(table, "Learning rate"), strict=True))
    assert rows[:5] == [
        ("Batch norm, batch size 128", "0.1"), ("Batch norm, batch size 8", "0.1"), ("Batch norm, batch size 2", "0.1"),
        ("Batch norm, batch size 8, linear rate", "0.00625"), ("Batch norm, batch size 2, linear rate", "0.001563"),
    ]  # fmt: skip
    assert len(rows) == 10 and all(name.startswith("Group norm") for name, _ in rows[5:])


@pytest.mark.parametrize(("running", "precise"), [(0.7, 0.86), (0.95, 0.5)])
def test_what_small_batches_change_with_either_kind_of_statistics(tmp_path, running, precise):
    accuracies = {"bn-bs128-seed0": (0.9, 0.9), "bn-bs8-seed0": (running, 0.9)}
    workdir = write_batch_workdir(tmp_path / "w", norms=("bn",), rules=("fixed",), accuracies=accuracies)
    for run, accuracy in (("bn-bs128-seed0", 0.91), ("bn-bs8-seed0", precise)):
        found = json.loads((workdir / run / "result.json").read_text())["statistics"]
        found["precise_128"]["validation"]["accuracy"] = accuracy
        edit(workdir, run, "result.json", statistics=found)
    cost, averages = batch_sizes.page(read_study(workdir)).lead
    change, other = round(100 * running - 90, 1), round(100 * precise - 91, 1)
    assert numbers(cost) == [1, 90.0, 128, 100 * running, 8, change]
    assert numbers(averages) == [
        1,
        8,
        change,
        128,
        other,
        91.0,
        100 * precise,
    ]  # a loss is not hidden


def test_ghosts_are_beside_the_whole_batch_and_the_real_small_one(batches_workdir):
    study = read_study(batches_workdir)
    accuracy = study.final("validation").set_index("run").accuracy
    table = batch_sizes.by_batch_size(batch_sizes.in_order(study))
    names, shown = column(table, "Variant"), column(table, "last epoch", "Validation accuracy, %")
    for size, run in {
        "128, ghosts of 8": "bn-bs128-ghost8-seed0",
        "128": "bn-bs128-seed0",
        "8": "bn-bs8-seed0",
    }.items():
        assert shown[names.index(f"Batch norm, batch size {size}")] == f"{100 * accuracy[run]:.1f}"


def test_numbers_as_text():
    assert number(0.7704499999999999, 2, 100) == number(0.77045, 2, 100) == "77.05" and number(-0.001, 2) == "0.00"
    assert number(-1234.5, 1) == "−1,234.5" and number(float("nan"), 1) == number(None) == "–"
    assert points(-0.00001) == "0.00" and points(0.0123) == "+1.23"
    assert (
        spread([], 1) == "–"
        and spread([0.5], 1, 100) == "50.0"
        and spread(pd.Series([1.0, 1.0, 3.0, 3.0]), 1) == "2.0 ± 1.2"
    )
    assert spread([1.0, 3.0], 1) == "2.0 (1.0 to 3.0)"
    assert p_value(0.0004) == "< 0.001" and p_value(0.0625) == "0.0625" and p_value(None) == "–"
