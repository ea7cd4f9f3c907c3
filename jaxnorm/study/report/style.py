"""How figures look: one colour, marker and dash a norm, one page layout, one kind of axis for each kind of value."""

import functools
import io
import math
import textwrap
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

INK, MUTED, GRID, PAPER = "#1b1f24", "#5b636d", "#dfe2e6", "#ffffff"
WIDTH = 7.2  # inches; a page 390 pixels wide still shows letters of seven pixels
LETTERS, PANEL_LETTERS = 102, 84  # in one line of the subtitle, and in the titles of a row of panels


@dataclass(frozen=True)
class Style:
    """How a norm is drawn: colour, matplotlib's code of its marker, strokes and gaps of its line in line widths."""

    colour: str
    marker: str
    dash: tuple[float, ...] = ()
    outline: bool = False


DASHES = ((), (4, 1.6), (6, 1.5, 1.2, 1.5), (1.2, 1.4))
# Okabe and Ito's palette, safe for the colour-blind. Marker and dash tell the norms apart without colour.
STYLES: Mapping[str, Style] = {
    "flax_bn": Style(INK, "s", (3, 2.2), outline=True),  # equals bn: an outline leaves the line below visible
    "none": Style("#868b92", "x", DASHES[3], outline=True),
    "bn": Style("#0072b2", "o"),
    "in": Style("#e69f00", "^", DASHES[2]),
    "bin": Style("#d55e00", "D"),
    "ln": Style("#cc79a7", "v", DASHES[1]),
    "gn": Style("#009e73", "P"),
    "bin_frozen": Style("#56b4e9", "d", DASHES[3]),
}
OTHER_COLOURS = ("#aa4499", "#999933", "#44aa99", "#7a6fd0", "#cc6677", "#9c6b3f")  # Paul Tol's muted palette
OTHER_MARKERS = "ph<>*8"
DIVERGED = Style(INK, "X")
PUBLISHED = Style(INK, "D", outline=True)


