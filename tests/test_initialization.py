"""The probe at initialization as a person runs it."""

import json

import pandas as pd
import pytest

from jaxnorm.study.probes.initialization_page import write_files
from tests.drivers import drive, driver_here
from tests.study.probes.tables import layer_rows, plain_rows

SETTINGS = dict(dataset="digits", data="scikit-learn digits", init="torch", batch_size=32, command="python")
MINE = """
import jaxnorm
jaxnorm.register_norm("mine", jaxnorm.NORMS["bn"].build, label="My <norm>")
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("probed")
    (tmp_path / "mine.py").write_text(MINE)
    finished = drive("initialization", tmp_path, "--norms", "mine", "--seeds", 4, "--import", "mine.py")
    assert finished.returncode == 0, finished.stderr
    return tmp_path / "runs" / "initialization", finished


def test_layers_growth_and_a_page_are_written(probed):
    workdir, finished = probed
    layers, plain = (pd.read_csv(workdir / name) for name in ("layers.csv", "plain.csv"))
    assert layers.groupby("norm").size().to_dict() == {"mine": 16}
    assert set(layers.seed) == {4}
    assert plain.growth[0] == pytest.approx(1.211, rel=0.03)
    content = json.loads((workdir / "initialization.json").read_text())
    assert content["norms"][0]["predicted"] is None, "theory does not know it"
    assert "My &lt;norm&gt;" in (workdir / "report.html").read_text()
    assert (workdir / "figures" / "growth.png").exists()
    assert "Report: runs/initialization/report.html" in finished.stdout


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    return driver_here("initialization", tmp_path, monkeypatch, capsys)


def test_the_page_compares_with_trained_runs(tmp_path, here, results):
    norms = ("none", "ln", "gn", "in", "bn", "bin", "flax_bn", "bin_frozen")
    gradients = {norm: 0.1 * (place + 1) for place, norm in enumerate(norms)}
    write_files(tmp_path / "probe", SETTINGS, layer_rows(gradients), plain_rows(gradients))
    code, errors, _ = here("--from-files", "--workdir", tmp_path / "probe", "--runs", results / "digits_seeds")
    assert code == 0, errors
    content = json.loads((tmp_path / "probe" / "initialization.json").read_text())
    (one,) = (
        one
        for one in content["correlations"]
        if (one["predictor"], one["measure"], one["norms"]) == ("stem_gradient", "curve", "all")
    )
    assert one["pairs"] == 8
    assert one["rho"] > 0.8
    report = (tmp_path / "probe" / "report.md").read_text()
    assert "Rank correlations" in report
    assert here("--from-files", "--workdir", tmp_path / "probe")[0] == 0
    assert json.loads((tmp_path / "probe" / "initialization.json").read_text()) == content
    assert (tmp_path / "probe" / "report.md").read_text() == report, "the speed is known from the files"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--norms", "bm"], "did you mean 'bn'"),
        (["--norms", "bn", "bn"], "names bn 2 times"),
        (["--seeds", "-1"], "--seeds must be within"),
        (["--batch-size", "1"], "--batch-size must be at least 2"),
        (["--data-dir", "."], "--data-dir is for cifar10"),
        (["--from-files"], "probe first"),
        (["--runs", "nowhere"], "does not exist"),
        (["--workdir", "RESULTS/digits_seeds"], "must not be that of trained runs"),
        (["--init", "he", "--runs", "RESULTS/digits_seeds"], "--runs must be of the probe's init he"),
    ],
)
def test_a_mistake_leaves_nothing_behind(here, results, arguments, words):
    code, errors, left_behind = here(*(one.replace("RESULTS", str(results)) for one in arguments))
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert left_behind == []


@pytest.fixture
def results(request):
    return request.config.rootpath / "results"


def test_a_damaged_table_is_named(tmp_path, here):
    write_files(tmp_path / "probe", SETTINGS, layer_rows({"bn": 1.0}), plain_rows({"bn": 1.0}))
    (tmp_path / "probe" / "plain.csv").write_text("norm,growth\nbn,fast\n")
    code, errors, _ = here("--from-files", "--workdir", tmp_path / "probe")
    assert code == 2
    assert "plain.csv is damaged" in errors
