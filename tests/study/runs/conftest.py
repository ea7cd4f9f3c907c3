"""Run directories without training."""

import pytest

from jaxnorm.study.data import load_dataset
from tests.study.report.workdirs import DIGITS, provenance_of, write_run


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture
def begin():
    """Begins runs in a workdir; with a `status` they end with it, after `epoch` epochs."""

    def begin(workdir, *configs, status="unfinished", epoch=0, **provenance):
        workdir.path.mkdir(exist_ok=True)
        workdir.describe(configs, preset="quick", command="python x.py")
        for config in configs:
            write_run(workdir, config, (status, epoch), **provenance)
        return workdir

    return begin


@pytest.fixture
def now():
    """Surroundings as `begin` records them, with other `changes`."""

    def now(**changes):
        return provenance_of(None, DIGITS, "x") | changes

    return now
