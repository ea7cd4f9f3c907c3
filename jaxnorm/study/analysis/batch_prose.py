"""The batch-size study in words, made from its numbers."""

import numpy as np

from jaxnorm.study.analysis import batches
from jaxnorm.study.analysis.batches import RULE_NAMES, Cell, Loss
from jaxnorm.study.analysis.reference import SLOWDOWN
from jaxnorm.study.analysis.runs import STATISTICS, Study
from jaxnorm.study.analysis.statistics import mean_interval, standard_error
from jaxnorm.study.analysis.words import counted, listed, number, percent, points, sentence, within

QUESTION = "When does batch norm break, and is it the training or only its averages?"


def introduction(study: Study) -> str:
    """What was varied and what was kept."""
    names = listed([within(study.norm_label(norm)) for norm in batches.norms_of(study)])
    sizes = listed([str(size) for size in batches.sizes(study)])
    kept = f"the same schedule of {counted(study.num_epochs, 'epoch')}" if study.num_epochs else "the same schedule"
    rules = batches.rules(study)
    rate = (
        "the rate once left as it is and once scaled linearly with the batch size"
        if len(rules) > 1
        else f"with the {RULE_NAMES[rules[0]].lower()}"
        if rules
        else ""
    )
    return (
        f"A 14-layer residual network is trained on {study.data_description} with {names}, in batches of {sizes}, on "
        f"{kept} in every case, {rate}, from {counted(len(study.seeds), 'seed')} each. A smaller batch means more "
        "steps, noisier gradients and, for batch norm, noisier statistics; the sections below take these apart."
    )


def lead(study: Study) -> list[str]:
    """What small batches cost each norm, how much of it is training, what ghosts do, and the time."""
    if not any(run.complete for run in study.runs):
        return ["No run has finished yet, so there is no result to report; below is what has been trained so far."]
    found = [words for rule in batches.rules(study) if (words := _by_rule(study, rule))]
    found += [words for rule in batches.rules(study) if (words := _averages(study, rule))]
    found += [*_ghosts(study), *filter(None, [_time(study)])]
    failed = [run for run in study.runs if run.status in ("diverged", "crashed")]
    if failed:
        found.append(f"Without final figures: {listed([f'{run.name} ({run.status})' for run in failed])}.")
    return found


def noise(study: Study) -> str:
    """What this many seeds can and cannot show."""
    counts = sorted({len(cell.finished) for cell in batches.cells(study) if cell.finished})
    images = next((r.splits["validation"].num_images for r in study.runs if r.complete), None)
    if not counts or images is None:
        return "No run has finished: nothing can be said of noise."
    accuracy = float(np.mean([r.splits["validation"].accuracy for r in study.runs if r.complete]))
    error = number(100 * standard_error(accuracy, images), 2)
    chance = f"The {images:,} validation images alone put a standard error of about {error} points on each accuracy"
    if counts[-1] == 1:
        return (
            "One seed each: nothing here shows how far another seed would lie, so that a difference between two batch "
            f"sizes may be chance. {chance}."
        )
    return (
        f"Means over {' to '.join(dict.fromkeys([str(counts[0]), str(counts[-1])]))} seeds, ± standard deviation. "
        f"{chance}, which all seeds share."
    )


def about_statistics() -> list[str]:
    """How to read the evaluations with other statistics."""
    return [
        "Batch norm evaluates with averages that it kept during training. Where these are bad, accuracy is lost "
        "although the weights are good, and statistics recomputed for the final weights bring it back; what they do "
        "not bring back was lost in training."
    ]


def _by_rule(study: Study, rule: str) -> str:
    words = []
    for norm in batches.norms_of(study):
        done = [cell for cell in batches.real(study, norm, rule) if cell.validation]
        if len(done) < 2:
            continue
        large, small = done[0], done[-1]
        change = _mean(small) - _mean(large)
        words.append(
            f"{within(study.norm_label(norm))} goes from {percent(_mean(large))} % at batch size {large.batch_size} to "
            f"{percent(_mean(small))} % at {small.batch_size} ({points(change, 1)} points{_sure(small, large)})"
        )
    return f"{RULE_NAMES[rule]}, validation accuracy after the last epoch: {'; '.join(words)}." if words else ""


