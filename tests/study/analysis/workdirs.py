"""Workdirs as the drivers leave them, made of plausible numbers instead of training."""

import json
from pathlib import Path

import numpy as np

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
QUANTILES = (1.0, 20.0, 80.0, 99.0)
BLOCKS = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2)]
LAYERS = [
    "stem_conv",
    *(
        f"{b}/{conv}"
        for b in BLOCKS
        for conv in ("conv1", "conv2", "conv_proj")
        if conv != "conv_proj" or b[5:] in ("2_block1", "3_block1")
    ),
    "pooled",
]
GATES = {
    layer.replace("conv", "norm"): 16 * 2 ** (int(layer[5]) - 1 if layer.startswith("stage") else 0)
    for layer in LAYERS[:-1]
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
    workdir: Path,
    norm: str,
    seed: int,
    recipe: dict,
    *,
    status: str = "complete",
    keep: int | None = None,
    label=None,
    tags=(),
    loss=0.0,
    statistics: dict[str, float] | None = None,
) -> None:
    """One run directory; `status` may also be "unfinished" or "missing"; `keep` is how many epochs it reached.

    `loss` is taken from the final accuracies; `statistics` gives the validation accuracy for each kind.
    """
    if status == "missing":
        return
    data = CIFAR10 if recipe["dataset"] == "cifar10" else DIGITS
    # bn and flax_bn share their noise, as the layers do
    rng = np.random.default_rng([seed, {"flax_bn": 1, "bn": 1}.get(norm, len(norm) + ord(norm[0]))])
    train, val, speed, quantiles = SHAPES.get(norm, (0.95, 0.87, 0.12, (0.1, 0.4, 1.2, 2.5)))
    if data is DIGITS:
        train, val, speed = train + 0.02, min(val + 0.1, 0.985), speed * 1.2
    train, val = train + rng.normal(0, 0.001) - loss / 2, val + rng.normal(0, 0.002) - loss
    num_epochs = recipe["num_epochs"]
    last = min(recipe["stop_after_epoch"] or num_epochs, num_epochs)
    steps = data["num_train"] // recipe["batch_size"]
    directory = workdir / "-".join([norm, *tags, f"seed{seed}"])
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
                "seconds": float((2.5 + rng.random()) * (1 + 12 / recipe["batch_size"])),
                "feature_quantiles": pooled_quantiles(quantiles, t, recipe),
            }
        )
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "config.json").write_text(json.dumps(recipe | {"norm": norm, "seed": seed, "tags": list(tags)}))
    write_arrays(directory, norm, seed, recipe, [line["epoch"] for line in lines], quantiles)
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
        result["statistics"] = statistics and {
            kind: {
                split: {"accuracy": accuracy - 0.002 * (split == "test"), "loss": 3 * (1 - accuracy), "num_images": 360}
                for split in ("validation", "test")
            }
            for kind, accuracy in ({"running": result["validation"]["accuracy"]} | statistics).items()
        }
    (directory / "result.json").write_text(json.dumps(result))


def pooled_quantiles(final: tuple[float, ...], t: float, recipe: dict) -> list[float]:
    """What `metrics.jsonl` has: the quantiles of the recipe's percentages, between those that SHAPES names."""
    wanted = recipe.get("quantiles") or QUANTILES
    return [float(value * (0.4 + 0.6 * t)) for value in np.interp(wanted, QUANTILES, final)]


