"""The README and docs/ against what they quote: links lead somewhere, and numbers are those of results/."""

import json
import re
from pathlib import Path

import pytest

from jaxnorm.study.analysis.comparison import compare
from jaxnorm.study.analysis.rates import chosen
from jaxnorm.study.analysis.runs import read_study
from jaxnorm.study.analysis.summary import summary_csv, summary_json

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    found = {folder: read_study(ROOT / "results" / folder) for folder in ("digits_seeds", "cifar10_short")}
    digits = json.loads((ROOT / "results/digits_seeds/summary.json").read_text(encoding="utf-8"))
    variants = {one["norm"]: one for one in digits["variants"]}
    against = {one["norm"]: one for one in digits["comparisons"] if one["baseline"] == "bn"}
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|(.+)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert {norm for norm, _ in rows} == set(variants)
    for norm, cells in rows:
        accuracy, difference, cifar, *_ = cells.split("|")
        mean, deviation = (100 * variants[norm]["test"]["accuracy"][name] for name in ("mean", "sd"))
        assert numbers_of(accuracy) == pytest.approx([mean, deviation], abs=0.00501)
        expected = against.get(norm) and [against[norm]["mean"], *map(against[norm]["interval"].get, ("low", "high"))]
        assert numbers_of(difference) == pytest.approx([100 * one for one in expected or ()], abs=0.00501)
        (run,) = found["cifar10_short"].finished(norm)
        assert numbers_of(cifar) == pytest.approx([100 * run.splits["test"].accuracy], abs=0.0501)


def leaves(tree, path=""):
    """The numbers of a JSON value by their place, and what is no number as part of its place."""
    if isinstance(tree, (dict, list)):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {place: leaf for key, value in pairs for place, leaf in leaves(value, f"{path}/{key}").items()}
    return {path: float(tree)} if isinstance(tree, (int, float)) else {f"{path} is {tree}": 0.0}


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_published_summaries_are_those_of_the_published_runs(folder):
    study = read_study(folder)
    assert (folder / "summary.csv").read_text(encoding="utf-8") == summary_csv(study)
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    expected = leaves(json.loads(json.dumps(summary_json(study, compare(chosen(study))))))
    found = leaves(found)
    assert found.keys() == expected.keys()
    for place, number in expected.items():
        # Bootstrapped intervals differ by a hundredth of a point between versions of NumPy.
        tolerance = 2e-4 if "interval" in place else 1e-12
        assert found[place] == pytest.approx(number, rel=1e-9, abs=tolerance, nan_ok=True), place
