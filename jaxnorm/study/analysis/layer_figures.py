"""The page of all layers: quantiles over training and histograms, a row for each layer, a column for each variant."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnorm.study.analysis.grid import grid
from jaxnorm.study.analysis.histograms import Histogram, density_of, histograms, spread_of
from jaxnorm.study.analysis.layers import POOLED, last_convolution, layer_names, layer_paths
from jaxnorm.study.analysis.quantiles import draw_fan, epoch_limits, panel_titles, quantile_entries
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.scales import far_apart, power_of_ten, value_axis
from jaxnorm.study.analysis.sheet import Entry, Layout, panel, plain, sheet, subtitle
from jaxnorm.study.analysis.styles import INK, Style, styles_of

WASHES = ((0.0, 1.0, (1.2, 1.4)), (0.0, 1.2, (4, 1.6)), (0.28, 1.6, ()))
"""First, middle and last epoch: opacity of the area below, width and dash of the outline."""


def draw_layers(study: Study, layout: Layout) -> Figure:
    """Every layer's quantiles over training; all variants share a layer's vertical axis."""
    paths, layers, styles = layer_paths(study), layer_names(study), styles_of(study)
    per_block = 8 if layout.wide else 3
    across = min(per_block, len(paths))
    letters = int((layout.width - 0.8) / across * 10.5) - 1
    figure, axes = grid(
        layout,
        "Distribution of every layer over training",
        subtitle(study),
        quantile_entries(study.quantiles),
        rows=layers,
        columns=[
            "\n".join(textwrap.wrap(plain(study.label(variant)), letters, break_long_words=False)[:4])
            for variant in paths
        ],
        per_block=per_block,
        height=0.62 if layout.wide else 0.55,
        xlabel="Epoch",
    )
    for row, layer in zip(axes, layers, strict=True):
        tables = {variant: found[layer] for variant, found in paths.items() if layer in found}
        finite = [table[np.isfinite(table)] for _, table in tables.values() if np.isfinite(table).any()]
        low = min((float(values.min()) for values in finite), default=0.0)
        high = max((float(values.max()) for values in finite), default=1.0)
        compressed = far_apart([float(np.abs(values).max()) for values in finite])
        for axis, variant in zip(row, paths, strict=True):
            if variant in tables:
                draw_fan(axis, tables[variant], styles[variant], width=0.6)
            value_axis(axis, min(low, 0.0), max(high, 0.0), compressed=compressed, ticks=3)
            axis.set_xlim(*epoch_limits(study))
            axis.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
    return figure


def draw_pooled_histograms(study: Study, layout: Layout) -> Figure:
    """The whole distribution of the pooled features at the first, middle and last epoch."""
    return _draw_histograms(study, layout, POOLED, "Histograms of the pooled features")


def draw_convolution_histograms(study: Study, layout: Layout) -> Figure:
    """The whole distribution of the last convolution's output at the first, middle and last epoch."""
    layer = last_convolution(study) or ""
    return _draw_histograms(study, layout, layer, "Histograms of the last convolution")


def _draw_histograms(study: Study, layout: Layout, layer: str, title: str) -> Figure:
    found = histograms(study, layer)
    styles, columns = styles_of(study), min(4 if layout.wide else 2, len(found))
    titles = panel_titles(layout, [study.label(variant) for variant in found], columns)
    low, high, compressed = _range(found)
    epochs = sorted({one.epoch for several in found.values() for one in several})
    names = ("first epoch", "middle epoch", "last epoch")
    figure, axes = sheet(
        layout,
        title,
        f"{subtitle(study)} · {layer} · density, log scale",
        [
            Entry(f"{name} ({epoch})", Style(INK, "", dash))
            for name, epoch, (_, _, dash) in zip(
                _picked(names, len(epochs)), epochs, _picked(WASHES, len(epochs)), strict=False
            )
        ],
        panels=len(found),
        columns=columns,
        height=1.6,
        left=0.5,
        share=True,
        title_lines=max(title.count("\n") + 1 for title in titles),
    )
    tallest = 0.0
    for index, (axis, (variant, several)) in enumerate(zip(axes, found.items(), strict=True)):
        for one, (alpha, width, dash) in zip(several, _picked(WASHES, len(several)), strict=False):
            middle, density = density_of(one, low, high, compressed=compressed)
            tallest = max(tallest, float(np.nanmax(density, initial=0.0)))
            colour = styles[variant].colour
            if alpha:
                axis.fill_between(middle, density, 1e-30, color=colour, alpha=alpha, linewidth=0)
            axis.plot(middle, density, color=colour, linewidth=width, linestyle=(0, dash) if dash else "-")
        panel(axis, titles[index], "")
        value_axis(axis, low, high, compressed=compressed, ticks=5 if layout.wide else 4, along="x")
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(tallest / 1e5, tallest * 2)
        axis.set_yticks([10.0**k for k in range(-8, 4) if tallest / 1e5 < 10.0**k < tallest * 2])
        axis.set_yticks([], minor=True)
        axis.yaxis.set_major_formatter(lambda value, _: power_of_ten(value))
    return figure


def _picked(three: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    return {1: three[-1:], 2: (three[0], three[-1])}.get(count, three)


def _range(found: dict[str, list[Histogram]]) -> tuple[float, float, bool]:
    """Where all but a thousandth of every histogram lies, and whether one needs a compressed axis."""
    spreads = [spread_of(one) for several in found.values() for one in several]
    low, high = min(low for low, _ in spreads), max(high for _, high in spreads)
    return low, high, far_apart([max(abs(a), abs(b)) for a, b in spreads])
