import dataclasses
import json
import sys

import pytest

from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs.provenance import differences, provenance

NOW = {
    "versions": {"python": "3.11.7", "jax": "0.10.1"},
    "device": {"platform": "cpu", "kind": "EPYC", "count": 1, "cores": 2},
    "xla_flags": "",
    "matmul_precision": "default",
    "convolutions": "jaxnorm",
    "data": {"fingerprint": "f" * 64},
    "git": {"commit": "a" * 40, "dirty": False},
    "imported_norms": {"mine": "b" * 64},
}


def test_no_path_that_is_recorded_names_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/dump")
    monkeypatch.setattr(sys, "argv", ["/home/someone/jaxnorm/x.py", "--data-dir=/home/someone/data"])
    source = "the binary files in /home/someone/data, decoded copy in /home/someone/.cache/jaxnorm"
    found = provenance("Batch norm", dataclasses.replace(load_dataset("digits"), source=source))
    assert found["command"] == "python ~/jaxnorm/x.py --data-dir ~/data"
    assert found["data"]["source"] == "the binary files in ~/data, decoded copy in ~/.cache/jaxnorm"
    assert "/home/someone" not in json.dumps(found)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("data", {"fingerprint": "e" * 64}, "data fingerprint: ffffffffffff... -> eeeeeeeeeeee..."),
        ("versions", {"python": "3.11.7", "jax": "0.12.0"}, "jax: 0.10.1 -> 0.12.0"),
        ("xla_flags", "--a", "xla_flags: none -> --a"),
        ("matmul_precision", "highest", "matmul_precision: default -> highest"),
        ("device", {"platform": "gpu"}, "device platform: cpu -> gpu"),
        ("imported_norms", {"mine": "c" * 64, "new": ""}, "file of norm mine: bbbbbbbbbbbb... -> cccccccccccc..."),
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
        ("convolutions", "XLA", ["convolutions: jaxnorm -> XLA"]),
    ],
)
def test_changes_of_last_bits_come_second(field, value, words):
    assert differences(NOW, {**NOW, field: value}) == ([], words)


def test_what_was_not_recorded_is_no_difference():
    assert differences({}, NOW) == ([], [])
    assert differences(NOW, {**NOW, "git": {"commit": None, "dirty": None}}) == ([], [])
