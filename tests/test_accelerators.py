"""The study's programs compile for an H100, in an environment with JAX's CUDA wheels that needs no GPU."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from jaxnorm.study.config import DEFAULT_NORMS

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.accelerators
NORMS = (*DEFAULT_NORMS, "bin_frozen")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Kernels by variant and program, and the programs' texts."""
    folder = tmp_path_factory.mktemp("programs")
    command = [os.environ["JAXNORM_ACCELERATORS"], ROOT / "benchmarks" / "aot.py", "--norms", *NORMS]
    command += ["--json", folder / "kernels.json", "--text", folder / "text"]
    subprocess.run(command, check=True, timeout=3600, cwd=ROOT)
    results = json.loads((folder / "kernels.json").read_text())["results"]
    kernels = {(entry["norm"], entry["program"]): sum(entry["kernels"].values()) for entry in results}
    return kernels, {path.stem: path.read_text() for path in (folder / "text").iterdir()}


def test_every_variant_trains_and_evaluates_in_one_program(compiled):
    kernels, texts = compiled
    assert set(kernels) == {(norm, program) for norm in NORMS for program in ("train", "evaluate")}
    assert len(texts) == 2 * len(NORMS)
    assert all(" while(" in texts[f"{norm}-train"] for norm in NORMS)


def test_no_program_calls_what_only_a_cpu_has(compiled):
    _, texts = compiled
    targets = {target for text in texts.values() for target in re.findall('custom_call_target="([^"]*)"', text)}
    assert targets and not [target for target in targets if target.startswith(("jaxnorm", "__onednn", "__ynn"))]


def test_our_batch_norm_costs_no_more_kernels_than_flaxs(compiled):
    kernels, _ = compiled
    assert kernels["bn", "train"] <= 1.05 * kernels["flax_bn", "train"]
