"""Figures of a layer's quantiles over training, one panel for each variant."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnorm.study.analysis.epochs import QUANTILES
from jaxnorm.study.analysis.layers import Path, last_convolution, layer_paths
from jaxnorm.study.analysis.reference import references_for
from jaxnorm.study.analysis.runs import Run, Study
from jaxnorm.study.analysis.scales import far_apart, value_axis
from jaxnorm.study.analysis.sheet import Entry, Layout, marker_style, panel, plain, sheet, subtitle
from jaxnorm.study.analysis.styles import HOLLOW, INK, Style, styles_of


def draw_quantiles(study: Study, layout: Layout) -> Figure:
    """The pooled features, as the published study draws them."""
    paths = {
        variant: _pooled(study.of(variant)) for variant in study.variants if any(r.epochs for r in study.of(variant))
    }
    published = {variant: published_quantiles(study, variant) for variant in paths}
    return _draw(study, layout, "Distribution of the pooled features", paths, published)


def draw_last_convolution(study: Study, layout: Layout) -> Figure:
    """The last convolution's output before norm and ReLU, as the Group Normalization paper draws its conv5_3."""
    layer = last_convolution(study) or ""
    paths = {variant: found[layer] for variant, found in layer_paths(study).items() if layer in found}
    return _draw(study, layout, "Distribution of the last convolution", paths, {}, f" · {layer}")


def published_quantiles(study: Study, variant: str) -> tuple[float, ...]:
    """The published study's quantiles at its epoch 100, where ours has such an epoch on its data; otherwise none."""
    reference = references_for(study.recipe).get(variant)
    reached = any(run.epochs and run.epochs[-1].epoch == 100 for run in study.of(variant))
    alike = reached and study.num_epochs == 100 and study.quantiles == QUANTILES
    return (reference.feature_quantiles or ()) if reference and alike else ()


def quantile_entries(percentages: Sequence[float]) -> list[Entry]:
    """The legend of a fan: what each band holds."""
    bands = [(percentages[i], percentages[-1 - i]) for i in range(len(percentages) // 2)][:2]
    names = [f"{low:g} to {high:g} % quantile" for low, high in reversed(bands)]
    shades = (0.4, 0.14) if len(bands) > 1 else (0.14,)
    return [Entry(name, Style(INK, ""), band=shade) for name, shade in zip(names, shades, strict=True)]


def draw_fan(axis: Axes, path: Path, style: Style, width: float = 1.0) -> None:
    """A line for each quantile; a pale band between the outermost two and a darker one between the next."""
    epochs, table = path
    for outer, alpha in zip(range(table.shape[1] // 2), (0.14, 0.3), strict=False):
        axis.fill_between(epochs, table[:, outer], table[:, -1 - outer], color=style.colour, alpha=alpha, linewidth=0)
    for index in range(table.shape[1]):
        inner = 0 < index < table.shape[1] - 1
        marker = marker_style(style, size=4) if len(epochs) == 1 else {}
        axis.plot(epochs, table[:, index], color=style.colour, linewidth=width * (1.7 if inner else 1.0), **marker)


def panel_titles(layout: Layout, names: Sequence[str], columns: int) -> list[str]:
    """The names, broken into up to three lines that fit a panel's width in bold."""
    letters = int((layout.width - 0.6) / columns * 10) - 3
    return ["\n".join(textwrap.wrap(plain(name), letters)[:3]) or name for name in names]


def epoch_limits(study: Study) -> tuple[float, float]:
    """Horizontal limits that hold every epoch of the study."""
    last = max((run.epochs[-1].epoch for run in study.runs if run.epochs), default=1)
    return 1 - 0.04 * last, last * 1.04


def _draw(
    study: Study,
    layout: Layout,
    title: str,
    paths: Mapping[str, Path],
    published: Mapping[str, Sequence[float]],
    where: str = "",
) -> Figure:
    columns = min(4 if layout.wide else 2, len(paths))
    titles = panel_titles(layout, [study.label(variant) for variant in paths], columns)
    figure, axes = sheet(
        layout,
        title,
        subtitle(study) + where,
        quantile_entries(study.quantiles),
        panels=len(paths),
        columns=columns,
        height=1.75,
        left=0.5,
        share=True,
        title_lines=max(title.count("\n") + 1 for title in titles),
    )
    known = [value for values in published.values() for value in values]
    extremes = [
        float(pick(table)) for _, table in paths.values() if np.isfinite(table).any() for pick in (np.nanmin, np.nanmax)
    ]
    low, high = min([0.0, *extremes, *known]), max([0.0, *extremes, *known]) or 1.0
    compressed = far_apart([float(np.nanmax(np.abs(t))) for _, t in paths.values() if np.isfinite(t).any()])
    for index, (axis, (variant, path)) in enumerate(zip(axes, paths.items(), strict=True)):
        draw_fan(axis, path, styles_of(study)[variant])
        value_axis(axis, low, high, compressed=compressed)
        axis.set_xlim(*epoch_limits(study))
        values = published.get(variant, ())
        diamonds = marker_style(HOLLOW, size=2.5) | {"markeredgewidth": 0.9, "clip_on": False, "zorder": 4}
        axis.plot([100] * len(values), values, linestyle="none", **diamonds)
        panel(axis, titles[index], "Epoch" if index + columns >= len(paths) else "")
    return figure


def _pooled(runs: Sequence[Run]) -> Path:
    """Epochs and quantiles (epochs, Q), the mean over the finished runs, or over all where none is finished."""
    chosen = [run for run in runs if run.complete and run.epochs] or [run for run in runs if run.epochs]
    shared = sorted(set.intersection(*({e.epoch for e in run.epochs} for run in chosen)))
    table = np.array([[e.feature_quantiles for e in run.epochs if e.epoch in set(shared)] for run in chosen])
    return shared, np.where(np.isfinite(table), table, np.nan).mean(axis=0)  # a gap where a run overflowed