def _sure(small: Cell, large: Cell) -> str:
    """The interval of the paired difference where there are seeds for one."""
    theirs = {run.seed: run.splits["validation"].accuracy for run in large.finished}
    paired = [r.splits["validation"].accuracy - theirs[r.seed] for r in small.finished if r.seed in theirs]
    interval = mean_interval(paired) if len(paired) > 1 else None
    return f", 95 % interval {points(interval.low, 1)} to {points(interval.high, 1)}" if interval else ""


def _averages(study: Study, rule: str) -> str:
    """Of the smallest batch's loss against the largest: how much precise statistics take back."""
    found = [batches.losses(study, norm, rule)[-1:] for norm in batches.norms_of(study)]
    words = [_split(study, loss) for last in found for loss in last]
    return f"{RULE_NAMES[rule]}, training or averages? {' '.join(words)}" if words else ""


def _split(study: Study, loss: Loss) -> str:
    small, large = loss.small, loss.large
    kinds = {kind: batches.mean(small.with_statistics(kind)) for kind in STATISTICS}
    error = standard_error(kinds["running"] or 0.0, small.finished[0].splits["validation"].num_images)
    start = (
        f"The weights of {within(study.norm_label(small.norm))} at batch size {small.batch_size} reach "
        f"{percent(kinds['running'])} % with running averages, {percent(kinds['precise_128'])} % with precise "
        f"statistics (batches of 128; {percent(kinds['precise'])} % from batches of {small.batch_size}), and "
        f"{percent(kinds['evaluation_batch'])} % with the evaluation batch's own. "
    )
    against = f"against batch size {large.batch_size}"
    already = batches.mean(large.with_statistics("precise_128")) or 0.0
    already -= batches.mean(large.with_statistics("running")) or 0.0
    if already > 2 * error:
        start += (
            f"But at batch size {large.batch_size} itself the running averages cost {number(100 * already, 1)} points "
            "against precise ones: in so few steps they lag behind the weights, and comparing with them misleads. "
        )
    if loss.whole <= 2 * error:
        return start + (
            f"{sentence(against)} that is a change of {points(-loss.whole, 1)} points with running averages: no loss "
            "beyond two standard errors that would need an explanation."
        )
    whole = f"{number(100 * loss.whole, 1)} points lost {against}"
    if loss.training <= 0:
        return start + f"Of the {whole}, none remain with precise statistics: they were lost in the averages alone."
    if loss.averages <= 0:
        return start + f"Of the {whole}, precise statistics bring none back: they were lost in training."
    return start + (
        f"Of the {whole}, {number(100 * loss.training, 1)} remain with precise statistics, lost in training; the other "
        f"{number(100 * loss.averages, 1)} were lost in the averages."
    )


def _ghosts(study: Study) -> list[str]:
    words = []
    for norm in batches.norms_of(study, lambda cell: cell.ghost is not None):
        done = [cell for cell in batches.ghosts(study, norm) if cell.validation]
        if not done:
            continue
        ghost = done[-1]
        every = [cell for cell in batches.cells(study) if cell.norm == norm and cell.ghost is None and cell.validation]
        whole = [cell for cell in every if cell.batch_size == ghost.batch_size]
        small = [cell for cell in every if cell.batch_size == ghost.ghost]
        text = (
            f"Ghosts of {ghost.ghost} in batches of {ghost.batch_size} take {within(study.norm_label(norm))} to "
            f"{percent(_mean(ghost))} % validation accuracy"
        )
        others = [f"whole batches of {cell.batch_size} to {percent(_mean(cell))} %" for cell in whole[:1]]
        others += [f"real batches of {c.batch_size} ({c.lr_rule} rate) to {percent(_mean(c))} %" for c in small]
        text += (f"; {listed(others)}" if others else "") + "."
        if whole:
            change = _mean(ghost) - _mean(whole[0])
            text += f" The noise of small statistics alone, at equal steps: {points(change, 1)} points."
        words.append(text)
    return words


def _time(study: Study) -> str:
    found = [(norm, ratio) for norm in batches.norms_of(study) if (ratio := batches.slowdown(study, norm))]
    if not found:
        return ""
    parts = [
        f"{number(times, 1)} times as long at batch size {small} as at {large} with {within(study.norm_label(norm))}"
        for norm, (small, large, times) in found
    ]
    return sentence(
        f"an epoch takes {listed(parts)}, on this machine and with this much data (medians); the published study says "
        f"{SLOWDOWN} for 8 against 128."
    )


def _mean(cell: Cell) -> float:
    return float(np.mean(cell.validation))
