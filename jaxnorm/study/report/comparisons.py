"""Which variants are compared, on what, and at which learning rate."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.config import REFERENCE_BATCH_SIZE
from jaxnorm.study.planned import Comparison, Plan, parsed_plan, recorded
from jaxnorm.study.report.formats import listed, number, within
from jaxnorm.study.report.frames import Study, setting_words
from jaxnorm.study.report.statistics import (
    ALPHA,
    LEAST_SEEDS,
    crossed_interval,
    holm,
    image_interval,
    mcnemar_p,
    mean_interval,
    sign_flip_p,
)
from jaxnorm.study.words import counted

BASELINE = "bn"
SAME_FUNCTION = ("flax_bn", "bn", "bin_frozen")
"""Norms that compute one function: their differences are what training makes of rounding."""
LEAST_PAIRS = 4
"""Pairs of runs of one function from which the figure has a band and a sentence says how far such runs are apart."""
ALSO = ("bin", "bin_frozen")
"""A pair that the tool compares, too."""
COLUMNS = ("norm", "baseline", "tags", "plus", "minus", "label", "against", "quantity", "test", "family", "seeds",
           "differences", "mean", "interval", "both", "narrow", "image_interval", "correlation", "p", "holm_p",
           "planned", "differs", "equal")  # fmt: skip


def plan_of(study: Study) -> Plan | None:
    """The plan that was recorded before the first run of a `study`; None without one."""
    found = recorded(study.plan, study.folder / "study.json")
    return parsed_plan(found.plan) if found else None


def paired(study: Study) -> pd.DataFrame:
    """Differences paired by seed: a row for each comparison with a finished seed, of a `study` that is `chosen`.

    The plan's, then every norm against `bn` in each setting; runs are never compared twice. Columns: `norm, baseline,
    tags` of the first variants; `plus, minus` (variants), `label, against` (their names); `quantity`, `test`
    (one of `planned.TESTS`, or null: both sides compute one function), `family`; `seeds, differences` (lists), `mean`;
    `interval` over seeds, `both` over seeds and test images, `narrow` the same at 90 %, `image_interval` for one seed
    (each None where it has no coverage); `correlation` of the two sides over the seeds; `p` (sign-flip test; McNemar's
    for one seed), `holm_p` (corrected over its family), `planned`; `differs` and `equal`, None where that cannot be
    said. Accuracies are fractions.
    """
    plan, rows, known = plan_of(study), [], set()
    for one, planned in _comparisons(study, plan):
        found = _row(study, one)
        runs = found and (one.quantity, frozenset(map(frozenset, found.pop("runs"))))
        if found and (planned or runs not in known):
            known.add(runs)
            family = one.family if planned else "" if plan or one.test == "null" else "chosen by the tool"
            rows.append(dict.fromkeys(COLUMNS) | found | {"planned": planned, "family": family})
    found = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("correlation", "p", "holm_p"), float))
    sizes = families(found, plan)
    for family, mine in found[(found.family != "") & found.p.notna()].groupby("family"):
        absent = [1.0] * (sizes[family] - len(mine))
        found.loc[mine.index, "holm_p"] = holm([*mine.p, *absent])[: len(mine)]
    enough = found.seeds.map(len) >= LEAST_SEEDS
    family = found.family.map(sizes)
    sides = 2 - found.test.isin(["less", "greater"])
    attainable = sides * 0.5 ** found.seeds.map(len) * family <= ALPHA  # else not even the largest difference is shown
    found["differs"] = [
        bool(p <= ALPHA and (both is None or both.excludes_zero)) if sure and pd.notna(p) else None
        for p, both, sure in zip(found.holm_p, found.both, enough & attainable, strict=True)
    ]
    if plan:
        equal = [max(-one.narrow.low, one.narrow.high) < plan.margin / 100 if one.narrow else None
                 for one in found.itertuples()]  # fmt: skip
        found["equal"] = pd.Series(equal, dtype=object).where(enough & (found.test == "equality"), None)
    return found


def families(found: pd.DataFrame, plan: Plan | None) -> Counter[str]:
    """How many comparisons are corrected together, by family of those `found`; a `plan`'s without runs count, too."""
    present = Counter(found.family[(found.family != "") & found.p.notna()])
    return Counter({name: max(size, plan.families[name] if plan else 0) for name, size in present.items()})


def _comparisons(study: Study, plan: Plan | None) -> Iterator[tuple[Comparison, bool]]:
    """The comparisons of a plan, then those of the tool, and whether they were planned."""
    yield from ((one, True) for one in (plan.comparisons if plan else ()))
    for tags in dict.fromkeys(study.runs.tags):
        end = "".join(f"-{tag}" for tag in tags.split())
        for norm, baseline in [*((norm, BASELINE) for norm in study.norms if norm != BASELINE), ALSO]:
            null = {norm, baseline} <= set(SAME_FUNCTION)
            yield Comparison((norm + end,), (baseline + end,), test="null" if null else "difference"), False


def _row(study: Study, one: Comparison) -> dict[str, Any] | None:
    """What a comparison gives; None without a finished seed in common."""
    rows = study.final("test")
    if one.quantity == "train_loss":
        last = study.epochs[study.epochs.status == "complete"].drop_duplicates("run", keep="last")
        rows = last.assign(accuracy=last.train_loss)
    sides = [[rows[rows.variant == variant].set_index("seed") for variant in side] for side in (one.plus, one.minus)]
    first, second = (side[0] for side in sides)
    seeds = [seed for seed in first.index if all(seed in table.index for side in sides for table in side)]
    seeds = [seed for seed in seeds if seed in (one.seeds or seeds)]
    if not seeds:
        return None
    plus, minus = (np.sum([table.accuracy[seeds] for table in side], axis=0) for side in sides)
    differences, side = (plus - minus).tolist(), one.test if one.test in ("less", "greater") else "two-sided"
    label, against = (" + ".join(study.labels[variant] for variant in side) for side in (one.plus, one.minus))
    if len(one.plus) == 2:
        pairs = (one.plus[0], one.minus[0]), (one.minus[1], one.plus[1])
        label, against = (f"({study.labels[a]} − {within(study.labels[b])})" for a, b in pairs)
    elif len(one.plus) == 1 and (tags := first.tags.iloc[0]) == second.tags.iloc[0]:
        against = second.norm_label.iloc[0]
        label = first.norm_label.iloc[0] + setting_words(tags)
    found = {
        "norm": first.norm.iloc[0], "baseline": second.norm.iloc[0], "tags": first.tags.iloc[0],
        "plus": one.plus, "minus": one.minus, "label": label, "against": against,
        "quantity": one.quantity, "test": one.test, "seeds": seeds,
        "differences": differences, "mean": float(np.mean(differences)), "interval": mean_interval(differences),
        "runs": [[table.run[seed] for table in side for seed in seeds] for side in sides],
        "p": None if one.test == "equality" else sign_flip_p(differences, side),
    }  # fmt: skip
    if len(seeds) >= LEAST_SEEDS and np.ptp(plus) and np.ptp(minus):
        found["correlation"] = float(np.corrcoef(plus, minus)[0, 1])
    return found | _over_images(study, sides, seeds) if one.quantity == "accuracy" else found


def _over_images(study: Study, sides: Sequence[Sequence[pd.DataFrame]], seeds: Sequence[int]) -> dict[str, Any]:
    """The intervals that take other test images into account, and for one seed McNemar's p."""

    def right(table: pd.DataFrame) -> np.ndarray:
        answers = map(study.predictions, table.run[list(seeds)])
        return np.array([answer.predicted == answer.label for answer in answers], dtype=float)

    plus, minus = (np.sum([right(table) for table in side], axis=0) for side in sides)
    gains = plus - minus
    if len(seeds) > 1:
        enough = len(seeds) >= LEAST_SEEDS
        return {"both": crossed_interval(gains), "narrow": crossed_interval(gains, 0.9)} if enough else {}
    if len(sides[0]) > 1:
        return {}
    return {"image_interval": image_interval(gains[0]), "p": mcnemar_p(gains[0])}


def nulls(study: Study) -> pd.DataFrame:
    """Differences in test accuracy between runs of one function: `bn`, `flax_bn`, `bin_frozen`, of one seed.

    A row for each pair and seed in each setting of a `study`: `first`, `second`, `tags`, `seed`, `difference`.
    """
    test, rows = study.final("test"), []
    for (tags, seed), mine in test[test.norm.isin(SAME_FUNCTION)].groupby(["tags", "seed"], sort=False):
        values = list(zip(mine.norm, mine.accuracy, strict=True))
        for place, (first, ours) in enumerate(values):
            rows += [(first, second, tags, seed, ours - theirs) for second, theirs in values[place + 1 :]]
    return pd.DataFrame(rows, columns=["first", "second", "tags", "seed", "difference"])


def null_words(study: Study) -> list[str]:
    """How much two runs of one function differ in a `study`, in a sentence; none without such runs."""
    found = nulls(study)
    if not len(found):
        return []
    names = dict(zip(study.runs.norm, study.runs.norm_label, strict=True))
    norms = [within(names[norm]) for norm in SAME_FUNCTION if norm in {*found["first"], *found["second"]}]
    size, few = found.difference.abs(), len(found) < LEAST_PAIRS
    typical = f", {number((size**2).mean() ** 0.5, 2, 100)} as root mean square" * (not few)
    said = (
        "too few to say how far two such runs are" if few else "a single difference of that size says nothing about the"
    )
    return [
        f"Two single runs of the same function ({listed(norms)}) from one seed differ by up to "
        f"{number(size.max(), 2, 100)} points on test ({counted(len(found), 'pair')}{typical}): {said} "
        f"{'apart' if few else 'layers'}."
    ]


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
