"""The sentences of a report: the range, the verdict against the baseline, equality, failed runs, cautions."""

import pandas as pd

from jaxnorm.study.report.comparisons import BASELINE, EQUALITY_MARGIN, SANITY_PAIR, validation_gaps
from jaxnorm.study.report.formats import interval_points, listed, number, percent, points, sentence, within
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.statistics import standard_error
from jaxnorm.study.report.tables import digits, status
from jaxnorm.study.words import counted

NAMED = 6
"""Runs up to which all are named."""
NO_RESULT = "No run has finished yet, so there is no result to report; below is what has been trained so far."


def accuracy_range(study: Study) -> str:
    """The lowest and the highest test accuracy."""
    test = study.final("test")
    groups = test.groupby("label", observed=True).accuracy
    shown = {str(label): percent(mean, digits(study)) for label, mean in groups.mean().items()}
    ends = shown[str(groups.mean().idxmin())], shown[str(groups.mean().idxmax())]
    low, high = (listed([within(label) for label, text in shown.items() if text == end]) for end in ends)
    counts = sorted(set(groups.size()))
    seeds = f"{' to '.join(map(str, counts[:: max(1, len(counts) - 1)]))} seed{'s' * (counts[-1] > 1)} each"
    images = f"On {test.num_images.iloc[0]:,.0f} test images, accuracy"
    if ends[0] == ends[1]:
        return f"{images} is {ends[0]} % ({low}), {seeds}."
    return (
        f"{images} ranges from {ends[0]} % ({low}) to {ends[1]} % ({high}), {'mean over ' * (counts[-1] > 1)}{seeds}."
    )


def against_baseline(study: Study, found: pd.DataFrame) -> list[str]:
    """Which variants differ from batch norm, and of which that is not shown."""
    found = found[(found.baseline == BASELINE) & (found.norm != SANITY_PAIR[0])]
    over_seeds, words = found.interval.notna().any(), []
    rows = found.assign(judged=found.interval if over_seeds else found.image_interval).dropna(subset="judged")
    names = {one.norm: within(study.labels[one.norm]) for one in rows.itertuples()}
    clear = [f"{names[one.norm]} ({points(one.mean)} points)" for one in rows.itertuples() if one.judged.excludes_zero]
    level = [
        f"{names[one.norm]} ({points(one.mean)}, {interval_points(one.judged)})"
        for one in rows.itertuples()
        if not one.judged.excludes_zero
    ]
    if clear:
        noise = "the spread over seeds" if over_seeds else "the choice of test images"
        verb = "differs" if len(clear) == 1 else "differ"
        words.append(f"{listed(clear)} {verb} from {within(study.labels[BASELINE])} by more than {noise} explains")
    if level:
        verb, whose = (
            ("is", "its 95 % interval contains") if len(level) == 1 else ("are", "their 95 % intervals contain")
        )
        words.append(f"{listed(level)} {verb} not shown to differ from it: {whose} zero")
        words[-1] = words[-1] if clear else words[-1].replace("from it", f"from {within(study.labels[BASELINE])}")
    return [sentence("; ".join(words)) + "."] if words else []


def equality(study: Study, found: pd.DataFrame) -> list[str]:
    """Whether the library's batch norm and ours are equal."""
    pair = found[(found.norm == SANITY_PAIR[0]) & (found.baseline == SANITY_PAIR[1])]
    if not len(pair):
        return []
    one, gaps = next(pair.itertuples()), validation_gaps(study)
    names = f"Sanity check: {study.labels[SANITY_PAIR[0]]} and {within(study.labels[SANITY_PAIR[1]])}"
    apart = f"; in validation, at most {number(gaps.abs().max(axis=None), 2)} points apart after any epoch" * bool(
        gaps.size
    )
    if one.interval is None:
        return [f"{names} are {points(abs(one.mean)).lstrip('+')} points apart on test{apart}."]
    verdict = "equal" if one.equal else "not shown to be equal"
    margin = f"{100 * EQUALITY_MARGIN:g} points on test (95 % interval {interval_points(one.interval)})"
    return [f"{names} are {verdict} within {margin}{apart}."]


def failed(study: Study) -> list[str]:
    """Which runs have no final figures, and why."""
    runs = [run for run in study.runs.itertuples() if run.status in ("diverged", "crashed")]
    fates = [f"{within(str(run.label))} (seed {run.seed}) {status(run).partition(':')[0]}" for run in runs[:NAMED]]
    fates += [f"{counted(len(runs) - NAMED, 'more run')} failed"] if len(runs) > NAMED else []
    return [f"Without final figures: {'; '.join(fates)}."] if fates else []


def cautions(study: Study) -> list[str]:
    """What must be known before any number is believed."""
    found, test, planned = [], study.final("test"), study.num_epochs
    if study.recipe.get("dataset") == "digits":
        means = test.groupby("label", observed=True).accuracy.mean()
        images = int(test.num_images.iloc[0]) if len(test) else int(study.data.get("num_test") or 360)
        ends = dict.fromkeys([means.max(), means.min()] if len(means) else [0.95])
        errors = listed([f"{number(100 * standard_error(mean, images), 1)} at {percent(mean)} %" for mean in ends])
        found.append(
            f"This is a demonstration on {images} test images of small handwritten digits: the standard error of one "
            f"accuracy is, in points, {errors}. The study itself needs CIFAR-10: --preset study."
        )
    if "jpeg" in study.data_description.lower():
        found.append(
            f"The images are {study.data_description}: compressed once more, not the original pixels. Differences from "
            "published values include this."
        )
    if study.recipe.get("dataset") == "cifar10" and planned not in (None, 100):
        found.append(
            f"The schedule has {counted(planned, 'epoch')}, that of the original paper 100: its values are shown for "
            "orientation, without differences."
        )
    stops = sorted(set(study.finished.epoch.dropna()))
    if stops and planned is not None and stops[0] < planned:
        after = listed([str(stop) for stop in stops])
        found.append(
            f"Training was stopped after epoch {after} of {planned}: these are not accuracies of the whole schedule."
        )
    waiting = study.runs.name[study.runs.status.isin(["unfinished", "missing"])].tolist()
    if waiting:
        more = [f"{len(waiting) - NAMED} more (see Runs)"] * (len(waiting) > NAMED)
        names = listed([*waiting[:NAMED], *more])
        found.append(
            f"{len(waiting)} of {counted(len(study.runs), 'run')} {'is' if len(waiting) == 1 else 'are'} not finished: "
            f"{names}. The same command continues where it stopped."
        )
    if len({str(known["data"].get("fingerprint")) for known in study.runs.provenance if known.get("data")}) > 1:
        found.append("The runs were not all trained on the same data: their fingerprints differ. Do not compare them.")
    return found


def about_statistics(found: pd.DataFrame) -> str:
    """What the numbers of seeds and images can show."""
    n, planned = max(map(len, found.seeds), default=0), int(found.holm_p.notna().sum())
    images = "The interval over test images (paired bootstrap) takes the weights as trained."
    if n < 2:
        return f"One seed: nothing here shows how much another seed would change a difference. {images}"
    methods = listed(sorted({one.method for one in found.interval if one}))
    corrected = f" Holm's correction is over {counted(planned, 'comparison')} planned before any run." * bool(planned)
    return (
        f"Differences are paired by seed; intervals: {methods}. p: two-sided sign-flip test, for {n} seeds at least "
        f"{2 / 2**n:.3g}.{corrected} Two variants are equal if the interval is within {100 * EQUALITY_MARGIN:g} points "
        f"of zero; a large p does not show that. {images}"
    )
