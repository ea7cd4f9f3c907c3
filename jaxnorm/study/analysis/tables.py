"""The tables of a report, as plain cells: one source for the page, its Markdown twin and the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxnorm.study.analysis.comparison import Comparison
from jaxnorm.study.analysis.reference import comparable, references_for
from jaxnorm.study.analysis.runs import SPLITS, Run, SplitResult, Study, setting_words
from jaxnorm.study.analysis.words import (
    DASH,
    counted,
    duration,
    interval_points,
    number,
    p_value,
    percent,
    points,
    shared_time,
    spread,
)


@dataclass(frozen=True)
class Column:
    """A heading; neighbours with the same `group` stand under one more heading."""

    title: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """One variant's cells, or one run's; `norm` decides the mark before the first cell."""

    norm: str | None
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Headings, rows and what a reader must know of them."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The upper headings and how many columns each spans; empty where no column has one."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


def several_seeds(study: Study) -> bool:
    """Whether any variant has more than one finished seed."""
    return any(len(study.finished(norm)) > 1 for norm in study.variants)


def status_of(run: Run) -> str:
    """What became of a run, in words."""
    of = f" of {run.num_epochs}" if run.num_epochs else ""
    match run.status:
        case "complete" if run.epoch is not None and run.num_epochs and run.epoch < run.num_epochs:
            return f"stopped after epoch {run.epoch}{of}"
        case "complete":
            return f"complete, {counted(run.epoch, 'epoch')}" if run.epoch else "complete"
        case "diverged":
            return f"diverged at step {number(run.diverged_at_step, 0)}, after epoch {run.epoch or 0}{of}"
        case "crashed":
            reason = " ".join((run.error or "no reason recorded").split())
            return f"crashed after epoch {run.epoch or 0}{of}: {reason if len(reason) <= 200 else reason[:199] + '…'}"
        case "unfinished":
            return f"unfinished, epoch {run.epoch or 0}{of} reached"
        case _:
            return "not started"


def state_of(runs: Sequence[Run]) -> str:
    """One cell for all seeds of a variant."""
    if len(runs) == 1:
        run = runs[0]
        if run.complete and run.epoch and run.num_epochs and run.epoch < run.num_epochs:
            return f"epoch {run.epoch} of {run.num_epochs}"
        if run.status == "diverged":
            return f"diverged, step {number(run.diverged_at_step, 0)}"
        return "not started" if run.status == "missing" else run.status
    states = [run.status for run in runs]
    kinds = sorted(set(states), key=states.index)
    if kinds == ["complete"]:
        return f"{len(runs)} seeds"
    return ", ".join(f"{states.count(kind)} {'not started' if kind == 'missing' else kind}" for kind in kinds)


def whose_statistics(study: Study) -> str:
    """What batch statistics are of, as it stands at every table of results."""
    replicas = sorted({run.num_replicas for run in study.runs})
    if any(run.ghost_batch_size for run in study.runs):
        return "Batch statistics are of the whole batch, or of each ghost where runs have ghosts."
    if replicas in ([], [1]):
        return "Batch statistics are of the whole batch."
    return f"Batch statistics are of each replica, one of {' or '.join(map(str, replicas))} equal parts of the batch."


def results_table(study: Study) -> Table:
    """What a reader wants first: final accuracies, and what became of each variant."""
    digits = 2 if several_seeds(study) else 1
    references = references_for(study.recipe)
    columns = [Column("Variant", numeric=False)]
    columns += [Column(split.capitalize(), "Accuracy, %") for split in reversed(SPLITS)]
    columns += [Column("Macro F1, %", "On test"), Column("Loss", "On test")]
    if references:
        columns += [Column("Test, %", "Published study")]
        if _comparable(study):
            columns += [Column("Difference", "Published study")]
    columns.append(Column("Status", numeric=False))
    rows = []
    for norm in study.variants:
        runs = study.finished(norm)
        cells = [study.label(norm)]
        cells += [_spread(runs, "test", lambda f: f.accuracy, digits, 100)]
        cells += [_mean(runs, split, lambda f: f.accuracy, digits, 100) for split in ("validation", "train")]
        cells += [_mean(runs, "test", lambda f: f.macro_f1, digits, 100), _mean(runs, "test", lambda f: f.loss, 3)]
        if references:
            known = references.get(norm)
            cells += [percent(known.test) if known else DASH]
            if _comparable(study):
                ours = [run.splits["test"].accuracy for run in runs]
                cells += [points(float(np.mean(ours)) - known.test, 1) if known and ours else DASH]
        rows.append(Row(norm, (*cells, state_of(study.of(norm)))))
    note = "Mean over the finished seeds, ± standard deviation on test." if several_seeds(study) else ""
    if references:
        note += " The published study's values: one seed each, standard error about 0.3 points."
        if not _comparable(study):
            note += " No difference is given: only runs trained to the end of the study's own protocol are comparable."
    return Table("Results", tuple(columns), tuple(rows), f"{note} {whose_statistics(study)}".strip())


def terminal_table(study: Study) -> Table:
    """The results in eight narrow columns."""
    digits = 2 if several_seeds(study) else 1
    references = references_for(study.recipe)
    titles = ["Test %", "Val. %", "Train %", "F1 %", "Loss"] + (["Study %"] if references else [])
    rows = []
    for norm in study.variants:
        runs, known = study.finished(norm), references.get(norm)
        cells = [study.label(norm), _spread(runs, "test", lambda f: f.accuracy, digits, 100)]
        cells += [_mean(runs, split, lambda f: f.accuracy, digits, 100) for split in ("validation", "train")]
        cells += [_mean(runs, "test", lambda f: f.macro_f1, digits, 100), _mean(runs, "test", lambda f: f.loss, 3)]
        cells += [percent(known.test) if known else DASH] if references else []
        rows.append(Row(norm, (*cells, state_of(study.of(norm)))))
    columns = (Column("Variant", numeric=False), *map(Column, titles), Column("Status", numeric=False))
    note = "Accuracy on test, validation and train; macro F1 and loss on test."
    if several_seeds(study):
        note += " Mean over the finished seeds, ± standard deviation."
    note += " Study: its test accuracy." if references else ""
    return Table("Results", columns, tuple(rows), f"{note} {whose_statistics(study)}")


def metrics_tables(study: Study) -> list[Table]:
    """Accuracy, both F1 and loss, a table for each split; none before a run has finished."""
    digits = 2 if several_seeds(study) else 1
    if not any(run.complete for run in study.runs):
        return []
    names = ("Accuracy, %", "Micro F1, %", "Macro F1, %", "Loss")
    values = (lambda f: f.accuracy, lambda f: f.micro_f1, lambda f: f.macro_f1)
    found = []
    for split, title in zip(SPLITS, ("Training images", "Validation images", "Test images"), strict=True):
        rows = []
        for norm in study.variants:
            runs = study.finished(norm)
            cells = [_spread(runs, split, value, digits, 100) for value in values]
            rows.append(Row(norm, (study.label(norm), *cells, _spread(runs, split, lambda f: f.loss, 3))))
        found.append(Table(title, (Column("Variant", numeric=False), *map(Column, names)), tuple(rows)))
    return found


def reference_table(study: Study) -> Table | None:
    """Ours and the published study's, side by side; None on other data than the study's."""
    references = references_for(study.recipe)
    norms = [norm for norm in study.variants if norm in references]
    if not norms:
        return None
    parts: list[tuple[str, str, Callable[[SplitResult], float], str]] = [
        ("Train accuracy", "train", lambda f: f.accuracy, "train"),
        ("Validation accuracy", "validation", lambda f: f.accuracy, "validation"),
        ("Test accuracy", "test", lambda f: f.accuracy, "test"),
        ("Test macro F1", "test", lambda f: f.macro_f1, "test_macro_f1"),
    ]
    titles = ("Ours", "Study", "Diff.") if _comparable(study) else ("Ours", "Study")
    columns = [Column("Variant", numeric=False), Column("In the study", numeric=False)]
    columns += [Column(title, group) for group, *_ in parts for title in titles]
    rows = []
    for norm in norms:
        cells = [study.label(norm), references[norm].name]
        for _, split, value, field in parts:
            ours = [value(run.splits[split]) for run in study.finished(norm)]
            theirs = float(getattr(references[norm], field))
            mean = float(np.mean(ours)) if ours else None
            cells += [percent(mean), percent(theirs)]
            if _comparable(study):
                cells.append(DASH if mean is None else points(mean - theirs, 1))
        rows.append(Row(norm, tuple(cells)))
    return Table("Beside the published study", tuple(columns), tuple(rows), "In per cent; differences in points.")


def comparison_table(study: Study, comparisons: Sequence[Comparison]) -> Table | None:
    """Paired differences in test accuracy; None where nothing can be paired."""
    if not comparisons:
        return None
    over_seeds = any(comparison.interval for comparison in comparisons)
    columns = [Column("Variant", numeric=False), Column("against", numeric=False), Column("Difference")]
    if over_seeds:
        columns += [Column("95 % interval", "Over seeds"), Column("p", "Over seeds"), Column("p, Holm", "Over seeds")]
    columns += [Column("95 % interval", "Over test images")]
    if over_seeds:
        columns += [Column("Kind", numeric=False)]
    rows = []
    for found in comparisons:
        cells = [study.label(found.norm), study.label(found.baseline), points(found.mean)]
        if over_seeds:
            cells += [interval_points(found.interval), p_value(found.p_value), p_value(found.holm_p)]
        cells += [interval_points(found.image_interval)]
        if over_seeds:
            cells += ["planned" if found.planned else "exploratory"]
        rows.append(Row(found.norm, tuple(cells)))
    return Table("Paired comparisons", tuple(columns), tuple(rows), "Test accuracy, in points.")


def cell_comparison_table(study: Study, comparisons: Sequence[tuple[tuple[str, ...], Comparison]]) -> Table | None:
    """Paired differences in test accuracy within each setting; None where nothing can be paired."""
    table = comparison_table(study, [one for _, one in comparisons])
    if table is None:
        return None
    rows = []
    for row, (tags, one) in zip(table.rows, comparisons, strict=True):
        cells = [study.norm_label(one.norm), study.norm_label(one.baseline), setting_words(tags)]
        rows.append(Row(one.norm, (*cells, *row.cells[2:])))
    columns = (*table.columns[:2], Column("Setting", numeric=False), *table.columns[2:])
    return Table(table.title, columns, tuple(rows), table.note)


def class_f1_table(study: Study) -> Table | None:
    """F1 of every class on test, mean over the finished seeds."""
    norms = [norm for norm in study.variants if study.finished(norm)]
    if not norms:
        return None
    names = class_names(study)
    rows = []
    for norm in norms:
        f1 = np.mean([run.splits["test"].class_f1 for run in study.finished(norm)], axis=0)
        rows.append(Row(norm, (study.label(norm), *(percent(float(value)) for value in f1))))
    note = "In per cent" + (", mean over the finished seeds." if several_seeds(study) else ".")
    columns = (Column("Variant", numeric=False), *(Column(name) for name in names))
    return Table("F1 of each class on test", columns, tuple(rows), note)


def calibration_table(study: Study) -> Table | None:
    """Expected calibration error and negative log-likelihood from the saved test logits; None without any."""
    rows = []
    for norm in study.variants:
        found = [run.predictions for run in study.finished(norm) if run.predictions is not None]
        if found:
            error = [one.expected_calibration_error() for one in found]
            likelihood = [one.negative_log_likelihood for one in found]
            wrong = [1 - float(one.correct.mean()) for one in found]
            cells = (study.label(norm), spread(error, 2, 100), spread(likelihood, 3), spread(wrong, 2, 100))
            rows.append(Row(norm, cells))
    if not rows:
        return None
    titles = ("Expected calibration error, points", "Negative log-likelihood, nats", "Test error, %")
    note = (
        "Expected calibration error: the mean gap between confidence and accuracy over 15 bins of equal width; it is "
        "never quite zero on a finite test set. Both are computed from the saved test logits."
    )
    columns = (Column("Variant", numeric=False), *map(Column, titles))
    return Table("Calibration on test", columns, tuple(rows), note)


def time_table(study: Study) -> Table | None:
    """Median seconds of an epoch, whole training time and parameters; None before any epoch has ended."""
    rows = []
    for norm in study.variants:
        seconds = [epoch.seconds for run in study.of(norm) for epoch in run.epochs]
        if seconds:
            whole = [run.seconds for run in study.finished(norm) if run.seconds is not None]
            parameters = next((run.num_params for run in study.of(norm) if run.num_params), None)
            cells = (duration(float(np.median(seconds))), duration(float(np.mean(whole)) if whole else None))
            rows.append(Row(norm, (study.label(norm), *cells, number(parameters, 0))))
    if not rows:
        return None
    titles = ("Median epoch", "Training of one seed", "Parameters")
    note = "An epoch's time includes its validation. Compilation falls into a run's first epoch, hence the median."
    note += shared_time(study.parallel_seeds)
    return Table("Time", (Column("Variant", numeric=False), *map(Column, titles)), tuple(rows), note)


def runs_table(study: Study) -> Table:
    """Every planned run and what became of it."""
    rows = []
    for run in study.runs:
        best = DASH
        if run.best_val_accuracy is not None and run.best_val_epoch is not None:
            best = f"{percent(run.best_val_accuracy)} (epoch {run.best_val_epoch})"
        started = str(run.provenance.get("started") or DASH)[:19].replace("T", " ")
        rows.append(Row(run.norm, (run.name, status_of(run), best, duration(run.seconds), started)))
    columns = (
        Column("Run", numeric=False),
        Column("Status", numeric=False),
        Column("Best validation, %"),
        Column("Training"),
        Column("Started (UTC)"),
    )
    note = "The best validation accuracy is for comparison with papers that quote it; no weights were chosen by it."
    note += shared_time(study.parallel_seeds)
    return Table("Every run", columns, tuple(rows), note)


def class_names(study: Study) -> list[str]:
    """The classes' names; their numbers where no run recorded names."""
    size = next(run.splits["test"].confusion_matrix.shape[0] for run in study.runs if run.complete)
    names = [str(name) for name in study.data.get("class_names") or ()]
    return names if len(names) == size else [str(index) for index in range(size)]


def _comparable(study: Study) -> bool:
    finished = [run for run in study.runs if run.complete]
    return bool(finished) and all(comparable(run.settings, run.epoch) for run in finished)


def _spread(
    runs: Sequence[Run], split: str, value: Callable[[SplitResult], float], digits: int, scale: float = 1.0
) -> str:
    return spread([value(run.splits[split]) for run in runs], digits, scale)


def _mean(
    runs: Sequence[Run], split: str, value: Callable[[SplitResult], float], digits: int, scale: float = 1.0
) -> str:
    return number(scale * float(np.mean([value(run.splits[split]) for run in runs])) if runs else None, digits)
