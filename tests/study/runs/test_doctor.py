import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from jaxnorm.conv import kernels
from jaxnorm.study.runs import doctor
from jaxnorm.study.runs.doctor import examine, print_findings


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAXNORM_DATA_DIR", raising=False)
    monkeypatch.setattr(kernels, "missing", lambda: None)  # or they would be compiled into that folder


def found(name, *arguments):
    return next(finding for finding in examine(*arguments) if finding.name == name)


def test_a_sound_environment_is_fit():
    console = Console(record=True, width=100)
    assert print_findings(examine(), console) == 0
    text = console.export_text()
    assert f"jax {importlib.metadata.version('jax')}" in text
    assert "Fit to run" in text


def test_the_wrong_jaxlib_is_called_wrong(monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2" if name == "jaxlib" else version(name))
    monkeypatch.setenv("XLA_FLAGS", "")
    assert found("Numbers on CPU").state == "wrong"
    assert print_findings(examine(), Console(quiet=True)) == 1
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
    assert found("Numbers on CPU").state == "risk"


def test_little_room_and_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e30)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 1e30)
    monkeypatch.setattr(doctor, "NEEDED", ("jax", "no-such-package"))
    assert found("Disk here").state == found("Memory").state == "risk"
    assert found("Missing").found == "no-such-package"
    assert found("Missing").fix == "pip install 'jaxnorm[study]'"


def test_data_are_found_named_as_damaged_or_missing(tmp_path):
    assert found("CIFAR-10").state == "note"
    assert found("CIFAR-10", tmp_path / "nowhere").found == f"not in {tmp_path / 'nowhere'}"
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(b"x")
    assert found("CIFAR-10", tmp_path / "data").state == "risk"


def test_a_backend_that_does_not_start_is_a_finding(monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr("jax.devices", fail)
    assert found("Devices").state == "wrong"
    assert "Unable to initialize backend" in found("Devices").found


def test_from_a_shell():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "XLA_FLAGS": "", "COLUMNS": "100"}
    command = [sys.executable, "-m", "jaxnorm", "doctor"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 0, finished.stderr
    assert "Fit to run" in finished.stdout
    assert "Convolutions on CPU" in finished.stdout


def test_own_convolutions_are_good(monkeypatch):
    monkeypatch.setattr(kernels, "compiler", lambda: "/usr/bin/c++")
    finding = found("Convolutions on CPU")
    assert (finding.found, finding.state) == ("own kernels, compiled by /usr/bin/c++", "good")


@pytest.mark.parametrize(
    "switch, fix",
    [("", "install a C++ compiler, for example apt install g++"), ("off", f"unset {kernels.SWITCH}")],
)
def test_missing_convolutions_are_a_note_with_reason_cost_and_fix(switch, fix, monkeypatch):
    monkeypatch.setattr(kernels, "missing", lambda: "for a reason")
    monkeypatch.setenv(kernels.SWITCH, switch)
    finding = found("Convolutions on CPU")
    assert (finding.found, finding.state) == ("XLA's: for a reason", "note")
    assert finding.fix == f"{fix}; training takes about twice the time without them"
    assert print_findings(examine(), Console(quiet=True)) == 0
