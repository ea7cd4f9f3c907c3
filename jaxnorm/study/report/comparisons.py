"""Which variants are compared, on what, and at which learning rate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxnorm.study.config import REFERENCE_BATCH_SIZE
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.statistics import Interval, holm, image_interval, mean_interval, sign_flip_p

BASELINE = "bn"
PLANNED = (("bin", "bn"), ("bin", "bin_frozen"), ("gn", "bn"))
"""The comparisons chosen before any run; only these are corrected for being several, the rest is exploratory."""
SANITY_PAIR = ("flax_bn", "bn")
EQUALITY_MARGIN = 0.005
"""Half a point of accuracy: closer than this is equal."""
COLUMNS = ("norm", "baseline", "tags", "seeds", "differences", "mean", "interval", "p", "holm_p", "image_interval",
           "planned", "equal")  # fmt: skip


def paired(study: Study) -> pd.DataFrame:
    """Differences in test accuracy, paired by seed: a row for each pair with a finished seed in common.

    Every norm against `bn`, and the planned pairs, in each setting of a `study` that is `chosen` by itself. Columns:
    `norm, baseline, tags, seeds, differences` (lists), `mean`, `interval` (over seeds; None for one seed), `p`
    (sign-flip test), `holm_p` (Holm's correction over all planned rows), `image_interval` (over test images),
    `planned`, and `equal` (whether `interval` is within half a point of zero). Differences are fractions.
    """
    pairs = [(norm, BASELINE) for norm in study.norms if norm != BASELINE]
    pairs += [pair for pair in PLANNED if pair not in pairs]
    test, rows = study.final("test"), []
    for tags in dict.fromkeys(study.runs.tags):
        mine = test[test.tags == tags]
        for norm, baseline in pairs:
            ours, theirs = (mine[mine.norm == one].set_index("seed") for one in (norm, baseline))
            if both := [seed for seed in ours.index if seed in theirs.index]:
                rows.append({"norm": norm, "baseline": baseline, "tags": tags} | _pair(study, ours, theirs, both))
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    chosen = found.planned.astype(bool) & found.p.notna()
    found["holm_p"] = found.holm_p.astype(float)
    found.loc[chosen, "holm_p"] = holm(found.p[chosen].tolist())
    return found


def _pair(study: Study, ours: pd.DataFrame, theirs: pd.DataFrame, seeds: Sequence[int]) -> dict[str, object]:
    differences = [ours.accuracy[seed] - theirs.accuracy[seed] for seed in seeds]
    interval, runs = mean_interval(differences), [(ours.run[seed], theirs.run[seed]) for seed in seeds]
    return {
        "seeds": list(seeds),
        "differences": differences,
        "mean": float(np.mean(differences)),
        "interval": interval,
        "p": sign_flip_p(differences),
        "image_interval": _over_images(study, runs),
        "planned": (ours.norm.iloc[0], theirs.norm.iloc[0]) in PLANNED,
        "equal": None if interval is None else max(-interval.low, interval.high) < EQUALITY_MARGIN,
    }


def _over_images(study: Study, pairs: Sequence[tuple[str, str]]) -> Interval:
    gains = []
    for pair in pairs:
        ours, theirs = map(study.predictions, pair)
        right = [(one.predicted == one.label).to_numpy(float) for one in (ours, theirs)]
        gains.append(right[0] - right[1])
    return image_interval(np.mean(gains, axis=0))


def chosen(study: Study) -> Study:
    """The `study` with each norm only at the learning rate with the highest mean validation accuracy at the end.

    Rates with more finished seeds come first: one at which a seed diverged is not better for it. Where batch sizes or
    other settings vary as well, each has its own choice. At batch size 128 both rules for the rate give the same runs:
    where a norm has them under both, those of the linear rule are left out.
    """
    runs, grid = study.runs, study.plan.get("grid") or {}
    twice = (runs.batch_size == REFERENCE_BATCH_SIZE) & runs.ghost_batch_size.isna() & (runs.status == "complete")
    twice &= (runs.lr_rule == "linear") & runs.norm.isin(runs.norm[twice & (runs.lr_rule == "fixed")])
    if twice.any():
        study = study.with_runs(runs[~twice])
    if not grid.get("learning_rates"):
        return study
    place = ["norm", "batch_size", "lr_rule", "ghost_batch_size"]
    groups = study.final("validation").groupby([*place, "learning_rate"], dropna=False, sort=False).accuracy
    scores = groups.agg(["size", "mean"]).reset_index().sort_values(["size", "mean"], ascending=False, kind="stable")
    best = scores.drop_duplicates(place)[[*place, "learning_rate"]].rename(columns={"learning_rate": "best"})
    runs = study.runs.merge(best, on=place, how="left")
    kept = study.runs[(runs.best.isna() | (runs.best == runs.learning_rate)).to_numpy()]
    if not any(len(values) > 1 for name, values in grid.items() if name != "learning_rates"):
        # The plan is in the order of the rates, but what is chosen is shown in the order of the norms.
        kept = kept.assign(tags="").sort_values("norm", key=lambda norm: norm.map(study.norms.index), kind="stable")
    return study.with_runs(kept)
