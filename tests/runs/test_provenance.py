import dataclasses
import json
import sys

from jaxnorm.data import load_dataset
from jaxnorm.runs.provenance import provenance


def test_no_path_that_is_recorded_names_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/dump")
    monkeypatch.setattr(sys, "argv", ["/home/someone/jaxnorm/x.py", "--data-dir=/home/someone/data"])
    source = "the binary files in /home/someone/data, decoded copy in /home/someone/.cache/jaxnorm"
    found = provenance("Batch norm", dataclasses.replace(load_dataset("digits"), source=source))
    assert found["command"] == "python ~/jaxnorm/x.py --data-dir ~/data"
    assert found["data"]["source"] == "the binary files in ~/data, decoded copy in ~/.cache/jaxnorm"
    assert "/home/someone" not in json.dumps(found)
