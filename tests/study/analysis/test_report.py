import html.parser
import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from jaxnorm.errors import UserError
from jaxnorm.study.analysis.markdown import fenced, markdown
from jaxnorm.study.analysis.report import print_table, write_report

COMPARED = ("test_accuracy", "accuracy", "loss", "sanity_check", "feature_quantiles", "gate_histograms", "gate_paths")
FATES = {
    ("none", 0): ("diverged", 0),
    ("gn", 0): ("diverged", 5),
    ("ln", 0): ("crashed", 3),
    ("in", 0): ("unfinished", 7),
    ("bin", 0): ("missing", 0),
}
HOSTILE = "</code><script>alert(1)</script> ``` | $x$"


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that tags are balanced."""

    VOID = frozenset(("meta", "link", "br", "wbr", "hr", "img", "input"))

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
    path = write_report(workdir)
    assert path == workdir / "report.html"
    return path.read_text(), Page(path.read_text())


@pytest.fixture
def without_figures(monkeypatch):
    """For pages of which only the words matter: drawing takes most of a report's time."""
    monkeypatch.setattr("jaxnorm.study.analysis.report.draw_figures", lambda _: [])


@pytest.fixture(scope="module")
def digits(session_workdir):
    return report_of(session_workdir("quick"))


@pytest.fixture(scope="module")
def mess(session_workdir):
    return report_of(session_workdir("mess", fates=FATES))


@pytest.mark.usefixtures("digits")
def test_everything_is_written_whole(session_workdir):
    workdir = session_workdir("quick")
    names = {path.name for path in workdir.iterdir() if path.is_file()}
    assert names == {"study.json", "summary.csv", "summary.json", "report.html", "report.md"}
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert figures == {f"{name}.{form}" for name in COMPARED for form in ("png", "svg")}
    for link in re.findall(r"\]\((.*?)\)", (workdir / "report.md").read_text()):
        assert (workdir / link).is_file()


def test_the_page_needs_nothing_but_itself(digits):
    text, page = digits
    assert not {"script", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    for tag, key, value in page.attributes:
        assert not key.startswith("on")
        if key in ("href", "src", "xlink:href", "data", "action"):
            assert value.startswith("#") or (tag, value) == ("link", "data:,")
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    ids = [value for _, key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, key, value in page.attributes if key == "href" and value.startswith("#")}
    assert targets <= set(ids)


def test_a_digits_page_says_that_it_is_a_demonstration(digits):
    _, page = digits
    assert (
        "demonstration on 360 test images" in page.text
        and "standard error of one accuracy is, in points, " in page.text
    )
    assert "ublished study" not in page.text and "Torch_BN" not in page.text
    assert "One seed: there is no interval over seeds" in page.text
    for section in ("Results", "Training", "Sanity check", "Features", "Comparisons", "All metrics", "Classes",
                    "Calibration", "Time", "Runs", "Configuration", "Data and machine", "Reproduce"):  # fmt: skip
        assert section in page.words
    assert "9f2c" * 16 in page.text and "jax 0.10.1" in page.text and "AMD EPYC" in page.text
    assert "python experiments/compare_norms.py" in page.words


def test_the_table_has_the_numbers(session_workdir, digits):
    _, page = digits
    result = json.loads((session_workdir("quick") / "gn-seed0/result.json").read_text())
    assert f"{100 * result['test']['accuracy']:.1f}" in page.words
    assert f"{result['test']['loss']:.3f}" in page.words


@pytest.mark.usefixtures("without_figures")
def test_the_runs_of_a_grid_that_are_missing_are_named(make_grid):
    _, page = report_of(make_grid("batches", fates={"gn-bs8-linear-seed0": ("missing", 0)}))
    assert "1 of 6 runs is not finished: gn-bs8-linear-seed0." in page.text
    assert "not started" in page.words


@pytest.mark.usefixtures("without_figures")
def test_of_many_missing_runs_the_first_are_named_and_all_are_counted_and_listed(make_workdir):
    seeds = range(20)
    _, page = report_of(
        make_workdir(norms=("bn",), seeds=seeds, fates={("bn", seed): ("missing", 0) for seed in seeds})
    )
    assert "20 of 20 runs are not finished: bn-seed0, " in page.text
    assert "bn-seed10 and 9 more (see Runs)." in page.text
    assert page.words.count("not started") >= 20


def test_what_became_of_every_run(mess):
    _, page = mess
    assert "diverged at step 17, after epoch 0 of 12" in page.words
    assert "diverged at step 182, after epoch 5 of 12" in page.words
    assert "crashed after epoch 3 of 12: RuntimeError: RESOURCE_EXHAUSTED: out of memory" in page.words
    assert "unfinished, epoch 7 of 12 reached" in page.words
    assert "not started" in page.words
    assert "2 of 7 runs are not finished: in-seed0 and bin-seed0." in page.text
    assert "Without final figures: no normalization (seed 0) diverged at step 17" in page.text


@pytest.mark.usefixtures("without_figures")
def test_what_was_not_the_same_all_along_is_told(make_workdir):
    workdir = make_workdir("quick", norms=("bn", "gn"))
    for name, key, value in (("provenance", "changes", ["jax: 0.10.1 -> 0.12.0 (after epoch 3)"]),
                             ("config", "learning_rate", 0.05)):  # fmt: skip
        path = workdir / "gn-seed0" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    _, page = report_of(workdir)
    assert "gn-seed0: jax: 0.10.1 -> 0.12.0 (after epoch 3); gn-seed0: learning_rate 0.05 instead of 0.1" in page.text


@pytest.mark.usefixtures("without_figures")
def test_whose_statistics_a_batch_norm_took_stands_at_the_results(make_workdir):
    workdir = make_workdir("quick", norms=("bn",))
    assert "Batch statistics are of the whole batch." in report_of(workdir)[1].text
    path = workdir / "bn-seed0" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bn_statistics": "replica", "num_replicas": 4}))
    assert "are of each replica, one of 4 equal parts of the batch" in report_of(workdir)[1].text
    assert "bn,0,test," in (workdir / "summary.csv").read_text()
    assert ",4,\n" in (workdir / "summary.csv").read_text()


@pytest.mark.usefixtures("without_figures")
def test_the_study_stands_beside_ours_on_its_own_terms(make_workdir):
    norms = ("flax_bn", "bn", "gn")
    _, full = report_of(make_workdir("full", norms=norms, seeds=(0, 1), dataset="cifar10", num_epochs=100))
    assert "Torch_BN" in full.words and "Diff." in full.words and "JPEG q75 re-encoding" in full.text
    assert "equal within 0.5 point" in full.text and "cannot fall below 2 in 4, or 0.5" in full.text
    _, short = report_of(make_workdir("short", norms=norms, dataset="cifar10", num_epochs=10, stop_after_epoch=3))
    assert "Torch_BN" in short.words and "Diff." not in short.words and "Difference" in short.words
    assert "The schedule has 10 epochs" in short.text and "Training was stopped after epoch 3 of 10" in short.text
    assert "stopped after epoch 3 of 10" in short.words
    _, stopped = report_of(make_workdir("stopped", norms=norms, dataset="cifar10", num_epochs=100, stop_after_epoch=80))
    assert "Diff." not in stopped.words


def test_nothing_in_a_name_or_a_command_becomes_markup(make_workdir):
    workdir = make_workdir(norms=("bn", "<script>x"), labels={"bn": HOSTILE}, command=f"python x {HOSTILE}")
    text, page = report_of(workdir)
    assert "script" not in page.tags and "<script" not in text
    assert f"python x {HOSTILE}" in page.words
    twin = (workdir / "report.md").read_text()
    prose, _, code = twin.partition("## Reproduce")
    assert "<script" not in prose and "```" not in prose
    assert f"````\npython x {HOSTILE}\n````" in code
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows if "alert" in line and "%" not in line} <= {
        line.count("|") for line in rows if "---" in line
    }


