"""The tables that every study has: results, comparisons, metrics, calibration, time, runs, rates and gates."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.report import formats
from jaxnorm.study.report.comparisons import chosen, varies_rates
from jaxnorm.study.report.formats import DASH, number, percent, points, spread
from jaxnorm.study.report.frames import Study, finished_rows, setting_words
from jaxnorm.study.report.page import Table
from jaxnorm.study.report.published import comparable, published_for
from jaxnorm.study.report.records import SPLITS
from jaxnorm.study.report.statistics import correct, expected_calibration_error, negative_log_likelihood
from jaxnorm.study.words import counted

Row = Mapping[Any, str]


def table(title: str, rows: Sequence[tuple[str, Row]], note: str = "") -> Table | None:
    """A table of (norm, cells by column) pairs; None without rows."""
    if not rows:
        return None
    return Table(title, pd.DataFrame([cells for _, cells in rows], index=[norm for norm, _ in rows]), note)


def digits(study: Study) -> int:
    """Decimals of an accuracy in per cent: two where a variant has several finished seeds."""
    return 2 if study.finished.variant.duplicated().any() else 1


def status(run: Any) -> str:
    """What happened to a run (a row of `Study.runs`), in words."""
    epoch, of = 0 if pd.isna(run.epoch) else run.epoch, "" if pd.isna(run.num_epochs) else f" of {run.num_epochs}"
    if run.status == "complete":
        return (
            f"stopped after epoch {epoch}{of}"
            if of and epoch < run.num_epochs
            else f"complete, {counted(epoch, 'epoch')}"
        )
    if run.status == "diverged":
        return f"diverged at step {number(run.diverged_at_step)}, after epoch {epoch}{of}"
    if run.status == "crashed":
        return f"crashed after epoch {epoch}{of}: {textwrap.shorten(str(run.error or 'no reason recorded'), 200)}"
    return "not started" if run.status == "missing" else f"unfinished, epoch {epoch}{of} reached"


def state(runs: pd.DataFrame) -> str:
    """One cell for all seeds of a variant."""
    if len(runs) == 1:
        run = next(runs.itertuples())
        stopped = run.status == "complete" and run.epoch < run.num_epochs
        return f"epoch {run.epoch} of {run.num_epochs}" if stopped else run.status.replace("missing", "not started")
    counts = runs.status.replace("missing", "not started").value_counts(sort=False)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{len(runs)} seeds" if list(counts.index) == ["complete"] else kinds


def whose_statistics(study: Study) -> str:
    """What batch statistics are taken over: a note of every table of results."""
    replicas = sorted(set(study.runs.num_replicas))
    if study.runs.ghost_batch_size.notna().any():
        return "Batch statistics are of the whole batch, or of each ghost where runs have ghosts."
    if replicas in ([], [1]):
        return "Batch statistics are of the whole batch."
    return f"Batch statistics are of each replica, one of {' or '.join(map(str, replicas))} equal parts of the batch."


def is_comparable(study: Study) -> bool:
    """Whether all finished runs follow the original paper's protocol to its end."""
    runs = study.finished.to_dict("records")
    return bool(runs) and all(comparable(run, run["epoch"]) for run in runs)


def results(study: Study) -> Table | None:
    """Final accuracies, the original paper's beside them on its data, and what happened to each variant."""
    places, known, rows = digits(study), published_for(study.recipe), []
    final = {split: study.final(split) for split in SPLITS}
    for label, runs in study.runs.groupby("label", observed=True):
        mine = {split: found[found.label == label] for split, found in final.items()}
        test, norm = mine["test"], runs.norm.iloc[0]
        cells: dict[Any, str] = {"Variant": str(label), ("Accuracy, %", "Test"): spread(test.accuracy, places, 100)}
        for split in ("validation", "train"):
            cells["Accuracy, %", split.capitalize()] = percent(mine[split].accuracy.mean(), places)
        cells["On test", "Macro F1, %"] = percent(test.macro_f1.mean(), places)
        cells["On test", "Loss"] = number(test.loss.mean(), 3)
        if known:
            theirs = known[norm].test if norm in known else float("nan")
            cells["Original paper", "Test, %"] = percent(theirs)
            if is_comparable(study):
                cells["Original paper", "Difference"] = points(test.accuracy.mean() - theirs, 1)
        rows.append((norm, cells | {"Status": state(runs)}))
    note = "Mean over the finished seeds, ± standard deviation on test. " if places == 2 else ""
    if known:
        note += "The original paper's values are from one seed each, with a standard error of about 0.3 points. "
        if not is_comparable(study):
            note += "Only runs of its own protocol, trained to the end, could be compared with them. "
    return table("Results", rows, note + whose_statistics(study))


def comparison(study: Study, found: pd.DataFrame) -> Table | None:
    """Paired differences in test accuracy, given what `comparisons.paired` found."""
    names = dict(zip(study.runs.norm, study.runs.norm_label, strict=True))
    over_seeds, settings, rows = found.interval.notna().any(), found.tags.nunique() > 1, []
    for one in found.itertuples():
        cells: dict[Any, str] = {"Variant": names[one.norm], "against": names[one.baseline]}
        cells |= {"Setting": setting_words(one.tags.split())} if settings else {}
        cells["Difference"] = points(one.mean)
        if over_seeds:
            cells["Over seeds", "95 % interval"] = formats.interval_points(one.interval)
            cells["Over seeds", "p"] = formats.p_value(one.p)
            cells["Over seeds", "p, Holm"] = formats.p_value(one.holm_p)
        cells["Over test images", "95 % interval"] = formats.interval_points(one.image_interval)
        cells |= {"Kind": "planned" if one.planned else "exploratory"} if over_seeds else {}
        rows.append((one.norm, cells))
    return table("Paired differences", rows, "Test accuracy, in points.")


