"""The learning rate as a control: each norm's own best, chosen on validation, and whether the ranking survives it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from jaxnorm.study.analysis.runs import Run, Study
from jaxnorm.study.analysis.scales import value_axis
from jaxnorm.study.analysis.sheet import Entry, Layout, legend_text, line_style, panel, sheet, subtitle
from jaxnorm.study.analysis.styles import styles_of
from jaxnorm.study.analysis.tables import Column, Row, Table, whose_statistics
from jaxnorm.study.analysis.words import DASH, listed, number, spread, within


def varies_rates(study: Study) -> bool:
    """Whether the study trains every norm at several learning rates."""
    return len(study.grid.get("learning_rates", ())) > 1


def chosen(study: Study) -> Study:
    """The study with each norm only at the rate with the highest mean validation accuracy after the last epoch.

    Rates with more finished seeds come first: one at which a seed diverged is not better for it. Where batch sizes or
    other settings vary as well, each has its own choice. A study that varies no rate is returned as it is.
    """
    if not study.grid.get("learning_rates"):
        return study
    best = {_place(run): rate for run in study.runs if (rate := _best(study, run)) is not None}
    kept = [run for run in study.runs if best.get(_place(run), run.learning_rate) == run.learning_rate]
    others = {name for name, values in study.grid.items() if name != "learning_rates" and len(values) > 1}
    names = {run.name for run in kept}
    if not others:  # the plan goes rate by rate, but what is chosen is shown in the order of the norms
        by_norm = tuple(sorted(study.runs, key=lambda run: study.norms.index(run.norm)))
        return replace(study, runs=by_norm).within(lambda run: run.name in names)
    return study.within(lambda run: run.name in names, keep_tags=True)


def rate_of(study: Study, norm: str) -> float | None:
    """The rate at which `chosen` took a norm."""
    return next((run.learning_rate for run in study.runs if run.norm == norm), None)


def rates_table(study: Study) -> Table | None:
    """Validation accuracy of every norm at every rate, and test accuracy only at the chosen one."""
    if not varies_rates(study):
        return None
    best, rates = chosen(study), _rates(study)
    rows = []
    for norm in study.norms:
        cells = [spread(_validation(study, norm, rate), 2, 100) + _lost(study, norm, rate) for rate in rates]
        picked = [run for run in best.runs if run.norm == norm and run.complete]
        rate = picked[0].learning_rate if picked else None
        test = spread([run.splits["test"].accuracy for run in picked], 2, 100)
        rows.append(Row(norm, (study.norm_label(norm), *cells, DASH if rate is None else f"{rate:g}", test)))
    columns = (
        Column("Variant", numeric=False),
        *(Column(f"{rate:g}", "Validation, %, at learning rate") for rate in rates),
        Column("rate", "Chosen"),
        Column("Test, %", "Chosen"),
    )
    note = "Validation accuracy after the last epoch decides; test accuracy is shown for the chosen rate alone."
    return Table("Learning rates", columns, tuple(rows), f"{note} {whose_statistics(study)}")


def about_rates(study: Study) -> list[str]:
    """Which rates were chosen, and whether the order of the norms depends on them."""
    if not varies_rates(study):
        return []
    best, rates = chosen(study), _rates(study)
    own = {
        norm: float(np.mean(values))
        for norm in study.norms
        if (values := [r.splits["validation"].accuracy for r in best.runs if r.norm == norm and r.complete])
    }
    picked: dict[float, list[str]] = defaultdict(list)
    for norm in own:
        picked[rate_of(best, norm) or math.nan].append(within(study.norm_label(norm)))
    if not own:
        return []
    words = [
        "Each norm is shown at the learning rate with its highest mean validation accuracy after the last epoch: "
        + "; ".join(f"{rate:g} for {listed(names)}" for rate, names in sorted(picked.items()))
        + "."
    ]
    edge = [name for rate, names in picked.items() if rate in (min(rates), max(rates)) for name in names]
    if edge:
        words.append(
            f"The chosen rate lies at the end of the grid for {listed(edge)}: a rate beyond it may be better still."
        )
    for rate in rates:
        common = {norm: v for norm in own if (v := _mean(_validation(study, norm, rate))) is not None}
        if len(common) > 2:
            words.append(_ranking(rate, [own[norm] for norm in common], list(common.values())))
    lost = [(norm, rate) for norm in study.norms for rate in rates if _lost(study, norm, rate)]
    if lost:
        places = listed([f"{within(study.norm_label(norm))} at {rate:g}" for norm, rate in lost])
        words.append(f"Of {places} some seeds came to no end; a mean there is of the others, and flatters.")
    if len(study.seeds) == 1:
        words.append("With one seed, part of any difference between two rates is chance, and so is part of the choice.")
    return words


def draw_rates(study: Study, layout: Layout) -> Figure:
    """Validation accuracy over the learning rate, a line for each norm."""
    styles, rates = styles_of(study), _rates(study)
    means = {norm: [_mean(_validation(study, norm, rate)) for rate in rates] for norm in study.norms}
    drawn = {norm: values for norm, values in means.items() if any(value is not None for value in values)}
    entries = [Entry(legend_text(chosen(study), norm), styles[norm]) for norm in drawn]
    figure, (axis,) = sheet(
        layout, "Validation accuracy by learning rate", subtitle(study), entries, panels=1, columns=1, height=2.9
    )
    for norm, values in drawn.items():
        points = [(rate, 100 * value) for rate, value in zip(rates, values, strict=True) if value is not None]
        axis.plot(*zip(*points, strict=True), **line_style(styles[norm]))
    shown = [100 * value for values in drawn.values() for value in values if value is not None]
    value_axis(axis, min(shown), max(shown), compressed=False)
    panel(axis, "Validation accuracy after the last epoch (%)", "Learning rate (log scale)")
    axis.set_xscale("log")
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_xticks([], minor=True)
    return figure


def _lost(study: Study, norm: str, rate: float) -> str:
    """How many seeds diverged or crashed, where any did."""
    fates = [run.status for run in study.runs if (run.norm, run.learning_rate) == (norm, rate)]
    return "".join(f", {count} {fate}" for fate in ("diverged", "crashed") if (count := fates.count(fate)))


def _ranking(rate: float, own: Sequence[float], there: Sequence[float]) -> str:
    products = [(own[i] - own[j]) * (there[i] - there[j]) for i in range(len(own)) for j in range(i)]
    pairs = [product for product in products if product != 0]  # a tie on either side ranks nothing
    same = sum(product > 0 for product in pairs)
    if not pairs:
        return f"At {rate:g} for all, no two norms can be ranked."
    tau = float(stats.kendalltau(own, there).statistic)
    if same == len(pairs):
        return f"At {rate:g} for all, the norms rank exactly as at their own rates: the ranking survives."
    measure = f" (Kendall's tau {number(tau, 2)})" if math.isfinite(tau) else ""
    verdict = "largely survives" if tau >= 0.7 else "changes"
    return (
        f"At {rate:g} for all, {same} of {len(pairs)} pairs of norms rank as at their own rates{measure}: the ranking "
        f"{verdict}."
    )


def _best(study: Study, like: Run) -> float | None:
    scores: dict[float, list[float]] = defaultdict(list)
    for run in study.runs:
        if _place(run) == _place(like) and run.complete and run.learning_rate is not None:
            scores[run.learning_rate].append(run.splits["validation"].accuracy)
    return max(scores, key=lambda rate: (len(scores[rate]), float(np.mean(scores[rate])))) if scores else None


def _place(run: Run) -> tuple[object, ...]:
    return run.norm, run.batch_size, run.lr_rule, run.ghost_batch_size


def _rates(study: Study) -> list[float]:
    return sorted(float(rate) for rate in study.grid["learning_rates"])


def _validation(study: Study, norm: str, rate: float) -> list[float]:
    runs = [run for run in study.runs if run.norm == norm and run.learning_rate == rate and run.complete]
    return [run.splits["validation"].accuracy for run in runs]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
