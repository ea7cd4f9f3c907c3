"""Trains batch norm and group norm at several batch sizes: `jaxnorm batch-sizes`.

    python experiments/batch_size_study.py                     # digits, batch sizes 128 and 8, minutes on 2 cores
    python experiments/batch_size_study.py --preset study --batch-sizes 128 64 32 16 8 4 2  # an accelerator

Expect batch norm to lose to group norm at the smallest batches.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout works without being installed

from jaxnorm.__main__ import main

if __name__ == "__main__":
    main("batch-sizes")
