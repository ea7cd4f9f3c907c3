import json

import pytest

from jaxnorm.study.analysis.rates import about_rates, chosen, rate_of, rates_table
from jaxnorm.study.analysis.runs import read_study


def set_accuracy(workdir, run, validation, test=0.5):
    path = workdir / run / "result.json"
    result = json.loads(path.read_text())
    result["validation"]["accuracy"], result["test"]["accuracy"] = validation, test
    path.write_text(json.dumps(result))


@pytest.fixture
def workdir(make_grid):
    made = make_grid("rates", norms=("none", "bn", "gn"))
    for norm, values in {"none": (0.8, 0.7, 0.1), "bn": (0.85, 0.9, 0.91), "gn": (0.82, 0.88, 0.86)}.items():
        for tag, value in zip(("-lr0.03", "", "-lr0.3"), values, strict=True):
            set_accuracy(made, f"{norm}{tag}-seed0", value, test=value - 0.05)
    return made


def test_validation_decides_and_the_rest_is_out_of_sight(workdir):
    set_accuracy(workdir, "gn-lr0.3-seed0", 0.86, test=0.99)  # a better test accuracy must not matter
    study = read_study(workdir)
    best = chosen(study)
    assert {norm: rate_of(best, norm) for norm in best.norms} == {"none": 0.03, "bn": 0.3, "gn": 0.1}
    assert [run.name for run in best.runs] == ["none-lr0.03-seed0", "bn-lr0.3-seed0", "gn-seed0"]
    assert best.variants == ("none", "bn", "gn")
    table = rates_table(study)
    assert [row.cells for row in table.rows] == [
        ("No normalization", "80.00", "70.00", "10.00", "0.03", "75.00"),
        ("Batch norm", "85.00", "90.00", "91.00", "0.3", "86.00"),
        ("Group norm", "82.00", "88.00", "86.00", "0.1", "83.00"),
    ]


def test_norms_are_shown_in_their_order_whatever_the_plan_s(workdir):
    plan = json.loads((workdir / "study.json").read_text())
    plan["runs"].sort(key=lambda run: run["learning_rate"])  # as the driver plans them
    (workdir / "study.json").write_text(json.dumps(plan))
    assert chosen(read_study(workdir)).variants == ("none", "bn", "gn")


def test_the_words_say_whether_the_ranking_survives(workdir):
    words = " ".join(about_rates(read_study(workdir)))
    assert "0.03 for no normalization; 0.1 for group norm; 0.3 for batch norm" in words
    assert "at the end of the grid for no normalization and batch norm" in words
    assert words.count("rank exactly as at their own rates") == 3 and "With one seed" in words
    set_accuracy(workdir, "none-lr0.03-seed0", 0.95)
    words = " ".join(about_rates(read_study(workdir)))
    assert "At 0.1 for all, 1 of 3 pairs of norms rank as at their own rates (Kendall's tau −0.33)" in words
    assert "the ranking changes" in words


def test_a_rate_at_which_a_seed_diverged_is_not_chosen_for_it(make_grid):
    workdir = make_grid("rates", norms=("bn",), seeds=(0, 1), fates={"bn-lr0.3-seed1": ("diverged", 2)})
    set_accuracy(workdir, "bn-lr0.3-seed0", 1.0)
    assert rate_of(chosen(read_study(workdir)), "bn") != 0.3


def test_a_rate_at_which_a_seed_diverged_is_told(make_grid):
    workdir = make_grid("rates", norms=("bn", "gn"), seeds=(0, 1), fates={"bn-lr0.3-seed1": ("diverged", 2)})
    study = read_study(workdir)
    assert rates_table(study).rows[0].cells[3].endswith(", 1 diverged")
    assert not any("diverged" in cell for cell in rates_table(study).rows[1].cells)
    assert "Of batch norm at 0.3 some seeds came to no end" in " ".join(about_rates(study))


def test_one_rate_is_no_control(make_workdir):
    study = read_study(make_workdir(norms=("bn",)))
    assert chosen(study) is study and rates_table(study) is None and about_rates(study) == []


def test_one_rate_of_a_grid_is_the_chosen_one(make_grid):
    study = chosen(read_study(make_grid("rates", rates=(0.3,))))
    assert study.variants == ("none", "bn", "gn") and rates_table(study) is None


def test_a_norm_without_a_finished_run_is_shown(make_grid):
    fates = {f"none{tag}-seed0": ("diverged", 1) for tag in ("-lr0.03", "", "-lr0.3")}
    study = read_study(make_grid("rates", fates=fates))
    assert rates_table(study).rows[0].cells == (
        "No normalization", *["–, 1 diverged"] * 3, "–", "–",
    )  # fmt: skip
    assert "none" in chosen(study).variants
