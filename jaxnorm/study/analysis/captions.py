"""The words below each figure: what is drawn, on which data, and how to read it."""

from jaxnorm.study.analysis import batches
from jaxnorm.study.analysis.comparison import EQUALITY_MARGIN, SANITY_PAIR
from jaxnorm.study.analysis.curves import paired_differences
from jaxnorm.study.analysis.layers import last_convolution
from jaxnorm.study.analysis.quantiles import published_quantiles
from jaxnorm.study.analysis.reference import SLOWDOWN, references_for
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.statistics import BCA_FROM
from jaxnorm.study.analysis.words import shared_time


def endpoint_caption(study: Study) -> str:
    """What the marks, dots and bars are."""
    finished = [len(study.finished(norm)) for norm in study.variants]
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
    if any(norm in references_for(study.recipe) for norm in study.variants):
        words.append("Hollow diamonds: the published study's values, one seed each.")
    return " ".join(words)


def curve_caption(study: Study, what: str) -> str:
    """What a curve, its band and its end mean, after `what` is drawn."""
    words = [what]
    if any(len(study.finished(norm)) > 1 for norm in study.variants):
        words.append("Lines: mean over the finished seeds; bands: from the lowest seed to the highest.")
    if any(run.status == "diverged" for run in study.runs):
        words.append("A cross marks the step at which a run diverged; its line ends there.")
    if any(run.epochs and run.status in ("crashed", "unfinished") for run in study.runs):
        words.append("Runs that crashed or are unfinished are thin lines that end where they ended.")
    return " ".join(words)


def accuracy_caption(study: Study) -> str:
    """Which images each accuracy is of."""
    return curve_caption(
        study,
        "Training accuracy is summed over each epoch's own augmented batches while the weights change, as the study "
        "plots it; validation accuracy is measured after the epoch on untouched images, and may therefore lie above.",
    )


def loss_caption(study: Study) -> str:
    """Of the loss."""
    return curve_caption(
        study,
        "The same epochs as mean cross entropy in nats, on a logarithmic axis that both panels share; lower is better.",
    )


def sanity_caption(study: Study) -> str:
    """Why the two should agree, and within what."""
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


def quantile_caption(study: Study) -> str:
    """How to read a fan."""
    words = [
        "Quantiles of the pooled features, the input of the last layer, over all validation images after every epoch, "
        "in evaluation mode. From bottom to top the lines are the 1, 20, 80 and 99 % quantiles; the dark band holds "
        "the middle 60 % of the values, the pale one 98 %. All panels share their axes; where one variant lies far "
        "above the others, the vertical axis is compressed above 1."
    ]
    if any(len(study.finished(norm)) > 1 for norm in study.variants):
        words.append("Mean over the finished seeds.")
    if any(published_quantiles(study, norm) for norm in study.variants):
        words.append("Hollow diamonds: the published study's quantiles at epoch 100, read off its plots.")
    return " ".join(words)


def batch_caption(study: Study) -> str:
    """What the filled and the hollow markers are."""
    words = [
        "Error on the validation images after the last epoch, with its weights, by the size of a training batch; the "
        "schedule in epochs is the same everywhere. Both panels share the vertical axis."
    ]
    if any(map(batches.has_statistics, batches.cells(study))):
        words.append(
            "Hollow markers are the weights of the filled marker left of them, evaluated with other statistics than "
            "the running averages: where they lie below it, the averages are at fault, and not the training."
        )
    if any(len(cell.validation) > 1 for cell in batches.cells(study)):
        words.append("Lines: mean over the finished seeds; pale dots: single seeds.")
    elif study.runs:
        words.append("One seed each: how much another seed would move a marker this figure cannot show.")
    return " ".join(words)


def ghost_caption(_: Study) -> str:
    """What ghosts share with the large batch, and what with the small one."""
    return (
        "Error on the validation images by how many images share one statistic. Solid: real batches of that size, with "
        "as many more steps as they are smaller. Dashed: parts of that size of one large batch, with the large batch's "
        "steps and rate, the same points in every panel. Where dashed lies below solid, small statistics are not what "
        "hurts."
    )


def batch_curve_caption(_: Study) -> str:
    """Which accuracies are drawn."""
    return (
        "Accuracy on the validation images after every epoch (thick) and on the epoch's own augmented training batches "
        "(thin, dotted). All panels share their axes; the rate falls at the same epochs in all of them."
    )


def batch_time_caption(study: Study) -> str:
    """How time is measured, and our ratio beside the study's."""
    found = [(study.norm_label(n), ratio) for n in batches.norms_of(study) if (ratio := batches.slowdown(study, n))]
    ratios = "; ".join(
        f"{name} {times:.1f} times as long at {small} as at {large}" for name, (small, large, times) in found
    )
    return (
        "Median seconds of one epoch, training and validation together, without each run's first epoch. "
        f"{ratios}{'. ' if ratios else ''}The published study: {SLOWDOWN} for 8 against 128."
        f"{shared_time(study.parallel_seeds)}"
    )


def last_convolution_caption(study: Study) -> str:
    """Which layer it is, and why."""
    return (
        f"The same quantiles at {last_convolution(study)}, the last convolution before norm and ReLU: where the Group "
        "Normalization paper looks (its conv5_3). All panels share their axes; far from zero the vertical axis is "
        "compressed where one variant lies far above the others."
    )


def layers_caption(_: Study) -> str:
    """What is shared along a row."""
    return (
        "Quantiles over training of every convolution's output, before norm and ReLU, and of the pooled features. All "
        "variants share the vertical axis of a layer (named above its row), so that along a row heights compare; it is "
        "compressed beyond 1 where one variant lies far above the others."
    )


def histogram_caption(_: Study) -> str:
    """What is counted, and what an area means."""
    return (
        "Every value over all validation images, counted exactly, at the first, middle and last epoch. The "
        "vertical axis is the density, the share of all values over the width of a bin, and logarithmic, so that the "
        "tails show; the outermost thousandth of the widest distribution is cut off. All panels share their axes; "
        "where one variant lies far outside the others, the horizontal axis is compressed beyond 1."
    )


def gate_histogram_caption(_: Study) -> str:
    """What a gate's ends mean."""
    return (
        "Share of a layer's channels (%) by their gate after the last epoch, in 10 bins. A gate of 1 takes the batch's "
        "statistics alone, a gate of 0 the image's own; all start at 1. A vertical line stands where all "
        "gates of a layer are equal, as frozen ones are."
    )


def gate_path_caption(_: Study) -> str:
    """What the lines and the band are."""
    return (
        "Gates after every epoch by part of the network: the median over its channels with a band from 10 to 90 %, and "
        "the share of channels whose gate lies exactly at 1 (solid) or at 0 (dotted), where clipping holds it."
    )


def rates_caption(study: Study) -> str:
    """What the choice rests on."""
    several = any(len(study.finished(variant)) > 1 for variant in study.variants)
    return "Validation accuracy after the last epoch, the basis of the choice" + (
        ": mean over the finished seeds." if several else ", from one seed."
    )
