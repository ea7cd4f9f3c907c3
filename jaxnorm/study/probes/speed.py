"""How fast each norm of a trained study learns, and what probed before training goes with it. Imports no JAX."""

from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.probes.correlation import rank_correlation
from jaxnorm.study.report.frames import Study

MEASURES = {
    "curve": "mean over all epochs",
    "epoch 1": "after epoch 1",
    "epoch 2": "after epoch 2",
}
"""Speed: the validation loss at these times, the lower the faster. The first was chosen before any result was seen."""
PREDICTORS = {
    "stem_gradient": "stem's gradient",
    "growth": "growth per layer",
    "cosine": "cosine of pooled features",
    "stable_rank": "stable rank of pooled features",
}
"""What is compared with speed: columns of `at_initialization`, and their names. The first is the hypothesis."""
SKETCH = ("none", "ln", "gn", "in", "bn")
"""The norms from which the hypothesis was drawn. Only others can test it."""


def at_initialization(layers: pd.DataFrame, plain: pd.DataFrame) -> pd.DataFrame:
    """One row a norm of what was probed: geometric means of gradients over seeds, arithmetic means of the rest.

    Args:
        layers: of ResNet-14, the first table of `jaxnorm.study.probes.initialization.probe_initialization`.
        plain: of the plain network, the second one.

    Returns:
        By norm, in their order: `label`, `stem_gradient` (by the first layer's kernel), `last_gradient` (by the last
        convolution's), `growth`, `predicted`, `plain_cosine`, and `cosine` and `stable_rank` of the classifier's input.
    """
    by_norm = layers.groupby("norm", sort=False)
    names = layers.layer.unique()
    gradient = layers.groupby(["norm", "layer"], sort=False).weight_gradient.agg(_geometric_mean).unstack()
    features = layers[layers.layer == names[-1]].groupby("norm", sort=False)[["cosine", "stable_rank"]].mean()
    deep = plain.groupby("norm", sort=False)
    return pd.DataFrame(
        {
            "label": by_norm.label.first(),
            "stem_gradient": gradient[names[0]],
            "last_gradient": gradient[names[-2]],
            "growth": deep.growth.agg(_geometric_mean),
            "predicted": deep.predicted.first(),
            "plain_cosine": deep.cosine.mean(),
            **features,
        }
    ).loc[list(dict.fromkeys(layers.norm))]


def _geometric_mean(values: pd.Series) -> float:
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean()))


def learning_speed(study: Study) -> pd.DataFrame:
    """The validation loss of each norm's finished runs, by `MEASURES`.

    Args:
        study: of trained runs; unfinished and diverged ones are left out.

    Returns:
        A row for each setting (the runs' tags, "" for none) and norm, with the means over its finished seeds, and
        `seeds`, their number.
    """
    epochs = study.epochs[study.epochs.status == "complete"]
    runs = epochs.groupby(["tags", "norm", "run"], sort=False)
    found = pd.DataFrame(
        {
            "curve": runs.val_loss.mean(),
            **{f"epoch {number}": epochs[epochs.epoch == number].groupby(["tags", "norm", "run"]).val_loss.first()
               for number in (1, 2)},
        }
    )  # fmt: skip
    means = found.groupby(["tags", "norm"], sort=False)
    return means[list(MEASURES)].mean().assign(seeds=means.size()).reset_index()


def correlations(probed: pd.DataFrame, speed: pd.DataFrame) -> list[dict[str, Any]]:
    """Rank correlations over norms of what was probed with the speed of learning, which is minus the loss.

    Args:
        probed: from `at_initialization`.
        speed: from `learning_speed`.

    Returns:
        A dict for each setting, predictor, measure, and set of norms ("all", or "new": without `SKETCH`): `tags`,
        `predictor`, `measure`, `norms`, and the fields of `RankCorrelation`. Left out is what has too few norms.
    """
    found = []
    for tags, rows in speed.groupby("tags", sort=False):
        both = probed.join(rows.set_index("norm"), how="inner")
        for norms, kept in (("all", both), ("new", both[~both.index.isin(SKETCH)])):
            for predictor in PREDICTORS:
                for measure in MEASURES:
                    pairs = kept[[predictor, measure]].replace([np.inf, -np.inf], np.nan).dropna()
                    one = rank_correlation(pairs[predictor].to_numpy(), -pairs[measure].to_numpy())
                    if one is not None:
                        about = {"tags": str(tags), "predictor": predictor, "measure": measure, "norms": norms}
                        found.append({**about, **one._asdict()})
    return found
