import numpy as np
import pytest

from jaxnorm.study.training.metrics import measure


def test_metrics_by_hand():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]], np.float32))
    metrics = measure(logits, np.array([0, 1, 1, 0]))
    assert metrics.accuracy == metrics.micro_f1 == 0.5
    # class 0: precision 1/2, recall 1/2; class 1: precision 1, recall 1/2; class 2: no true image
    assert metrics.macro_f1 == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert metrics.loss == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.2]).mean(), rel=1e-6)
    assert metrics.confusion_matrix == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert metrics.num_images == 4


def test_large_logits_do_not_overflow():
    assert measure(np.array([[1e4, 0.0]], np.float32), np.array([1])).loss == pytest.approx(1e4)
