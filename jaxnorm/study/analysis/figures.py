"""All figures of a workdir: which there are, when each can be drawn, and how it is read."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.style
from matplotlib.figure import Figure

from jaxnorm.study.analysis import batches, captions
from jaxnorm.study.analysis.batch_figures import draw_batch_curves, draw_batch_sizes, draw_batch_time, draw_ghosts
from jaxnorm.study.analysis.comparison import SANITY_PAIR
from jaxnorm.study.analysis.curves import draw_accuracy, draw_loss, draw_sanity, paired_differences
from jaxnorm.study.analysis.endpoints import draw_endpoints
from jaxnorm.study.analysis.gates import draw_gate_histograms, draw_gate_paths
from jaxnorm.study.analysis.histograms import histograms
from jaxnorm.study.analysis.layer_figures import draw_convolution_histograms, draw_layers, draw_pooled_histograms
from jaxnorm.study.analysis.layers import POOLED, gate_paths, last_convolution, layer_names
from jaxnorm.study.analysis.quantiles import draw_last_convolution, draw_quantiles
from jaxnorm.study.analysis.rates import chosen, draw_rates, varies_rates
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.sheet import NARROW, PAD, RC, WIDE, Layout
from jaxnorm.study.analysis.styles import GRID, INK, MUTED, PAPER
from jaxnorm.study.analysis.svg import to_inline, to_png, to_svg

# Colours that follow the page's light or dark theme when a figure stands in it; the variants' own never change.
_THEME = {INK: "--ink", MUTED: "--muted", GRID: "--rule", PAPER: "--paper"}


@dataclass(frozen=True)
class FigureFile:
    """One figure in every form in which it is handed out."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: bytes
    inline_wide: str
    inline_narrow: str


@dataclass(frozen=True)
class _Plan:
    name: str
    title: str
    draw: Callable[[Study, Layout], Figure]
    possible: Callable[[Study], bool]
    caption: Callable[[Study], str]
    every_rate: bool = False
    """Whether it shows all learning rates, and not only each norm's own."""


def draw_figures(study: Study) -> list[FigureFile]:
    """Every figure for which the workdir holds data; none is ever drawn empty."""
    found, best = [], chosen(study)
    with matplotlib.style.context(["default", RC]):  # whatever the user's own matplotlibrc says
        for plan in _PLANS:
            shown = study if plan.every_rate else best
            if not plan.possible(shown):
                continue
            wide = plan.draw(shown, WIDE)
            svg, narrow = to_svg(wide), to_svg(plan.draw(shown, NARROW))
            label = f"{plan.title}. {study.data_description}."
            found.append(
                FigureFile(
                    plan.name,
                    plan.title,
                    f"{plan.caption(shown)} Data: {study.data_description}.",
                    to_png(wide),
                    svg,
                    to_inline(svg, f"{plan.name}-wide-", label, _THEME, trim=72 * PAD),
                    to_inline(narrow, f"{plan.name}-narrow-", label, _THEME, trim=72 * PAD),
                )
            )
    return found


def figure_names() -> tuple[str, ...]:
    """The names of all figures there may be."""
    return tuple(plan.name for plan in _PLANS)


def _any_epoch(study: Study) -> bool:
    return any(run.epochs for run in study.runs)


def _is_batch_study(study: Study) -> bool:
    return study.name == "batch_size_study"


def _compared(possible: Callable[[Study], bool]) -> Callable[[Study], bool]:
    """A figure of the norms in one setting: the batch-size study has its own."""
    return lambda study: not _is_batch_study(study) and possible(study)


def _batched(possible: Callable[[Study], bool]) -> Callable[[Study], bool]:
    return lambda study: _is_batch_study(study) and possible(study)


def _curves_under(rule: str) -> Callable[[Study], bool]:
    return lambda study: any(
        run.epochs for norm in batches.norms_of(study) for cell in batches.real(study, norm, rule) for run in cell.runs
    )


def _finished(study: Study) -> bool:
    return any(run.complete for run in study.runs)


_PLANS = (
    _Plan(
        "test_accuracy", "Accuracy on the test images", draw_endpoints, _compared(_finished), captions.endpoint_caption
    ),
    _Plan("accuracy", "Accuracy over training", draw_accuracy, _compared(_any_epoch), captions.accuracy_caption),
    _Plan("loss", "Loss over training", draw_loss, _compared(_any_epoch), captions.loss_caption),
    _Plan(
        "sanity_check",
        "The library's batch norm against ours",
        draw_sanity,
        _compared(lambda study: bool(paired_differences(study, *SANITY_PAIR))),
        captions.sanity_caption,
    ),
    _Plan(
        "feature_quantiles",
        "Distribution of the pooled features",
        draw_quantiles,
        _compared(_any_epoch),
        captions.quantile_caption,
    ),
    _Plan(
        "pooled_histograms",
        "Histograms of the pooled features",
        draw_pooled_histograms,
        _compared(lambda study: bool(histograms(study, POOLED))),
        captions.histogram_caption,
    ),
    _Plan(
        "last_convolution",
        "Distribution of the last convolution",
        draw_last_convolution,
        _compared(lambda study: last_convolution(study) is not None),
        captions.last_convolution_caption,
    ),
    _Plan(
        "convolution_histograms",
        "Histograms of the last convolution",
        draw_convolution_histograms,
        _compared(lambda study: bool(histograms(study, last_convolution(study) or ""))),
        captions.histogram_caption,
    ),
    _Plan(
        "layers",
        "Distribution of every layer over training",
        draw_layers,
        _compared(lambda study: bool(layer_names(study))),
        captions.layers_caption,
    ),
    _Plan(
        "batch_sizes",
        "Validation error by batch size",
        draw_batch_sizes,
        _batched(_finished),
        captions.batch_caption,
    ),
    _Plan(
        "ghosts",
        "Ghost batches beside real small ones",
        draw_ghosts,
        _batched(lambda study: any(cell.validation for cell in batches.ghosts(study))),
        captions.ghost_caption,
    ),
    *(
        _Plan(
            f"batch_curves_{rule}",
            f"Accuracy over training: {batches.RULE_NAMES[rule].lower()}",
            functools.partial(draw_batch_curves, rule=rule),
            _batched(_curves_under(rule)),
            captions.batch_curve_caption,
        )
        for rule in batches.RULES
    ),
    _Plan(
        "batch_time",
        "Time of an epoch by batch size",
        draw_batch_time,
        _batched(lambda study: any(batches.slowdown(study, norm) for norm in batches.norms_of(study))),
        captions.batch_time_caption,
    ),
    _Plan(
        "gate_histograms",
        "Gates of every layer at the end",
        draw_gate_histograms,
        lambda study: bool(gate_paths(study)),
        captions.gate_histogram_caption,
    ),
    _Plan(
        "gate_paths",
        "Gates over training",
        draw_gate_paths,
        lambda study: bool(gate_paths(study)),
        captions.gate_path_caption,
    ),
    _Plan(
        "learning_rates",
        "Validation accuracy by learning rate",
        draw_rates,
        _compared(lambda study: varies_rates(study) and _finished(study)),
        captions.rates_caption,
        every_rate=True,
    ),
)
