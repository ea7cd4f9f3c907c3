"""Fixtures that build workdirs for a test, or once for all tests that only read them."""

from pathlib import Path

import pytest

from tests.study.report.workdirs import write_batch_workdir, write_rates_workdir, write_workdir


@pytest.fixture
def make_workdir(tmp_path):
    """Builds a workdir below the test's own folder."""

    def make(name: str = "study", **options) -> Path:
        return write_workdir(tmp_path / name, **options)

    return make


WRITERS = {"batches": write_batch_workdir, "rates": write_rates_workdir}


@pytest.fixture
def make_grid(tmp_path):
    """As make_workdir, for a grid of settings: "batches" or "rates"."""

    def make(kind: str, **options) -> Path:
        return WRITERS[kind](tmp_path / kind, **options)

    return make


@pytest.fixture(scope="session")
def session_workdir(tmp_path_factory):
    """As make_workdir and make_grid, for a workdir that several tests read and none changes."""
    made: dict[str, Path] = {}

    def make(name: str, *, kind: str = "", **options) -> Path:
        if name not in made:
            made[name] = WRITERS.get(kind, write_workdir)(tmp_path_factory.mktemp(name), **options)
        return made[name]

    return make


FEATURES = dict(
    norms=("none", "bn", "bin", "bin_frozen"), study="feature_evolution", record_features="all", num_epochs=5
)
BATCHES = dict(kind="batches", sizes=(128, 8, 2), ghosts=(8, 2))


@pytest.fixture(scope="session")
def features_workdir(session_workdir):
    """A feature-evolution study of four norms with all their layers."""
    return session_workdir("features", **FEATURES)


@pytest.fixture(scope="session")
def batches_workdir(session_workdir):
    """A batch-size study of two norms with ghosts."""
    return session_workdir("batches", **BATCHES)


@pytest.fixture(scope="session")
def rates_workdir(session_workdir):
    """A comparison of three norms at three learning rates."""
    return session_workdir("rates", kind="rates")
