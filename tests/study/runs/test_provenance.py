import dataclasses
import json
import sys

from jaxnorm.conv import kernels
from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs.provenance import differences, provenance, surroundings


def test_no_path_that_is_recorded_names_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/dump")
    monkeypatch.setattr(sys, "argv", ["/home/someone/jaxnorm/x.py", "--data-dir=/home/someone/data"])
    source = "the binary files in /home/someone/data, decoded copy in /home/someone/.cache/jaxnorm"
    found = provenance("Batch norm", dataclasses.replace(load_dataset("digits"), source=source))
    assert found["command"] == "python ~/jaxnorm/x.py --data-dir ~/data"
    assert found["data"]["source"] == "the binary files in ~/data, decoded copy in ~/.cache/jaxnorm"
    assert "/home/someone" not in json.dumps(found)


def test_other_convolutions_are_noted_and_not_refused(monkeypatch):
    dataset = load_dataset("digits")
    monkeypatch.setattr(kernels, "missing", lambda: None)
    found = {}
    for alone, whose in ((True, "jaxnorm"), (False, "XLA")):
        monkeypatch.setattr(kernels, "alone", lambda alone=alone: alone)
        found[whose] = surroundings(dataset)
        assert found[whose]["convolutions"] == whose
    assert differences(found["jaxnorm"], found["jaxnorm"]) == ([], [])
    assert differences(found["jaxnorm"], found["XLA"]) == ([], ["convolutions: jaxnorm -> XLA"])
    before = {name: value for name, value in found["XLA"].items() if name != "convolutions"}
    assert differences(before, found["XLA"]) == ([], []), "runs from before there was a choice go on"
