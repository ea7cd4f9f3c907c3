"""The page of the batch-size study, from the question to the last section."""

from typing import Any

import pandas as pd

from jaxnorm.study.config import Recipe, network_words
from jaxnorm.study.report import effective_rates, figures, smoothness, tables
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.formats import interval_points, listed, percent, points, spread, undecided, within
from jaxnorm.study.report.frames import RULES, Study, under_rule
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.published import BEST_VALIDATION, GROUP_NORM_PAPER, published_for
from jaxnorm.study.report.sections import Sections
from jaxnorm.study.report.statistics import mean_interval
from jaxnorm.study.words import counted

ABOUT_AVERAGES = (
    "Batch norm evaluates with averages that it kept during training. Statistics recomputed for the final weights "
    "separate the two: what they change is due to the averages, and what remains is due to training"
)

OTHER_STATISTICS = (
    "In each row the same weights. Precise: recomputed from augmented training images, in batches of the size over "
    "which training took its statistics, or of 128. The evaluation batch: statistics of the evaluated images "
    "themselves, in batches of the first of these sizes."
)


def page(study: Study) -> Page:
    """The page of a `study`: the answer, errors by batch size, whose statistics, differences, gates, details."""
    chosen_study = in_order(chosen(study))
    parts = Sections(chosen_study, study)
    sizes = listed([str(size) for size in sorted(set(chosen_study.runs.batch_size), reverse=True)])
    rules, ghosts = figures.rules_of(chosen_study.runs), sorted(set(study.runs.ghost_batch_size.dropna()), reverse=True)
    kept, several = "", chosen_study.runs.batch_size.nunique() > 1
    if several:
        kept = " A smaller batch means more steps, noisier gradients and, for batch norm, noisier statistics."
    if ghosts:
        kept += (
            f" Runs with ghosts keep the whole batch and its steps, but take batch norm's statistics over "
            f"{listed([f'{size:g}' for size in ghosts])} of its images at a time."
        )
    training = ABOUT_AVERAGES + (", which includes the number of steps." if several else ".")
    theirs = [f"For comparison: {GROUP_NORM_PAPER}"] if several else []
    answer = [text for rule in rules for text in (*_cost(chosen_study, rule), *_lost(chosen_study, rule))]
    return Page(
        title="When does batch norm break, and is it the training or only its averages?",
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"{network_words(study.recipe)} is trained on "
            f"{study.data_description} in batches of {sizes}, for the same "
            f"number of epochs, from {counted(study.runs.seed.nunique(), 'seed')} each.{kept}"
        ),
        lead=parts.lead(answer + parts.planned()),
        cautions=parts.cautions(),
        sections=[
            Section("Results", theirs, [by_batch_size(chosen_study)], _errors(parts)),
            Section("Training or averages", [training], [_statistics(chosen_study)]),
            parts.comparison(),
            parts.gates(),
            effective_rates.section(parts),
            smoothness.section(parts),
            *parts.details(),
        ],
    )


def in_order(study: Study) -> Study:
    """The `study` with its runs by norm, rule, real batches before ghosts, and falling batch size."""
    runs, ghost = study.runs, study.runs.ghost_batch_size.fillna(0).astype(int)
    keys = [runs.norm.map(study.norms.index), runs.lr_rule, ghost > 0, -runs.batch_size, -ghost]
    order = pd.concat(keys, axis=1, keys=range(len(keys))).sort_values(list(range(len(keys))))
    return study.with_runs(runs.loc[order.index])


def _cost(study: Study, rule: str) -> list[str]:
    """What the smallest batch costs each norm against the largest, under one rule."""
    words, seeds = [], 0
    for label, rows in under_rule(study.final("validation"), rule).groupby("norm_label", sort=False):
        by_size = {size: mine.set_index("seed").accuracy for size, mine in rows.groupby("batch_size")}
        least, most = min(by_size), max(by_size)
        small, large = by_size[least], by_size[most]
        interval = mean_interval((small - large).dropna().tolist())
        sure = f", 95 % interval over seeds {interval_points(interval, 1)}" if interval else ""
        seeds = max(seeds, (small - large).notna().sum())
        if least < most:
            words.append(
                f"from {percent(large.mean())} % at batch size {most} to {percent(small.mean())} % at {least} "
                f"({points(small.mean() - large.mean(), 1)} points{sure}) with {within(str(label))}"
            )
    start = f"{undecided(seeds, ': ')}at {RULES[rule]}, validation accuracy after the last epoch goes"
    return [f"{start[0].upper()}{start[1:]} {listed(words)}."] if words else []


