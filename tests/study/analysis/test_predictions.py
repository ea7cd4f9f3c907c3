import dataclasses

import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.analysis.predictions import Predictions, read_predictions, write_predictions


def predictions_with(probability, label):
    return Predictions.from_logits(np.log(np.asarray(probability, dtype=np.float32)), np.asarray(label, dtype=np.int32))


def test_likelihood_and_calibration_by_hand():
    found = predictions_with([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0])
    assert found.correct.tolist() == [1, 0, 1]
    assert found.negative_log_likelihood == pytest.approx(-np.log([0.8, 0.2, 0.6]).mean(), rel=1e-6)
    # with 5 bins: 0.8 and 0.8 in one (accuracy 0.5), 0.6 in another (accuracy 1)
    assert found.expected_calibration_error(bins=5) == pytest.approx((2 * 0.3 + 1 * 0.4) / 3, rel=1e-5)


def test_likelihood_survives_huge_logits():
    found = Predictions.from_logits(np.array([[1e4, 0.0], [0.0, 1e4]], np.float32), np.array([0, 0], np.int32))
    assert found.negative_log_likelihood == 5000.0
    assert found.expected_calibration_error() == pytest.approx(0.5)  # surely right once, surely wrong once


def test_perfectly_calibrated_is_nearly_zero():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    label = (rng.random(200_000) > confidence).astype(np.int32)
    found = predictions_with(np.stack([confidence, 1 - confidence], axis=1), label)
    assert found.expected_calibration_error() < 0.005


def test_logits_that_are_not_finite_give_nan_not_an_error():
    found = Predictions.from_logits(np.array([[np.nan, 0.0], [np.inf, 0.0]], np.float32), np.array([0, 0], np.int32))
    assert np.isnan(found.negative_log_likelihood)
    assert np.isnan(found.expected_calibration_error())


def test_absent_file_is_none(tmp_path):
    assert read_predictions(tmp_path / "predictions.npz") is None


def test_what_is_published_gives_the_same_numbers_in_a_fifth_of_the_bytes(tmp_path):
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 3, (10_000, 10)).astype(np.float32), rng.integers(0, 10, 10_000).astype(np.int32)
    np.savez_compressed(tmp_path / "logits.npz", logits=logits, label=label)
    original = read_predictions(tmp_path / "logits.npz")
    write_predictions(tmp_path / "published.npz", original)
    published = read_predictions(tmp_path / "published.npz")
    assert np.array_equal(published.correct, logits.argmax(1) == label)
    assert published.negative_log_likelihood == original.negative_log_likelihood
    assert published.expected_calibration_error() == original.expected_calibration_error()
    assert (tmp_path / "published.npz").stat().st_size < (tmp_path / "logits.npz").stat().st_size / 4
    write_predictions(tmp_path / "again.npz", published)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "published.npz").read_bytes()


def test_a_published_file_whose_arrays_do_not_fit_is_refused(tmp_path):
    whole = Predictions.from_logits(np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
    write_predictions(tmp_path / "cut.npz", dataclasses.replace(whole, confidence=whole.confidence[:3]))
    with pytest.raises(UserError, match=r"cut\.npz.*do not belong together"):
        read_predictions(tmp_path / "cut.npz")


@pytest.mark.parametrize("damage", ["truncated", "text", "pickle", "no label", "label out of range", "shapes"])
def test_damage_is_one_line_that_names_the_file(tmp_path, damage):
    path = tmp_path / "predictions.npz"
    logits, label = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)
    if damage == "truncated":
        np.savez(path, logits=logits, label=label)
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "pickle":
        np.savez(path, logits=np.array([{}, {}], dtype=object), label=label)
    elif damage == "no label":
        np.savez(path, logits=logits)
    elif damage == "label out of range":
        np.savez(path, logits=logits, label=label + 3)
    else:
        np.savez(path, logits=logits, label=label[:3])
    with pytest.raises(UserError) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
