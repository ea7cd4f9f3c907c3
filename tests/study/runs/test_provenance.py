import dataclasses
import json
import subprocess
import sys

import pytest

from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs.provenance import differences, provenance, surroundings
from tests.drivers import ROOT, environment

NOW = {
    "versions": {"python": "3.11.7", "jax": "0.10.1"},
    "device": {"platform": "cpu", "kind": "EPYC", "count": 1, "cores": 2},
    "options": {"jax_enable_x64": False, "jax_default_matmul_precision": None},
    "environment": {},
    "convolutions": "jaxnorm",
    "compiler": "c++ 12",
    "data": {"fingerprint": "f" * 64},
    "git": {"commit": "a" * 40, "dirty": False},
    "imported": {"mine.py": "b" * 64},
}


def test_no_path_that_is_recorded_names_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/dump")
    monkeypatch.setattr(sys, "argv", ["/home/someone/jaxnorm/x.py", "--data-dir=/home/someone/data"])
    source = "the binary files in /home/someone/data, decoded copy in /home/someone/.cache/jaxnorm"
    data = dataclasses.replace(load_dataset("digits"), source=source).to_json()
    found = provenance("Batch norm", surroundings(data))
    assert found["command"] == "python ~/jaxnorm/x.py --data-dir ~/data"
    assert found["data"]["source"] == "the binary files in ~/data, decoded copy in ~/.cache/jaxnorm"
    assert "/home/someone" not in json.dumps(found)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("data", {"fingerprint": "e" * 64}, "data fingerprint: ffffffffffff... -> eeeeeeeeeeee..."),
        ("versions", {"python": "3.11.7", "jax": "0.12.0"}, "jax: 0.10.1 -> 0.12.0"),
        ("environment", {"XLA_FLAGS": "--a"}, "XLA_FLAGS: none -> --a"),
        ("options", {"jax_enable_x64": True, "new": 1}, "jax_enable_x64: False -> True"),
        ("options", {"jax_default_matmul_precision": "highest"}, "jax_default_matmul_precision: none -> highest"),
        ("device", {"platform": "gpu"}, "device platform: cpu -> gpu"),
        ("convolutions", "XLA", "convolutions: jaxnorm -> XLA"),
        ("imported", {"mine.py": "c" * 64, "new": ""}, "imported mine.py: bbbbbbbbbbbb... -> cccccccccccc..."),
    ],
)
def test_changes_that_decide_the_numbers_come_first(field, value, words):
    assert differences(NOW, NOW) == ([], [])
    assert differences(NOW, {**NOW, field: value}) == ([words], [])


@pytest.mark.parametrize(
    "field, value, words",
    [
        (
            "device",
            {"platform": "cpu", "kind": "Xeon", "count": 1, "cores": 8},
            ["device kind: EPYC -> Xeon", "device cores: 2 -> 8"],
        ),
        ("git", {"commit": "c" * 40, "dirty": True}, ["commit: aaaaaaa -> ccccccc"]),
        ("compiler", "c++ 13", ["compiler: c++ 12 -> c++ 13"]),
    ],
)
def test_what_is_only_noted_comes_second(field, value, words):
    assert differences(NOW, {**NOW, field: value}) == ([], words)


def test_a_folder_without_git_is_no_difference():
    assert differences(NOW, {**NOW, "git": {"commit": None, "dirty": None}}) == ([], [])


RECORD = """
import json, sys
from jaxnorm.study.cli.imports import load
for name in sys.argv[1:]:
    load(name)
from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs.provenance import surroundings
print(json.dumps(surroundings(load_dataset("digits").to_json())))
"""


def recorded(tmp_path, *imports, **variables):
    """The surroundings in a process of its own."""
    clean = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RECORD, *imports]
    done = subprocess.run(command, cwd=tmp_path, env=clean | variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


NORM = """
import flax.linen as nn
from jaxnorm import register_norm
import helper

def build(*, train, axis_name, dtype, name):
    import lazily
    return helper.Half(name=name)

register_norm("half", build)
"""
HELPER = """
import flax.linen as nn

class Half(nn.Module):
    @nn.compact
    def __call__(self, x):
        import deep
        return x * deep.FACTOR
"""


def test_whatever_changes_numbers_is_recorded_however_it_is_set(tmp_path):
    (tmp_path / "flags").write_text("--xla_cpu_multi_thread_eigen=false")
    (tmp_path / "config.py").write_text("import jax\njax.config.update('jax_random_seed_offset', 3)\n")
    (tmp_path / "norm.py").write_text(NORM)
    (tmp_path / "helper.py").write_text(HELPER)
    for name in ("lazily", "deep"):
        (tmp_path / f"{name}.py").write_text("FACTOR = 0.5\n")
    before = recorded(tmp_path, "config.py", "norm.py", XLA_FLAGS="")
    assert set(before["imported"]) == {"config.py", "norm.py", "helper", "lazily", "deep"}
    assert before["options"]["jax_random_seed_offset"] == 3
    variables = {
        **dict(JAX_DEFAULT_PRNG_IMPL="rbg", JAX_THREEFRY_PARTITIONABLE="0", JAX_ENABLE_X64="1"),
        **dict(JAX_DEFAULT_MATMUL_PRECISION="highest", FLAX_FIX_RNG_SEPARATOR="1", JAXNORM_KERNELS="off"),
        **dict(XLA_FLAGS="flags", ONEDNN_DEFAULT_FPMATH_MODE="BF16"),
    }
    (tmp_path / "deep.py").write_text("FACTOR = 0.6\n")
    changed, _ = differences(before, recorded(tmp_path, "norm.py", **variables))
    assert sorted(text.partition(":")[0] for text in changed) == sorted(
        [*("ONEDNN_DEFAULT_FPMATH_MODE", "XLA_FLAGS", "convolutions", "flax_fix_rng_separator", "imported deep")]
        + [f"jax_{name}" for name in ("default_matmul_precision", "default_prng_impl", "enable_x64")]
        + [f"jax_{name}" for name in ("random_seed_offset", "threefry_partitionable")]
    )
    assert "XLA_FLAGS: none -> --xla_cpu_multi_thread_eigen=false" in changed
