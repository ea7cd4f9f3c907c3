"""Trains every variant and records how the features of every layer are distributed after each epoch.

    python experiments/feature_evolution.py                             # digits, minutes on 2 cores
    python experiments/feature_evolution.py --preset study --seeds 0    # CIFAR-10, 100 epochs, on an accelerator

Recorded are exact quantiles over the whole validation set, in evaluation mode: of the pooled features, as the original
paper draws them, and of every convolution's output before norm and ReLU, as the Group Normalization paper does. Expect
features that grow without normalization and stay in one range with it. Runs that are recorded are not trained again.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout works without being installed

from jaxnorm.study.cli import driver, entry, options


@dataclasses.dataclass(frozen=True)
class Options(options.Options):
    """Flags of the feature evolution."""

    workdir: Path = Path("runs/feature_evolution")
    """Folder for the runs, tables, figures and the report. The same command there continues where it stopped."""
    record_features: Literal["pooled", "all"] = "all"
    """Quantiles after each epoch of the pooled features alone, or of every convolution's output too."""


def main() -> int:
    """Trains and records, and returns the exit code."""
    return driver.drive(options.parse(Options, description=__doc__), study="feature_evolution")


if __name__ == "__main__":
    entry.run(main)