def metrics(study: Study) -> list[Table | None]:
    """Accuracy, macro F1 and loss, a table for each split; the original paper's accuracy beside ours on its data."""
    places, known, found = digits(study), published_for(study.recipe), []
    for split in SPLITS:
        rows = []
        for label, mine in study.final(split).groupby("label", observed=True):
            cells = {"Variant": str(label), "Accuracy, %": spread(mine.accuracy, places, 100)}
            if known:
                cells["Original paper, %"] = percent(getattr(known.get(mine.norm.iloc[0]), split, None))
            cells |= {"Macro F1, %": spread(mine.macro_f1, places, 100), "Loss": spread(mine.loss, 3)}
            rows.append((mine.norm.iloc[0], cells))
        found.append(table(f"{'Training' if split == 'train' else split.capitalize()} images", rows))
    return found


def calibration(study: Study) -> Table | None:
    """Expected calibration error and negative log-likelihood from the saved test logits."""
    rows = []
    for label, runs in study.finished.groupby("label", observed=True):
        known = [one for run in runs.name if (one := study.predictions(run)) is not None]
        if known:
            cells = {
                "Variant": str(label),
                "Expected calibration error, points": spread(map(expected_calibration_error, known), 2, 100),
                "Negative log-likelihood, nats": spread(map(negative_log_likelihood, known), 3),
                "Test error, %": spread([1 - float(correct(one).mean()) for one in known], 2, 100),
            }
            rows.append((runs.norm.iloc[0], cells))
    note = (
        "Expected calibration error: the mean gap between confidence and accuracy over 15 bins of equal width. It is "
        "never quite zero on a finite test set."
    )
    return table("Calibration", rows, note)


def time(study: Study) -> Table | None:
    """Median seconds of an epoch, whole training time and parameters."""
    rows = []
    for label, epochs in study.epochs.groupby("label", observed=True):
        runs, finished = (found[found.label == label] for found in (study.runs, study.finished))
        cells = {
            "Variant": str(label),
            "Median epoch": formats.seconds(float(epochs.seconds.median())),
            "Training of one seed": formats.seconds(finished.seconds.mean()),
            "Parameters": number(next(iter(runs.num_params.dropna()), None)),
        }
        rows.append((runs.norm.iloc[0], cells))
    note = "An epoch's time includes its validation. Compilation is part of a run's first epoch, hence the median."
    return table("Time", rows, note)


def runs(study: Study) -> Table | None:
    """Every planned run and what happened to it."""
    rows = []
    for run in study.runs.itertuples():
        best = DASH
        if not pd.isna(run.best_val_accuracy):
            best = f"{percent(run.best_val_accuracy)} (epoch {run.best_val_epoch})"
        started = str(run.provenance.get("started") or DASH)[:19].replace("T", " ")
        cells = {"Run": run.name, "Status": status(run), "Best validation, %": best}
        rows.append((run.norm, cells | {"Training": formats.seconds(run.seconds), "Started (UTC)": started}))
    return table("Runs", rows, "The best validation accuracy is what some papers quote; no weights were chosen by it.")


def rates(study: Study) -> Table | None:
    """Validation accuracy of every norm at every learning rate, and test accuracy only at the chosen one."""
    if not varies_rates(study):
        return None
    final, best, rows = study.final("validation"), chosen(study), []
    for norm, planned in study.runs.groupby(pd.Categorical(study.runs.norm, study.norms), observed=True):
        cells: dict[Any, str] = {"Variant": planned.norm_label.iloc[0]}
        for rate, there in planned.groupby("learning_rate"):
            lost = there.status.value_counts()
            cells["Validation, %, at learning rate", f"{rate:g}"] = spread(
                final.accuracy[final.run.isin(there.name)], 2, 100
            ) + "".join(f", {lost[fate]} {fate}" for fate in ("diverged", "crashed") if fate in lost)
        picked = best.final("test").query("norm == @norm")
        cells["Chosen", "rate"] = f"{picked.learning_rate.iloc[0]:g}" if len(picked) else DASH
        rows.append((str(norm), cells | {("Chosen", "Test, %"): spread(picked.accuracy, 2, 100)}))
    note = "Validation accuracy after the last epoch decides; test accuracy is shown for the chosen rate alone."
    return table("Learning rates", rows, f"{note} {whose_statistics(study)}")


def gates(study: Study) -> Table | None:
    """Final gates by layer; one row for a variant whose gates are all equal."""
    rows, last = [], finished_rows(study.gates)
    last = last[last.epoch == last.groupby("variant", observed=True).epoch.transform("max")]
    for label, mine in last.groupby("label", observed=True):
        if mine.gate.nunique() == 1:
            mine = mine.assign(layer="all layers")
        for layer in sorted(dict.fromkeys(mine.layer), key=lambda layer: not layer.startswith("stem")):
            values = mine.gate[mine.layer == layer].to_numpy()
            low, middle, high = (number(float(value), 2) for value in np.quantile(values, (0.1, 0.5, 0.9)))
            cells: dict[Any, str] = {"Variant": str(label), "Layer": layer}
            cells |= {("Gate", "10 %"): low, ("Gate", "Median"): middle, ("Gate", "90 %"): high}
            for end in (0, 1):
                cells["Share of channels, %", f"at {end}"] = percent(float((values == end).mean()), 0)
            rows.append((mine.norm.iloc[0], cells))
    note = "After the last recorded epoch, all channels of all finished seeds. 1 is batch norm, 0 instance norm."
    return table("Gates by layer", rows, note)
