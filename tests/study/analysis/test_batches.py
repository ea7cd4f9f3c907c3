import json

import pytest

from jaxnorm.study.analysis import batch_prose, batch_tables, batches
from jaxnorm.study.analysis.comparison import compare_cells
from jaxnorm.study.analysis.runs import read_study


def cells_of(table):
    return [row.cells for row in table.rows]


def test_the_cells_in_order(batches_workdir):
    found = [(c.norm, c.batch_size, c.lr_rule, c.ghost) for c in batches.cells(read_study(batches_workdir))]
    assert found == [
        ("bn", 128, "fixed", None), ("bn", 8, "fixed", None), ("bn", 2, "fixed", None),
        ("bn", 128, "fixed", 8), ("bn", 128, "fixed", 2), ("bn", 8, "linear", None), ("bn", 2, "linear", None),
        ("gn", 128, "fixed", None), ("gn", 8, "fixed", None), ("gn", 2, "fixed", None),
        ("gn", 8, "linear", None), ("gn", 2, "linear", None),
    ]  # fmt: skip


def test_at_128_one_run_stands_for_both_rules(batches_workdir):
    study = read_study(batches_workdir)
    linear = batches.real(study, "bn", "linear")
    assert [(cell.batch_size, cell.lr_rule) for cell in linear] == [(128, "fixed"), (8, "linear"), (2, "linear")]
    rows = [row for row in cells_of(batch_tables.batch_table(study)) if row[0] == "Batch norm"]
    assert [row[1:4] for row in rows] == [
        ("128", "0.1", "fixed\u00a0=\u00a0linear"), ("8", "0.1", "fixed"), ("2", "0.1", "fixed"),
        ("8", "0.00625", "linear"), ("2", "0.001563", "linear"),
    ]  # fmt: skip


def test_the_studys_values_stand_beside_ours_only_on_its_data(make_grid, batches_workdir):
    digits = batch_tables.batch_table(read_study(batches_workdir))
    assert "Study's best" not in [column.title for column in digits.columns]
    cifar = batch_tables.batch_table(read_study(make_grid("batches", dataset="cifar10", rules=("fixed",))))
    place = [column.title for column in cifar.columns].index("Study's best")
    assert [(row[0], row[1], row[place]) for row in cells_of(cifar)] == [
        ("Batch norm", "128", "88"), ("Batch norm", "8", "88"), ("Group norm", "128", "86"), ("Group norm", "8", "85"),
    ]  # fmt: skip


def set_statistics(workdir, run, running, precise_128, validation=None):
    path = workdir / run / "result.json"
    result = json.loads(path.read_text())
    for kind, accuracy in (("running", running), ("precise_128", precise_128)):
        result["statistics"][kind]["validation"]["accuracy"] = accuracy
    result["validation"]["accuracy"] = running
    path.write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("running", "precise", "parts", "words"),
    [
        (0.7, 0.86, ("−20.0", "−5.0", "−15.0"), "5.0 remain with precise statistics, lost in training; the other 15.0"),
        (0.7, 0.95, ("−20.0", "+4.0", "−24.0"), "none remain with precise statistics"),
        (0.7, 0.69, ("−20.0", "−22.0", "+2.0"), "bring none back: they were lost in training"),
        (0.89, 0.9, ("−1.0", "−1.0", "0.0"), "a change of −1.0 points with running averages: no loss"),
    ],
)
def test_what_is_training_and_what_only_averages(make_grid, running, precise, parts, words):
    workdir = make_grid("batches", norms=("bn",), rules=("fixed",))
    set_statistics(workdir, "bn-bs128-seed0", 0.9, 0.91)
    set_statistics(workdir, "bn-bs8-seed0", running, precise)
    study = read_study(workdir)
    (row,) = cells_of(batch_tables.loss_table(study))
    assert row == ("Batch norm", "8", "128", "fixed", *parts)
    assert words in " ".join(batch_prose.lead(study))


def test_averages_that_lag_at_the_largest_batch_are_named(make_grid):
    workdir = make_grid("batches", norms=("bn",), rules=("fixed",))
    set_statistics(workdir, "bn-bs128-seed0", 0.2, 0.9)
    set_statistics(workdir, "bn-bs8-seed0", 0.7, 0.86)
    words = " ".join(batch_prose.lead(read_study(workdir)))
    assert "But at batch size 128 itself the running averages cost 70.0 points" in words


def test_one_seed_says_that_it_cannot_show_the_noise(make_grid, batches_workdir):
    assert "nothing here shows how far another seed would lie" in batch_prose.noise(read_study(batches_workdir))
    two = read_study(make_grid("batches", seeds=(0, 1), rules=("fixed",)))
    assert "Means over 2 seeds" in batch_prose.noise(two)
    assert "95 % interval" in batch_prose.lead(two)[0]


def test_time_is_compared_where_the_study_compared_it(make_grid):
    workdir = make_grid("batches", norms=("bn",), rules=("fixed",), sizes=(128, 8, 2), num_epochs=2)
    for name, seconds in (("bn-bs128-seed0", 2.0), ("bn-bs8-seed0", 9.0), ("bn-bs2-seed0", 40.0)):
        path = workdir / name / "metrics.jsonl"
        rows = [json.loads(line) | {"seconds": seconds} for line in path.read_text().splitlines()]
        rows[0]["seconds"] = 500.0  # compilation
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = read_study(workdir)
    assert batches.slowdown(study, "bn") == (8, 128, 4.5)
    assert "4.5 times as long at batch size 8 as at 128" in " ".join(batch_prose.lead(study))
    assert [row[1:] for row in cells_of(batch_tables.batch_time_table(study))] == [
        ("128", "2.0 s", "1.0 ×"), ("8", "9.0 s", "4.5 ×"), ("2", "40.0 s", "20.0 ×"),
    ]  # fmt: skip


def test_ghosts_stand_between_the_whole_batch_and_the_real_small_one(batches_workdir):
    study = read_study(batches_workdir)
    by_size = {cell.batch_size: cell for cell in batches.real(study, "bn", "fixed")}
    rows = cells_of(batch_tables.ghost_table(study))
    assert [row[1:3] for row in rows] == [("8", "128"), ("2", "128")]
    assert rows[0][3] == f"{100 * by_size[128].validation[0]:.1f}"
    assert rows[0][5] == f"{100 * by_size[8].validation[0]:.1f}"


def test_group_norm_is_compared_with_batch_norm_in_each_setting(make_grid):
    study = read_study(make_grid("batches", seeds=(0, 1, 2)))
    found = compare_cells(study)
    assert [(tags, one.norm, one.baseline) for tags, one in found] == [
        (("bs128",), "gn", "bn"), (("bs8",), "gn", "bn"), (("bs8", "linear"), "gn", "bn"),
    ]  # fmt: skip
    assert all(one.holm_p is not None and one.holm_p >= one.p_value for _, one in found)
