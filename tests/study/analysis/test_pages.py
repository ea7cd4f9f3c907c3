"""The pages of the batch-size study, of feature evolution, and of a comparison at several learning rates."""

import io
import json
import re

import pytest
from rich.console import Console

from jaxnorm.errors import UserError
from jaxnorm.study.analysis.report import print_table, write_report
from jaxnorm.study.analysis.runs import read_study


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Only the words matter here, and drawing takes most of a report's time."""
    monkeypatch.setattr("jaxnorm.study.analysis.report.draw_figures", lambda _: [])


def words_of(workdir):
    """The page's text, its headings, and its Markdown twin."""
    page = write_report(workdir).read_text()
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]+>", " ", body).split())
    return text, re.findall(r"<h2>(.*?)</h2>", page), (workdir / "report.md").read_text()


def test_the_batch_size_page(batches_workdir):
    text, sections, twin = words_of(batches_workdir)
    assert sections == [
        "By batch size", "Training or averages", "Ghost batches", "Time by batch size", "Comparisons", "All metrics",
        "Classes", "Calibration", "Time", "Runs", "Configuration", "Data and machine", "Reproduce",
    ]  # fmt: skip
    assert "When does batch norm break" in text and "in batches of 128, 8 and 2" in text
    assert "Fixed rate, training or averages? The weights of batch norm at batch size 2 reach" in text
    assert "Ghosts of 2 in batches of 128 take batch norm to" in text and "at equal steps" in text
    assert "Batch norm, batch size 8, linear rate" in text and "One seed each" in text
    assert "batch_size 128 8 2" in text and "lr_rule fixed linear" in text and "ghost_batch_size 8 2" in text
    assert "<details>" in (batches_workdir / "report.html").read_text()
    for title in ("Against the largest batch", "Whose statistics: test", "Time of an epoch"):
        assert f"### {title}" in twin


def test_the_feature_evolution_page(features_workdir):
    text, sections, twin = words_of(features_workdir)
    assert sections[:4] == ["Growth", "Results", "Gates", "Comparisons"]
    assert "do they diverge without normalization?" in text
    assert "15 convolutions, before norm and ReLU, and of the pooled features" in text
    assert "Without normalization, the 99 % quantile of the pooled features goes from" in text
    assert "of the 16 recorded layers" in text and "record_features all" in text
    assert "The gates of batch-instance norm did train" in text
    assert twin.count("| stage") == 3 * 14  # layers with growth, with levels, and with gates
    assert "### Against batch norm at the end" in twin


def test_the_page_of_several_learning_rates(rates_workdir):
    text, sections, twin = words_of(rates_workdir)
    assert sections[:3] == ["Results", "Learning rates", "Comparisons"]
    assert "Each norm is shown at the learning rate with its highest mean validation accuracy" in text
    assert "learning_rate 0.03 0.1 0.3" in text
    assert "bn-lr0.03-seed0" in text  # among all runs
    results = twin.partition("## Results")[2].partition("## ")[0]
    assert results.count("| Batch norm |") == 1  # and only once among the results


@pytest.mark.parametrize(
    "options",
    [
        dict(fates={"bn-bs8-seed0": ("diverged", 2), "gn-bs8-linear-seed0": ("missing", 0)}),
        dict(fates={"bn-bs128-seed0": ("unfinished", 1), "gn-bs128-seed0": ("crashed", 0)}),
        dict(norms=("gn",), rules=("linear",)),
        dict(norms=("bn",), sizes=(8,), rules=("fixed",)),
        dict(norms=("bn",), sizes=(8,), rules=("fixed",), fates={"bn-bs8-seed0": ("missing", 0)}),
        dict(norms=("bn",), seeds=(0, 1), ghosts=(2,), fates={"bn-bs128-ghost2-seed1": ("diverged", 0)}),
    ],
)
def test_every_incomplete_batch_size_study_has_a_page(make_grid, options):
    workdir = make_grid("batches", **options)
    text, _, _ = words_of(workdir)
    assert "nan" not in text.split() and "None" not in text
    console = Console(record=True, width=80, file=io.StringIO())
    print_table(workdir, console)
    printed = console.export_text()
    assert "…" not in printed and "Status" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("fate", [("missing", 0), ("diverged", 0), ("unfinished", 2), ("crashed", 1)])
def test_every_incomplete_feature_study_has_a_page(make_workdir, fate):
    norms = ("none", "bin")
    fates = {(norm, 0): fate for norm in norms}
    workdir = make_workdir(norms=norms, study="feature_evolution", record_features="all", num_epochs=3, fates=fates)
    text, _, _ = words_of(workdir)
    assert "nan" not in text.split() and "None" not in text


def test_other_percentages_are_named(make_workdir):
    options = dict(norms=("none",), study="feature_evolution", record_features="all", num_epochs=3)
    text, _, _ = words_of(make_workdir(quantiles=[5.0, 50.0, 95.0], **options))
    assert "After every epoch the 5, 50 and 95 % quantiles" in text and "the 95 % quantile" in text


def test_the_summary_names_every_setting(batches_workdir):
    words_of(batches_workdir)
    lines = (batches_workdir / "summary.csv").read_text().splitlines()
    assert sum(line.endswith(",128,0.1,fixed,8,1,bs128 ghost8") for line in lines) == 3
    assert sum(line.endswith(",8,0.1,linear,,1,bs8 linear") for line in lines) == 6


@pytest.mark.parametrize(
    "change", [{"name": "../x"}, {"norm": "a/b"}, {"seed": "0"}, {"tags": ["../y"]}, {"name": None}, {"tags": 3}]
)
def test_a_damaged_list_of_runs_is_named(make_grid, change):
    workdir = make_grid("batches", norms=("bn",), sizes=(8,), rules=("fixed",))
    plan = json.loads((workdir / "study.json").read_text())
    plan["runs"][0] |= change
    (workdir / "study.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        read_study(workdir)
