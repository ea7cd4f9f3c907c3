"""The page of the batch-size study, from the question to the last section."""

from typing import Any

import pandas as pd

from jaxnorm.study.config import REFERENCE_BATCH_SIZE
from jaxnorm.study.report import batch_figures, sections, sentences, tables
from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.formats import interval_points, listed, number, percent, points, seconds, spread, within
from jaxnorm.study.report.frames import STATISTICS, Study, under_rule
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.published import GROUP_NORM_PAPER, SLOWDOWN, best_validation
from jaxnorm.study.report.statistics import mean_interval
from jaxnorm.study.words import counted

RULES = {"fixed": "Fixed rate", "linear": "Linear rate"}
ABOUT_AVERAGES = (
    "Batch norm evaluates with averages that it kept during training. Where these are bad, statistics recomputed for "
    "the final weights bring the accuracy back; what they do not bring back was lost in training."
)


def page(everything: Study) -> Page:
    """The answer, errors by batch size, whose statistics, ghosts, differences, curves, and details."""
    study = in_order(chosen(everything))
    sizes = listed([str(size) for size in sorted(set(study.runs.batch_size), reverse=True)])
    lead = [text for rule in rules(study) for text in (by_rule(study, rule), averages(study, rule)) if text]
    split = [losses(study), statistics(study, "validation"), statistics(study, "test")]
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
            Section("Training or averages", [ABOUT_AVERAGES], split),
            Section("Ghost batches", tables=[ghosts(study)], figures=_ghosts(study)),
            sections.comparison(study, paired(study)),
            Section("Training", figures=_curves(study)),
            sections.gates(study),
            *sections.details(study, everything, time(study)),
        ],
    )


def in_order(study: Study) -> Study:
    """The study with its runs by norm, rule, real batches before ghosts, and falling batch size."""
    ghost, norm = study.runs.ghost_batch_size.fillna(0).astype(int), study.runs.norm.map(study.norms.index)
    keys = {
        "norm": norm,
        "rule": study.runs.lr_rule,
        "ghosts": ghost > 0,
        "size": -study.runs.batch_size,
        "ghost": -ghost,
    }
    return study.with_runs(study.runs.loc[pd.DataFrame(keys).sort_values(list(keys)).index])


def rules(study: Study) -> list[str]:
    """The rules for the learning rate under which anything was planned."""
    return [rule for rule in RULES if (study.runs.lr_rule == rule).any()]


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
        f"{one.large}, {number(100 * one.averages, 1) if one.averages > 0 else 'none'} were lost in the averages "
        "(precise statistics bring them back), the rest in training"
        for one in found[found.whole > 0].drop_duplicates("norm", keep="last").itertuples()
    ]
    return f"{RULES[rule]}: {'; '.join(words)}." if words else ""


def lost(study: Study, rule: str) -> pd.DataFrame:
    """What each smaller batch loses in validation accuracy against the largest: a row for each norm and batch size.

    Returns:
        Columns `norm, label, small, large, whole` (with running averages), `training` (with precise statistics from
        batches of 128) and `averages` (the rest), as fractions; no row where only running averages were evaluated.
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
    group, rows = "Change of validation accuracy, points", []
    for rule in rules(study):
        for one in lost(study, rule).itertuples():
            cells: dict[Any, str] = {"Variant": one.label, "Batch size": str(one.small), "against": str(one.large)}
            cells["Rule"] = rule
            for name, value in {"in all": one.whole, "training": one.training, "averages": one.averages}.items():
                cells[group, name] = points(-value, 1)
            rows.append((one.norm, cells))
    note = "In all: with running averages. Training: with precise statistics, batches of 128. Averages: the rest."
    return tables.table("Against the largest batch", rows, note)


def by_batch_size(study: Study) -> Table | None:
    """Validation and test accuracy at every batch size, the original paper's best validation accuracy beside ours."""
    places, rows, group = tables.digits(study), [], "Validation accuracy, %"
    validation, test = study.final("validation"), study.final("test")
    real = study.runs[study.runs.ghost_batch_size.isna()]
    known = {key: best_validation(study.recipe, *key) for key in zip(real.norm, real.batch_size, strict=True)}
    for label, runs in real.groupby("label", observed=True):
        one = next(runs.itertuples())
        peak = one.learning_rate * (one.batch_size / REFERENCE_BATCH_SIZE if one.lr_rule == "linear" else 1)
        cells = _setting(study, one) | {"Learning rate": f"{peak:.4g}"}
        cells[group, "last epoch"] = spread(validation.accuracy[validation.label == label], places, 100)
        best = runs.best_val_accuracy[runs.status == "complete"].dropna()
        cells[group, "best epoch"] = spread(best, places, 100)
        if any(known.values()):
            cells[group, "paper's best"] = percent(known[one.norm, one.batch_size], 0)
        cells["Test accuracy, %"] = spread(test.accuracy[test.label == label], places, 100)
        rows.append((one.norm, cells | {"Status": tables.state(runs)}))
    note = "The best epoch's accuracy is the maximum of a noisy number; it is here because the original paper gives it."
    return tables.table("By batch size", rows, f"{note} {tables.whose_statistics(study)}")


