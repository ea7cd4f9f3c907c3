"""Tables of the batch-size study."""

from collections.abc import Sequence

from jaxnorm.study.analysis import batches
from jaxnorm.study.analysis.batches import Cell
from jaxnorm.study.analysis.reference import best_validation
from jaxnorm.study.analysis.runs import STATISTICS, Study
from jaxnorm.study.analysis.tables import Column, Row, Table, state_of, status_of, whose_statistics
from jaxnorm.study.analysis.words import DASH, duration, number, percent, points, spread
from jaxnorm.study.config import REFERENCE_BATCH_SIZE


def batch_table(study: Study) -> Table:
    """Validation and test accuracy of every cell, the study's best validation accuracy beside ours on its data."""
    digits, found = digits_of(study), [cell for cell in batches.cells(study) if cell.ghost is None]
    known = any(best_validation(study.recipe, cell.norm, cell.batch_size) for cell in found)
    columns = [
        Column("Variant", numeric=False),
        Column("Batch size"),
        Column("Learning rate"),
        Column("Rule", numeric=False),
        Column("Last epoch", "Validation accuracy, %"),
        Column("Best epoch", "Validation accuracy, %"),
        *([Column("Study's best", "Validation accuracy, %")] if known else []),
        Column("Test accuracy, %"),
        Column("Status", numeric=False),
    ]
    rows = []
    for cell in found:
        theirs = best_validation(study.recipe, cell.norm, cell.batch_size)
        cells = [study.norm_label(cell.norm), str(cell.batch_size), rate(cell), rule(study, cell)]
        cells += [spread(cell.validation, digits, 100), spread(cell.best_validation, digits, 100)]
        cells += [percent(theirs, 0)] if known else []
        rows.append(Row(cell.norm, (*cells, spread(cell.test, digits, 100), state(cell))))
    note = (
        "The best epoch's validation accuracy is the maximum of a noisy number, hence above the last one's; it is here "
        "because the published study quotes it. Test is measured once, with the last epoch's weights."
    )
    if known:
        note += " The study's rates at batch size 8 are not known, and its schedules differ between 128 and 8."
    return Table("By batch size", tuple(columns), tuple(rows), f"{note} {whose_statistics(study)}")


def statistics_table(study: Study, split: str = "validation") -> Table | None:
    """The same final weights with four kinds of statistics; None where only running averages were used."""
    found = [cell for cell in batches.cells(study) if batches.has_statistics(cell)]
    if not found:
        return None
    digits = digits_of(study)
    rows = []
    for cell in found:
        values = [spread(cell.with_statistics(kind, split), digits, 100) for kind in STATISTICS]
        size = str(cell.batch_size) + (f" in ghosts of {cell.ghost}" if cell.ghost else "")
        rows.append(Row(cell.norm, (study.norm_label(cell.norm), size, rule(study, cell), *values)))
    columns = (
        Column("Variant", numeric=False),
        Column("Batch size", numeric=any(cell.ghost is None for cell in found)),
        Column("Rule", numeric=False),
        Column("Running averages", f"{split.capitalize()} accuracy, %, with"),
        Column("precise, own size", f"{split.capitalize()} accuracy, %, with"),
        Column("precise, 128", f"{split.capitalize()} accuracy, %, with"),
        Column("the evaluation batch", f"{split.capitalize()} accuracy, %, with"),
    )
    note = (
        "One set of weights in each row. Precise statistics are recomputed from augmented training images, in batches "
        "of the run's own size and of 128; the evaluation batch's own make a prediction depend on its neighbours."
    )
    return Table(f"Whose statistics: {split}", columns, tuple(rows), note)


def loss_table(study: Study) -> Table | None:
    """What each smaller batch loses, and where; None where only running averages were used."""
    rows = []
    for name in batches.rules(study):
        for norm in batches.norms_of(study):
            for loss in batches.losses(study, norm, name):
                sizes = (str(loss.small.batch_size), str(loss.large.batch_size), name)
                parts = (points(-value, 1) for value in (loss.whole, loss.training, loss.averages))
                rows.append(Row(norm, (study.norm_label(norm), *sizes, *parts)))
    columns = (
        Column("Variant", numeric=False),
        Column("Batch size"),
        Column("against"),
        Column("Rule", numeric=False),
        *(Column(title, "Change of validation accuracy, points") for title in ("in all", "training", "averages")),
    )
    note = (
        "In all: with running averages. Training: with precise statistics from batches of 128. Averages: the rest, "
        "which recomputed statistics bring back."
    )
    return Table("Against the largest batch", columns, tuple(rows), note) if rows else None


