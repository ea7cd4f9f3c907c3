"""Workdirs as the drivers leave them: written by the program's own code, from plausible numbers instead of training."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jaxnorm import Config, files
from jaxnorm.study.registry import NORMS as REGISTERED
from jaxnorm.study.runs.manifest import Manifest, entry, read_sealed, sealed
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.training.metrics import Metrics, measure
from jaxnorm.study.training.run import Result

QUANTILES = (1.0, 20.0, 80.0, 99.0)
STAGES = {f"stage{stage}_block{block}": 8 * 2**stage for stage in (1, 2, 3) for block in (1, 2)}
CHANNELS = {"stem_conv": 16} | {
    f"{block}/{conv}": channels
    for block, channels in STAGES.items()
    for conv in ("conv1", "conv2", *(["conv_proj"] if block in ("stage2_block1", "stage3_block1") else []))
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


Fates = Mapping[str, tuple[str, int]]
"""By name of a run: its status (also "unfinished" and "missing") and the epochs that it reached."""


def write_run(
    workdir: Workdir, config: Config, fate: tuple[str, int] | None, *, label="", loss=0.0, statistics=None,
    accuracies=None, **provenance,
):  # fmt: skip
    """One run. This is the only place that knows how the program writes a run.

    `loss` is taken from the final accuracies, or `accuracies` gives those of validation and test; `statistics` gives
    the validation accuracy for each other kind; `provenance` replaces entries of that.
    """
    status, epochs = fate or ("complete", config.last_epoch)
    if status == "missing":
        return
    data = CIFAR10 if config.dataset == "cifar10" else DIGITS
    # bn and flax_bn share their noise, as the layers do
    rng = np.random.default_rng([config.seed, {"flax_bn": 1, "bn": 1}.get(config.norm, sum(map(ord, config.norm)))])
    train, val, _, quantiles = SHAPES.get(config.norm, (0.95, 0.87, 0.12, (0.1, 0.4, 1.2, 2.5)))
    if data is DIGITS:
        train, val = train + 0.02, min(val + 0.1, 0.985)
    train, val = train + rng.normal(0, 0.001) - loss / 2, val + rng.normal(0, 0.002) - loss
    steps = data["num_train"] // config.batch_size
    rows = [epoch_row(config, epoch, steps, train, val, quantiles, rng) for epoch in range(1, epochs + 1)]
    confusions = {"train": confusion_of(rng, train, data["num_train"])}
    confusions |= {name: confusion_of(rng, val, data[f"num_{name}"]) for name in ("validation", "test")}
    for name, accuracy in zip(("validation", "test"), accuracies or (), strict=False):
        confusions[name] = exact_confusion(accuracy, data[f"num_{name}"])
    label_of_test = np.repeat(np.arange(10), confusions["test"].sum(1)).astype(np.int32)
    dataset = SimpleNamespace(
        train=range(data["num_train"]),
        test=SimpleNamespace(label=label_of_test),
        mean=(0.3, 0.3, 0.3),
        class_names=tuple(data["class_names"]),
    )
    directory = workdir.directory(config)
    directory.begin(dataset, provenance_of(config, data, label) | provenance)
    directory.restore({"step": np.zeros((), np.int32)})
    for row in rows:
        directory.keep(row["epoch"], arrays_of(config, row["epoch"], quantiles))
        directory.append(row)
    if status == "crashed":
        directory.crash(RuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    if status not in ("complete", "diverged"):
        return
    ended = 17 if status == "diverged" else 0  # steps into the next epoch
    result = Result(
        status=status,
        step=epochs * steps + ended,
        epoch=epochs,
        diverged_at_step=epochs * steps + ended if ended else None,
        num_params=174_698 if config.norm == "none" else 175_818,
        seconds=float(sum(row["seconds"] for row in rows)),
        rows=rows,
        splits={},
        statistics=None,
        test_logits=None,
        variables={"params": {"scale": np.ones(2, np.float32)}},
    )
    if status == "complete":
        guess = np.concatenate([np.repeat(np.arange(10), row) for row in confusions["test"]])
        logits = np.clip(rng.normal(0, 1, (len(guess), 10)), -3, 3).astype(np.float32)
        logits[np.arange(len(guess)), guess] += 7
        losses = {"train": 3 * (1 - train), "validation": 3 * (1 - val)}
        splits = {name: metrics_of(confusions[name], loss) for name, loss in losses.items()}
        splits["test"] = measure(logits, label_of_test)
        kinds = {"running": splits["validation"].accuracy, **(statistics or {})}
        others = statistics and {
            kind: {
                split: {"accuracy": accuracy - 0.002 * (split == "test"), "loss": 3 * (1 - accuracy), "num_images": 360}
                for split in ("validation", "test")
            }
            for kind, accuracy in kinds.items()
        }
        result = replace(result, splits=splits, statistics=others, test_logits=logits)
    directory.complete(result)


def metrics_of(confusion: np.ndarray, loss: float) -> Metrics:
    """The metrics of a split from its confusion matrix."""
    f1 = 2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1))
    accuracy = float(np.trace(confusion) / confusion.sum())
    return Metrics(accuracy, accuracy, float(f1.mean()), loss, int(confusion.sum()), confusion.tolist())


def confusion_of(rng: np.random.Generator, accuracy: float, num_images: int) -> np.ndarray:
    label = np.arange(num_images) % 10
    guess = np.where(rng.random(num_images) < accuracy, label, (label + rng.choice([1, 2, 3, 7], num_images)) % 10)
    return np.bincount(label * 10 + guess, minlength=100).reshape(10, 10)


def exact_confusion(accuracy: float, num_images: int) -> np.ndarray:
    label = np.arange(num_images) % 10
    guess = np.where(np.arange(num_images) < round(accuracy * num_images), label, (label + 1) % 10)
    return np.bincount(label * 10 + guess, minlength=100).reshape(10, 10)


def edit(workdir: Path, run: str, name: str, **changes) -> None:
    """Changes entries of a run's JSON file as if the program had written them; without changes, takes any file over."""
    path = workdir / run / name
    if changes:
        files.write_json(path, {**json.loads(path.read_text()), **changes})
    manifest = Manifest.read(workdir / run)
    manifest.add(name)
    manifest.write()


