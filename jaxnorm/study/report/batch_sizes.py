"""The page of the batch-size study, from the question to the last section."""

from typing import Any

import pandas as pd

from jaxnorm.study.report import batch_figures, sections, sentences, tables
from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.formats import DASH, interval_points, listed, number, percent, points, seconds, spread, within
from jaxnorm.study.report.frames import STATISTICS, Study, under_rule
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.published import GROUP_NORM_PAPER, SLOWDOWN, best_validation
from jaxnorm.study.report.statistics import mean_interval
from jaxnorm.study.words import counted

QUESTION = "When does batch norm break, and is it the training or only its averages?"
RULES = {"fixed": "Fixed rate", "linear": "Linear rate"}


def page(everything: Study) -> Page:
    """The answer, errors by batch size, whose statistics, ghosts, curves, time, differences, and details."""
    study = in_order(chosen(everything))
    found = paired(study)
    sizes = listed([str(size) for size in sorted(set(study.runs.batch_size), reverse=True)])
    lead = [text for rule in rules(study) for text in (by_rule(study, rule), averages(study, rule)) if text]
    return Page(
        title=QUESTION,
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"A 14-layer residual network is trained on {study.data_description} in batches of {sizes}, for the same number "
            f"of epochs, from {counted(study.runs.seed.nunique(), 'seed')} each. A smaller batch means more steps, noisier "
            "gradients and, for batch norm, noisier statistics."
        ),
        lead=[*(lead if len(study.finished) else [sentences.NO_RESULT]), *sentences.failed(study)],
        cautions=sentences.cautions(study),
        sections=[
            Section("Results", tables=[by_batch_size(study)], figures=_errors(study)),
            Section(
                "Training or averages",
                [ABOUT_AVERAGES],
                [losses(study), *map(statistics(study), ("validation", "test"))],
            ),
            Section("Ghost batches", tables=[ghosts(study)], figures=_ghosts(study)),
            sections.comparison(study, found),
            Section("Training", figures=_curves(study)),
            sections.gates(study),
            Section("Group Normalization paper", [GROUP_NORM_PAPER], folded=True),
            *sections.details(study, everything, time(study)),
        ],
    )


ABOUT_AVERAGES = (
    "Batch norm evaluates with averages that it kept during training. Where these are bad, statistics recomputed for the "
    "final weights bring the accuracy back; what they do not bring back was lost in training."
)


def in_order(study: Study) -> Study:
    """The study with its runs by norm, rule, real batches before ghosts, and falling batch size."""
    runs = study.runs.assign(
        place=study.runs.norm.map(study.norms.index), ghost=study.runs.ghost_batch_size.fillna(0).astype(int)
    )
    runs = runs.assign(real=runs.ghost > 0, size=-runs.batch_size.astype(int), ghost=-runs.ghost)
    runs = runs.sort_values(["place", "lr_rule", "real", "size", "ghost"], kind="stable")
    return study.with_runs(runs.drop(columns=["place", "real", "size", "ghost"]))


def rules(study: Study) -> list[str]:
    """The rules for the learning rate under which anything was planned."""
    return [rule for rule in RULES if (study.runs.lr_rule == rule).any()]


def by_rule(study: Study, rule: str) -> str:
    """What the smallest batch costs each norm against the largest, under one rule."""
    words = []
    for norm, rows in under_rule(study.final("validation"), rule).groupby("norm", sort=False):
        large, small = rows[rows.batch_size == rows.batch_size.max()], rows[rows.batch_size == rows.batch_size.min()]
        if large.batch_size.iloc[0] == small.batch_size.iloc[0]:
            continue
        apart = (small.set_index("seed").accuracy - large.set_index("seed").accuracy).dropna()
        interval = mean_interval(apart.tolist())
        sure = f", 95 % interval {interval_points(interval, 1)}" if interval else ""
        words.append(
            f"{within(rows.norm_label.iloc[0])} goes from {percent(large.accuracy.mean())} % at batch size "
            f"{large.batch_size.iloc[0]} to {percent(small.accuracy.mean())} % at {small.batch_size.iloc[0]} "
            f"({points(small.accuracy.mean() - large.accuracy.mean(), 1)} points{sure})"
        )
    return f"{RULES[rule]}, validation accuracy after the last epoch: {'; '.join(words)}." if words else ""


def averages(study: Study, rule: str) -> str:
    """Of the smallest batch's loss in accuracy: how much precise statistics bring back."""
    found = lost(study, rule)
    words = [
        f"of the {number(100 * one.whole, 1)} points that {within(one.label)} loses at batch size {one.small} against "
        f"{one.large}, {number(100 * max(one.training, 0), 1)} remain with precise statistics: these are lost in training, "
        "the rest in the averages"
        for one in found.drop_duplicates("norm", keep="last").itertuples()
        if one.whole > 0
    ]
    return f"{RULES[rule]}: {'; '.join(words)}." if words else ""


