"""A figure's page: title, subtitle, legend and panels placed in inches, so that nothing ever overlaps."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.styles import DIVERGED, GRID, INK, MUTED, PAPER, Style
from jaxnorm.study.analysis.words import counted

RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters, hence the same bytes, everywhere
    "font.size": 9.5,
    "svg.fonttype": "none",  # text stays text: small, searchable, set in the page's own (narrower) letters
    "svg.hashsalt": "jaxnorm",
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
    "ytick.minor.left": False,
    "xtick.major.size": 3,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
PAD = 0.1
"""Inches left free at the edges."""
LETTERS_PER_INCH = 12.5
"""How many letters of the figure's size fit into an inch, on the safe side."""


@dataclass(frozen=True)
class Layout:
    """The same figure for a desktop or for a phone: only width and columns differ, never the size of the letters."""

    name: str
    width: float

    @property
    def wide(self) -> bool:
        """Whether panels stand side by side."""
        return self.name == "wide"


WIDE = Layout("wide", 9.6)
NARROW = Layout("narrow", 4.2)


@dataclass(frozen=True)
class Entry:
    """One line of the legend."""

    text: str
    style: Style
    line: bool = True
    band: float | None = None
    """Opacity of a swatch drawn instead of the line."""


DIVERGED_ENTRY = Entry("diverged at this step", Style(INK, DIVERGED), line=False)


def sheet(
    layout: Layout,
    title: str,
    subtitle: str,
    entries: Sequence[Entry],
    *,
    panels: int,
    columns: int,
    height: float,
    left: float = 0.42,
    share: bool = False,
    title_lines: int = 1,
) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes of `height` inches in `columns` columns, below a title, a subtitle and a legend.

    `left` is the room for each panel's tick labels; with `share` only the first column has any.
    """
    head = head_height(layout, subtitle, entries)
    rows = math.ceil(panels / columns)
    above, below = 0.2 + 0.2 * title_lines, 0.3 if share else 0.5  # titles; tick labels and the axis' name
    row = above + height + below
    total = head + rows * row + (0.2 if share else 0.0) + PAD / 2
    figure = headed(layout, title, subtitle, entries, total)
    gap, inner = 0.3, layout.width - 2 * PAD
    width = (inner - left - gap * (columns - 1)) / columns if share else (inner - gap * (columns - 1)) / columns - left
    axes: list[Axes] = []
    for index in range(panels):
        column = index % columns
        x = PAD + left + column * (width + gap + (0 if share else left))
        bottom = total - head - (index // columns) * row - above - height
        axis = figure.add_axes((x / layout.width, bottom / total, width / layout.width, height / total))
        axis.margins(x=0.03)
        if share and column:
            axis.tick_params(labelleft=False)
        axes.append(axis)
    return figure, axes


def head_height(layout: Layout, subtitle: str, entries: Sequence[Entry]) -> float:
    """Inches that title, subtitle and legend take."""
    rows = math.ceil(len(entries) / _legend_columns(layout, entries))
    return _legend_top(layout, subtitle) + 0.225 * rows - (0.06 if rows else 0.14)


def headed(layout: Layout, title: str, subtitle: str, entries: Sequence[Entry], height: float) -> Figure:
    """A figure of `height` inches in all, with title, subtitle and legend at its top."""

    def at(y: float) -> float:
        return 1 - y / height

    edge, columns = PAD / layout.width, _legend_columns(layout, entries)
    figure = Figure(figsize=(layout.width, height))
    figure.text(edge, at(PAD), plain(title), va="top", size=12, weight="bold", parse_math=False)
    for index, text in enumerate(_subtitles(layout, subtitle)):
        figure.text(edge, at(PAD + 0.28 + 0.19 * index), text, va="top", size=9, color=MUTED, parse_math=False)
    for index, entry in enumerate(entries):
        x = edge + (1 - 2 * edge) * (index % columns) / columns
        _legend_entry(figure, layout, x, at(_legend_top(layout, subtitle) + 0.225 * (index // columns)), entry)
    return figure


def _subtitles(layout: Layout, subtitle: str) -> list[str]:
    return textwrap.wrap(plain(subtitle, 400), int((layout.width - 2 * PAD) * LETTERS_PER_INCH)) or [""]


def _legend_top(layout: Layout, subtitle: str) -> float:
    return PAD + 0.28 + 0.19 * len(_subtitles(layout, subtitle)) + 0.2


def _legend_columns(layout: Layout, entries: Sequence[Entry]) -> int:
    longest = max((len(plain(entry.text)) for entry in entries), default=1)
    return max(1, min(4, int((layout.width - 2 * PAD) / (0.5 + longest / LETTERS_PER_INCH))))


def _legend_entry(figure: Figure, layout: Layout, x: float, y: float, entry: Entry) -> None:
    half = 0.15 / layout.width
    middle = x + half
    if entry.band is not None:
        swatch = Line2D([x, x + 2 * half], [y, y], color=entry.style.colour, alpha=entry.band, linewidth=9)
        swatch.set_solid_capstyle("butt")
        figure.add_artist(swatch)
    elif entry.line:
        figure.add_artist(Line2D([x, x + 2 * half], [y, y], **line_style(entry.style, marker=False)))
    if entry.band is None:
        figure.add_artist(Line2D([middle], [y], linestyle="none", **marker_style(entry.style, 5 if entry.line else 7)))
    figure.text(x + 2 * half + 0.08 / layout.width, y, plain(entry.text), va="center", size=9, parse_math=False)


def plain(text: str, length: int = 60) -> str:
    """One printable line of at most `length` letters: what a name may put into a figure."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return line if len(line) <= length or length <= 0 else line[: length - 1] + "…"


