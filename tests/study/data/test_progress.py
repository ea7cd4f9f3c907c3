"""Progress: a bar on a terminal, lines elsewhere, nothing where nobody looks."""

import io
import sys

from jaxnorm.study.data.progress import progress_bar


def work(**options):
    with progress_bar("Reading things", 1000, **options) as advance:
        for _ in range(10):
            advance(100)


def test_plain_lines_without_a_terminal(capsys):
    work()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Reading things (1,000 images)",
        *(f"Reading things: {percent} %" for percent in (30, 50, 80, 100)),
    ]


def test_nothing_when_off(capsys):
    work(enabled=False)
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for unit, amount in (("images", "1000/1000"), ("bytes", "1.0/1.0 kB")):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        work(unit=unit)
        assert "Reading things" in terminal.getvalue()
        assert amount in terminal.getvalue()