def statistics(study: Study, split: str) -> Table | None:
    """The same final weights with four kinds of statistics; None where only running averages were used."""
    titles, rows = ("running averages", "precise, own size", "precise, 128", "the evaluation batch"), []
    found = study.evaluations[(study.evaluations.split == split) & (study.evaluations.status == "complete")]
    found = found[found.label.isin(found.label[found.statistics != "running"])]
    for _, mine in found.groupby("label", observed=True):
        one = next(mine.itertuples())
        cells = _setting(study, one)
        for kind, title in zip(STATISTICS, titles, strict=True):
            values = mine.accuracy[mine.statistics == kind]
            cells[f"{split.capitalize()} accuracy, %, with", title] = spread(values, tables.digits(study), 100)
        rows.append((one.norm, cells))
    note = "One set of weights in each row. Precise statistics are recomputed from augmented training images."
    return tables.table(f"Whose statistics: {split}", rows, note)


def ghosts(study: Study) -> Table | None:
    """Ghost batches beside the whole batch that they are parts of, and the real batch of their size."""
    validation, rows = study.final("validation"), []
    real = validation[validation.ghost_batch_size.isna()]
    for label, runs in study.runs[study.runs.ghost_batch_size.notna()].groupby("label", observed=True):
        one = next(runs.itertuples())
        mine = real[real.norm == one.norm]
        small, large = (mine[mine.batch_size == size] for size in (one.ghost_batch_size, one.batch_size))
        values = {"whole batch": large[large.lr_rule == one.lr_rule], "ghosts": validation[validation.label == label]}
        values |= {f"real, {rule} rate": small[small.lr_rule == rule] for rule in rules(study)}
        cells: dict[Any, str] = {"Variant": one.norm_label, "Ghost": str(one.ghost_batch_size)}
        cells["in batches of"] = str(one.batch_size)
        for name, found in values.items():
            cells["Validation accuracy, %", name] = spread(found.accuracy, tables.digits(study), 100)
        rows.append((one.norm, cells | {"Status": tables.state(runs)}))
    note = "Ghosts have the noise of small statistics, with the steps and the rate of the large batch."
    return tables.table("Ghost batches", rows, note)


def time(study: Study) -> Table | None:
    """Median time of an epoch by batch size, and how many times that of the largest it is."""
    epochs, rows = study.epochs[study.epochs.ghost_batch_size.isna()], []
    later = epochs[epochs.run.duplicated() | ~epochs.run.duplicated(keep=False)]
    for (norm, label), mine in later.groupby(["norm", "norm_label"], sort=False):
        medians = mine.groupby("batch_size").seconds.median().sort_index(ascending=False)
        for size, value in medians.items():
            cells = {"Variant": label, "Batch size": str(size), "Median epoch": seconds(value)}
            rows.append((norm, cells | {"Of the largest batch's": f"{number(value / medians.iloc[0], 1)} ×"}))
    note = (
        f"With validation, without each run's first epoch (compilation). The original paper: {SLOWDOWN} at 8 as at 128."
    )
    return tables.table("Time", rows, note)


def _setting(study: Study, run: Any) -> dict[Any, str]:
    """The first cells of a row: variant, batch size and rule; both rules where they agree and only one was trained."""
    alike = study.runs[(study.runs.norm == run.norm) & study.runs.ghost_batch_size.isna()]
    here = alike.lr_rule[alike.batch_size == run.batch_size]
    same = run.batch_size == REFERENCE_BATCH_SIZE and alike.lr_rule.nunique() > here.nunique() == 1
    size = str(run.batch_size) + ("" if pd.isna(run.ghost_batch_size) else f" in ghosts of {run.ghost_batch_size}")
    return {"Variant": run.norm_label, "Batch size": size, "Rule": "fixed\u00a0=\u00a0linear" if same else run.lr_rule}


def _errors(study: Study) -> list[Picture]:
    rows = study.evaluations.query("split == 'validation' and status == 'complete'")
    if not len(rows):
        return []
    caption = (
        "Error after the last epoch. Hollow markers: the same weights with other statistics; where they are below the "
        "filled marker, the averages are at fault, not the training."
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
    caption, drawn = "Validation accuracy (thick) and that of each epoch's own training batches (thin).", []
    for rule in rules(study):
        if len(under_rule(study.epochs, rule)):
            figure = batch_figures.batch_curves(study.runs, study.epochs, rule, sections.subtitle(study))
            title = f"Accuracy over training: {RULES[rule].lower()}"
            drawn.append(sections.picture(study, f"batch_curves_{rule}", title, caption, figure))
    return drawn