def marker_style(style: Style, size: float = 5) -> dict[str, Any]:
    """How a variant's marker is drawn: filled, with a thin pale rim so that markers that touch stay apart, or open."""
    return {
        "marker": style.marker,
        "markersize": size + (1.5 if style.open else 0),
        "markerfacecolor": "none" if style.open else style.colour,
        "markeredgecolor": style.colour if style.open else PAPER,
        "markeredgewidth": 1.2 if style.open else 0.6 if size > 4 else 0.3,
    }


def line_style(style: Style, marker: bool = True) -> dict[str, Any]:
    """How a variant's line is drawn."""
    dash: object = (0, style.dash) if style.dash else "-"
    return {"color": style.colour, "linestyle": dash} | (marker_style(style) if marker else {})


def panel(axis: Axes, title: str, xlabel: str = "Epoch") -> None:
    """Titles a panel and names its horizontal axis, with whole numbers along it."""
    axis.set_title(title, parse_math=False)
    axis.set_xlabel(xlabel)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def subtitle(study: Study) -> str:
    """What every figure must say of itself: the data in words, how it was trained, how many seeds."""
    words = [study.data_description]
    batch_sizes = {run.batch_size for run in study.runs} or {study.recipe.get("batch_size")}
    if len(batch_sizes) == 1 and None not in batch_sizes:
        words.append(f"batch size {batch_sizes.pop()}")
    last = max((run.epoch for run in study.runs if run.epoch is not None), default=None)
    if study.num_epochs is not None:
        stopped = f"{last} of {study.num_epochs} epochs" if last not in (None, study.num_epochs) else None
        words.append(stopped or counted(study.num_epochs, "epoch"))
    if study.recipe.get("init") == "he":
        words.append("He initialization")
    if len(study.seeds) == 1:
        words.append(f"seed {study.seeds[0]}")
    elif study.seeds:
        words.append(f"{len(study.seeds)} seeds")
    return " · ".join(words)


def legend_text(study: Study, norm: str) -> str:
    """A variant's name, and what became of its runs where that is not simply that they finished."""
    runs = study.of(norm)
    others = [run for run in runs if not run.complete]
    label = plain(study.label(norm), 34)
    if not others:
        return label
    if len(runs) == 1:
        return f"{label} ({'not started' if others[0].status == 'missing' else others[0].status})"
    return f"{label} ({len(others)} of {len(runs)} not finished)"
