"""The same variants in two studies: how their test accuracy differs, and what differs between the studies."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from jaxnorm.study.config import completed
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.formats import interval_points, percent, points
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.statistics import LEAST_SEEDS, mean_interval
from jaxnorm.study.words import counted

COLUMNS = ("variant", "label", "first", "second", "seeds", "difference", "interval")


def between(first: Study, second: Study) -> pd.DataFrame:
    """Test accuracies of the variants that two studies have, and their differences, paired by seed.

    Where a study has several learning rates, each norm has the rate that was chosen for it.

    Args:
        first: a study.
        second: another one.

    Returns:
        A row for each variant with finished runs in both: `variant`, `label`, `first` and `second` (mean accuracies, a
        fraction, over the seeds in `seeds`, or over all where they have none in common), `seeds` (list of those in
        common), `difference` (second - first), and `interval` (Student's t, 95 %, of the differences; None for fewer
        than four seeds).
    """
    rows = []
    tables = [chosen(study).final("test") for study in (first, second)]
    for variant in dict.fromkeys(tables[0].variant):
        one, two = (table[table.variant == variant].set_index("seed").accuracy for table in tables)
        if two.empty:
            continue
        seeds = sorted({*one.index} & {*two.index})
        mine, others = (side[seeds] if seeds else side for side in (one, two))
        interval = mean_interval((others - mine).tolist()) if seeds else None
        difference = float(others.mean() - mine.mean())
        label = str(tables[0].label[tables[0].variant == variant].iloc[0])
        rows.append((variant, label, float(mine.mean()), float(others.mean()), seeds, difference, interval))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def changes(first: Study, second: Study) -> list[str]:
    """What differs between two studies, apart from their norms and seeds.

    Args:
        first: a study.
        second: another one.

    Returns:
        Texts such as ``learning_rate: 0.1 -> 0.05``: settings, data, then versions and device, as each study's first
        run has recorded them.
    """
    sides = [
        {
            "study": one.name,
            **completed(one.recipe),
            **dict.fromkeys(one.plan["varied"], "several"),
            **_surroundings(one),
        }
        for one in (first, second)
    ]
    names = dict.fromkeys([*sides[0], *sides[1]])
    return [
        f"{name}: {_text(sides[0].get(name))} -> {_text(sides[1].get(name))}"
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]


def table(found: pd.DataFrame) -> pd.DataFrame:
    """What `between` has found, as a reader sees it.

    Args:
        found: its result.

    Returns:
        Texts, a column each for variant, both accuracies, difference and seeds.
    """
    shown = [
        (
            one.label,
            percent(one.first, 2),
            percent(one.second, 2),
            points(one.difference) + (f" ({interval_points(one.interval)})" if one.interval else ""),
            counted(len(one.seeds), "seed") if one.seeds else "no seed in common",
        )
        for one in found.itertuples()
    ]
    return pd.DataFrame(shown, columns=["Variant", "A %", "B %", "B - A, points (95 %)", "Paired by"])


def note(found: pd.DataFrame) -> str:
    """What must be known of the intervals."""
    if found.interval.notna().any():
        return "Intervals are over seeds; a study has more than one difference, so some exclude zero by chance."
    return f"Fewer than {LEAST_SEEDS} seeds in common: no intervals."


def _surroundings(study: Study) -> Mapping[str, Any]:
    recorded: Mapping[str, Any] = next((one for one in study.runs.provenance if one), {})
    data, device = recorded.get("data", {}), recorded.get("device", {})
    return {
        "data": data.get("description"),
        "data fingerprint": str(data.get("fingerprint"))[:12],
        **recorded.get("versions", {}),
        "device": device.get("kind") or device.get("platform"),
        "commit": str((recorded.get("git") or {}).get("commit"))[:7],
    }


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
