"""Records how the features of every layer are distributed after each epoch: `jaxnorm features`.

    python experiments/feature_evolution.py                             # digits, minutes on 2 cores
    python experiments/feature_evolution.py --preset study --seeds 0    # CIFAR-10, 100 epochs, on an accelerator

Expect features that grow without normalization and stay in one range with it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout works without being installed

from jaxnorm.__main__ import main

if __name__ == "__main__":
    main("features")
