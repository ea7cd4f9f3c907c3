"""All figures of a workdir: which there are, when each can be drawn, and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.style
from matplotlib.figure import Figure

from jaxnorm.analysis.comparison import EQUALITY_MARGIN, SANITY_PAIR
from jaxnorm.analysis.curves import draw_accuracy, draw_loss, draw_sanity, paired_differences
from jaxnorm.analysis.endpoints import draw_endpoints
from jaxnorm.analysis.quantiles import draw_quantiles, published_quantiles
from jaxnorm.analysis.reference import references_for
from jaxnorm.analysis.runs import Study
from jaxnorm.analysis.sheet import NARROW, PAD, RC, WIDE, Layout
from jaxnorm.analysis.statistics import BCA_FROM
from jaxnorm.analysis.styles import GRID, INK, MUTED, PAPER
from jaxnorm.analysis.svg import to_inline, to_png, to_svg

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


def draw_figures(study: Study) -> list[FigureFile]:
    """Every figure for which the workdir holds data; none is ever drawn empty."""
    found = []
    with matplotlib.style.context(["default", RC]):  # whatever the user's own matplotlibrc says
        for plan in filter(lambda plan: plan.possible(study), _PLANS):
            wide = plan.draw(study, WIDE)
            svg, narrow = to_svg(wide), to_svg(plan.draw(study, NARROW))
            label = f"{plan.title}. {study.data_description}."
            found.append(
                FigureFile(
                    plan.name,
                    plan.title,
                    f"{plan.caption(study)} Data: {study.data_description}.",
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


def _endpoint_caption(study: Study) -> str:
    finished = [len(study.finished(norm)) for norm in study.norms]
    words = ["Accuracy after the last epoch, with that epoch's weights; nothing was chosen on these images."]
    if max(finished) > 1:
        method = "BCa bootstrap" if max(finished) >= BCA_FROM else "Student's t"
        words.append(
            f"Pale dots: single seeds. Large mark: their mean, with its 95 % interval ({method}). These intervals are "
            "not paired; the paired differences are in the table of comparisons."
        )
    if min(count for count in finished if count) == 1:
        words.append(
            "Where there is one seed, the bar is one standard error from the number of test images on either side; how "
            "much another seed would move the mark it cannot show."
        )
    if any(norm in references_for(study.recipe) for norm in study.norms):
        words.append("Hollow diamonds: the published study's values, one seed each.")
    return " ".join(words)


def _curve_caption(study: Study, what: str) -> str:
    words = [what]
    if any(len(study.finished(norm)) > 1 for norm in study.norms):
        words.append("Lines: mean over the finished seeds; bands: from the lowest seed to the highest.")
    if any(run.status == "diverged" for run in study.runs):
        words.append("A cross marks the step at which a run diverged; its line ends there.")
    if any(run.epochs and run.status in ("crashed", "unfinished") for run in study.runs):
        words.append("Runs that crashed or are unfinished are thin lines that end where they ended.")
    return " ".join(words)


def _accuracy_caption(study: Study) -> str:
    return _curve_caption(
        study,
        "Training accuracy is summed over each epoch's own augmented batches while the weights change, as the study "
        "plots it; validation accuracy is measured after the epoch on untouched images, and may therefore lie above.",
    )


def _loss_caption(study: Study) -> str:
    return _curve_caption(
        study,
        "The same epochs as mean cross entropy in nats, on a logarithmic axis that both panels share; lower is better.",
    )


def _sanity_caption(study: Study) -> str:
    library, own = (study.label(norm) for norm in SANITY_PAIR)
    words = (
        f"{library} is the library's own layer, {own} ours. From the same seed both should learn alike: their lines "
        f"coincide, and the difference, {library} minus {own}, stays near zero. The green band is half a point "
        f"({100 * EQUALITY_MARGIN:g}) on either side. The two round differently, and training amplifies that while the "
        "learning rate is high."
    )
    if len(paired_differences(study, *SANITY_PAIR)) > 1:
        words += " Thin lines: single seeds; thick: their mean."
    return words


def _quantile_caption(study: Study) -> str:
    words = [
        "Quantiles of the pooled features, the input of the last layer, over all validation images after every epoch, "
        "in evaluation mode. From bottom to top the lines are the 1, 20, 80 and 99 % quantiles; the dark band holds "
        "the middle 60 % of the values, the pale one 98 %. All panels share their axes; where one variant lies far "
        "above the others, the vertical axis is compressed above 1."
    ]
    if any(len(study.finished(norm)) > 1 for norm in study.norms):
        words.append("Mean over the finished seeds.")
    if any(published_quantiles(study, norm) for norm in study.norms):
        words.append("Hollow diamonds: the published study's quantiles at epoch 100, read off its plots.")
    return " ".join(words)


_PLANS = (
    _Plan(
        "test_accuracy",
        "Accuracy on the test images",
        draw_endpoints,
        lambda study: any(run.complete for run in study.runs),
        _endpoint_caption,
    ),
    _Plan("accuracy", "Accuracy over training", draw_accuracy, _any_epoch, _accuracy_caption),
    _Plan("loss", "Loss over training", draw_loss, _any_epoch, _loss_caption),
    _Plan(
        "sanity_check",
        "The library's batch norm against ours",
        draw_sanity,
        lambda study: bool(paired_differences(study, *SANITY_PAIR)),
        _sanity_caption,
    ),
    _Plan("feature_quantiles", "Distribution of the pooled features", draw_quantiles, _any_epoch, _quantile_caption),
)
