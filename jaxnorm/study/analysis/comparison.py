"""Which pairs of variants are compared, on what, and what may be said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.study.analysis.runs import Run, Study
from jaxnorm.study.analysis.statistics import Interval, holm, image_interval, mean_interval, sign_flip_p

BASELINE = "bn"
PLANNED = (("bin", "bn"), ("bin", "bin_frozen"), ("gn", "bn"))
"""The comparisons settled before any run; only these are corrected for being several, the rest is exploratory."""
SANITY_PAIR = ("flax_bn", "bn")
EQUALITY_MARGIN = 0.005
"""Half a point of accuracy: closer than this is equal."""


@dataclass(frozen=True)
class Comparison:
    """Test accuracy of `norm` minus that of `baseline`, paired by seed; differences as fractions."""

    norm: str
    baseline: str
    seeds: tuple[int, ...]
    """The seeds on which both are complete."""
    differences: tuple[float, ...]
    interval: Interval | None
    """Over seeds; None for one seed."""
    p_value: float | None
    image_interval: Interval | None
    """Over test images, with these weights; None without both runs' predictions."""
    holm_p: float | None = None
    """Only for planned comparisons."""

    @property
    def mean(self) -> float:
        """The mean difference."""
        return float(np.mean(self.differences))

    @property
    def planned(self) -> bool:
        """Whether it was settled before any run."""
        return (self.norm, self.baseline) in PLANNED

    @property
    def equal(self) -> bool | None:
        """Whether the interval over seeds lies within half a point; None where there is no interval."""
        return None if self.interval is None else self.interval.within(EQUALITY_MARGIN)


def compare(study: Study) -> tuple[Comparison, ...]:
    """Every variant against `bn`, and the planned pairs, where both sides have a finished seed in common.

    Raises:
        UserError: if two runs' predictions are of different test images.
    """
    pairs = [(norm, BASELINE) for norm in study.norms if norm != BASELINE]
    pairs += [pair for pair in PLANNED if pair not in pairs]
    return _corrected([comparison for pair in pairs if (comparison := _compare(study, *pair)) is not None])


def compare_cells(study: Study) -> tuple[tuple[tuple[str, ...], Comparison], ...]:
    """Every setting's norms against `bn` in the same setting, with the setting's tags; the planned ones are corrected
    together over all settings.

    Raises:
        UserError: if two runs' predictions are of different test images.
    """
    found = []
    for tags in dict.fromkeys(run.tags for run in study.runs):
        alike = study.within(lambda run, tags=tags: run.tags == tags)  # type: ignore[misc]
        for norm in alike.norms:
            if norm != BASELINE and (one := _compare(alike, norm, BASELINE)) is not None:
                found.append((tags, one))
    return tuple(zip([tags for tags, _ in found], _corrected([one for _, one in found]), strict=True))


def _corrected(found: list[Comparison]) -> tuple[Comparison, ...]:
    """With Holm's correction over those that were planned."""
    planned = [index for index, comparison in enumerate(found) if comparison.planned and comparison.p_value is not None]
    for index, value in zip(planned, holm([found[index].p_value or 0.0 for index in planned]), strict=True):
        found[index] = replace(found[index], holm_p=value)
    return tuple(found)


def _compare(study: Study, norm: str, baseline: str) -> Comparison | None:
    ours = {run.seed: run for run in study.finished(norm)}
    theirs = {run.seed: run for run in study.finished(baseline)}
    pairs = [(run, theirs[seed]) for seed, run in ours.items() if seed in theirs]
    if not pairs:
        return None
    differences = tuple(a.splits["test"].accuracy - b.splits["test"].accuracy for a, b in pairs)
    return Comparison(
        norm,
        baseline,
        seeds=tuple(run.seed for run, _ in pairs),
        differences=differences,
        interval=mean_interval(differences),
        p_value=sign_flip_p(differences),
        image_interval=_over_images(pairs),
    )


def _over_images(pairs: Sequence[tuple[Run, Run]]) -> Interval | None:
    gains = []
    for a, b in pairs:
        if a.predictions is None or b.predictions is None:
            return None
        if not np.array_equal(a.predictions.label, b.predictions.label):
            raise UserError(
                f"the runs of one workdir share their test images, but the labels in {a.name}/predictions.npz and "
                f"{b.name}/predictions.npz differ; delete the run that was copied in and train it again"
            )
        gains.append(a.predictions.correct - b.predictions.correct)
    return image_interval(np.mean(gains, axis=0))
