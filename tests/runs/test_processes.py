"""Two real processes that share their devices train as one does."""

import json

import pytest

from tests.drivers import FAST, compare_together, drive


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "gn-seed0" / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_what_one_trains_and_only_the_first_writes(tmp_path):
    arguments = [*FAST, "--norms", "gn"]
    places = [tmp_path / "first", tmp_path / "second"]
    first, second = compare_together(places, *arguments, "--workdir", "w")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "gn-seed0: test accuracy" in first.stdout
    assert "gn-seed0" not in second.stdout
    assert [path.name for path in places[1].iterdir()] == ["cache"]
    assert drive("compare_norms", tmp_path, *arguments, "--workdir", "w").returncode == 0
    together, alone = rows_of(places[0] / "w"), rows_of(tmp_path / "w")
    for name in ("train_loss", "val_loss"):
        assert [row[name] for row in together] == pytest.approx([row[name] for row in alone], rel=1e-3)
    provenance = json.loads((places[0] / "w" / "gn-seed0" / "provenance.json").read_text())
    assert provenance["device"]["processes"] == provenance["data_parallel"] == 2


def test_processes_that_cannot_meet_say_so(tmp_path):
    finished = drive(
        "compare_norms",
        tmp_path,
        "--coordinator",
        "localhost:1",
        "--num-processes",
        "2",
        "--process-id",
        "2",
        timeout=60,
    )
    assert finished.returncode == 2
    assert "--process-id must lie in 0..1, but is 2" in finished.stderr