def _lost(study: Study, rule: str) -> list[str]:
    """What the smallest batch of a `study` changes under a `rule` with running averages and precise statistics."""
    rows, kinds = study.evaluations.query("split == 'validation' and status == 'complete'"), ["running", "precise_128"]
    words = []
    for label, mine in under_rule(rows, rule).groupby("norm_label", sort=False):
        table = mine.pivot_table(index="batch_size", columns="statistics", values="accuracy").reindex(columns=kinds)
        table = table.dropna().sort_index(ascending=False)
        if len(table) > 1:
            running, precise = (points(table[kind].iloc[-1] - table[kind].iloc[0], 1) for kind in kinds)
            words.append(
                f"{within(str(label))} at {table.index[-1]} is {running} points from {table.index[0]} with running "
                f"averages and {precise} with precise statistics "
                f"({percent(table.precise_128.iloc[0])} to {percent(table.precise_128.iloc[-1])} %)"
            )
    start = f"{undecided(rows.seed.nunique(), ': ')}in validation, with the same weights and {RULES[rule]},"
    return [f"{start[0].upper()}{start[1:]} {'; '.join(words)}."] if words else []


def by_batch_size(study: Study) -> Table | None:
    """Accuracy in every setting of a `study` that is `in_order`, the original paper's best beside ours."""
    look, group, finished = (spread, study.digits, 100), "Validation accuracy, %", study.finished
    one = study.runs.drop_duplicates("label").set_index("label")
    settings = one[["batch_size", "learning_rate", "lr_rule"]].to_dict("index")
    rates = {label: Recipe(**setting).peak_learning_rate for label, setting in settings.items()}
    columns: dict[Any, pd.Series] = {
        "Learning rate": pd.Series(rates).map("{:.4g}".format),
        (group, "last epoch"): tables.texts(study.final("validation"), "accuracy", *look),
        (group, "best epoch"): tables.texts(finished[finished.best_val_accuracy.notna()], "best_val_accuracy", *look),
    }
    theirs = [BEST_VALIDATION.get(key) for key in zip(one.norm, one.batch_size, strict=True)]
    if any(theirs) and published_for(study.recipe):
        columns[group, "paper's best"] = pd.Series([percent(value, 0) for value in theirs], one.index)
    columns["Test accuracy, %"] = tables.texts(study.final("test"), "accuracy", *look)
    columns["Status"] = tables.states(study)
    note = f"{tables.averaged(study)}The best epoch's accuracy is the maximum of a noisy number, given because the "
    note += "original paper gives it. "
    return tables.of_variants(study, "By batch size", columns, note + tables.whose_statistics(study))


def _statistics(study: Study) -> Table | None:
    """The same final weights with four kinds of statistics; None where only running averages were used."""
    found = study.evaluations[study.evaluations.status == "complete"]
    found = found[found.label.isin(found.label[found.statistics != "running"])]
    columns: dict[Any, pd.Series] = {}
    for split in ("validation", "test"):
        for kind, (title, _) in figures.STATISTICS.items():
            rows = found[(found.split == split) & (found.statistics == kind)]
            texts = tables.texts(rows, "accuracy", spread, study.digits, 100)
            columns[f"{split.capitalize()} accuracy, %, with", title] = texts
    return tables.of_variants(study, "Whose statistics", columns, f"{tables.averaged(study)}{OTHER_STATISTICS}")


def _errors(parts: Sections) -> list[Picture]:
    rows = parts.study.evaluations.query("split == 'validation' and status == 'complete'")
    if not len(rows):
        return []
    caption = (
        "Error after the last epoch. Hollow markers, drawn to the right of their size: the same weights with other "
        "statistics; below the filled marker, these give a lower error than the averages."
    )
    if rows.ghost_batch_size.notna().any():
        caption += " Hexagons: ghosts, the statistics of small batches in steps of the largest."
    drawn = [parts.picture("batch_sizes", caption, figures.batch_sizes(parts.study.runs, rows, parts.about))]
    if (epochs := parts.study.epochs).epoch.nunique() > 1:
        medians = " Lines: median over the finished seeds." * (parts.study.digits == 2)
        caption, several = "Left: by epochs; right: by steps", epochs.batch_size.nunique() > 1
        if several:
            caption += (
                ", of which a small batch takes more. The learning rate falls by epochs, so that it is not the same at "
                "the same step"
            )
        caption += f".{medians}"
        if rows.ghost_batch_size.notna().any():
            rest = (
                "; from small batches they differ in all the rest: steps, noise of gradients, learning rate" * several
            )
            caption += f" Ghosts have the steps of the whole batch and differ from it in their statistics alone{rest}."
        figure = figures.steps(epochs, int(rows.num_images.max()), parts.about)
        drawn.append(parts.picture("steps", caption, figure))
    return drawn
