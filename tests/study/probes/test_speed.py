"""The speed of learning, and what goes with it, on published runs."""

import numpy as np
import pandas as pd
import pytest

from jaxnorm import read_study
from jaxnorm.study.probes.speed import at_initialization, correlations, learning_speed
from tests.study.probes.tables import layer_rows, plain_rows


@pytest.fixture(scope="module")
def digits():
    return read_study("results/digits_seeds")


def test_speed_is_the_mean_over_finished_seeds(digits):
    speed = learning_speed(digits).set_index("norm")
    losses = pd.read_csv("results/digits_seeds/epochs.csv").assign(norm=lambda rows: rows.run.str.rpartition("-")[0])
    mine = losses[losses.norm == "gn"]
    assert speed.seeds["gn"] == 10
    assert speed.curve["gn"] == pytest.approx(mine.val_loss.mean())
    for epoch in (1, 2):
        assert speed[f"epoch {epoch}"]["gn"] == pytest.approx(mine.val_loss[mine.epoch == epoch].mean())


def test_a_run_that_diverged_does_not_count(digits):
    status = digits.runs.status.mask(digits.runs.name == "gn-seed0", "diverged")
    speed = learning_speed(digits.with_runs(digits.runs.assign(status=status))).set_index("norm")
    assert (speed.seeds["gn"], speed.seeds["bn"]) == (9, 10)


def test_each_rate_is_a_setting_of_its_own():
    speed = learning_speed(read_study("results/digits_rates"))
    assert speed.groupby("tags").norm.nunique().to_dict() == {"lr0.03": 6, "lr0.1": 6, "lr0.3": 6}


def test_gradients_are_averaged_as_factors():
    probed = at_initialization(layer_rows({"bn": 2.0, "gn": 3.0}), plain_rows({"bn": 1.2, "gn": 1.0}))
    assert list(probed.index) == ["bn", "gn"]
    assert probed.stem_gradient["bn"] == pytest.approx(2.0)  # of 1 and 4
    assert probed.last_gradient["gn"] == pytest.approx(6.0)  # of 3 and 12
    assert np.isnan(probed.predicted["gn"])


def test_a_predictor_in_the_order_of_speed_has_rank_correlation_one(digits):
    speed = learning_speed(digits)
    stem = dict(zip(speed.norm, 1 / speed.curve, strict=True))
    probed = at_initialization(layer_rows(stem), plain_rows(stem))
    found = {(one["predictor"], one["measure"], one["norms"]): one for one in correlations(probed, speed)}
    best = found["stem_gradient", "curve", "all"]
    assert (best["rho"], best["pairs"]) == (pytest.approx(1), 8)
    assert ("stem_gradient", "curve", "new") not in found, "three norms are too few"
