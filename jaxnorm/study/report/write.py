"""Writes the report of a study: the page, the same in Markdown, figures and summaries; prints the results."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Lines
from rich.text import Text

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.report import batch_sizes, compare_norms, features, style, tables
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.folders import read_study
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Page
from jaxnorm.study.report.render import html, markdown
from jaxnorm.study.report.sections import without_predictions
from jaxnorm.study.report.summary import summary_csv, summary_json

PAGES = {"batch_size_study": batch_sizes.page, "feature_evolution": features.page}
"""The page of each kind of study; any other kind has that of a comparison of norms."""
NARROW = {
    "Variant": "Variant", "Learning rate": "Rate", ("Accuracy, %", "Test"): "Test %",
    ("Accuracy, %", "Validation"): "Val. %", ("Accuracy, %", "Train"): "Train %", ("On test", "Macro F1, %"): "F1 %",
    ("On test", "Loss"): "Loss", ("Original paper", "Test, %"): "Paper %",
    ("Validation accuracy, %", "last epoch"): "Val. %", ("Validation accuracy, %", "best epoch"): "Best %",
    "Test accuracy, %": "Test %", "Status": "Status",
}  # fmt: skip
"""The columns that a terminal shows, and their titles there."""


def page_of(study: Study) -> Page:
    """The page of a `study` by its kind."""
    return PAGES.get(study.name, compare_norms.page)(study)


def write_report(folder: Path, *, web_page: bool = True) -> Study:
    """Rebuilds summary.csv, summary.json, figures/, report.html and report.md from the files of a study's folder.

    The same files give the same bytes. Each is replaced in one step. Runs that are unfinished, diverged or crashed are
    shown as such.

    Args:
        folder: a study's folder, see `read_study`.
        web_page: whether report.html is written, too.

    Returns:
        The study.

    Raises:
        UserError: if `folder` holds no study or a damaged file, or cannot be written.
    """
    study = read_study(folder)
    page = page_of(study)
    drawn = {f"{figure.name}.png": figure.png for section in page.sections for figure in section.figures}
    try:
        files.write_text(folder / "summary.csv", summary_csv(study))
        files.write_text(folder / "summary.json", files.compact_json(summary_json(study)))
        for name, png in drawn.items():
            files.write_bytes(folder / "figures" / name, png)
        for path in (folder / "figures").glob("*.png"):
            if path.name not in drawn:  # of an earlier report on other files
                path.unlink()
        if web_page:
            files.write_text(folder / "report.html", html(page))
        files.write_text(folder / "report.md", markdown(page))
    except OSError as error:
        raise UserError(
            f"the report is written into the study's folder, but {folder} cannot be written "
            f"({error.strerror or error}); make it writable, or copy it to where it is"
        ) from error
    return study


def print_table(study: Study, console: Console) -> None:
    """Prints to a `console` final accuracies and what happened to every variant of a `study`, within 80 columns."""
    study, batches = chosen(study), study.name == "batch_size_study"
    table = batch_sizes.by_batch_size(batch_sizes.in_order(study)) if batches else tables.results(study)
    if table is None:
        return
    names, title = [name for name in table.frame if name in NARROW], Text(study.data_description)
    shown = Lines(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for name in names:
        words, least = name in ("Variant", "Status"), 11 if name in ("Variant", "Status") else None
        shown.add_column(NARROW[name], justify="left" if words else "right", no_wrap=not words, min_width=least)
    for norm, *cells in table.frame[names].itertuples(name=None):
        if batches:  # eight columns with deviations are too wide
            cells = [cell.partition(" ± ")[0] for cell in cells]
        colour = style.of(norm).colour  # ink is dark, and so are many terminals
        mark = Text("● ", style="" if colour == style.INK else colour)
        shown.add_row(mark + Text(cells[0]), *map(Text, cells[1:]))  # text, not markup: a label may hold brackets
    console.print(shown)
    for text in (table.note, *without_predictions(study)):
        console.print(Text(text))