def reseal(published: Path) -> None:
    """Makes the hashes of a publication those of its files."""
    plan = read_sealed(published / "study.json")
    plan["files"] = {name: entry((published / name).read_bytes()) for name in plan["files"]}
    files.write_json(published / "study.json", sealed(plan))


def epoch_row(config: Config, epoch: int, steps: int, train: float, val: float, quantiles, rng) -> dict:
    t = epoch / config.num_epochs
    rise = 1 - np.exp(-t / 0.1 * (0.25 if t < 0.75 else 1))
    val_accuracy = 0.1 + (val - 0.1) * rise + rng.normal(0, 0.012) * (t < 0.75)
    val_accuracy += np.sin(epoch) * 1e-4 * (config.norm == "flax_bn")
    return {
        "epoch": epoch,
        "step": epoch * steps,
        "learning_rate": 0.1 if t < 0.75 else 0.01 if t < 0.95 else 0.001,
        "train_loss": float(2.2 * (1 - rise) + 3 * (1 - train) * rise),
        "train_accuracy": float(0.1 + (train - 0.1) * rise),
        "val_loss": float(2.2 * (1 - rise) + 3 * (1 - val) * rise),
        "val_accuracy": float(np.clip(val_accuracy, 0, 1)),
        "val_macro_f1": float(val_accuracy - 0.002),
        "seconds": float((2.5 + rng.random()) * (1 + 12 / config.batch_size)),
        "feature_quantiles": [
            float(value * (0.4 + 0.6 * t)) for value in np.interp(config.quantiles, QUANTILES, quantiles)
        ],
    }