def bucket_counts(values: np.ndarray) -> np.ndarray:
    """Counts of float32 values by the upper half of their order-preserving key, as a run records them."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    key = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return np.bincount(key >> 16, minlength=65_536).astype(np.int64)


def write_arrays(
    directory: Path, norm: str, seed: int, recipe: dict, epochs: list[int], pooled: tuple[float, ...]
) -> None:
    """`arrays/epoch_0001.npz` and so on: gates where the norm has some, all layers where the recipe records them."""
    gated, layered = norm.startswith("bin"), recipe.get("record_features") == "all"
    if not (gated or layered) or not epochs:
        return
    rng = np.random.default_rng([7, seed, len(norm)])
    (directory / "arrays").mkdir()
    wanted, num_epochs = np.array(recipe.get("quantiles") or QUANTILES) / 100, recipe["num_epochs"]
    directions = {layer: rng.normal(0.25, 0.35, channels) for layer, channels in GATES.items()}
    for epoch in epochs:
        t, arrays = epoch / num_epochs, {}
        for depth, (layer, direction) in enumerate(directions.items()) if gated else ():
            moved = 0 if norm == "bin_frozen" else (1 - np.exp(-3 * t)) * direction * (0.4 + depth / 10)
            arrays[f"gate/{layer}"] = np.clip(1 - moved, 0, 1).astype(np.float32) * np.ones_like(direction, np.float32)
        for depth, layer in enumerate(LAYERS) if layered else ():
            growth = {"none": 1 + 14 * t * (depth + 1) / len(LAYERS), "gn": 1 + t}.get(norm, 1 + 0.2 * t)
            values = rng.standard_t(5, 4000) * growth * (0.5 + depth / 20)
            if layer == "pooled":
                values = np.maximum(values, 0) * pooled[-1] / 2
            values = values.astype(np.float32)
            arrays[f"quantiles/{layer}"] = np.quantile(values.astype(np.float64), wanted)
            if epoch in (1, (num_epochs + 1) // 2, num_epochs):
                arrays[f"histogram/{layer}"] = bucket_counts(values)
        np.savez(directory / "arrays" / f"epoch_{epoch:04d}.npz", **arrays)


def recipe_for(dataset: str, **changes) -> dict:
    return {
        "dataset": dataset,
        "batch_size": 32 if dataset == "digits" else 128,
        "num_epochs": 12,
        "stop_after_epoch": None,
        "learning_rate": 0.1,
        "gate_lr_multiplier": 10.0,
    } | changes


def write_plan(workdir: Path, recipe: dict, norms, seeds, *, command="", study="compare_norms", **more) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    plan = {
        "study": study,
        "preset": "quick" if recipe["dataset"] == "digits" else "study",
        "recipe": recipe,
        "norms": list(norms),
        "seeds": list(seeds),
        "command": command or f"python experiments/{study}.py",
    }
    (workdir / "study.json").write_text(json.dumps(plan | more))


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
    command="",
    study="compare_norms",
    **changes,
) -> Path:
    """A whole workdir; `fates` maps (norm, seed) to (status, epochs reached) where that is not "complete"; `changes`
    are further fields of the recipe."""
    recipe = recipe_for(dataset, num_epochs=num_epochs, stop_after_epoch=stop_after_epoch, **changes)
    write_plan(workdir, recipe, norms, seeds, command=command, study=study)
    for norm in norms:
        for seed in seeds:
            status, keep = (fates or {}).get((norm, seed), ("complete", None))
            write_run(workdir, norm, seed, recipe, status=status, keep=keep, label=(labels or {}).get(norm))
    return workdir


def write_grid(
    workdir: Path, study: str, recipe: dict, norms, seeds, settings: list[dict], grid: dict, fates=None
) -> Path:
    """A workdir with a list of runs, every norm in every setting: fields of the recipe, tags, `write_run`'s options."""
    runs = []
    for norm in norms:
        for setting in settings:
            setting = setting(norm) if callable(setting) else setting
            if setting is None:
                continue
            fields = {key: value for key, value in setting.items() if key not in ("tags", "loss", "statistics")}
            tags = list(setting.get("tags", ()))
            for seed in seeds:
                name = "-".join([norm, *tags, f"seed{seed}"])
                runs.append({"name": name, "norm": norm, "seed": seed, "tags": tags, **recipe, **fields})
                status, keep = (fates or {}).get(name, ("complete", None))
                more = {key: setting.get(key) for key in ("loss", "statistics") if setting.get(key) is not None}
                write_run(workdir, norm, seed, recipe | fields, tags=tags, status=status, keep=keep, **more)
    write_plan(workdir, recipe, norms, seeds, study=study, runs=runs, grid=grid)
    return workdir


def write_batch_workdir(
    workdir: Path,
    *,
    norms=("bn", "gn"),
    seeds=(0,),
    sizes=(128, 8),
    rules=("fixed", "linear"),
    ghosts=(),
    dataset="digits",
    num_epochs=6,
    fates=None,
) -> Path:
    """A batch-size study: batch norm loses in small batches, half of it in its averages; group norm does not."""

    def setting(size, rule, ghost=None):
        def of(norm):
            if norm == "gn":
                return None if ghost else made | {"loss": 0.002 * np.log2(128 / size)}
            loss = 0.35 * (2 / (ghost or size)) ** 1.2 * (0.5 if ghost else 0.8 if rule == "linear" else 1)
            kinds = {"precise": loss * 0.4 + len(norm) / 1e4, "precise_128": loss * 0.3, "evaluation_batch": loss * 0.7}
            base = SHAPES["bn"][1] + (0.1 if dataset == "digits" else 0)
            statistics = {kind: round(min(base, 0.985) - value, 4) for kind, value in kinds.items()}
            return made | {"loss": loss, "statistics": statistics}

        tags = [f"bs{size}", *(["linear"] if rule == "linear" else []), *([f"ghost{ghost}"] if ghost else [])]
        made = {
            "tags": tags,
            "batch_size": size,
            "lr_rule": rule,
            "ghost_batch_size": ghost,
            "evaluate_statistics": True,
        }
        return of

    settings = [setting(size, rule) for rule in rules for size in sizes if rule == "fixed" or size != 128] + [
        setting(max(sizes), "fixed", ghost) for ghost in ghosts
    ]
    grid = {"batch_sizes": list(sizes), "lr_rules": list(rules), "ghost_batch_sizes": list(ghosts)}
    recipe = recipe_for(dataset, num_epochs=num_epochs, lr_rule="fixed", evaluate_statistics=True)
    return write_grid(workdir, "batch_size_study", recipe, norms, seeds, settings, grid, fates)


def write_rates_workdir(
    workdir: Path, *, norms=("none", "bn", "gn"), seeds=(0,), rates=(0.03, 0.1, 0.3), fates=None
) -> Path:
    """A comparison at several learning rates; without normalization the smallest is best, otherwise the largest."""

    def setting(rate):
        def of(norm):
            loss = (0.02 if norm == "none" else -0.01) * np.log10(rate / 0.03)
            return {"tags": [] if rate == 0.1 else [f"lr{rate:g}"], "learning_rate": rate, "loss": loss}

        return of

    recipe = recipe_for("digits", num_epochs=6)
    settings = [setting(rate) for rate in rates]
    return write_grid(workdir, "compare_norms", recipe, norms, seeds, settings, {"learning_rates": list(rates)}, fates)
