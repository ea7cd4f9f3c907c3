"""What several processes do when one is lost; tests/durability has them for real."""

import jax
import pytest

from jaxnorm.errors import ProcessLost
from jaxnorm.study.config import Config
from jaxnorm.study.runs import shared

CONFIG = Config(norm="gn")


def test_a_crash_is_in_all_processes_or_ends_the_run(monkeypatch):
    error = RuntimeError("a connection, of all words")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(shared, "barrier", lambda name: name == "crash of gn-seed0")
    shared.check_all_crashed(CONFIG, error)
    monkeypatch.setattr(shared, "barrier", lambda name: False)
    with pytest.raises(ProcessLost, match="gn-seed0 has crashed in process 0 alone .RuntimeError: a conn") as caught:
        shared.check_all_crashed(CONFIG, error)
    shared.raise_if_lost(caught.value)  # reported already, and not the loss of another process
    with pytest.raises(ProcessLost, match="another process of this run is gone .a connection"):
        shared.raise_if_lost(error)


def test_with_one_process_nothing_is_lost_and_everything_is_selected():
    shared.check_all_crashed(CONFIG, RuntimeError())
    shared.raise_if_lost(RuntimeError("a connection"))
    configs = [Config(norm=norm) for norm in ("bn", "gn", "ln")]
    assert shared.broadcast_selection(configs, configs[1:]) == configs[1:]
