"""The evolution of features: ``jaxnorm features`` and ``experiments/feature_evolution.py``."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxnorm.study.cli.driver import Driver


@dataclasses.dataclass(frozen=True)
class Features(Driver):
    """Flags of the feature evolution."""

    study = "feature_evolution"
    summary = "Records how every layer's features change during training."
    details = """
    {program}                           # digits, minutes
    {program} --preset study --seeds 0  # CIFAR-10

Recorded are exact quantiles over the whole validation set, in evaluation mode: of the pooled features, as the original
paper draws them, and of every convolution's output before norm and ReLU, as the Group Normalization paper does. Expect
features that grow without normalization and stay in one range with it. Runs that are recorded are not trained again."""

    workdir: Path = Path("runs/feature_evolution")
    """Folder for the runs, tables, figures and the report. The same command there continues where it stopped."""
    record_features: Literal["pooled", "all"] = "all"
    """Quantiles after each epoch of the pooled features alone, or of every convolution's output too."""
