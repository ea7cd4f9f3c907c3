"""The program `jaxnorm` and its commands."""

import dataclasses
import importlib
import re
import subprocess
import sys
import tomllib
import urllib.request

import pytest

import jaxnorm
from jaxnorm import NORMS
from jaxnorm.study.cli import entry
from jaxnorm.study.cli.groups import GROUPS
from jaxnorm.study.cli.main import COMMANDS, main
from jaxnorm.study.data import DATASETS
from jaxnorm.study.invocation import command
from jaxnorm.study.models.registry import MODELS
from tests.drivers import ROOT, environment, path_of

DRIVERS = {"compare": "compare_norms", "batch-sizes": "batch_size_study", "features": "feature_evolution"}


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """A function that runs the program in this process, in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments, started="/opt/env/bin/jaxnorm", command=None):
        monkeypatch.setattr(sys, "argv", [started, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            entry.run(lambda: main(command))
        return left.value.code, *capsys.readouterr()

    return run


def test_the_script_of_an_installation_is_the_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["jaxnorm"].partition(":")
    assert getattr(importlib.import_module(module), name).__module__ == "jaxnorm.__main__"


def test_the_program_lists_its_commands(program):
    assert re.findall(r"^    (\S+) +[A-Z]", program("--help")[1], re.M) == list(COMMANDS)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_80_columns(program, name):
    code, shown, _ = program(*name.split(), "--help")
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 80
    assert f"usage: jaxnorm {name}".rstrip() in shown and "{program}" not in shown


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_s_file_is_its_command(program, name):
    as_file = program("--help", started=str(path_of(DRIVERS[name])), command=name)[1]
    as_command = program(name, "--help")[1]
    flags = [re.findall(r"--[\w-]+", shown.partition("options")[2]) for shown in (as_file, as_command)]
    assert flags[0] == flags[1] and "--norms" in flags[0]


@pytest.mark.parametrize("name", DRIVERS)
def test_help_begins_with_what_is_asked_most_and_leaves_no_flag_out(program, name):
    flags = re.findall(r"^(?:│ |  )--(\w[\w-]*)", program(name, "--help")[1], re.M)
    assert flags[:4] == ["norms", "seeds", "preset", "workdir"]
    fields = {field.name for field in dataclasses.fields(COMMANDS[name])}
    assert fields >= set(" ".join(GROUPS.values()).split())
    hidden = {"batch-size", "lr-rule", "ghost-batch-size"} if name == "batch-sizes" else set()
    named = {"imports": "import", "show": "list"}
    assert sorted(flags) == sorted({named.get(one, one).replace("_", "-") for one in fields} - hidden)


def test_help_names_every_norm(program):
    shown = set(re.findall(r"\w+", program("compare", "--help")[1]))
    assert not [id for id, norm in NORMS.items() if norm.build.__module__.startswith("jaxnorm") and id not in shown]


@pytest.mark.parametrize("name", ["", *DRIVERS])
def test_the_version_and_the_ids_can_be_asked_for(program, tmp_path, registry, name):
    assert program(*name.split(), "--version")[:2] == (0, f"jaxnorm {jaxnorm.__version__}\n")
    for what, ids in (("norms", [*NORMS, "my_own"]), ("datasets", DATASETS), ("models", MODELS)):
        (tmp_path / "mine.py").write_text(
            "from jaxnorm import NORMS, register_norm\nregister_norm('my_own', NORMS['bn'].build, label='Mine')"
        )
        code, shown, _ = program(*name.split(), "--import", "mine.py", "--list", what)
        assert code == 0
        assert [line.split()[0] for line in shown.splitlines()] == list(ids)


def test_a_dry_run_downloads_nothing(program, tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("it asks the network"))
    code, shown, errors = program("compare", "--preset", "short", "--data-dir", "data", "--dry-run")
    assert (code, errors) == (0, "")
    assert "CIFAR-10, 40,000 training images, from www.cs.toronto.edu: 170 MB to download to " in shown
    assert "Plan: 7 runs of 10 epochs, batch size 128: " in shown
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_docstrings(tmp_path, program):
    bare = subprocess.run(
        [sys.executable, "-OO", "-m", "jaxnorm", "compare", "--help"],
        cwd=tmp_path,
        env={**environment(tmp_path), "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert bare.returncode == 0
    shown = program("compare", "--help", started=str(ROOT / "jaxnorm" / "__main__.py"))[1]
    words = [re.sub(r"[^\w-]|-{3,}", "", text) for text in (bare.stdout, shown)]  # boxes and lines differ without UTF-8
    assert words[0] == words[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "a command must be named, but none is; name one of compare, "),
        (["comprae"], "the first argument must be a command, but is 'comprae'; did you mean 'compare' or "),
        (["--bogus"], "--bogus; see --help"),
        (["publish"], "Missing from jaxnorm publish: WORKDIR"),
    ],
)
def test_a_mistake_is_one_line(program, tmp_path, arguments, words):
    code, _, errors = program(*arguments)
    assert code == 2
    assert re.fullmatch(r"error: [^\n]+\n", errors)
    assert words in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "started, typed",
    [
        ("/opt/env/bin/jaxnorm", "jaxnorm compare --norms bn"),
        ("/opt/env/lib/jaxnorm/__main__.py", "python -m jaxnorm compare --norms bn"),
        ("experiments/compare_norms.py", "python experiments/compare_norms.py compare --norms bn"),
    ],
)
def test_a_command_line_can_be_typed_again(monkeypatch, started, typed):
    monkeypatch.setattr(sys, "argv", [started, "compare", "--norms", "bn"])
    assert command() == typed
