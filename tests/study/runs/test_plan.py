"""What is said before runs train."""

import io
import re

import pytest
from rich.console import Console

from jaxnorm.conv import kernels
from jaxnorm.study.config import Config
from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs.plan import Machine, announce, examine, seconds_for

DIGITS = load_dataset("digits")
GRID = [Config(norm=norm, seed=seed, num_epochs=2) for seed in (0, 1) for norm in ("bn", "gn")]


def machine(platform="cpu", num_devices=1, without_kernels=None):
    return Machine({"device": {"platform": platform, "cores": 3}}, num_devices, 1e-4, without_kernels)


def steps_of(*configs):
    return {config: config.num_epochs * (len(DIGITS.train) // config.batch_size) for config in configs}


def announced(tmp_path, todo=GRID, where=None, **options):
    console = Console(file=io.StringIO(), width=200)
    announce(GRID, steps_of(*todo), DIGITS, where or machine(), tmp_path, console, **options)
    return dict(line.split(": ", 1) for line in console.file.getvalue().splitlines())


def test_the_plan_counts_what_is_trained_and_what_is_done(tmp_path):
    found = announced(tmp_path, GRID[1:])
    plan = re.findall(r"\w+", found["Plan"])
    assert [word for word in plan if word.isdigit()] == ["4", "2", "32", "0", "1"], "runs, epochs, batch size, seeds"
    assert {"bn", "gn"} < set(plan)
    assert re.findall(r"\d+", found["Done"]) == ["1", "4"]
    assert found["Into"] == str(tmp_path)
    assert "Jobs" not in found and "Convolutions" not in found
    assert "Time" not in announced(tmp_path, [])


@pytest.mark.parametrize(
    "where, numbers",
    [(machine(), ["2", "3"]), (machine("gpu", 4), ["2"]), (machine("gpu", 1), ["2", "1"])],
    ids=["cores for each", "a device for each", "devices that are shared"],
)
def test_the_plan_says_what_each_of_several_jobs_has(tmp_path, where, numbers):
    assert re.findall(r"\d+", announced(tmp_path, where=where, jobs=2)["Jobs"]) == numbers


def test_the_plan_says_why_the_kernels_are_missing_and_what_that_costs(tmp_path):
    found = announced(tmp_path, where=machine(without_kernels="there is no C++ compiler"))
    assert "there is no C++ compiler" in found["Convolutions"]
    assert kernels.COST in found["Convolutions"]


def test_the_time_grows_with_epochs_and_runs_and_leaves_out_what_is_trained():
    longer = steps_of(Config(norm="bn", num_epochs=20))
    resumed = {config: steps // 2 for config, steps in longer.items()}
    times = [seconds_for(steps, DIGITS, 1e-3) for steps in (steps_of(GRID[0]), steps_of(*GRID), resumed, longer)]
    assert times == sorted(set(times))


def test_this_machine_is_examined():
    found = examine(DIGITS.to_json())
    assert found.platform == "cpu"
    assert found.num_devices == 8
    assert found.seconds_per_image > 0
    assert found.surroundings["data"]["fingerprint"] == DIGITS.fingerprint
