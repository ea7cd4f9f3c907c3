"""The figure of the final accuracies: a mark for each variant, a dot for each seed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from jaxnorm.study.analysis.reference import references_for
from jaxnorm.study.analysis.runs import Run, Study
from jaxnorm.study.analysis.sheet import LETTERS_PER_INCH, Entry, Layout, marker_style, panel, plain, sheet, subtitle
from jaxnorm.study.analysis.statistics import mean_interval, standard_error
from jaxnorm.study.analysis.styles import HOLLOW, INK, Style, styles_of


def draw_endpoints(study: Study, layout: Layout) -> Figure:
    """Final test accuracy of every variant that has a finished run, in the study's order."""
    styles, references = styles_of(study), references_for(study.recipe)
    norms = [norm for norm in study.variants if study.finished(norm)]
    labels = [plain(study.label(norm), 34) for norm in norms]
    known = any(norm in references for norm in norms)
    figure, (axis,) = sheet(
        layout,
        "Accuracy on the test images",
        subtitle(study),
        [Entry("the published study's value (one seed)", HOLLOW, line=False)] if known else [],
        panels=1,
        columns=1,
        height=(0.34 if layout.wide else 0.5) * len(norms) + 0.15,
        left=0.15 + max(map(len, labels)) / LETTERS_PER_INCH if layout.wide else 0.0,
        title_lines=0,
    )
    for row, norm in enumerate(norms):
        _draw_row(axis, row, study.finished(norm), styles[norm])
        if norm in references:
            axis.plot([100 * references[norm].test], [row], linestyle="none", zorder=6, **marker_style(HOLLOW, size=6))
    _name_rows(axis, labels, beside=layout.wide)
    axis.set_ylim(len(norms) - 0.4, -0.6 if layout.wide else -0.8)
    panel(axis, "", "Test accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7 if layout.wide else 5, steps=[1, 2, 5, 10]))
    axis.grid(True, axis="x")
    return figure


def _name_rows(axis: Axes, labels: Sequence[str], beside: bool) -> None:
    """Names beside the rows, or above each row where there is no room beside it."""
    axis.set_yticks(range(len(labels)), labels if beside else [""] * len(labels))
    for text in axis.get_yticklabels():
        text.set(color=INK, parse_math=False)
    if not beside:
        place = blended_transform_factory(axis.transAxes, axis.transData)
        for row, label in enumerate(labels):
            axis.text(0, row - 0.38, label, transform=place, va="center", size=9, parse_math=False, zorder=7)


def _draw_row(axis: Axes, row: int, runs: Sequence[Run], style: Style) -> None:
    values = [100 * run.splits["test"].accuracy for run in runs]
    mean = float(np.mean(values))
    interval = mean_interval(values)
    if interval is None:
        half = 100 * standard_error(values[0] / 100, runs[0].splits["test"].num_images)
        low, high = mean - half, mean + half
    else:
        low, high = interval.low, interval.high
        axis.plot(values, [row] * len(values), "o", color=style.colour, alpha=0.4, markersize=4.5, markeredgewidth=0)
    axis.plot([low, high], [row, row], color=style.colour, linewidth=1.6, solid_capstyle="butt")
    axis.plot([mean], [row], linestyle="none", zorder=5, **marker_style(style, size=8))
