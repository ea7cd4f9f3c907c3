"""The figure of the pooled features' quantiles, one panel for each variant."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxnorm.analysis.reference import references_for
from jaxnorm.analysis.runs import QUANTILES, Run, Study
from jaxnorm.analysis.sheet import Entry, Layout, marker_style, panel, plain, sheet, subtitle
from jaxnorm.analysis.styles import HOLLOW, INK, Style, styles_for


def draw_quantiles(study: Study, layout: Layout) -> Figure:
    styles = styles_for(study.norms)
    norms = [norm for norm in study.norms if any(run.epochs for run in study.of(norm))]
    columns = min(4 if layout.wide else 2, len(norms))
    letters = int((layout.width - 0.6) / columns * 10) - 3  # bold ones, in a panel's width
    titles = [textwrap.wrap(plain(study.label(norm)), letters)[:3] or [norm] for norm in norms]
    figure, axes = sheet(
        layout,
        "Distribution of the pooled features",
        subtitle(study),
        [Entry("20 to 80 % quantile", Style(INK, ""), band=0.4), Entry("1 to 99 %", Style(INK, ""), band=0.14)],
        panels=len(norms),
        columns=columns,
        height=1.75,
        share=True,
        title_lines=max(map(len, titles)),
    )
    tables = [_quantile_table(study.of(norm)) for norm in norms]
    known = [value for norm in norms for value in published_quantiles(study, norm)]
    finite = [float(np.nanmax(table)) for _, table in tables if np.isfinite(table).any()]
    top = max([*finite, *known], default=1.0) or 1.0
    for index, (axis, norm, (epochs, table)) in enumerate(zip(axes, norms, tables, strict=True)):
        _fan(axis, epochs, table, styles[norm])
        # One variant far above the others would press them flat: nearly linear to 1, nearly logarithmic above.
        if top > 4 * float(np.median(finite or [1.0])):
            axis.set_yscale("asinh", linear_width=1.0)
            axis.set_yticks([0, 1] + [step * 10.0**d for d in range(9) for step in (1, 3) if 1 < step * 10.0**d <= top])
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axis.set_yticks([], minor=True)
            axis.set_ylim(-0.08, top * 1.15)
        else:
            axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axis.set_ylim(-0.03 * top, top * 1.05)
        axis.set_xlim(*_epoch_limits(study))
        published = published_quantiles(study, norm)
        diamonds = marker_style(HOLLOW, size=2.5) | {"markeredgewidth": 0.9, "clip_on": False, "zorder": 4}
        axis.plot([100] * len(published), published, linestyle="none", **diamonds)
        last_row = index + columns >= len(norms)
        panel(axis, "\n".join(titles[index]), "Epoch" if last_row else "")
    return figure


def published_quantiles(study: Study, norm: str) -> tuple[float, ...]:
    """The published study's quantiles at its epoch 100, where ours has such an epoch on its data; otherwise none."""
    reference = references_for(study.recipe).get(norm)
    reached = any(run.epochs and run.epochs[-1].epoch == 100 for run in study.of(norm))
    return (reference.feature_quantiles or ()) if reference and reached and study.num_epochs == 100 else ()


def _quantile_table(runs: Sequence[Run]) -> tuple[list[int], np.ndarray]:
    """Epochs and quantiles (epochs, 4), the mean over the finished runs, or over all where none is finished."""
    chosen = [run for run in runs if run.complete and run.epochs] or [run for run in runs if run.epochs]
    shared = sorted(set.intersection(*({e.epoch for e in run.epochs} for run in chosen)))
    table = np.array([[e.feature_quantiles for e in run.epochs if e.epoch in set(shared)] for run in chosen])
    return shared, np.where(np.isfinite(table), table, np.nan).mean(axis=0)  # a gap where a run overflowed


def _fan(axis: Axes, epochs: Sequence[int], table: np.ndarray, style: Style) -> None:
    for low, high, alpha in ((0, 3, 0.14), (1, 2, 0.3)):
        axis.fill_between(epochs, table[:, low], table[:, high], color=style.colour, alpha=alpha, linewidth=0)
    for index in range(len(QUANTILES)):
        inner = index in (1, 2)
        marker = marker_style(style, size=4) if len(epochs) == 1 else {}
        axis.plot(epochs, table[:, index], color=style.colour, linewidth=1.7 if inner else 1.0, **marker)


def _epoch_limits(study: Study) -> tuple[float, float]:
    last = max((run.epochs[-1].epoch for run in study.runs if run.epochs), default=1)
    return 1 - 0.04 * last, last * 1.04
