"""Workdirs as the drivers leave them, made of plausible numbers instead of training."""

import json
from pathlib import Path

import numpy as np
import pytest

LABELS = {
    "flax_bn": "Flax batch norm",
    "none": "No normalization",
    "bn": "Batch norm",
    "in": "Instance norm",
    "bin": "Batch-instance norm",
    "ln": "Layer norm",
    "gn": "Group norm",
    "bin_frozen": "Batch-instance norm, gate frozen",
}
NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")
#       final train, validation accuracy; epochs to learn; feature quantiles at the end
SHAPES = {
    "flax_bn": (0.970, 0.881, 0.10, (0.04, 0.3, 1.3, 3.5)),
    "none": (0.915, 0.833, 0.22, (0.0, 0.25, 2.05, 30.0)),
    "bn": (0.970, 0.881, 0.10, (0.05, 0.35, 1.55, 3.4)),
    "in": (0.923, 0.851, 0.13, (0.48, 0.78, 1.23, 1.66)),
    "bin": (0.977, 0.884, 0.09, (0.05, 0.35, 1.55, 3.4)),
    "ln": (0.911, 0.849, 0.15, (0.0, 0.17, 0.83, 2.3)),
    "gn": (0.937, 0.861, 0.13, (0.0, 0.16, 0.96, 1.9)),
}
DIGITS = {
    "name": "digits",
    "description": "scikit-learn digits",
    "source": "scikit-learn 1.7.2, sklearn.datasets.load_digits",
    "num_train": 1077,
    "num_validation": 360,
    "num_test": 360,
    "class_names": [str(k) for k in range(10)],
    "image_shape": [16, 16, 3],
}
CIFAR10 = {
    "name": "cifar10",
    "description": "CIFAR-10 (JPEG q75 re-encoding)",
    "source": "/home/someone/data/cifar-10-batches-bin (binary files)",
    "num_train": 40_000,
    "num_validation": 10_000,
    "num_test": 10_000,
    "class_names": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "image_shape": [32, 32, 3],
}


def evaluation(confusion: np.ndarray, loss: float) -> dict:
    """One split of result.json from its confusion matrix."""
    hits = np.diag(confusion)
    f1 = 2 * hits / (confusion.sum(0) + confusion.sum(1))
    accuracy = float(hits.sum() / confusion.sum())
    return {
        "accuracy": accuracy,
        "micro_f1": accuracy,
        "macro_f1": float(f1.mean()),
        "loss": loss,
        "num_images": int(confusion.sum()),
        "confusion_matrix": confusion.tolist(),
    }


def confusion_of(rng: np.random.Generator, accuracy: float, num_images: int) -> np.ndarray:
    label = np.arange(num_images) % 10
    guess = np.where(rng.random(num_images) < accuracy, label, (label + rng.choice([1, 2, 3, 7], num_images)) % 10)
    return np.bincount(label * 10 + guess, minlength=100).reshape(10, 10)


