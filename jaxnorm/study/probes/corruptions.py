"""How accurate trained networks remain on corrupted images, and whose batch statistics help."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxnorm.errors import UserError
from jaxnorm.study.config import completed
from jaxnorm.study.data import load_recorded
from jaxnorm.study.data.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from jaxnorm.study.report.frames import Study
from jaxnorm.study.runs.trained import TrainedRun, load_run
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.metrics import measure
from jaxnorm.study.training.recalibration import batch_statistics_logits
from jaxnorm.study.training.state import random_key

CLEAN = "none"
"""The kind of images that are not corrupted; their strength is 0."""


def corruption_accuracy(
    run: TrainedRun, image: np.ndarray, label: np.ndarray, *, batch_sizes: Sequence[int] = (1, 32), seed: int = 0
) -> pd.DataFrame:
    """The accuracy of a run's final weights on images, clean and with every corruption at every strength.

    Args:
        run: from `jaxnorm.load_run`.
        image: uint8 (N, H, W, 3).
        label: (N,), integers.
        batch_sizes: of the batches that are normalized by their own statistics; larger ones than N are left out. The
            last batch may be smaller.
        seed: decides the corruptions and which images share a batch.

    Returns:
        A row for each corruption, strength and kind of statistics: `corruption` ("none" at strength 0 for clean),
        `strength`, `statistics`, `batch_size`, `accuracy` and `loss`. Statistics are "running" (those of training),
        and for a network that keeps these also "recomputed" (over all N images of the same corruption and strength,
        without their labels) and "batch" (of each batch, with its `batch_size`; nan elsewhere).

    References:
        Schneider et al. 2020, arXiv 2006.16971; Nado et al. 2020, arXiv 2006.10963.
    """
    sizes = [size for size in batch_sizes if size <= len(label)]
    computed = dict.fromkeys([*sizes, len(label)] if "batch_stats" in run.variables else [])
    rows: list[dict[str, Any]] = []
    for kind, strength, changed in _changed(image, seed):
        about = {"corruption": kind, "strength": strength}

        def keep(logits: np.ndarray, label: np.ndarray, about: dict[str, Any] = about, **kept: Any) -> None:
            found = measure(logits, label)
            rows.append({**about, "batch_size": np.nan, **kept, "accuracy": found.accuracy, "loss": found.loss})

        keep(run.logits(changed), label, statistics="running")
        split = Images(jnp.asarray(changed), jnp.asarray(label, jnp.int32), mean=run.mean, pad=0, flip=False)
        for size in computed:
            logits, order = batch_statistics_logits(run.model, run.variables, split, size, random_key(seed))
            if size in sizes:
                keep(logits, label[order], statistics="batch", batch_size=size)
            if size == len(label):
                keep(logits, label[order], statistics="recomputed")
    columns = ["corruption", "strength", "statistics", "batch_size", "accuracy", "loss"]
    return pd.DataFrame(rows)[columns]


def evaluate_corruptions(
    study: Study, *, images: int, batch_sizes: Sequence[int], seed: int = 0, data_dir: Path | None = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """`corruption_accuracy` of every finished run of a study, on its first test images.

    Args:
        study: a workdir, which has the weights.
        images: how many test images; all where these are fewer.
        batch_sizes: of the batches that are normalized by their own statistics.
        seed: decides the corruptions and which images share a batch.
        data_dir: the folder of the images.

    Yields:
        The name of a run, and its rows with `norm`, `label` and `seed`; runs of one norm follow each other.

    Raises:
        UserError: before the first run, if there is none, if the weights are not there, or the data is another.
    """
    if study.plan.get("published"):
        raise UserError(
            f"corruptions needs the weights of finished runs, but {study.folder} is a publication, which has none; "
            "give the workdir that it was made from"
        )
    if not len(study.finished):
        raise UserError(f"corruptions needs finished runs, but {study.folder} has none; train one to its end")
    runs = study.finished.sort_values("label", kind="stable")
    loaded = {one.name: load_run(study.folder / one.name) for one in runs.itertuples()}
    dataset = load_recorded(completed(study.recipe), data_dir)
    if dataset.fingerprint != study.data.get("fingerprint"):
        raise UserError(
            f"the runs of {study.folder} must be evaluated on the data that they were trained on, but that has the "
            f"fingerprint {str(study.data.get('fingerprint'))[:12]} and the one found {dataset.fingerprint[:12]}; "
            "choose another --data-dir"
        )
    image, label, before = dataset.test.image[:images], dataset.test.label[:images], None
    for one in runs.itertuples():
        if before not in (None, one.norm):
            jax.clear_caches()  # programs of other networks, which are not needed again
        before = one.norm
        found = corruption_accuracy(loaded[one.name], image, label, batch_sizes=batch_sizes, seed=seed)
        yield one.name, found.assign(norm=one.norm, label=str(one.label), seed=one.seed, images=len(label))


def _changed(image: np.ndarray, seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
    yield CLEAN, 0, np.asarray(image)
    for kind in CORRUPTIONS:
        for strength in STRENGTHS:
            yield kind, strength, corrupted(image, kind, strength, seed=seed)
