"""Epochs as TensorBoard events, read back from the files' records."""

import json
import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxnorm import Config
from jaxnorm.errors import UserError
from jaxnorm.study.runs.progress import Progress
from jaxnorm.study.runs.tensorboard import SCALARS, also_tensorboard, writer_package
from jaxnorm.study.runs.workdir import Workdir
from tests.study.report.workdirs import write_workdir


def scalars(folder):
    """(tag, step): values, of all event files in a folder."""
    found = {}
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            for value in Event.FromString(content[12 : 12 + size]).summary.value:
                step = Event.FromString(content[12 : 12 + size]).step
                found.setdefault((value.tag, step), []).append(value.simple_value)
            content = content[16 + size :]
    return found


class Heard(Progress):
    def __init__(self):
        self.calls = []

    def begin(self, config, steps_per_epoch):
        self.calls.append("begin")

    def epoch(self, config, row):
        self.calls.append(row["epoch"])

    def end(self, config, outcome):
        self.calls.append(outcome)


@pytest.fixture
def study(tmp_path):
    path = write_workdir(tmp_path / "w", norms=("bn", "gn"), num_epochs=4, fates={("gn", 0): ("unfinished", 2)})
    return Workdir(path, "compare_norms"), [Config(norm=norm, num_epochs=4) for norm in ("bn", "gn")]


def rows_of(workdir, config):
    lines = (workdir.path / config.name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def expected(rows):
    found = {(tag, row["step"]): [pytest.approx(row[name])] for row in rows for tag, name in SCALARS.items()}
    for row in rows:
        for percent, value in zip((1, 20, 80, 99), row["feature_quantiles"], strict=True):
            found[f"features/quantile_{percent}", row["step"]] = [pytest.approx(value)]
    return found


def test_finished_runs_are_written_once(study):
    workdir, configs = study
    for _ in range(2):
        with also_tensorboard(Progress(), configs, workdir):
            pass
        assert [path.name for path in (workdir.path / "tensorboard").iterdir()] == ["bn-seed0"]
        assert scalars(workdir.path / "tensorboard" / "bn-seed0") == expected(rows_of(workdir, configs[0]))


def test_a_run_that_goes_on_has_each_epoch_once(study):
    workdir, (_, config) = study
    rows, heard = rows_of(workdir, config), Heard()
    more = dict(rows[-1], epoch=3, step=rows[-1]["step"] + 33)
    for _ in range(2):  # as if the third epoch had been lost with the machine
        with also_tensorboard(heard, [config], workdir) as board:
            board.begin(config, 33)
            board.resume(config, rows[-1]["step"])
            board.epoch(config, more)
            board.end(config, "over")
    assert scalars(workdir.path / "tensorboard" / "gn-seed0") == expected([*rows, more])
    assert heard.calls == ["begin", 3, "over"] * 2


def test_without_the_package_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="--tensorboard needs tensorboardX.*pip install tensorboardX"):
        writer_package()
