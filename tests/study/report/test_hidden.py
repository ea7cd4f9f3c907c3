"""What neither a report nor a publication tells."""

import pytest

from jaxnorm.study.report.publish import publish
from jaxnorm.study.report.write import write_report
from tests.study.report import workdirs

ORDERS = "\x1b]0;owned\x07 \x9b31m \u202e \x00"


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A study of data in a secret place, with orders to a terminal in its texts."""
    data = workdirs.DIGITS | {"source": f"the files in /secret/lab/digits {ORDERS}"}
    monkeypatch.setattr(workdirs, "DIGITS", data)
    command = f"python /secret/lab/compare_norms.py --workdir '/secret/my own' '{ORDERS}'"
    return workdirs.write_workdir(tmp_path / "w", norms=("bn", "gn"), command=command, num_epochs=2)


def texts(folder):
    """The files that are text, as text."""
    suffixes = (".csv", ".json", ".md", ".html")
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in suffixes}


def test_no_control_character_reaches_a_report(workdir):
    write_report(workdir)
    for name, text in texts(workdir).items():
        if name != "study.json":  # JSON writes them as escapes, and this one is no report
            assert [c for c in text if not (c.isprintable() or c in "\n\u00a0")] == [], name
    assert r"\x1b]0;owned\x07" in texts(workdir)["report.html"], "shown, not dropped"


def test_a_publication_names_no_place(workdir, tmp_path):
    publish(workdir, tmp_path / "published")
    write_report(tmp_path / "published")
    found = texts(tmp_path / "published")
    assert {"study.json", "runs.json", "report.html", "report.md"} <= set(found)
    for name, text in found.items():
        assert "secret" not in text and "my own" not in text, name
        assert r"\u001b" not in text, name
    assert "python .../compare_norms.py --workdir '...'" in found["study.json"]
