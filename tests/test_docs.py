"""The README and docs/ against what they quote: links lead somewhere, and numbers are those of results/."""

import importlib
import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

from jaxnorm import read_study
from jaxnorm.study.cli.flags import read
from jaxnorm.study.cli.main import COMMANDS
from jaxnorm.study.cli.options import Options
from jaxnorm.study.report.comparisons import paired

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
PAGES = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")), *DOCS]
EXAMPLES = [README, ROOT / "docs/index.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
RESULTS = sorted(path.parent for path in ROOT.glob("results/*/study.json"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def anchors(page):
    """As GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_paragraph_of_the_findings_points_at_a_result():
    text = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    answers = text.partition("\n## ")[2].rpartition("\n## What is missing")[0]
    paragraphs = [one for one in answers.split("\n\n") if one.strip() and not one.startswith(("#", "|"))]
    assert len(paragraphs) > 10
    for paragraph in paragraphs:
        assert "](../results/" in paragraph or paragraph.partition("\n")[0].endswith("?"), paragraph


def numbers_of(text):
    """Those with a decimal point, each as it must be found again: equal up to half a unit of its last place."""
    found = [number.replace("−", "-") for number in re.findall(r"[−+]?\d+\.\d+", text)]
    return [pytest.approx(float(number), abs=0.501 * 10 ** -len(number.partition(".")[2])) for number in found]


def in_percent(*values):
    return [100 * value for value in values]


@pytest.fixture(scope="module")
def against_bn():
    """The digits over ten seeds: accuracies, and differences from batch norm with their intervals."""
    study = read_study(ROOT / "results/digits_seeds")
    differences = {one.norm: one for one in paired(study).itertuples() if one.baseline == "bn"}
    return study.final("test").groupby("norm").accuracy.agg(["mean", "std"]), {
        norm: in_percent(one.mean, one.both.low, one.both.high) for norm, one in differences.items()
    }


def test_the_table_of_results_is_that_of_the_results(against_bn):
    accuracy, differences = against_bn
    one_run = read_study(ROOT / "results/cifar10_short").final("test").set_index("norm").accuracy
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|(.+)\|$", (ROOT / "docs/results.md").read_text(encoding="utf-8"), re.M)
    assert {norm for norm, _ in rows} == set(accuracy.index)
    for norm, cells in rows:
        here, difference, there, *_ = cells.split("|")
        assert in_percent(*accuracy.loc[norm]) == numbers_of(here)
        assert differences.get(norm, []) == numbers_of(difference)
        assert in_percent(one_run[norm]) == numbers_of(there)


def test_what_the_readme_says_the_study_shows_is_in_the_results(against_bn):
    accuracy, differences = against_bn
    longer = read_study(ROOT / "results/digits_features").final("test").accuracy
    (ghosts,) = (one for one in paired(read_study(ROOT / "results/digits_ghosts")).itertuples() if one.planned)
    text = README.read_text(encoding="utf-8").partition("## What the study shows")[2].partition("\nIntervals are")[0]
    speed, gate, few = re.split(r"^\d[.] ", text, flags=re.M)[1:]
    assert [
        *in_percent(*accuracy["mean"][["bn", "in", "gn", "ln", "none"]]),
        *differences["gn"],
        *in_percent(longer.min(), longer.max()),
    ] == numbers_of(speed)
    assert differences["bin"] == numbers_of(gate)
    lost = in_percent(-ghosts.mean, -ghosts.both.high, -ghosts.both.low)
    assert [*lost, ghosts.holm_p] == numbers_of(few)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_published_summaries_are_those_of_the_published_runs(folder):
    found = read_study(folder).evaluations.query("statistics == 'running'").set_index(["norm", "seed", "tags", "split"])
    table = pd.read_csv(folder / "summary.csv", keep_default_na=False).set_index(["norm", "seed", "tags", "split"])
    finished = table[table.status == "complete"]
    assert set(finished.index) == set(found.index)
    for metric in ("accuracy", "macro_f1", "loss", "num_images"):
        assert (finished[metric].astype(float) == found.loc[finished.index, metric]).all()


def test_the_example_of_the_layers_page_runs():
    (program,) = blocks(ROOT / "docs/layers.md", "python")
    found = {"__name__": "example"}
    exec(program, found)
    assert found["y"].shape == (8, 4, 4, 3)
    assert set(found["variables"]["params"]) == {"Embed_0"}


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_run(page, tmp_path, monkeypatch, registry):
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    before = set(registry)
    programs = blocks(page, "python")
    assert programs  # what they compute is asserted in them, or shown
    for program in programs:
        exec(program, {"__name__": "example"})
    assert set(registry) - before == ({"scale_only"} if page.stem in ("README", "own_norm") else set())


def commands():
    """The words of every command in a block of shell, and its page."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield pytest.param(words, id=f"{page.stem}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_the_commands_are_understood(words, tmp_path, monkeypatch, registry):
    (own,) = (program for program in blocks(README, "python") if "register_norm(" in program)
    (tmp_path / "mynorm.py").write_text(own, encoding="utf-8")
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    drivers = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "experiments").glob("*.py")}
    match [*itertools.dropwhile(lambda word: re.match("[A-Z_]+=", word), words)]:  # without variables
        case ["make", *targets]:
            assert set(targets) <= set(re.search(r"^[.]PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)[1].split())
        case ["pip", "install", what]:
            requirement = Requirement(what.replace(".", "jaxnorm", 1))
            assert requirement.extras <= set(EXTRAS)
        case ["jaxnorm", command, *arguments] | ["python", "-m", "jaxnorm", command, *arguments]:
            check(command, arguments)
        case ["python", file, *arguments] if file.startswith("experiments/"):
            (command,) = re.findall(r'main\("(.+)"\)', drivers[Path(file).stem])
            check(command, arguments)
        case ["python", path, *_] | [".venv/bin/python", "-m", "pytest", path, *_]:
            assert (ROOT / path).exists()
        case _:
            raise AssertionError(words)


MINE = """
from jaxnorm import register_dataset, register_model

register_dataset("mine", lambda data_dir: None)
register_model("small", lambda *, norm, num_classes: None)
"""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def check(command, arguments):
    options = read(COMMANDS[command], arguments, ["jaxnorm", command])
    if isinstance(options, Options):
        assert options.checked_configs()


@pytest.mark.parametrize("form", ["linen", "nnx", "functional"])
def test_the_reference_lists_every_public_name(form):
    module = importlib.import_module({"linen": "jaxnorm.norms"}.get(form, f"jaxnorm.{form}"))
    listed = re.findall(r"^[.][.] auto(?:class|function):: jaxnorm[.\w]*[.](\w+)$", page_of(form), re.M)
    own = {"Conv", "ScaledWeightStandardizedConv", "WeightStandardizedConv"} if form == "linen" else set()
    assert sorted(listed) == sorted({*module.__all__} | own)


def page_of(form):
    return (ROOT / f"docs/api/{form}.md").read_text(encoding="utf-8")
