import html.parser
import io
import json
import re
import subprocess
import sys

import pandas as pd
import pytest
from rich.console import Console

from jaxnorm import UserError, read_study
from jaxnorm.study.report.page import Page, Section, Table
from jaxnorm.study.report.render import markdown
from jaxnorm.study.report.write import page_of, print_table, write_report
from tests.study.report.workdirs import edit

FATES = {
    ("none", 0): ("diverged", 0),
    ("gn", 0): ("diverged", 5),
    ("ln", 0): ("crashed", 3),
    ("in", 0): ("unfinished", 7),
    ("bin", 0): ("missing", 0),
}
HOSTILE = "</code><script>alert(1)</script> ``` | $x$"


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that tags are balanced."""

    VOID = frozenset(("meta", "link", "br", "wbr", "hr", "img", "input", "use", "path"))

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def report_of(workdir):
    write_report(workdir)
    text = (workdir / "report.html").read_text()
    return text, Reader(text)


@pytest.fixture(scope="module")
def digits(session_workdir):
    return report_of(session_workdir("quick"))


@pytest.fixture(scope="module")
def mess(session_workdir):
    return report_of(session_workdir("mess", fates=FATES))


@pytest.mark.usefixtures("digits")
def test_everything_is_written(session_workdir):
    workdir = session_workdir("quick")
    names = {path.name for path in workdir.iterdir() if path.is_file()}
    assert names == {"study.json", "summary.csv", "summary.json", "report.html", "report.md"}
    links = re.findall(r"\]\((.*?)\)", (workdir / "report.md").read_text())
    assert {workdir / link for link in links} == set((workdir / "figures").iterdir())
    assert {"figures/accuracy.png", "figures/feature_quantiles.png", "figures/gates.png"} <= set(links)


def test_the_page_needs_nothing_but_itself(digits):
    text, page = digits
    assert not {"script", "iframe", "object", "embed", "image"} & set(page.tags)
    for tag, key, value in page.attributes:
        assert not key.startswith("on")
        if key in ("href", "src", "xlink:href", "data", "action"):
            assert value.startswith(("#", "data:")), (tag, value[:80])
    assert "http://" not in text and "https://" not in text and "@import" not in text
    ids = [value for _, key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, key, value in page.attributes if key == "href" and value.startswith("#")} <= set(ids)


def test_the_page_answers_first_and_folds_the_details(session_workdir, digits):
    text, _ = digits
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Results", "Paired differences", "Training", "Features", "Gates", "Details",
    ]  # fmt: skip
    assert re.findall(r"<summary>(.*?)</summary>", text) == [
        "Classes", "Runs", "Configuration",
    ]  # fmt: skip
    found = page_of(read_study(session_workdir("quick")))
    shown = [section for section in found.sections if not section.folded]
    prose = [found.introduction, *found.lead, *found.cautions]
    for section in shown:
        prose += [*section.text, *(one.caption for one in section.figures), *(t.note for t in section.tables if t)]
    assert len(" ".join(prose).split()) <= 600


def test_the_page_has_the_numbers_and_the_circumstances(session_workdir, digits):
    _, page = digits
    result = json.loads((session_workdir("quick") / "gn-seed0/result.json").read_text())
    assert f"{100 * result['test']['accuracy']:.1f}" in page.words
    assert f"{result['test']['loss']:.3f}" in page.words
    assert "9f2c" * 16 in page.text and "AMD EPYC" in page.text
    assert "python experiments/compare_norms.py" in page.words


def test_what_happened_to_every_run(mess):
    _, page = mess
    assert "diverged at step 182, after 5 of 12 epochs" in page.words and "not started" in page.words


def test_what_changed_on_the_way_is_said(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"))
    for name, key, value in (("provenance", "changes", ["jax: 0.10.1 -> 0.12.0 (after epoch 3)"]),
                             ("config", "learning_rate", 0.05)):  # fmt: skip
        edit(workdir, "gn-seed0", f"{name}.json", **{key: value})
    _, page = report_of(workdir)
    assert "gn-seed0: jax: 0.10.1 -> 0.12.0 (after epoch 3); gn-seed0: learning_rate 0.05 instead of 0.1" in page.text


def test_nothing_in_a_name_or_a_command_becomes_markup(make_workdir):
    workdir = make_workdir(norms=("bn",), labels={"bn": HOSTILE}, command=f"python x {HOSTILE}")
    text, page = report_of(workdir)
    assert "script" not in page.tags and "<script" not in text
    assert f"python x {HOSTILE}" in page.words
    text = (workdir / "report.md").read_text()
    assert "<script" not in text and "```" not in text and "$x$" not in text
    console = Console(record=True, width=120, file=io.StringIO())
    print_table(read_study(make_workdir("red", norms=("bn",), labels={"bn": "[red]x[/red]"})), console)
    assert "[red]x[/red]" in console.export_text()


def test_markdown_shows_exactly_the_text():
    table = Table("T", pd.DataFrame({"Variant": ["a|b\n*c* <d> _e_ `f` [g](h) $i$ & #j"]}, index=["bn"]))
    text = markdown(Page("t", "k", "i", [], [], [Section("S", tables=[table])]))
    assert "| a&#124;b \\*c\\* &lt;d&gt; \\_e\\_ \\`f\\` \\[g\\](h) \\$i\\$ &amp; \\#j |" in text


def test_the_same_files_give_the_same_bytes(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"), seeds=(0, 1))

    def written():
        write_report(workdir)
        return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    first = written()
    assert len(first) > 20 and written() == first


def test_a_file_in_place_of_the_figures_is_named(make_workdir):
    workdir = make_workdir(norms=("gn",), num_epochs=2)
    (workdir / "figures").write_text("")
    with pytest.raises(UserError, match="/figures cannot be written .File exists"):
        write_report(workdir)


def test_figures_of_an_earlier_report_are_removed(make_workdir):
    workdir = make_workdir(norms=("gn",))
    (workdir / "figures").mkdir()
    (workdir / "figures/old.png").write_bytes(b"old")
    write_report(workdir)
    assert not (workdir / "figures/old.png").exists() and (workdir / "figures/accuracy.png").exists()


def check_page(workdir):
    """The page of a study of any state has no holes, and its table fits a narrow terminal."""
    study = write_report(workdir)
    text = Reader((workdir / "report.html").read_text()).text
    assert "nan" not in re.findall(r"\w+", text) and "None" not in text and "NA>" not in text
    console = Console(record=True, width=80, file=io.StringIO())
    print_table(study, console)
    printed = console.export_text()
    assert "…" not in printed and max(map(len, printed.splitlines())) <= 80
    return text


@pytest.mark.parametrize(
    "options",
    [
        dict(norms=("gn",)),
        dict(norms=("bn",), fates={("bn", 0): ("missing", 0)}),
        dict(norms=("bn", "gn"), fates={("bn", 0): ("diverged", 0), ("gn", 0): ("crashed", 0)}),
        dict(norms=("flax_bn", "bn"), fates={("flax_bn", 0): ("unfinished", 1), ("bn", 0): ("unfinished", 3)}),
        dict(norms=("bn", "gn"), seeds=(0, 1), fates={("gn", 0): ("crashed", 2), ("gn", 1): ("diverged", 1)}),
    ],
)
def test_every_incomplete_comparison_has_a_page(make_workdir, options):
    check_page(make_workdir(**options))


@pytest.mark.parametrize(
    "options",
    [
        dict(fates={"bn-bs8-seed0": ("diverged", 2), "gn-bs8-linear-seed0": ("missing", 0)}),
        dict(fates={"bn-bs128-seed0": ("unfinished", 1), "gn-bs128-seed0": ("crashed", 0)}),
        dict(norms=("gn",), rules=("linear",)),
        dict(norms=("bn",), sizes=(8,), rules=("fixed",), fates={"bn-bs8-seed0": ("missing", 0)}),
        dict(norms=("bn",), seeds=(0, 1), ghosts=(2,), fates={"bn-bs128-ghost2-seed1": ("diverged", 0)}),
    ],
)
def test_every_incomplete_batch_size_study_has_a_page(make_grid, options):
    check_page(make_grid("batches", **options))


@pytest.mark.parametrize("fate", [("missing", 0), ("diverged", 0), ("unfinished", 2), ("crashed", 1)])
def test_every_incomplete_feature_study_has_a_page(make_workdir, fate):
    fates = {(norm, 0): fate for norm in ("none", "bin")}
    options = dict(study="feature_evolution", record_features="all", num_epochs=3, fates=fates)
    check_page(make_workdir(norms=("none", "bin"), **options))


def test_the_other_pages(batches_workdir, features_workdir, rates_workdir):
    text = check_page(batches_workdir)
    assert "batch_size 128 8 2" in text and "lr_rule fixed linear" in text
    text = check_page(features_workdir)
    assert "figure-layers" in (features_workdir / "report.html").read_text() and "stage3_block2/ conv2" in text
    text = check_page(rates_workdir)
    assert "learning_rate 0.03 0.1 0.3" in text and "bn-lr0.03-seed0" in text  # among all runs
    results = (rates_workdir / "report.md").read_text().partition("## Results")[2].partition("## ")[0]
    assert results.count("| Batch norm |") == 1  # and only once among the results


def test_other_percentages_are_named(make_workdir):
    options = dict(norms=("none",), study="feature_evolution", record_features="all", num_epochs=3)
    workdir = make_workdir(quantiles=(5.0, 50.0, 95.0), **options)
    check_page(workdir)
    study = read_study(workdir)
    assert study.quantiles == ["q5", "q50", "q95"] and {"q5", "q50", "q95"} <= {*study.epochs} & {*study.layers}


def test_the_summaries_have_every_run_and_setting(batches_workdir):
    write_report(batches_workdir)
    table = pd.read_csv(batches_workdir / "summary.csv")
    assert list(table) == [
        *("norm", "seed", "split", "accuracy", "micro_f1", "macro_f1", "loss", "status", "epoch", "step"),
        *("num_images", "batch_size", "learning_rate", "lr_rule", "ghost_batch_size", "num_replicas", "tags"),
    ]
    study = read_study(batches_workdir)
    assert len(table) == 3 * len(study.runs)
    assert table[table.split == "test"].accuracy.tolist() == study.final("test").accuracy.tolist()
    found = json.loads((batches_workdir / "summary.json").read_text())
    pairs = {(one["norm"], one["baseline"], one["tags"]): one["mean"] for one in found["comparisons"]}
    accuracy = study.final("test").set_index("variant").accuracy
    assert pairs["gn", "bn", "bs8"] == accuracy["gn-bs8"] - accuracy["bn-bs8"]


def test_the_summary_of_unfinished_runs_is_json(session_workdir):
    workdir = session_workdir("mess", fates=FATES)
    write_report(workdir)
    found = json.loads((workdir / "summary.json").read_text(), parse_constant=pytest.fail)
    assert found["comparisons"][0]["norm"] == "flax_bn" and found["comparisons"][0]["interval"] is None


def test_a_folder_that_is_no_workdir_stays_untouched(tmp_path):
    with pytest.raises(UserError, match=r"study\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_written(make_workdir):
    workdir = make_workdir(norms=("bn",), fates={("bn", 0): ("missing", 0)})
    (workdir / "summary.csv").mkdir()  # a folder in the way: unwritable even for root
    (workdir / "summary.csv/file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(workdir)


def test_no_jax_is_loaded():
    code = (
        "import sys; import jaxnorm.study.report.write, jaxnorm.study.report.publish; "
        "print([name for name in sys.modules if name.split('.')[0] in ('jax', 'jaxlib', 'flax')], "
        "'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
