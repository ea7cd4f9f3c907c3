"""docs/peers.md says what the packages compute that are installed, and ours is right."""

import re

import pytest

pytestmark = pytest.mark.peers
peers = pytest.importorskip("benchmarks.peers", reason="make test-peers installs its packages")


NUMBER = r"\d+(?:\.\d+)?(?:e[-+]\d+)?"


def test_the_page_of_peers_says_what_they_compute():
    traps = [trap() for trap in peers.TRAPS]
    found, written = (
        re.sub(NUMBER, "#", re.sub(r"Versions: .*?\n\n", "", text, flags=re.S))
        for text in (peers.page(traps), peers.PAGE.read_text(encoding="utf-8"))
    )
    assert found == written
    for trap in traps:
        for cell in (cell for name, cells in trap.rows.items() if name.startswith("jaxnorm") for cell in cells):
            assert cell in ("finite", "refused") or float(cell) < 0.01, trap.title