def test_markdown_shows_exactly_the_text():
    assert markdown("a|b\n*c* <d> _e_ `f` [g](h) $i$ & #j") == (
        "a&#124;b \\*c\\* &lt;d&gt; \\_e\\_ \\`f\\` \\[g\\](h) \\$i\\$ &amp; \\#j"
    )
    assert fenced("a ```` b").startswith("`````\n")


def test_the_same_files_give_the_same_bytes(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"), seeds=(0, 1))

    def everything():
        write_report(workdir)
        return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    first = everything()
    assert len(first) > 20
    assert everything() == first


@pytest.mark.parametrize(
    "options",
    [
        dict(norms=()),
        dict(norms=("gn",)),
        dict(norms=("bn",), fates={("bn", 0): ("missing", 0)}),
        dict(norms=("bn", "gn"), fates={("bn", 0): ("diverged", 0), ("gn", 0): ("crashed", 0)}),
        dict(norms=("flax_bn", "bn"), fates={("flax_bn", 0): ("unfinished", 1), ("bn", 0): ("unfinished", 3)}),
        dict(norms=("bn", "gn"), seeds=(0, 1), fates={("gn", 0): ("crashed", 2), ("gn", 1): ("diverged", 1)}),
    ],
)
def test_every_incomplete_study_has_a_page(make_workdir, options):
    workdir = make_workdir(**options)
    _, page = report_of(workdir)
    assert "figure" not in page.tags or (workdir / "figures").is_dir()
    print_table(workdir, Console(file=io.StringIO(), width=80))


def test_figures_of_an_earlier_report_go(make_workdir):
    workdir = make_workdir(norms=("gn",))
    (workdir / "figures").mkdir()
    (workdir / "figures/sanity_check.png").write_bytes(b"old")
    (workdir / "figures/mine.png").write_bytes(b"mine")
    write_report(workdir)
    assert not (workdir / "figures/sanity_check.png").exists()
    assert (workdir / "figures/mine.png").exists()


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


def test_the_terminal_table_fits_eighty_columns(session_workdir):
    console = Console(record=True, width=80, file=io.StringIO())
    print_table(session_workdir("mess", fates=FATES), console)
    text = console.export_text()
    assert "diverged" in text and "97.8" in text and "scikit-learn digits" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_label_is_no_markup_in_the_terminal(make_workdir):
    console = Console(record=True, width=120, file=io.StringIO())
    print_table(make_workdir(norms=("bn",), labels={"bn": "[red]x[/red]"}), console)
    assert "[red]x[/red]" in console.export_text()


def test_no_jax_is_loaded():
    code = (
        "import sys; import jaxnorm.study.analysis.report; "
        "print([name for name in sys.modules if name.split('.')[0] in ('jax', 'jaxlib', 'flax')], "
        "'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
