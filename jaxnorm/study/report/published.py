"""The original paper's own numbers: Singh and Mittal, "Normalizations in Deep Learning"; one seed each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxnorm.study.config import unusual

SOURCE = "H. Singh, S. Mittal, Normalizations in Deep Learning (github.com/HarmanDotpy/Normalizations-in-Deep-Learning)"


@dataclass(frozen=True)
class Published:
    """One variant of the original paper after 100 epochs on CIFAR-10.

    Attributes:
        train: accuracy on the training images, a fraction.
        validation: accuracy on the validation images.
        test: accuracy on the test images.
        feature_quantiles: 1, 20, 80 and 99 % quantiles of the pooled features, read off the plots.
    """

    train: float
    validation: float
    test: float
    feature_quantiles: tuple[float, float, float, float] | None


PUBLISHED: Mapping[str, Published] = {
    "flax_bn": Published(0.970, 0.881, 0.879, (0.04, 0.3, 1.3, 3.5)),
    "none": Published(0.915, 0.833, 0.849, (0.0, 0.25, 2.05, 7.0)),
    "bn": Published(0.977, 0.880, 0.878, (0.05, 0.35, 1.55, 3.4)),
    "in": Published(0.923, 0.851, 0.847, (0.48, 0.78, 1.23, 1.66)),
    "bin": Published(0.977, 0.876, 0.881, None),  # "as BN"
    "ln": Published(0.911, 0.849, 0.849, (0.0, 0.17, 0.83, 2.3)),
    "gn": Published(0.937, 0.861, 0.858, (0.0, 0.16, 0.96, 1.9)),
}


def published_for(recipe: Mapping[str, Any]) -> Mapping[str, Published]:
    """By norm: the paper's values; none where the `recipe` has another data set than its own, CIFAR-10."""
    return PUBLISHED if recipe.get("dataset") == "cifar10" else {}


def comparable(recipe: Mapping[str, Any], epoch: int | None) -> bool:
    """Whether a difference from the paper means something: a `recipe` as its own, and `epoch` its last."""
    protocol = {"dataset": "cifar10", "num_epochs": 100, "batch_size": 128, "learning_rate": 0.1}
    return epoch == 100 and not unusual(recipe) and all(recipe.get(key) == value for key, value in protocol.items())


BEST_VALIDATION = {("bn", 128): 0.88, ("bn", 8): 0.88, ("gn", 128): 0.86, ("gn", 8): 0.85}
"""The paper's best validation accuracy by norm and batch size, on CIFAR-10, one seed each."""
GROUP_NORM_PAPER = (
    "Wu and He, Group Normalization (arXiv 1803.08494), ResNet-50 on ImageNet, validation error at 32, 16, 8, 4 and 2 "
    "images per worker: batch norm 23.6, 23.7, 24.8, 27.3 and 34.7 %; group norm 24.1, 24.2, 24.0, 24.2 and 24.1 %."
)