def ghost_table(study: Study) -> Table | None:
    """Ghost batches beside the real batch they lie in and the real batch of their size; None without ghosts."""
    rows, digits = [], digits_of(study)
    every = batches.cells(study)
    for ghost in batches.ghosts(study):
        whole = _cell(every, ghost.norm, ghost.batch_size, ghost.lr_rule)
        small = [_cell(every, ghost.norm, ghost.ghost or 0, name) for name in batches.rules(study)]
        cells = [study.norm_label(ghost.norm), str(ghost.ghost), str(ghost.batch_size)]
        values = [
            whole.validation if whole else [],
            ghost.validation,
            *(one.validation if one else [] for one in small),
        ]
        rows.append(Row(ghost.norm, (*cells, *(spread(value, digits, 100) for value in values), state(ghost))))
    columns = (
        Column("Variant", numeric=False),
        Column("Ghost"),
        Column("in batches of"),
        Column("whole batch", "Validation accuracy, %"),
        Column("ghosts", "Validation accuracy, %"),
        *(Column(f"real, {name} rate", "Validation accuracy, %") for name in batches.rules(study)),
        Column("Status", numeric=False),
    )
    note = (
        "Ghosts take the statistics over parts of a large batch: the noise of small statistics with the steps and the "
        "rate of the large batch. A real batch of the ghost's size has the same noise and many more, noisier steps."
    )
    return Table("Ghost batches", columns, tuple(rows), note) if rows else None


def batch_time_table(study: Study) -> Table | None:
    """Median time of an epoch by batch size, and how many times that of the largest it is."""
    rows = []
    for norm in batches.norms_of(study):
        seconds = batches.epoch_medians(study, norm)
        for size, value in seconds.items():
            times = number(value / seconds[max(seconds)], 1)
            rows.append(Row(norm, (study.norm_label(norm), str(size), duration(value), f"{times} ×")))
    columns = (Column("Variant", numeric=False), *map(Column, ("Batch size", "Median epoch", "Of the largest batch's")))
    note = "An epoch's time includes its validation. Each run's first epoch, into which compilation falls, is left out."
    return Table("Time of an epoch", columns, tuple(rows), note) if rows else None


def batch_terminal_table(study: Study) -> Table:
    """The cells in narrow columns: accuracies, and those with precise statistics where they were computed."""
    found, digits = batches.cells(study), digits_of(study)
    precise = any(map(batches.has_statistics, found))
    rows = []
    for cell in found:
        size = str(cell.batch_size) + (f"/{cell.ghost}" if cell.ghost else "")
        cells = [study.norm_label(cell.norm), size, cell.lr_rule]
        values = [cell.validation, cell.best_validation, cell.with_statistics("precise_128"), cell.test]
        cells += [percent(batches.mean(v), digits) for v in values if precise or v is not values[2]]
        rows.append(Row(cell.norm, (*cells, state_of(cell.runs))))
    titles = ["Val. %", "Best %", *(["Precise %"] if precise else []), "Test %"]
    columns = (
        Column("Variant", numeric=False),
        Column("Batch"),
        Column("Rate", numeric=False),
        *map(Column, titles),
        Column("Status", numeric=False),
    )
    note = "Validation after the last and the best epoch, test after the last; means over the finished seeds."
    if precise:
        note += " Precise: validation with statistics recomputed in batches of 128."
    if any(cell.ghost for cell in found):
        note += " 128/8: ghosts of 8 in batches of 128."
    return Table("By batch size", columns, tuple(rows), f"{note} {whose_statistics(study)}")


def digits_of(study: Study) -> int:
    """Decimals of an accuracy: two where a mean is taken."""
    return 2 if any(len(cell.finished) > 1 for cell in batches.cells(study)) else 1


def rate(cell: Cell) -> str:
    """The rate before the schedule lowers it."""
    value = cell.runs[0].peak_learning_rate
    return DASH if value is None else f"{value:.4g}"


def rule(study: Study, cell: Cell) -> str:
    """The rule for the rate; both where they agree and only one was trained."""
    both = {one.lr_rule for one in batches.cells(study) if (one.norm, one.ghost) == (cell.norm, cell.ghost)}
    there = {
        one.lr_rule
        for one in batches.cells(study)
        if (one.norm, one.ghost, one.batch_size) == (cell.norm, cell.ghost, cell.batch_size)
    }
    same = cell.batch_size == REFERENCE_BATCH_SIZE and len(both) > 1 and len(there) == 1
    return "fixed\u00a0=\u00a0linear" if same else cell.lr_rule


def state(cell: Cell) -> str:
    """What became of the cell's runs."""
    return status_of(cell.runs[0]).partition(":")[0] if len(cell.runs) == 1 else state_of(cell.runs)


def _cell(every: Sequence[Cell], norm: str, size: int, lr_rule: str) -> Cell | None:
    return next((c for c in every if (c.norm, c.batch_size, c.lr_rule, c.ghost) == (norm, size, lr_rule, None)), None)
