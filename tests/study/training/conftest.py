import numpy as np
import pytest

from jaxnorm.study.data.dataset import Dataset, Split


@pytest.fixture(scope="session")
def tiny():
    """Random images whose brightness tells their class: learnable in a few steps, and quick to compile."""
    draw = np.random.default_rng(0)

    def split(count):
        label = draw.integers(0, 3, count).astype(np.int32)
        noise = draw.integers(0, 60, (count, 8, 8, 3))
        return Split(image=(noise + 60 * label[:, None, None, None]).astype(np.uint8), label=label)

    return Dataset(
        name="digits",
        description="random brightness",
        source="a random generator",
        fingerprint="0" * 64,
        train=split(24),
        validation=split(10),
        test=split(7),
        mean=(0.3, 0.3, 0.3),
        pad=1,
        flip=True,
        class_names=("dark", "grey", "bright"),
    )
