"""The page of the batch-size study, from the question to the last section."""

from typing import Any

import pandas as pd

from jaxnorm.study.config import REFERENCE_BATCH_SIZE
from jaxnorm.study.report import sections, sentences, tables
from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.figures import RULES, batch_curves, batch_sizes, rules_of
from jaxnorm.study.report.formats import interval_points, listed, number, percent, points, seconds, spread, within
from jaxnorm.study.report.frames import Study, under_rule
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.published import GROUP_NORM_PAPER, SLOWDOWN, best_validation
from jaxnorm.study.report.statistics import mean_interval
from jaxnorm.study.words import counted

STATISTICS = {
    "running": "running averages",
    "precise": "precise, own size",
    "precise_128": "precise, 128",
    "evaluation_batch": "the evaluation batch",
}
"""What the final weights are evaluated with, in words."""
ABOUT_AVERAGES = (
    "Batch norm evaluates with averages that it kept during training. Where these are bad, statistics recomputed for "
    "the final weights bring the accuracy back; what they do not bring back was lost in training."
)


def page(everything: Study) -> Page:
    """The answer, errors by batch size, whose statistics, differences, curves, and details."""
    study = in_order(chosen(everything))
    sizes = listed([str(size) for size in sorted(set(study.runs.batch_size), reverse=True)])
    lead = [text for rule in rules_of(study.runs) for text in (by_rule(study, rule), averages(study, rule)) if text]
    return Page(
        title="When does batch norm break, and is it the training or only its averages?",
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"A 14-layer residual network is trained on {study.data_description} in batches of {sizes}, for the same "
            f"number of epochs, from {counted(study.runs.seed.nunique(), 'seed')} each. A smaller batch means more "
            "steps, noisier gradients and, for batch norm, noisier statistics."
        ),
        lead=[*(lead if len(study.finished) else [sentences.NO_RESULT]), *sentences.failed(study)],
        cautions=sentences.cautions(study),
        sections=[
            Section("Results", [f"For comparison: {GROUP_NORM_PAPER}"], [by_batch_size(study)], _errors(study)),
            Section("Training or averages", [ABOUT_AVERAGES], [losses(study), statistics(study)]),
            sections.comparison(study, paired(study)),
            Section("Training", figures=_curves(study)),
            sections.gates(study),
            *sections.details(study, everything, time(study)),
        ],
    )


def in_order(study: Study) -> Study:
    """The study with its runs by norm, rule, real batches before ghosts, and falling batch size."""
    runs = study.runs
    ghost = runs.ghost_batch_size.fillna(0).astype(int)
    keys = [runs.norm.map(study.norms.index), runs.lr_rule, ghost > 0, -runs.batch_size, -ghost]
    order = pd.concat(keys, axis=1, keys=range(len(keys))).sort_values(list(range(len(keys))))
    return study.with_runs(runs.loc[order.index])


def by_rule(study: Study, rule: str) -> str:
    """What the smallest batch costs each norm against the largest, under one rule."""
    words = []
    for label, rows in under_rule(study.final("validation"), rule).groupby("norm_label", sort=False):
        sizes = rows.batch_size.max(), rows.batch_size.min()
        large, small = (rows[rows.batch_size == size].set_index("seed").accuracy for size in sizes)
        interval = mean_interval((small - large).dropna().tolist())
        sure = f", 95 % interval {interval_points(interval, 1)}" if interval else ""
        if sizes[0] > sizes[1]:
            words.append(
                f"{within(str(label))} goes from {percent(large.mean())} % at batch size {sizes[0]} to "
                f"{percent(small.mean())} % at {sizes[1]} ({points(small.mean() - large.mean(), 1)} points{sure})"
            )
    return f"{RULES[rule]}, validation accuracy after the last epoch: {'; '.join(words)}." if words else ""