def lost(study: Study, rule: str) -> pd.DataFrame:
    """What each smaller batch loses in validation accuracy against the largest: a row for each norm and batch size.

    Returns:
        Columns `norm, label, small, large, whole` (with running averages), `training` (with precise statistics from
        batches of 128) and `averages` (the rest), as fractions; no row where only running averages were evaluated.
    """
    rows = study.evaluations.query("split == 'validation' and status == 'complete'")
    found = []
    for (norm, label), mine in under_rule(rows, rule).groupby(["norm", "norm_label"], sort=False):
        table = mine.pivot_table(index="batch_size", columns="statistics", values="accuracy").sort_index(
            ascending=False
        )
        if {"running", "precise_128"} <= set(table):
            table = table.dropna(subset=["running", "precise_128"])
            for size, row in table.iloc[1:].iterrows():
                whole, training = (table[kind].iloc[0] - row[kind] for kind in ("running", "precise_128"))
                found.append((norm, label, size, table.index[0], whole, training, whole - training))
    return pd.DataFrame(found, columns=["norm", "label", "small", "large", "whole", "training", "averages"])


def losses(study: Study) -> Table | None:
    """What each smaller batch loses, and where."""
    group, rows = "Change of validation accuracy, points", []
    for rule in rules(study):
        for one in lost(study, rule).itertuples():
            cells: dict[Any, str] = {
                "Variant": one.label,
                "Batch size": str(one.small),
                "compared with": str(one.large),
            }
            parts = {
                (group, name): points(-value, 1) for name, value in zip(("in all", "training", "averages"), one[5:])
            }
            rows.append((one.norm, cells | {"Rule": rule} | parts))
    note = "In all: with running averages. Training: with precise statistics from batches of 128. Averages: the rest."
    return tables.table("Against the largest batch", rows, note)


def by_batch_size(study: Study) -> Table | None:
    """Validation and test accuracy at every batch size, the original paper's best validation accuracy beside ours."""
    places, rows, group = tables.digits(study), [], "Validation accuracy, %"
    validation, test, real = (
        study.final("validation"),
        study.final("test"),
        study.runs[study.runs.ghost_batch_size.isna()],
    )
    known = [best_validation(study.recipe, norm, size) for norm, size in zip(real.norm, real.batch_size, strict=True)]
    for label, runs in real.groupby("label", observed=True):
        first = next(runs.itertuples())
        cells = _setting(study, first) | {
            "Learning rate": f"{first.learning_rate * (first.batch_size / 128 if first.lr_rule == 'linear' else 1):.4g}"
        }
        cells[group, "last epoch"] = spread(validation.accuracy[validation.label == label], places, 100)
        best = runs.best_val_accuracy[runs.status == "complete"].dropna()
        cells[group, "best epoch"] = spread(best, places, 100)
        if any(known):
            cells[group, "paper's best"] = percent(best_validation(study.recipe, first.norm, first.batch_size), 0)
        cells["Test accuracy, %"] = spread(test.accuracy[test.label == label], places, 100)
        rows.append((first.norm, cells | {"Status": tables.state(runs)}))
    note = (
        "The best epoch's accuracy is the maximum of a noisy number; it is here because the original paper quotes it."
    )
    return tables.table("By batch size", rows, f"{note} {tables.whose_statistics(study)}")


def statistics(study: Study) -> Any:
    """Gives by split the table of the same final weights with four kinds of statistics; None without other kinds."""
    titles = ("running averages", "precise, own size", "precise, 128", "the evaluation batch")

    def of(split: str) -> Table | None:
        found = study.evaluations[(study.evaluations.split == split) & (study.evaluations.status == "complete")]
        more = found.label[found.statistics != "running"]
        rows = []
        for label, mine in found[found.label.isin(more)].groupby("label", observed=True):
            first = next(mine.itertuples())
            cells = _setting(study, first)
            for kind, title in zip(STATISTICS, titles, strict=True):
                values = mine.accuracy[mine.statistics == kind]
                cells[f"{split.capitalize()} accuracy, %, with", title] = spread(values, tables.digits(study), 100)
            rows.append((first.norm, cells))
        note = "One set of weights in each row. Precise statistics are recomputed from augmented training images."
        return tables.table(f"Whose statistics: {split}", rows, note)

    return of


def ghosts(study: Study) -> Table | None:
    """Ghost batches beside the whole batch that they are parts of, and the real batch of their size."""
    validation, places, rows = study.final("validation"), tables.digits(study), []
    real = validation[validation.ghost_batch_size.isna()]
    for label, runs in study.runs[study.runs.ghost_batch_size.notna()].groupby("label", observed=True):
        one = next(runs.itertuples())
        mine = real[real.norm == one.norm]
        cells: dict[Any, str] = {
            "Variant": one.norm_label,
            "Ghost": str(one.ghost_batch_size),
            "in batches of": str(one.batch_size),
        }
        values = {"whole batch": mine[(mine.batch_size == one.batch_size) & (mine.lr_rule == one.lr_rule)]}
        values |= {"ghosts": validation[validation.label == label]}
        small = mine[mine.batch_size == one.ghost_batch_size]
        values |= {f"real, {rule} rate": small[small.lr_rule == rule] for rule in rules(study)}
        cells |= {
            ("Validation accuracy, %", name): spread(found.accuracy, places, 100) for name, found in values.items()
        }
        rows.append((one.norm, cells | {"Status": tables.state(runs)}))
    note = (
        "Ghosts take the statistics over parts of a large batch: the noise of small statistics with the steps and the rate "
        "of the large batch."
    )
    return tables.table("Ghost batches", rows, note)


