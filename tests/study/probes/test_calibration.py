"""Calibration against direct sums, and on predictions that are calibrated by construction."""

import itertools
import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from jaxnorm import read_study
from jaxnorm.study.probes.calibration import calibrated_error, calibration, calibration_error, reliability
from jaxnorm.study.probes.calibration_page import write_calibration
from tests.study.report.workdirs import write_workdir


def drawn(count, seed=7):
    draw = np.random.default_rng(seed)
    confidence = draw.uniform(0.1, 1, count)
    return confidence, draw.random(count) < confidence


def test_the_error_is_the_weighted_gap_of_each_bin():
    confidence, right = drawn(500)
    right = right & (np.arange(500) % 3 > 0)
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        mine = (confidence >= low) & (confidence < high)
        if mine.any():
            expected += mine.mean() * abs(confidence[mine].mean() - right[mine].mean())
    assert calibration_error(confidence, right) == pytest.approx(expected)


def test_a_network_that_is_always_sure_and_right_has_none():
    assert calibration_error(np.ones(5), np.ones(5, bool)) == 0
    assert calibration_error(np.ones(4), np.array([1, 0, 1, 0], bool)) == 0.5


@pytest.mark.parametrize("count", [200, 20_000])
def test_calibrated_predictions_have_the_error_of_calibrated_ones(count):
    confidence, _ = drawn(count)
    errors = [
        calibration_error(confidence, np.random.default_rng(seed).random(count) < confidence)
        for seed in range(100, 150)
    ]
    assert np.mean(errors) == pytest.approx(calibrated_error(confidence), rel=0.1)
    assert calibrated_error(confidence) < 1 / np.sqrt(count) * 3


def test_each_variant_of_a_study_is_measured(tmp_path):
    workdir = write_workdir(tmp_path / "study", norms=("bn", "gn"), seeds=range(4))
    study = read_study(workdir)
    found = calibration(study).set_index("variant")
    assert found.seeds.to_dict() == {"bn": 4, "gn": 4}
    logits = np.stack([np.load(workdir / f"gn-seed{seed}" / "predictions.npz")["logits"] for seed in range(4)])
    label = np.load(workdir / "gn-seed0" / "predictions.npz")["label"]
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    right = probability.argmax(-1) == label
    one, classes = found.loc["gn"], np.arange(logits.shape[-1])
    assert one.accuracy == pytest.approx(right.mean())
    assert one.nll == pytest.approx(np.mean([log_loss(label, mine, labels=classes) for mine in probability]), rel=1e-4)
    scores = [brier_score_loss(*pair) for pair in zip(right, probability.max(-1), strict=True)]
    assert one.brier == pytest.approx(np.mean(scores), rel=1e-4)
    for name in ("nll", "brier", "ece"):
        assert one[f"{name}_interval"].low <= one[name] <= one[f"{name}_interval"].high
    counts = reliability(study).groupby("norm")["count"].sum()
    assert counts.to_dict() == {"bn": right.size, "gn": right.size}


def test_a_publication_has_a_page(tmp_path):
    found = write_calibration(read_study("results/digits_seeds"), tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert [one["variant"] for one in content["variants"]] == list(found.variant)
    assert content["variants"][0]["ece_interval"][0] < content["variants"][0]["ece"]
    assert (tmp_path / "figures" / "reliability.png").exists()
    assert "Calibration" in (tmp_path / "report.md").read_text()
