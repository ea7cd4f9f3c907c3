"""How figures look: one colour, marker and dash a norm, one page layout, one kind of axis for each kind of value."""

import functools
import io
import math
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as MarkerPath
from matplotlib.text import Annotation
from PIL import Image

INK, MUTED, GRID, PAPER = "#1b1f24", "#5b636d", "#dfe2e6", "#ffffff"
WIDTH = 7.2  # inches; a page 390 pixels wide still shows letters of seven pixels
DPI = 144
COMPRESSED = " · axis compressed beyond ±1 (asinh)"
LETTERS, PANEL_LETTERS = 102, 84  # in one line of the subtitle, and in the titles of a row of panels


@dataclass(frozen=True)
class Style:
    """How a norm is drawn.

    Attributes:
        colour: of lines, bands and markers.
        marker: matplotlib's code of the marker.
        dash: strokes and gaps of the line, in line widths; empty for a solid line.
        outline: whether the marker is hollow.
    """

    colour: str
    marker: str
    dash: tuple[float, ...] = ()
    outline: bool = False


DASHES = ((), (4, 1.6), (6, 1.5, 1.2, 1.5), (1.2, 1.4))
OTHER_COLOURS = ("#aa4499", "#999933", "#44aa99", "#7a6fd0", "#cc6677", "#9c6b3f")  # Paul Tol's muted palette
OTHER_MARKERS = "ph<>*8"
FURTHER = [
    "rms",
    "brn",
    "frn",
    "gn_ws",
    "bn_ws",
    "sws",
    "sn",
    "evo_b0",
    "evo_s0",
    "dyt",
    "derf",
    "grn",
    "iln",
    "bgn",
    "iter",
]
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
    # No two of these have the same colour and dash.
    **{id: Style(OTHER_COLOURS[at % 6], OTHER_MARKERS[at % 5], DASHES[at // 6]) for at, id in enumerate(FURTHER)},
}
DIVERGED = Style(INK, "X")
PUBLISHED = Style(INK, "D", outline=True)


def of(norm: str) -> Style:
    """The style of `norm`. That of a user's own norm follows from its id, and is the same in every study."""
    if norm in STYLES:
        return STYLES[norm]
    code = zlib.crc32(norm.encode())
    return Style(OTHER_COLOURS[code % 6], OTHER_MARKERS[code // 6 % 6], DASHES[code // 36 % 4])


def line(one: Style, marker: float | None = 5, **changes: Any) -> dict[str, Any]:
    """matplotlib's keywords for a line of style `one`, with `changes`; `marker` is the size of its markers or None."""
    dash = (0, one.dash) if one.dash else "-"
    drawn = markers(one, marker) if marker and one.marker else {}
    return {"color": one.colour, "linestyle": dash} | drawn | changes


def markers(one: Style, size: float = 5, **changes: Any) -> dict[str, Any]:
    """matplotlib's keywords for markers of style `one` and a `size`, with a pale rim or hollow, and `changes`."""
    return {
        "marker": one.marker,
        "markersize": size + (1.5 if one.outline else 0),
        "markerfacecolor": "none" if one.outline else one.colour,
        "markeredgecolor": one.colour if one.outline else PAPER,
        "markeredgewidth": 1.2 if one.outline else 0.5,
    } | changes


RC: dict[str, Any] = {
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left", "legend.frameon"), False),
    **dict.fromkeys(("ytick.left", "ytick.minor.left"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("font.size", "axes.titlesize"), 9.5),
    **dict.fromkeys(("legend.borderaxespad", "legend.borderpad"), 0.2),
    **dict.fromkeys(("figure.constrained_layout.h_pad", "figure.constrained_layout.w_pad"), 0.06),
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid.axis": "y",
    "axes.xmargin": 0.03,
    "grid.color": GRID,
    "lines.linewidth": 1.7,
}
P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Makes a function, `draw`, use the report's settings, whatever the user's own matplotlibrc says."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.style.context(["default", RC]):
            return draw(*args, **kwargs)

    return drawn


def png(figure: Figure) -> bytes:
    """`figure` as PNG of 256 colours. The same figure gives the same bytes."""
    canvas, small = FigureCanvasAgg(figure), io.BytesIO()
    with matplotlib.style.context(["default", RC]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing", UserWarning)  # a label in a script without a font
        canvas.draw()  # once: savefig draws twice
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    few = image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


def plain(text: str, length: int = 60) -> str:
    """`text` as one printable line of at most `length` letters."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def entry(label: str, one: Style, *, joined: bool = True, **changes: Any) -> Line2D:
    """An entry of a legend, `label`: a line of style `one`, its marker alone if not `joined`, with `changes`."""
    return Line2D([], [], label=plain(label), **(line(one) if joined else markers(one, 6, linestyle="none")) | changes)


def run_legend(runs: pd.DataFrame, by: str = "label") -> list[Artist]:
    """An entry for each variant of `runs`, with what happened where not all finished, and one for the crosses.

    `by` is the column with the names: label or norm_label.
    """
    entries: list[Artist] = []
    for label, rows in runs.groupby(by, observed=True, sort=by == "label"):
        left = sum(rows.status != "complete")
        count = f"{left} of {len(rows)} " * (len(rows) > 1)
        text = plain(str(label), 34) + f" ({count}not finished)" * bool(left)
        entries.append(entry(text, of(rows.norm.iloc[0])))
    if (runs.status == "diverged").any():
        entries.append(entry("diverged", DIVERGED, joined=False))
    return entries


def sheet(
    title: str, subtitle: str, legend: Sequence[Artist], panels: Sequence[str] = ("",), columns: int = 1,
    height: float = 3, xlabel: str = "", size: float | None = None, **axes: Any,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure and its panels, between `title` and `subtitle` above and a `legend` (its entries) below.

    `panels` has their titles, of letters of `size` points, `columns` of them side by side, each row `height` inches
    high. The lowest panels have the horizontal axis's name `xlabel`. `axes` is passed to `Figure.subplots`.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    lines = textwrap.wrap(plain(subtitle, 400), LETTERS) or [""]
    longest = max((len(str(one.get_label())) for one in legend), default=0)
    legend_rows = math.ceil(len(legend) / max(1, min(4, LETTERS // (longest + 8))))
    ncols = math.ceil(len(legend) / max(1, legend_rows))
    head = 0.35 + 0.18 * len(lines) + 0.22 * legend_rows
    figure = Figure(figsize=(WIDTH, rows * height + head), dpi=DPI, layout="constrained")
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
            axis.xaxis.set_major_locator(ticker.MaxNLocator(nbins=ticks, integer=True, min_n_ticks=1))
        if index + columns >= len(panels):
            axis.set_xlabel(xlabel)
            axis.tick_params(labelbottom=True)
    if legend:
        for text in figure.legend(handles=list(legend), loc="outside lower left", ncols=ncols).get_texts():
            text.set_parse_math(False)
    return figure, list(grid[: len(panels)])


def log_axis(axis: Axes) -> None:
    """Makes the vertical scale of `axis` logarithmic, with plain numbers."""
    axis.set_yscale("log")
    decades = float(np.ptp(np.log10(axis.get_ylim())))
    subs = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=12))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def value_axis(axis: Axes, compressed: bool, ticks: int = 5, which: str = "y") -> None:
    """About so many `ticks` along the `which` side ("x" or "y") of `axis`, after all is drawn.

    A `compressed` scale is asinh: nearly linear up to 1 and logarithmic beyond.
    """
    if compressed:
        tens = [0.0, *(sign * 10.0**power for power in range(30) for sign in (-1, 1))]
        levels = tens, [2 * one for one in tens], [5 * one for one in tens]
        return _scale(axis, which, "asinh", np.arcsinh, ticks, levels)
    side = getattr(axis, f"{which}axis")
    side.set_major_locator(ticker.MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
    side.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    return side.set_minor_locator(ticker.NullLocator())


def _scale(
    axis: Axes, which: str, name: str, place: Callable[..., Any], most: int, levels: Iterable[Any], **own: Any
) -> None:
    """Gives a side of `axis` the scale `name`, with at least 4 ticks of the first `levels`, 0.7 / `most` apart."""
    getattr(axis, f"set_{which}scale")(name, **own)
    axis.autoscale_view(scalex=which == "x", scaley=which == "y")
    low, high = sorted(place(getattr(axis, f"get_{which}lim")()))
    ticks: dict[float, float] = {}
    for level in levels:
        for value in level if len(ticks) < 4 else ():
            at = (place(value) - low) / (high - low)
            if 0 <= at <= 1 and all(abs(at - other) > 0.7 / most for other in ticks.values()):
                ticks[value] = at
    getattr(axis, f"set_{which}ticks")(list(ticks), [f"{value:g}".replace("-", "−") for value in ticks])
    getattr(axis, f"{which}axis").set_minor_locator(ticker.NullLocator())


def far_apart(sizes: Iterable[float]) -> bool:
    """Whether the largest of `sizes` is so much larger that a linear axis would hide the others."""
    ordered = sorted(sizes)
    return bool(ordered and ordered[-1] > 4 * (ordered[len(ordered) // 2] or 1.0))


def logit_axis(axis: Axes, images: int, which: str = "y", most: int = 10) -> None:
    """Makes the `which` scale ("x" or "y") of `axis`, drawn in per cent of so many `images`, that of the logit.

    ln((k + 1/2) / (n - k + 1/2)) of k right answers for n images: it separates the top, and is finite at 100 %, before
    which a break is drawn. Labels are about a share of 0.7 / `most` apart.
    """

    def logit(percent: Any) -> Any:
        share = np.clip(np.asarray(percent) / 100, -0.45 / images, 1 + 0.45 / images)  # room for a margin
        return np.log((images * share + 0.5) / (images * (1 - share) + 0.5))

    def percent(logit: Any) -> Any:
        odds = np.exp(logit)
        return 100 * (odds * (images + 0.5) - 0.5) / (images * (1 + odds))

    levels = (_ROUND, range(0, 101, 10), range(0, 101, 5), range(101), np.arange(0, 100, 0.1).round(1))
    _scale(axis, which, "function", logit, most, levels, functions=(logit, percent))
    if getattr(axis.dataLim, f"{which}1") >= 100:
        at, strokes = 100 - 15 / images, np.array([(-0.7, -1), (-0.1, 1), (0.1, -1), (0.7, 1)])
        place, turned = (([at], [0]), strokes) if which == "x" else (([0], [at]), strokes[:, ::-1])
        look: dict[str, Any] = dict(marker=MarkerPath(turned, [1, 2, 1, 2]), markersize=10, color=MUTED, clip_on=False)
        axis.plot(*place, transform=getattr(axis, f"get_{which}axis_transform")(), markeredgewidth=1.2, **look)


_ROUND = (50, 90, 99, 100, 99.9, 10, 20, 80, 95, 98, 99.5)
