"""The results as a table for the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxnorm.study.analysis.batch_tables import batch_terminal_table
from jaxnorm.study.analysis.rates import chosen
from jaxnorm.study.analysis.runs import read_study
from jaxnorm.study.analysis.styles import INK, styles_of
from jaxnorm.study.analysis.tables import terminal_table


def print_table(workdir: Path, console: Console) -> None:
    """Prints the results of `workdir`: final accuracies and the status of every variant, within 80 columns.

    Raises:
        UserError: if `workdir` is no workdir, or holds a damaged file.
    """
    study = chosen(read_study(workdir))
    styles = styles_of(study)
    table = batch_terminal_table(study) if study.name == "batch_size_study" else terminal_table(study)
    shown = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=Text(study.data_description),
        title_justify="left",
    )
    for column in table.columns:
        shown.add_column(
            Text(column.title),
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric,
            min_width=11 if column.title in ("Variant", "Status") else None,
        )
    for row in table.rows:
        # Text, not markup: a label in brackets is a label. Ink is dark, and so are many terminals.
        colour = styles[row.norm].colour if row.norm else INK
        mark = Text("● ", style="" if colour == INK else colour)
        shown.add_row(mark + Text(row.cells[0]), *map(Text, row.cells[1:]))
    console.print(shown)
    if table.note:
        console.print(Text(table.note))
