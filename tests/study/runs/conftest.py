"""Run directories without training."""

import pytest

from jaxnorm import files
from jaxnorm.study.data import load_dataset


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture
def begin(digits):
    """Begins runs in a workdir; with a `status` they end with it, in epoch `epoch` of which every line is there."""

    def begin(workdir, *configs, provenance=None, status=None, epoch=0):
        workdir.path.mkdir(exist_ok=True)
        workdir.describe(configs, preset="quick", command="python x.py")
        for config in configs:
            run = workdir.directory(config)
            run.begin(digits, provenance or {"data": {"fingerprint": digits.fingerprint}})
            for done in range(1, epoch + 1):
                run.append({"epoch": done, "step": done, **dict.fromkeys(COLUMNS, 0.5)})
            if status is not None:
                (run.path / "predictions.npz").write_bytes(b"")
                files.write_json(run.path / "result.json", {"status": status, "epoch": epoch})
        return workdir

    return begin


COLUMNS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