def of(norm: str) -> Style:
    """The style of a norm. That of a registered norm follows from its name, and is the same in every study."""
    if norm in STYLES:
        return STYLES[norm]
    code = zlib.crc32(norm.encode())
    return Style(OTHER_COLOURS[code % 6], OTHER_MARKERS[code // 6 % 6], DASHES[code // 36 % 4])


def line(one: Style, marker: float | None = 5, **changes: Any) -> dict[str, Any]:
    """matplotlib's keywords for a line; `marker` is the size of its markers, None for a line without any."""
    dash = (0, one.dash) if one.dash else "-"
    drawn = markers(one, marker) if marker and one.marker else {}
    return {"color": one.colour, "linestyle": dash} | drawn | changes


def markers(one: Style, size: float = 5, **changes: Any) -> dict[str, Any]:
    """matplotlib's keywords for markers: filled with a pale rim, so that they stay apart, or an outline."""
    return {
        "marker": one.marker,
        "markersize": size + (1.5 if one.outline else 0),
        "markerfacecolor": "none" if one.outline else one.colour,
        "markeredgecolor": one.colour if one.outline else PAPER,
        "markeredgewidth": 1.2 if one.outline else 0.5,
    } | changes


RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 9.5,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.03,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
    "ytick.minor.left": False,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "legend.borderpad": 0.2,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}
P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Makes a function draw with the report's settings, whatever the user's own matplotlibrc says."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.style.context(["default", RC]):
            return draw(*args, **kwargs)

    return drawn


def png(figure: Figure, dpi: int = 180) -> bytes:
    """The figure as PNG of 256 colours. The same figure gives the same bytes."""
    whole, small = io.BytesIO(), io.BytesIO()
    with matplotlib.style.context(["default", RC]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing", UserWarning)  # a label in a script without a font
        figure.savefig(whole, format="png", dpi=dpi, metadata={"Software": None})
    with Image.open(whole) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True, dpi=(dpi, dpi))
    return small.getvalue()


def plain(text: str, length: int = 60) -> str:
    """`text` as one printable line of at most `length` letters."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def entry(label: str, one: Style, *, joined: bool = True) -> Line2D:
    """A legend's entry: a line with its marker, if it has one, or the marker alone."""
    return Line2D([], [], label=plain(label), **(line(one) if joined else markers(one, 6, linestyle="none")))


def sheet(
    title: str, subtitle: str, legend: Sequence[Artist], panels: Sequence[str] = ("",), columns: int = 1,
    height: float = 3, xlabel: str = "", size: float | None = None, **axes: Any,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure and its panels, between title and subtitle above and a legend below.

    `panels` has their titles, of letters of `size` points, `columns` of them side by side, each row `height` inches
    high. The lowest panels have the horizontal axis's name `xlabel`. `axes` is passed to `Figure.subplots`.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    lines = textwrap.wrap(plain(subtitle, 400), LETTERS) or [""]
    longest = max((len(str(one.get_label())) for one in legend), default=0)
    ncols = max(1, min(4, LETTERS // (longest + 8)))
    head = 0.35 + 0.18 * len(lines) + 0.22 * math.ceil(len(legend) / ncols)
    figure = Figure(figsize=(WIDTH, rows * height + head), layout="constrained")
    # The title reserves lines for the subtitle, which is attached to it: constrained layout then knows of both.
    heading = figure.suptitle(plain(title) + "\n" * len(lines), x=0.01, ha="left", size=11.5, weight="bold")
    below = Annotation("\n".join(lines), (0, 0), xycoords=heading, va="bottom", size=9, color=MUTED, parse_math=False)
    heading.set_parse_math(False)
    figure.add_artist(below)
    grid = figure.subplots(rows, columns, squeeze=False, **axes).ravel()
    for spare in grid[len(panels) :]:
        spare.remove()
    for index, (axis, name) in enumerate(zip(grid, panels, strict=False)):
        wrapped = textwrap.wrap(plain(name), PANEL_LETTERS // columns, break_long_words=False)
        axis.set_title("\n".join(wrapped[:3]), size=size, parse_math=False)
        if xlabel == "Epoch":
            ticks = 5 if columns < 4 else max(2, 8 - columns)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, min_n_ticks=1))
        if index + columns >= len(panels):
            axis.set_xlabel(xlabel)
            axis.tick_params(labelbottom=True)
    if legend:
        for text in figure.legend(handles=list(legend), loc="outside lower left", ncols=ncols).get_texts():
            text.set_parse_math(False)
    return figure, list(grid[: len(panels)])


def log_axis(axis: Axes) -> None:
    """A logarithmic vertical axis with plain numbers within four decades, and powers of ten beyond."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    decades = math.log10(high / low)
    subs = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}") if decades < 4 else LogFormatterMathtext())
    axis.yaxis.set_minor_formatter(NullFormatter())


def named_axis(axis: Axes, values: Sequence[float]) -> None:
    """A tick with its number at each of `values` along a horizontal axis, and no other."""
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.set_xticks([], minor=True)


def value_axis(axis: Axes, low: float, high: float, *, compressed: bool, ticks: int = 5) -> None:
    """Limits and ticks from `low` to `high`; compressed: asinh, nearly linear up to 1 and logarithmic beyond."""
    there, back = (np.arcsinh, np.sinh) if compressed else (np.asarray, np.asarray)
    room = 0.04 * ((there(high) - there(low)) or 1.0)
    if compressed:
        axis.set_yscale("asinh", linear_width=1.0)
        axis.set_yticks(compressed_ticks(low, high, ticks))
        axis.set_yticks([], minor=True)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    else:
        axis.yaxis.set_major_locator(MaxNLocator(nbins=ticks))
    axis.set_ylim(float(back(there(low) - room)), float(back(there(high) + room)))


def compressed_ticks(low: float, high: float, count: int) -> list[float]:
    """0 and about `count` - 1 round numbers between `low` and `high`, evenly along an asinh axis."""
    sides = [side for side in (-1, 1) if side * (low if side < 0 else high) > 0.1 * max(-low, high)]
    each = max(1, (count - 1) // max(1, len(sides)))
    ticks = {0.0}
    for side in sides:
        end = math.asinh(abs(low if side < 0 else high))
        for value in (math.sinh(end * step / each) for step in range(1, each + 1)):
            power = 10.0 ** math.floor(math.log10(value))
            ticks.add(side * max(step * power for step in (1, 2, 3, 5) if step * power <= value * (1 + 1e-9)))
    return sorted(ticks)
