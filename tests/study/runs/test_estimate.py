import pytest

from jaxnorm.study.config import Config
from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs import estimate
from jaxnorm.study.runs.estimate import COMPILE_SECONDS, seconds_for

CONFIGS = [Config(norm="bn", seed=seed) for seed in (0, 1)]


def test_runs_spread_over_devices_take_their_part_of_the_time(monkeypatch):
    monkeypatch.setattr(estimate, "_probe", lambda size: 1e-3)
    digits = load_dataset("digits")
    alone, both, spread = (
        seconds_for(configs, digits, devices) - COMPILE_SECONDS
        for configs, devices in ((CONFIGS[:1], None), (CONFIGS, None), (CONFIGS, dict.fromkeys(CONFIGS, 2)))
    )
    assert both == pytest.approx(2 * alone)
    assert spread == pytest.approx(alone)
