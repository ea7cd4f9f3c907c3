"""The report's sentences, made from the numbers and from nothing else."""

from collections.abc import Sequence

import numpy as np

from jaxnorm.study.analysis.comparison import BASELINE, EQUALITY_MARGIN, SANITY_PAIR, Comparison
from jaxnorm.study.analysis.curves import paired_differences
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.statistics import standard_error
from jaxnorm.study.analysis.tables import several_seeds, status_of
from jaxnorm.study.analysis.words import counted, interval_points, listed, number, percent, points, sentence, within

NAMED = 12
"""Unfinished runs up to which all are named."""


def question(study: Study) -> str:
    """The page's title."""
    return "What does normalization do to a small residual network?" if study.name == "compare_norms" else study.name


def introduction(study: Study) -> str:
    """What was done, in two sentences."""
    variants = counted(len(study.variants), "variant")
    schedule = f", on a schedule of {counted(study.num_epochs, 'epoch')}" if study.num_epochs else ""
    return (
        f"A 14-layer residual network is trained on {study.data_description}{schedule}, in {variants} that differ in "
        f"nothing but their normalization, from {counted(len(study.seeds), 'seed')} each. Within a seed, all variants "
        "share their initial convolution and dense weights, the order of the data and the augmentation."
    )


def lead(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    """The result in words: the range, what differs from batch norm, the sanity check, what went wrong."""
    if not any(run.complete for run in study.runs):
        found = ["No run has finished yet, so there is no result to report; below is what has been trained so far."]
    else:
        found = [_range(study), *_against_baseline(study, comparisons), *_sanity(study, comparisons)]
    failed = [run for run in study.runs if run.status in ("diverged", "crashed")]
    if failed:
        fates = [f"{within(study.label(r.norm))} (seed {r.seed}) {status_of(r).partition(':')[0]}" for r in failed[:6]]
        more = f"; {counted(len(failed) - 6, 'more run')} failed" if len(failed) > 6 else ""
        found.append(f"Without final figures: {'; '.join(fates)}{more}.")
    return found


def _range(study: Study) -> str:
    finished = {norm: study.finished(norm) for norm in study.variants if study.finished(norm)}
    means = {norm: float(np.mean([run.splits["test"].accuracy for run in runs])) for norm, runs in finished.items()}
    shown = {norm: percent(mean, 2 if several_seeds(study) else 1) for norm, mean in means.items()}
    counts = sorted({len(runs) for runs in finished.values()})
    images = next(iter(finished.values()))[0].splits["test"].num_images
    seeds = "one seed each" if counts == [1] else f"{' to '.join(map(str, {counts[0]: 0, counts[-1]: 0}))} seeds each"
    lowest, highest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if len(means) == 1:
        seeds = seeds.removesuffix(" each")
        return f"{study.label(lowest)} classifies {shown[lowest]} % of the {images:,} test images correctly ({seeds})."
    if shown[lowest] == shown[highest]:
        return f"All {len(means)} finished variants reach {shown[lowest]} % on {images:,} test images ({seeds})."
    low, high = (
        listed([within(study.label(norm)) for norm in means if shown[norm] == shown[extreme]])
        for extreme in (lowest, highest)
    )
    return (
        f"On {images:,} test images, accuracy ranges from {shown[lowest]} % ({low}) to {shown[highest]} % ({high}), "
        f"{'with' if counts == [1] else 'the mean over'} {seeds}."
    )


def _against_baseline(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    against = [one for one in comparisons if one.baseline == BASELINE and one.norm != SANITY_PAIR[0]]
    if not against:
        return []
    base, by_seeds = within(study.label(BASELINE)), any(one.interval for one in against)
    judged = [(one, one.interval if by_seeds else one.image_interval) for one in against]
    clear = [
        f"{within(study.label(one.norm))} ({points(one.mean)} points)" for one, i in judged if i and i.excludes_zero
    ]
    level = [
        f"{within(study.label(one.norm))} ({points(one.mean)}, {points(i.low)} to {points(i.high)})"
        for one, i in judged
        if i and not i.excludes_zero
    ]
    noise = "the spread over seeds" if by_seeds else "the choice of test images"
    words = []
    if clear:
        words.append(
            f"From {base}, {listed(clear)} {'differs' if len(clear) == 1 else 'differ'} by more than {noise} explains "
            "(95 % intervals of paired differences, each taken by itself)."
        )
    if level:
        verb, whose = ("is", "its interval holds") if len(level) == 1 else ("are", "their intervals hold")
        words.append(sentence(f"{listed(level)} {verb} not shown to differ from {base}: {whose} zero."))
    if not by_seeds:
        words.append("One seed each cannot show how much another seed would change any of this.")
    return [" ".join(words)]


def _sanity(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    found = next((one for one in comparisons if (one.norm, one.baseline) == SANITY_PAIR), None)
    if found is None:
        return []
    library, own = study.label(SANITY_PAIR[0]), within(study.label(SANITY_PAIR[1]))
    gaps = [abs(gap) for seed in paired_differences(study, *SANITY_PAIR) for _, gap in seed]
    worst = f"; in validation, they are at most {number(max(gaps), 2)} points apart after any epoch" if gaps else ""
    if found.interval is None:
        level = points(found.mean) == points(0.0)
        ends = f"at the same test accuracy as {own}" if level else f"{points(found.mean)} points from {own} on test"
        return [f"Sanity check: {library} ends {ends}{worst}."]
    verdict = "equal" if found.equal else "not shown to be equal"
    return [
        f"Sanity check: {library} and {own} are {verdict} within {100 * EQUALITY_MARGIN:g} point on test (95 % "
        f"interval {interval_points(found.interval)}){worst}."
    ]


def cautions(study: Study) -> list[str]:
    """What must be known before any number is believed."""
    found = []
    finished = [run for run in study.runs if run.complete]
    if study.dataset == "digits":
        images = finished[0].splits["test"].num_images if finished else study.data.get("num_test") or 360
        found_of = [[run.splits["test"].accuracy for run in study.finished(v)] for v in study.variants]
        means = sorted(float(np.mean(values)) for values in found_of if values) or [0.95]
        errors = [f"{number(100 * standard_error(m, images), 1)} at {percent(m)} %" for m in (means[-1], means[0])]
        found.append(
            f"This is a demonstration on {images} test images of small handwritten digits. The standard error of one "
            f"accuracy is, in points, {' and '.join(dict.fromkeys(errors))}, so small differences are noise. The study "
            "itself needs CIFAR-10: --preset study."
        )
    if "jpeg" in study.data_description.lower():
        found.append(
            f"The images are {study.data_description}: compressed once more, not the original pixels. Accuracies may "
            "lie below those on the original CIFAR-10, and differences from published figures include this."
        )
    if study.dataset == "cifar10" and study.num_epochs not in (None, 100):
        found.append(
            f"The schedule has {counted(study.num_epochs or 0, 'epoch')}, the published study's has 100: its figures "
            "are shown for orientation, without differences."
        )
    stops = sorted({run.epoch for run in finished if run.epoch is not None})
    if stops and study.num_epochs is not None and stops[0] < study.num_epochs:
        after = (
            f"after epoch {stops[0]}" if len(stops) == 1 else f"after epochs {listed([str(stop) for stop in stops])}"
        )
        found.append(
            f"Training was stopped {after} of {study.num_epochs}: these are not the accuracies that the whole schedule "
            "would give" + ("." if len(stops) == 1 else ", and the runs were not all trained equally long.")
        )
    waiting = [run for run in study.runs if run.status in ("unfinished", "missing")]
    if waiting:
        names = [run.name for run in waiting]
        if len(names) > NAMED:
            names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} more (see Runs)"]
        found.append(
            f"{len(waiting)} of {counted(len(study.runs), 'run')} {'is' if len(waiting) == 1 else 'are'} not finished: "
            f"{listed(names)}. The same command goes on where it stopped."
        )
    prints = {str(run.provenance["data"].get("fingerprint")) for run in study.runs if run.provenance.get("data")}
    if len(prints) > 1:
        found.append("The runs were not all trained on the same data: their fingerprints differ. Do not compare them.")
    return found


def about_statistics(comparisons: Sequence[Comparison]) -> list[str]:
    """What the numbers of seeds and images can show, and what they cannot."""
    n = max((len(one.seeds) for one in comparisons), default=0)
    if n < 2:
        found = [
            "One seed: there is no interval over seeds and no p-value, for nothing here shows how far another seed "
            "would lie. The interval over test images (paired bootstrap) takes the trained weights as given: it says "
            "what other test images could have done to the difference, and no more."
        ]
    else:
        methods = listed(sorted({one.interval.method for one in comparisons if one.interval}))
        least = 2 / 2**n
        limit = ", so that no comparison can reach 0.05, however large." if least > 0.05 else "."
        found = [
            f"Differences are paired by seed. Intervals over seeds: {methods}. p is that of the two-sided sign-flip "
            f"test, which with {n} seeds cannot fall below 2 in {2**n:,}, or {least:.3g}{limit}"
        ]
        planned = sum(one.holm_p is not None for one in comparisons)
        if planned:
            found.append(
                f"{counted(planned, 'comparison')} here {'was' if planned == 1 else 'were'} planned before any run "
                "and corrected together by Holm's procedure; the rest is exploratory and uncorrected."
            )
        found.append(
            f"Two variants count as equal when the interval lies within {100 * EQUALITY_MARGIN:g} point of zero; a "
            "large p alone says nothing of the kind."
        )
        found.append(
            "All seeds meet the same test images, whose noise the seeds therefore do not show; hence the interval over "
            "test images beside it (paired bootstrap, with the weights as trained)."
        )
    found.append(
        "The split into training, validation and test images is fixed: how another split would change the results is "
        "not measured."
    )
    return found
