"""What an installation offers: public names, with the study's packages and without."""

import ast
import importlib
import importlib.metadata
import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import jaxnorm

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_requirements_are_those_of_the_layers_the_study_and_tfds():
    lines = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    extras = PROJECT["optional-dependencies"]
    assert [line for line in lines if line and not line.startswith("#")] == [
        *PROJECT["dependencies"],
        *extras["study"],
        *extras["tfds"],
    ]


def test_the_version_is_the_packages():
    assert jaxnorm.__version__ == PROJECT["version"]


def test_every_public_name_loads():
    assert set(jaxnorm.__all__) <= set(dir(jaxnorm))
    for name in dir(jaxnorm):
        assert getattr(jaxnorm, name) is not None


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(jaxnorm))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    static = {alias.asname: node.module for node in block.body for alias in node.names}
    loaded = {name for name in dir(jaxnorm) if not name.startswith("_")}
    assert set(jaxnorm.__all__) - {"__version__"} <= set(static) <= loaded
    for name, module in static.items():
        assert getattr(importlib.import_module(module), name) is getattr(jaxnorm, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'BatchNrom'"):
        jaxnorm.BatchNrom  # noqa: B018


def test_the_package_its_help_and_its_report_load_no_jax():
    program = (
        "import sys, jaxnorm, jaxnorm.study.config, jaxnorm.study.cli.driver, jaxnorm.study.report.write\n"
        "sys.exit('jax' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0


@pytest.fixture(scope="session")
def core(tmp_path_factory):
    """Runs Python in an installation of `pip install .`: jaxnorm, jax, flax and what these require, nothing else."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "jaxnorm").symlink_to(ROOT / "jaxnorm")
    waiting, seen = [Requirement(line) for line in PROJECT["dependencies"]], set()
    while waiting:
        requirement = waiting.pop()
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        distribution = importlib.metadata.distribution(requirement.name)
        waiting += map(Requirement, distribution.requires or ())
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            link = folder / name
            if not link.exists():
                link.symlink_to(distribution.locate_file(name))

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(folder), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-S", *arguments]  # -S leaves the folder of all installed packages out
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)

    return run


CORE = """
import contextlib, io, pydoc, sys
import jaxnorm
from jaxnorm import *

assert "train" not in dir(jaxnorm) and "train" not in globals(), dir(jaxnorm)
with contextlib.redirect_stdout(io.StringIO()) as text:
    pydoc.help(jaxnorm)
assert "class BatchNorm" in text.getvalue() and 'pip install "jaxnorm[study]"' in text.getvalue()
import jax, jax.numpy as jnp
for layer in BatchNorm(False), BatchInstanceNorm(False), InstanceNorm(), LayerNorm(), GroupNorm(3), Conv(2, (3, 3)):
    y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 4, 4, 3)))
from jaxnorm.interop import from_torch, to_torch
assert from_torch(GroupNorm(3), to_torch(GroupNorm(3), GroupNorm(3).init(jax.random.key(0), y[..., :1] * jnp.ones(3))))
for name in "train", "Config":
    try:
        getattr(jaxnorm, name)
    except ImportError as error:
        print(name, error, sep=": ")
"""


def test_a_core_installation_has_the_library_and_says_what_the_study_needs(core):
    finished = core("-c", CORE)
    assert finished.returncode == 0, finished.stderr
    (line,) = finished.stdout.splitlines()
    assert line.startswith("train: jaxnorm.train needs the packages of the study, but ")
    assert line.endswith(' is missing; run: pip install "jaxnorm[study]"')


@pytest.mark.parametrize("arguments", [["--help"], ["report", "runs"], []], ids=" ".join)
def test_a_core_installation_s_command_line_is_one_line(core, arguments):
    finished = core("-m", "jaxnorm", *arguments)
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert 'pip install "jaxnorm[study]"' in line


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_library_imports_neither_the_study_nor_its_packages():
    package = ROOT / "jaxnorm"
    files = {file for file in package.rglob("*.py") if "study" not in file.parts}
    for file in files - {package / "__init__.py", package / "__main__.py"}:
        packages = {"functional": {"jax", "numpy"}, "norms": {"jax", "flax"}, "nnx": {"jax", "flax"}}.get(
            file.parent.name, {"jax", "flax", "jaxlib", "numpy"}
        )
        for name in imports(file):
            assert not name.startswith("jaxnorm.study"), (file, name)
            assert name.partition(".")[0] in packages | {"jaxnorm"} | sys.stdlib_module_names, (file, name)
