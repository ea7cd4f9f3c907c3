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


def accuracy_range(study: Study) -> list[str]:
    """The lowest and the highest test accuracy."""
    test = study.final("test")
    if not len(test):
        return []
    groups = test.groupby("label", observed=True).accuracy
    means, counts = groups.mean().sort_values(), sorted(set(groups.size()))
    shown = means.map(lambda mean: percent(mean, digits(study)))
    low, high = shown.iloc[0], shown.iloc[-1]
    names = {end: listed([within(str(label)) for label in shown.index[shown == end].sort_values()]) for end in shown}
    seeds = f"{' to '.join(map(str, counts[:: max(1, len(counts) - 1)]))} seed{'s' * (counts[-1] > 1)} each"
    seeds = "mean over " * (counts[-1] > 1) + seeds
    images = f"On {test.num_images.iloc[0]:,.0f} test images, accuracy"
    if low == high:
        return [f"{images} is {low} % ({names[low]}), {seeds}."]
    return [f"{images} ranges from {low} % ({names[low]}) to {high} % ({names[high]}), {seeds}."]


def against_baseline(study: Study, found: pd.DataFrame) -> list[str]:
    """Which variants differ from batch norm, and of which that is not shown."""
    found = found[(found.baseline == BASELINE) & (found.norm != SANITY_PAIR[0])]
    over_seeds, words, clear, level = found.interval.notna().any(), [], [], []
    noise = "the spread over seeds" if over_seeds else "the choice of test images"
    for one in found.assign(judged=found.interval if over_seeds else found.image_interval).itertuples():
        name = within(study.labels[one.norm])
        if one.judged and one.judged.excludes_zero:
            clear.append(f"{name} ({points(one.mean)} points)")
        elif one.judged:
            level.append(f"{name} ({points(one.mean)}, {interval_points(one.judged)})")
    theirs = within(study.labels[BASELINE]) if clear or level else ""
    if clear:
        verb = "differs" if len(clear) == 1 else "differ"
        words.append(f"{listed(clear)} {verb} from {theirs} by more than {noise} explains")
    if level:
        one_alone = len(level) == 1
        verb, whose = ("is", "its 95 % interval contains") if one_alone else ("are", "their 95 % intervals contain")
        words.append(f"{listed(level)} {verb} not shown to differ from {'it' if clear else theirs}: {whose} zero")
    return [sentence("; ".join(words)) + "."] if words else []


def equality(study: Study, found: pd.DataFrame) -> list[str]:
    """Whether the library's batch norm and ours are equal."""
    pair = found[(found.norm == SANITY_PAIR[0]) & (found.baseline == SANITY_PAIR[1])]
    if not len(pair):
        return []
    one, gaps = next(pair.itertuples()), validation_gaps(study)
    names = f"Sanity check: {study.labels[SANITY_PAIR[0]]} and {within(study.labels[SANITY_PAIR[1]])} are"
    most = number(gaps.abs().max(axis=None), 2) if gaps.size else ""
    apart = f"; in validation, at most {most} points apart after any epoch" if most else ""
    if one.interval is None:
        return [f"{names} {points(abs(one.mean)).lstrip('+')} points apart on test{apart}."]
    verdict = f"{'equal' if one.equal else 'not shown to be equal'} within {100 * EQUALITY_MARGIN:g} points"
    return [f"{names} {verdict} on test (95 % interval {interval_points(one.interval)}){apart}."]


def failed(study: Study) -> list[str]:
    """Which runs have no final figures, and why."""
    runs = [run for run in study.runs.itertuples() if run.status in ("diverged", "crashed")]
    fates = [f"{within(str(run.label))} (seed {run.seed}) {status(run).partition(':')[0]}" for run in runs[:NAMED]]
    fates += [f"{counted(len(runs) - NAMED, 'more run')} failed"] if len(runs) > NAMED else []
    return [f"Without final figures: {'; '.join(fates)}."] if fates else []


def cautions(study: Study) -> list[str]:
    """What must be known before any number is believed."""
    found, test, planned, data = [], study.final("test"), study.recipe.get("num_epochs"), study.data_description
    if study.recipe.get("dataset") == "digits":
        images = int(test.num_images.iloc[0]) if len(test) else int(study.data.get("num_test") or 360)
        means = test.groupby("label", observed=True).accuracy.mean()
        ends = dict.fromkeys([means.max(), means.min()] if len(means) else [0.95])
        errors = listed([f"{number(100 * standard_error(mean, images), 1)} at {percent(mean)} %" for mean in ends])
        found.append(
            f"This is a demonstration on {images} test images of small handwritten digits: the standard error of one "
            f"accuracy is, in points, {errors}. The full experiment needs CIFAR-10: --preset study."
        )
    if "jpeg" in data.lower():
        found.append(f"The images are {data}, not the original pixels: differences from published values include this.")
    if study.recipe.get("dataset") == "cifar10" and planned not in (None, 100):
        found.append(
            f"The schedule has {counted(planned, 'epoch')}; that of the original paper has 100. Its values are beside "
            "ours for orientation only."
        )
    stops = sorted(set(study.finished.epoch.dropna()))
    if stops and planned is not None and stops[0] < planned:
        after = listed(list(map(str, stops)))
        found.append(f"Training was stopped after epoch {after} of {planned}, before the end of the schedule.")
    waiting = study.runs.name[study.runs.status.isin(["unfinished", "missing"])].tolist()
    if waiting:
        names = [*waiting[:NAMED], *([f"{len(waiting) - NAMED} more (see Runs)"] if len(waiting) > NAMED else [])]
        found.append(
            f"{len(waiting)} of {counted(len(study.runs), 'run')} {'is' if len(waiting) == 1 else 'are'} not finished: "
            f"{listed(names)}. The same command continues where it stopped."
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
