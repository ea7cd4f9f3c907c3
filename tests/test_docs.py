"""The README and docs/ against what they quote: links lead somewhere, and numbers are those of results/."""

import importlib
import re
from pathlib import Path

import pandas as pd
import pytest

from jaxnorm import read_study
from jaxnorm.study.report.comparisons import paired

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [ROOT / "docs/index.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
RESULTS = sorted(path.parent for path in ROOT.glob("results/*/study.json"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


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


def numbers_of(cell):
    return [float(number.replace("−", "-")) for number in re.findall(r"[−+]?\d+\.\d+", cell)]


def test_the_readme_s_table_is_that_of_the_results():
    digits, cifar10 = (read_study(ROOT / "results" / folder) for folder in ("digits_seeds", "cifar10_short"))
    accuracy = digits.final("test").groupby("norm").accuracy.agg(["mean", "std"])
    against = {one.norm: one for one in paired(digits).itertuples() if one.baseline == "bn"}
    one_run = cifar10.final("test").set_index("norm").accuracy
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|(.+)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert {norm for norm, _ in rows} == set(accuracy.index)
    for norm, cells in rows:
        here, difference, there, *_ = cells.split("|")
        one = against.get(norm)
        expected = [one.mean, one.both.low, one.both.high] if one else []
        assert numbers_of(here) == pytest.approx(list(100 * accuracy.loc[norm]), abs=0.00501)
        assert numbers_of(difference) == pytest.approx([100 * value for value in expected], abs=0.02)
        assert numbers_of(there) == pytest.approx([100 * one_run[norm]], abs=0.0501)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_published_summaries_are_those_of_the_published_runs(folder):
    found = read_study(folder).evaluations.query("statistics == 'running'").set_index(["norm", "seed", "tags", "split"])
    table = pd.read_csv(folder / "summary.csv", keep_default_na=False).set_index(["norm", "seed", "tags", "split"])
    finished = table[table.status == "complete"]
    assert set(finished.index) == set(found.index)
    for metric in ("accuracy", "macro_f1", "loss", "num_images"):
        assert (finished[metric].astype(float) == found.loc[finished.index, metric]).all()


def test_the_example_of_the_layers_page_runs():
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs/layers.md").read_text(encoding="utf-8"), re.M | re.S
    )
    found = {"__name__": "example"}
    exec(program, found)
    assert found["y"].shape == (8, 4, 4, 3)
    assert set(found["variables"]["params"]) == {"Embed_0"}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_examples_of_the_guides_run(page, tmp_path, monkeypatch, registry):
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    before = set(registry)
    programs = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    assert programs  # what they compute is asserted in them, or shown
    for program in programs:
        exec(program, {"__name__": "example"})
    assert set(registry) - before == ({"scale_only"} if page.stem == "own_norm" else set())


@pytest.mark.parametrize("form", ["linen", "nnx", "functional"])
def test_the_reference_lists_every_public_name(form):
    module = importlib.import_module({"linen": "jaxnorm.norms"}.get(form, f"jaxnorm.{form}"))
    listed = re.findall(r"^[.][.] auto(?:class|function):: jaxnorm[.\w]*[.](\w+)$", page_of(form), re.M)
    own = {"Conv", "ScaledWeightStandardizedConv", "WeightStandardizedConv"} if form == "linen" else set()
    assert sorted(listed) == sorted({*module.__all__} | own)


def page_of(form):
    return (ROOT / f"docs/api/{form}.md").read_text(encoding="utf-8")
