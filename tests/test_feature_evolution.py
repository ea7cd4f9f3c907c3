"""The feature-evolution study as a person runs it."""

import re

import numpy as np
import pytest

from tests.drivers import FAST, content, drive, driver_here


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("recorded")
    finished = drive("feature_evolution", tmp_path, *FAST, "--norms", "bn", "--quantiles", "5", "50", "95")
    assert finished.returncode == 0, finished.stderr
    return tmp_path / "runs" / "feature_evolution", finished


def test_every_layer_is_recorded_after_every_epoch(recorded):
    workdir, _ = recorded
    rows, _ = content(workdir, "bn-seed0")
    assert [len(row["feature_quantiles"]) for row in rows] == [3, 3]
    arrays = [np.load(path, allow_pickle=False) for path in sorted((workdir / "bn-seed0").glob("**/*.npz"))]
    layers = {name for array in arrays for name in array.files if name.startswith("quantiles/")}
    assert len(layers) == 16, "15 convolutions and the pooled features"
    assert (workdir / "report.html").read_text().count("<svg") >= 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--quantiles", "-1", "50"], "quantiles must .*0.*100.*-1"),
        (["--quantiles", "50", "100.5"], "quantiles must .*100.5"),
        (["--quantiles", "50", "50"], "quantiles"),
        (["--quantiles", "nan"], "quantiles"),
        (["--record-features", "some"], "--help"),
        (["--seeds", "0", "0"], "names 0 2 times"),
    ],
)
def test_a_mistake_leaves_nothing_behind(tmp_path, monkeypatch, capsys, arguments, words):
    code, errors, left_behind = driver_here("feature_evolution", tmp_path, monkeypatch, capsys)(*arguments)
    assert code == 2
    assert re.search(words, errors), errors
    assert left_behind == []