def provenance_of(config: Config, data: dict, label: str) -> dict:
    return {
        "label": label or REGISTERED[config.norm].label,
        "command": "python experiments/compare_norms.py",
        "started": f"2026-11-03T10:0{config.seed % 10 if config else 0}:00+00:00",
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "versions": {"jaxnorm": "0.1.0", "python": "3.11.9", "jax": "0.10.1", "jaxlib": "0.10.1", "flax": "0.12.8"},
        "device": {"platform": "cpu", "kind": "AMD EPYC 7B13", "count": 1, "cores": 2},
        "options": {"jax_enable_x64": False, "jax_default_prng_impl": "threefry2x32"},
        "environment": {},
        "convolutions": "jaxnorm",
        "compiler": "c++ 12.2.0",
        "imported": {},
        "data": data | {"fingerprint": "9f2c" * 16},
    }


def bucket_counts(values: np.ndarray) -> np.ndarray:
    """Counts of float32 values by the upper half of their order-preserving key, as a run records them."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    key = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return np.bincount(key >> 16, minlength=65_536).astype(np.int64)


def arrays_of(config: Config, epoch: int, pooled: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Gates where the norm has some; quantiles and histograms of all layers where the run records them."""
    rng, t, arrays = np.random.default_rng([7, config.seed, len(config.norm)]), epoch / config.num_epochs, {}
    if config.norm.startswith("bin"):
        for depth, (layer, channels) in enumerate(CHANNELS.items()):
            moved = rng.normal(0.25, 0.35, channels) * (1 - np.exp(-3 * t)) * (0.4 + depth / 10)
            moved = moved * (config.norm != "bin_frozen")
            arrays[f"gate/{layer.replace('conv', 'norm')}"] = np.clip(1 - moved, 0, 1).astype(np.float32)
    if config.record_features == "all":
        for depth, layer in enumerate([*CHANNELS, "pooled"]):
            growth = {"none": 1 + t * (depth + 1), "gn": 1 + t}.get(config.norm, 1 + 0.2 * t)
            values = rng.standard_t(5, 4000) * growth * (0.5 + depth / 20)
            if layer == "pooled":
                values = np.maximum(values, 0) * pooled[-1] / 2
            values = values.astype(np.float32)
            arrays[f"quantiles/{layer}"] = np.quantile(values.astype(np.float64), np.array(config.quantiles) / 100)
            if epoch in (1, (config.num_epochs + 1) // 2, config.num_epochs):
                arrays[f"histogram/{layer}"] = bucket_counts(values)
    if config.probe_learning_rate:
        for depth, layer in enumerate([*CHANNELS, "head"]):
            weight = 2 + depth / 5 + t
            arrays[f"rates/{layer}"] = np.array([weight, 0.5 * rng.random() / weight, 0.2 / weight], np.float32)
    if config.probe_smoothness:
        before = (epoch - 1) * 33
        arrays["smoothness/step"] = np.array([before, before + 20], np.int32)
        loss, gradient = np.float32(2.5 * np.exp(-3 * t) * (1 + 0.1 * rng.random(2))), np.float32(1 + rng.random(2))
        arrays |= {"smoothness/loss": loss, "smoothness/gradient": gradient}
        for length in (0.5, 1, 2, 4):
            arrays[f"smoothness/loss_{length:g}"] = loss * np.float32(1 - 0.1 * length)
            arrays[f"smoothness/change_{length:g}"] = gradient * np.float32((3 - 0.5 * length) * length * 0.1)
    return arrays


def write_runs(path: Path, study: str, varied: Iterable[str], runs: list[tuple[Config, dict]], command="") -> Path:
    """A workdir of runs, each with the options of `write_run`."""
    workdir = Workdir(path, study=study, varied=tuple(varied))
    path.mkdir(parents=True, exist_ok=True)
    configs = [config for config, _ in runs]
    preset = "quick" if configs[0].dataset == "digits" else "study"
    workdir.describe(configs, preset=preset, command=command or f"python experiments/{study}.py")
    for config, options in runs:
        write_run(workdir, config, **options)
    return path


def write_workdir(
    path: Path, *, norms=NORMS, seeds=(0,), fates: Mapping[tuple[str, int], tuple[str, int]] | None = None,
    labels: Mapping[str, str] | None = None, command="", study="compare_norms", provenance=None, **recipe,
) -> Path:  # fmt: skip
    """A comparison of norms; `fates` is by (norm, seed), `recipe` changes the fields of `Config`."""
    if recipe.get("dataset") == "cifar10":
        recipe = {"batch_size": 128} | recipe
    runs = []
    for norm in norms:
        for seed in seeds:
            options = {"fate": (fates or {}).get((norm, seed)), "label": (labels or {}).get(norm, "")}
            options |= provenance or {}
            runs.append((Config(norm=norm, seed=seed, **recipe), options))
    return write_runs(path, study, (), runs, command)


def write_batch_workdir(
    path: Path, *, norms=("bn", "gn"), seeds=(0,), sizes=(128, 8), rules=("fixed", "linear"), ghosts=(),
    fates: Fates | None = None, accuracies: Mapping[str, tuple[float, float]] | None = None, both_at_128=False,
    dataset="digits",
) -> Path:  # fmt: skip
    """A batch-size study: batch norm loses in small batches, half of it in its averages; group norm does not."""
    runs = []
    settings = [(size, rule, None) for rule in rules for size in sizes if both_at_128 or rule == "fixed" or size != 128]
    for norm in norms:
        for size, rule, ghost in settings + [(max(sizes), "fixed", ghost) for ghost in ghosts if norm == "bn"]:
            loss = 0.35 * (2 / (ghost or size)) ** 1.2 * (0.5 if ghost else 0.8 if rule == "linear" else 1)
            kinds = {"precise": loss * 0.4 + 0.0002, "precise_128": loss * 0.3, "evaluation_batch": loss * 0.7}
            statistics = {kind: round(0.981 - value, 4) for kind, value in kinds.items()}
            options = (
                {"loss": loss, "statistics": statistics} if norm == "bn" else {"loss": 0.002 * np.log2(128 / size)}
            )
            tags = (f"bs{size}", *(["linear"] if rule == "linear" else []), *([f"ghost{ghost}"] if ghost else []))
            config = Config(
                norm=norm, batch_size=size, lr_rule=rule, ghost_batch_size=ghost, tags=tags, num_epochs=6,
                evaluate_statistics=True, dataset=dataset,
            )  # fmt: skip
            for seed in seeds:
                one = replace(config, seed=seed)
                known = {"fate": (fates or {}).get(one.name), "accuracies": (accuracies or {}).get(one.name)}
                runs.append((one, options | known))
    return write_runs(path, "batch_size_study", ("batch_size", "lr_rule", "ghost_batch_size"), runs)


def write_rates_workdir(
    path: Path, *, norms=("none", "bn", "gn"), seeds=(0,), rates=(0.03, 0.1, 0.3), fates: Fates | None = None,
    accuracies: Mapping[str, tuple[float, float]] | None = None,
) -> Path:  # fmt: skip
    """A comparison at several learning rates; without normalization the smallest is best, otherwise the largest."""
    runs = []
    for rate in rates:
        for norm in norms:
            for seed in seeds:
                tags = () if rate == 0.1 else (f"lr{rate:g}",)
                config = Config(norm=norm, seed=seed, tags=tags, learning_rate=rate, num_epochs=6)
                loss = (0.02 if norm == "none" else -0.01) * np.log10(rate / 0.03)
                known = {"fate": (fates or {}).get(config.name), "accuracies": (accuracies or {}).get(config.name)}
                runs.append((config, {"loss": loss, **known}))
    return write_runs(path, "compare_norms", ("learning_rate",), runs)
