"""The commands of the probes as a person runs them."""

import sys

import pytest

from jaxnorm.study.cli import entry
from jaxnorm.study.cli.main import main


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, request):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(request.config.rootpath / "results")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxnorm", *arguments])
        with pytest.raises(SystemExit) as left:
            entry.run(main)
        return left.value.code, *capsys.readouterr()

    return run


def test_calibration_prints_a_line_a_variant_and_writes_a_page(command, tmp_path):
    code, printed, _ = command("calibration", "results/cifar10_short", "--workdir", "w")
    assert code == 0
    assert "Batch norm: NLL 0.652" in printed
    assert (tmp_path / "w" / "report.html").exists() and (tmp_path / "w" / "calibration.json").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["calibration", "nowhere"], "does not exist"),
        (["curvature"], "is given none"),
        (["curvature", "nowhere"], "must be the folder of a run"),
        (["curvature", "results/digits_seeds"], "a whole study"),
        (["curvature", "nowhere", "--products", "0"], "--products must be at least 1"),
        (["curvature", "nowhere", "--images", "-5"], "--images must be at least 1"),
        (["corruptions", "nowhere"], "does not exist"),
        (["corruptions", "results/digits_seeds"], "is a publication"),
        (["corruptions", "nowhere", "--images", "0"], "--images must be at least 1"),
        (["corruptions", "nowhere", "--batch-sizes", "8", "0"], "--batch-sizes must be at least 1"),
        (["corruptions", "nowhere", "--seed", "-1"], "--seed must be within"),
    ],
)
def test_a_mistake_is_one_line(command, tmp_path, arguments, words):
    code, _, errors = command(*arguments)
    assert code == 2
    assert words in errors and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