def averages(study: Study, rule: str) -> str:
    """Of the smallest batch's loss in accuracy: how much precise statistics bring back."""
    found = lost(study, rule)
    words = [
        f"of the {number(100 * one.whole, 1)} points that {within(one.label)} loses at batch size {one.small} against "
        f"{one.large}, "
        + (
            f"precise statistics bring back {number(100 * one.averages, 1)}; the rest was lost in training"
            if one.averages > 0
            else "precise statistics bring back none: all were lost in training"
        )
        for one in found[found.whole > 0].drop_duplicates("norm", keep="last").itertuples()
    ]
    return f"{RULES[rule]}: {'; '.join(words)}." if words else ""


def lost(study: Study, rule: str) -> pd.DataFrame:
    """What each smaller batch loses in validation accuracy against the largest: a row for each norm and batch size.

    Columns `norm, label, small, large, whole` (with running averages), `training` (with precise statistics from batches
    of 128) and `averages` (the rest), as fractions; no row where only running averages were evaluated.
    """
    rows, kinds = study.evaluations.query("split == 'validation' and status == 'complete'"), ["running", "precise_128"]
    found = []
    for (norm, label), mine in under_rule(rows, rule).groupby(["norm", "norm_label"], sort=False):
        table = mine.pivot_table(index="batch_size", columns="statistics", values="accuracy").reindex(columns=kinds)
        table = table.dropna().sort_index(ascending=False)
        for size, row in table.iloc[1:].iterrows():
            whole, training = (table[kind].iloc[0] - row[kind] for kind in kinds)
            found.append((norm, label, size, table.index[0], whole, training, whole - training))
    return pd.DataFrame(found, columns=["norm", "label", "small", "large", "whole", "training", "averages"])


def losses(study: Study) -> Table | None:
    """What each smaller batch loses, and where."""
    found = pd.concat([lost(study, rule).assign(rule=rule) for rule in RULES], ignore_index=True)
    columns: dict[Any, Any] = {
        "Variant": found.label,
        "Batch size": found.small.map(str),
        "against": found.large.map(str),
    }
    columns["Rule"] = found.rule
    for name, column in {"in all": "whole", "training": "training", "averages": "averages"}.items():
        columns["Change of validation accuracy, points", name] = found[column].map(lambda value: points(-value, 1))
    note = "In all: with running averages. Training: with precise statistics, batches of 128. Averages: the rest."
    frame = pd.DataFrame(columns).set_axis(found.norm)
    return Table("Against the largest batch", frame, note) if len(frame) else None


def by_batch_size(study: Study) -> Table | None:
    """Validation and test accuracy in every setting, the original paper's best validation accuracy beside ours."""
    look, group, finished = (spread, tables.digits(study), 100), "Validation accuracy, %", study.finished
    one = study.runs.drop_duplicates("label").set_index("label")
    scale = (one.batch_size / REFERENCE_BATCH_SIZE).where(one.lr_rule == "linear", 1.0)
    columns = _settings(study, one) | {
        "Learning rate": (one.learning_rate * scale).map("{:.4g}".format),
        (group, "last epoch"): tables.texts(study.final("validation"), "accuracy", *look),
        (group, "best epoch"): tables.texts(finished[finished.best_val_accuracy.notna()], "best_val_accuracy", *look),
    }
    theirs = [best_validation(study.recipe, *key) for key in zip(one.norm, one.batch_size, strict=True)]
    if any(theirs):
        columns[group, "paper's best"] = pd.Series([percent(value, 0) for value in theirs], one.index)
    columns["Test accuracy, %"] = tables.texts(study.final("test"), "accuracy", *look)
    columns["Status"] = tables.states(study)
    note = (
        "The best epoch's accuracy is the maximum of a noisy number; it is here because the original paper gives it. "
    )
    if one.ghost_batch_size.notna().any():
        note += "Ghosts have the noise of small statistics, with the steps and the rate of the large batch. "
    return tables.of_variants(study, "By batch size", columns, note + tables.whose_statistics(study))