def time(study: Study) -> Table | None:
    """Median time of an epoch by batch size, and how many times that of the largest it is."""
    epochs, rows = study.epochs[study.epochs.ghost_batch_size.isna()], []
    later = epochs[epochs.groupby("run").cumcount() > 0]  # compilation is part of a run's first epoch
    later = pd.concat([later, epochs[~epochs.run.isin(later.run)]])
    for (norm, label), mine in later.groupby(["norm", "norm_label"], sort=False):
        medians = mine.groupby("batch_size").seconds.median().sort_index(ascending=False)
        for size, value in medians.items():
            ratio = f"{number(value / medians.iloc[0], 1)} ×"
            cells = {"Variant": label, "Batch size": str(size), "Median epoch": seconds(value)}
            rows.append((norm, cells | {"Of the largest batch's": ratio}))
    note = f"With its validation, without each run's first epoch. The original paper: {SLOWDOWN} at 8 as at 128."
    return tables.table("Time", rows, note)


def terminal(study: Study) -> Table | None:
    """The accuracies in narrow columns."""
    rows, places = [], tables.digits(study)
    validation, precise, test = study.final("validation"), study.final("validation", "precise_128"), study.final("test")
    for label, runs in study.runs.groupby("label", observed=True):
        one = next(runs.itertuples())
        size = str(one.batch_size) + ("" if pd.isna(one.ghost_batch_size) else f"/{one.ghost_batch_size}")
        cells = {"Variant": one.norm_label, "Batch": size, "Rule": one.lr_rule}
        cells["Val. %"] = percent(validation.accuracy[validation.label == label].mean(), places)
        cells["Best %"] = percent(runs.best_val_accuracy[runs.status == "complete"].mean(), places)
        if len(precise):
            cells["Precise %"] = percent(precise.accuracy[precise.label == label].mean(), places)
        cells["Test %"] = percent(test.accuracy[test.label == label].mean(), places)
        rows.append((one.norm, cells | {"Status": tables.state(runs)}))
    note = "Validation after the last and the best epoch, test after the last; means over the finished seeds."
    note += " Precise: validation with statistics recomputed in batches of 128." if len(precise) else ""
    note += " 128/8: ghosts of 8 in batches of 128." if study.runs.ghost_batch_size.notna().any() else ""
    return tables.table("By batch size", rows, f"{note} {tables.whose_statistics(study)}")


def _setting(study: Study, run: Any) -> dict[Any, str]:
    """The first cells of a row: variant, batch size and rule; both rules where they agree and only one was trained."""
    alike = study.runs[(study.runs.norm == run.norm) & study.runs.ghost_batch_size.isna()]
    here = alike.lr_rule[alike.batch_size == run.batch_size]
    same = run.batch_size == 128 and alike.lr_rule.nunique() > here.nunique() == 1
    size = str(run.batch_size) + ("" if pd.isna(run.ghost_batch_size) else f" in ghosts of {run.ghost_batch_size}")
    return {"Variant": run.norm_label, "Batch size": size, "Rule": "fixed\u00a0=\u00a0linear" if same else run.lr_rule}


def _errors(study: Study) -> list[Picture]:
    rows = study.evaluations.query("split == 'validation' and status == 'complete'")
    if not len(rows):
        return []
    caption = (
        "Error on the validation images after the last epoch. Hollow markers: the same weights with other statistics; where "
        "they are below the filled marker, the averages are at fault, not the training."
    )
    figure = batch_figures.batch_sizes(study.runs, rows, sections.subtitle(study))
    return [sections.picture(study, "batch_sizes", "Validation error by batch size", caption, figure)]


def _ghosts(study: Study) -> list[Picture]:
    rows = study.final("validation")
    if not rows.ghost_batch_size.notna().any():
        return []
    caption = "Where dashed (ghosts) is below solid (real batches of that size), small statistics are not what hurts."
    figure = batch_figures.ghosts(rows, sections.subtitle(study))
    return [sections.picture(study, "ghosts", "Ghost batches beside real small ones", caption, figure)]


def _curves(study: Study) -> list[Picture]:
    caption, drawn = "Accuracy on the validation images (thick) and on each epoch's own training batches (thin).", []
    for rule in rules(study):
        if len(under_rule(study.epochs, rule)):
            figure = batch_figures.batch_curves(study.runs, study.epochs, rule, sections.subtitle(study))
            title = f"Accuracy over training: {RULES[rule].lower()}"
            drawn.append(sections.picture(study, f"batch_curves_{rule}", title, caption, figure))
    return drawn