def write_run(
    workdir: Path, norm: str, seed: int, recipe: dict, *, status: str = "complete", keep: int | None = None, label=None
) -> None:
    """One run directory; `status` may also be "unfinished" or "missing"; `keep` is how many epochs it reached."""
    if status == "missing":
        return
    data = CIFAR10 if recipe["dataset"] == "cifar10" else DIGITS
    # bn and flax_bn share their noise, as the layers do
    rng = np.random.default_rng([seed, {"flax_bn": 1, "bn": 1}.get(norm, len(norm) + ord(norm[0]))])
    train, val, speed, quantiles = SHAPES.get(norm, (0.95, 0.87, 0.12, (0.1, 0.4, 1.2, 2.5)))
    if data is DIGITS:
        train, val, speed = train + 0.02, min(val + 0.1, 0.985), speed * 1.2
    train, val = train + rng.normal(0, 0.001), val + rng.normal(0, 0.002)
    num_epochs = recipe["num_epochs"]
    last = min(recipe["stop_after_epoch"] or num_epochs, num_epochs)
    steps = data["num_train"] // recipe["batch_size"]
    directory = workdir / f"{norm}-seed{seed}"
    directory.mkdir(parents=True)
    lines = []
    for epoch in range(1, (last if keep is None else keep) + 1):
        t = epoch / num_epochs
        rise = 1 - np.exp(-t / speed * (0.25 if t < 0.75 else 1))
        train_accuracy = 0.1 + (train - 0.1) * rise
        val_accuracy = 0.1 + (val - 0.1) * rise + rng.normal(0, 0.012) * (t < 0.75)
        if norm == "flax_bn":
            val_accuracy += np.sin(epoch) * 1e-4
        lines.append(
            {
                "epoch": epoch,
                "step": epoch * steps,
                "learning_rate": 0.1 if t < 0.75 else 0.01 if t < 0.95 else 0.001,
                "train_loss": float(2.2 * (1 - rise) + 3 * (1 - train) * rise),
                "train_accuracy": float(train_accuracy),
                "val_loss": float(2.2 * (1 - rise) + 3 * (1 - val) * rise),
                "val_accuracy": float(np.clip(val_accuracy, 0, 1)),
                "val_macro_f1": float(val_accuracy - 0.002),
                "seconds": float(2.5 + rng.random()),
                "feature_quantiles": [float(q * (0.4 + 0.6 * t)) for q in quantiles],
            }
        )
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "config.json").write_text(json.dumps(recipe | {"norm": norm, "seed": seed}))
    provenance = {
        "label": label or LABELS.get(norm, norm),
        "command": "python experiments/compare_norms.py",
        "started": f"2026-11-03T10:0{seed % 10}:00+00:00",
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "versions": {"jaxnorm": "0.1.0", "python": "3.11.9", "jax": "0.10.1", "jaxlib": "0.10.1", "flax": "0.12.8"},
        "device": {"platform": "cpu", "kind": "AMD EPYC 7B13", "count": 1, "cores": 2},
        "xla_flags": "",
        "matmul_precision": "default",
        "data": data | {"fingerprint": "9f2c" * 16},
    }
    (directory / "provenance.json").write_text(json.dumps(provenance))
    if status == "unfinished":
        return
    result = {
        "norm": norm,
        "seed": seed,
        "label": provenance["label"],
        "status": status,
        "epoch": len(lines),
        "step": len(lines) * steps + (17 if status == "diverged" else 0),
        "num_epochs": num_epochs,
        "num_params": 174_698 if norm == "none" else 175_818,
        "diverged_at_step": len(lines) * steps + 17 if status == "diverged" else None,
        "error": "RuntimeError: RESOURCE_EXHAUSTED: out of memory" if status == "crashed" else None,
        "seconds": float(sum(line["seconds"] for line in lines)),
        "best_val_accuracy": max((line["val_accuracy"] for line in lines), default=None),
        "best_val_epoch": len(lines) or None,
        "train": None,
        "validation": None,
        "test": None,
    }
    if status == "complete":
        confusion = confusion_of(rng, val, data["num_test"])
        label_array = np.repeat(np.arange(10), confusion.sum(1)).astype(np.int32)
        guess = np.concatenate([np.repeat(np.arange(10), row) for row in confusion])
        logits = rng.normal(0, 1, (len(guess), 10)).astype(np.float32)
        logits[np.arange(len(guess)), guess] += 7
        logits[np.arange(len(guess)), guess] = np.maximum(logits.max(1), logits[np.arange(len(guess)), guess])
        np.savez(directory / "predictions.npz", logits=logits, label=label_array)
        result["train"] = evaluation(confusion_of(rng, train, data["num_train"]), 3 * (1 - train))
        result["validation"] = evaluation(confusion_of(rng, val, data["num_validation"]), 3 * (1 - val))
        result["test"] = evaluation(confusion, 3 * (1 - val) + 0.01)
    (directory / "result.json").write_text(json.dumps(result))


def write_workdir(
    workdir: Path,
    *,
    norms=NORMS,
    seeds=(0,),
    dataset="digits",
    num_epochs=12,
    stop_after_epoch=None,
    fates: dict[tuple[str, int], tuple[str, int]] | None = None,
    labels: dict[str, str] | None = None,
    command="python experiments/compare_norms.py",
) -> Path:
    """A whole workdir; `fates` maps (norm, seed) to (status, epochs reached) where that is not "complete"."""
    recipe = {
        "dataset": dataset,
        "batch_size": 32 if dataset == "digits" else 128,
        "num_epochs": num_epochs,
        "stop_after_epoch": stop_after_epoch,
        "learning_rate": 0.1,
        "gate_lr_multiplier": 10.0,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    plan = {
        "study": "compare_norms",
        "preset": "quick" if dataset == "digits" else "study",
        "recipe": recipe,
        "norms": list(norms),
        "seeds": list(seeds),
        "command": command,
    }
    (workdir / "study.json").write_text(json.dumps(plan))
    for norm in norms:
        for seed in seeds:
            status, keep = (fates or {}).get((norm, seed), ("complete", None))
            write_run(workdir, norm, seed, recipe, status=status, keep=keep, label=(labels or {}).get(norm))
    return workdir


@pytest.fixture
def make_workdir(tmp_path):
    """Builds a workdir below the test's own folder."""

    def make(name: str = "study", **options) -> Path:
        return write_workdir(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def session_workdir(tmp_path_factory):
    """As make_workdir, for a workdir that several tests read and none changes."""
    made: dict[str, Path] = {}

    def make(name: str, **options) -> Path:
        if name not in made:
            made[name] = write_workdir(tmp_path_factory.mktemp(name), **options)
        return made[name]

    return make