def statistics(study: Study) -> Table | None:
    """The same final weights with four kinds of statistics; None where only running averages were used."""
    found = study.evaluations[study.evaluations.status == "complete"]
    found = found[found.label.isin(found.label[found.statistics != "running"])]
    columns = _settings(study, found.drop_duplicates("label").set_index("label"))
    for split in ("validation", "test"):
        for kind, title in STATISTICS.items():
            rows = found[(found.split == split) & (found.statistics == kind)]
            texts = tables.texts(rows, "accuracy", spread, tables.digits(study), 100)
            columns[f"{split.capitalize()} accuracy, %, with", title] = texts
    note = "One set of weights in each row. Precise statistics are recomputed from augmented training images."
    return tables.of_variants(study, "Whose statistics", columns, note)


def time(study: Study) -> Table | None:
    """Median time of an epoch by batch size, and how many times that of the largest it is."""
    epochs = study.epochs[study.epochs.ghost_batch_size.isna()]
    later = epochs[epochs.run.duplicated() | ~epochs.run.duplicated(keep=False)]
    medians = later.groupby(["norm", "norm_label", "batch_size"], sort=False).seconds.median().reset_index()
    order = medians.norm.map(study.norms.index), -medians.batch_size
    medians = medians.loc[pd.concat(order, axis=1).sort_values(["norm", "batch_size"]).index]
    factor = medians.seconds / medians.groupby("norm").seconds.transform("first")
    columns = {
        "Variant": medians.norm_label,
        "Batch size": medians.batch_size.map(str),
        "Median epoch": medians.seconds.map(seconds),
        "Of the largest batch's": factor.map(lambda value: f"{number(value, 1)} ×"),
    }
    note = (
        f"With validation, without each run's first epoch (compilation). The original paper: {SLOWDOWN} at 8 as at 128."
    )
    return Table("Time", pd.DataFrame(columns).set_axis(medians.norm), note) if len(medians) else None


def _settings(study: Study, one: pd.DataFrame) -> dict[Any, pd.Series]:
    """The first columns: variant, batch size and rule; both rules where they agree and only one was trained."""
    real = study.runs[study.runs.ghost_batch_size.isna()]
    rules = real.groupby("norm").lr_rule.nunique()
    at_reference = real[real.batch_size == REFERENCE_BATCH_SIZE].groupby("norm").lr_rule.nunique()
    same = (one.batch_size == REFERENCE_BATCH_SIZE) & (one.norm.map(rules) > one.norm.map(at_reference))
    ghosts = one.ghost_batch_size.map(lambda size: "" if pd.isna(size) else f" in ghosts of {size}")
    rule = one.lr_rule.where(~same | (ghosts != ""), "fixed\u00a0=\u00a0linear")
    return {"Variant": one.norm_label, "Batch size": one.batch_size.map(str) + ghosts, "Rule": rule}


def _errors(study: Study) -> list[Picture]:
    rows = study.evaluations.query("split == 'validation' and status == 'complete'")
    if not len(rows):
        return []
    caption = (
        "Error after the last epoch. Hollow markers: the same weights with other statistics; where they are below the "
        "filled marker, the averages are at fault, not the training."
    )
    if rows.ghost_batch_size.notna().any():
        caption += " Where dashed (ghosts) is below solid (real batches of that size), small statistics do not hurt."
    figure = batch_sizes(study.runs, rows, sections.subtitle(study))
    return [sections.picture(study, "batch_sizes", caption, figure)]


def _curves(study: Study) -> list[Picture]:
    caption, drawn = "Validation accuracy (thick) and that of each epoch's own training batches (thin).", []
    for rule in RULES:
        if len(under_rule(study.epochs, rule)):
            figure = batch_curves(study.runs, study.epochs, rule, sections.subtitle(study))
            drawn.append(sections.picture(study, f"batch_curves_{rule}", caption, figure))
    return drawn
