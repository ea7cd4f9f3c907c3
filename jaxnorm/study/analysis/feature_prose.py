"""The feature-evolution study in words and as a table of growth, made from its numbers."""

import math

import numpy as np

from jaxnorm.study.analysis.layers import POOLED, Growth, growths, last_convolution, layer_names
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.tables import Column, Row, Table
from jaxnorm.study.analysis.words import counted, listed, number, within

QUESTION = "How do the features evolve, and do they diverge without normalization?"


def introduction(study: Study) -> str:
    """What was recorded, where, and how."""
    layers = layer_names(study)
    where = (
        f"{len(layers) - (POOLED in layers)} convolutions, before norm and ReLU, and of the pooled features"
        if layers
        else "the pooled features"
    )
    names = listed([f"{value:g}" for value in study.quantiles])
    return (
        f"A 14-layer residual network is trained on {study.data_description} in "
        f"{counted(len(study.variants), 'variant')} that differ in nothing but their normalization, from "
        f"{counted(len(study.seeds), 'seed')} each. After every epoch the {names} % quantiles of {where} are taken "
        "over all validation images, in evaluation mode and exactly: nothing is sampled."
    )


def lead(study: Study) -> list[str]:
    """Whether features grow, by how much and where, without normalization and with it."""
    found = growths(study)
    if not found:
        return ["No run has recorded more than one epoch of its layers yet, so there is no evolution to report."]
    words = [text for text in (_without(study, found), _across(study, found)) if text]
    return [*words, *_late(study, found)]


def growth_table(study: Study) -> Table | None:
    """The highest quantile of the last epoch over that of the first, by layer and variant; None without layers."""
    found = {(one.layer, one.variant): one for one in growths(study)}
    variants = [variant for variant in study.variants if any(key[1] == variant for key in found)]
    if not variants:
        return None
    top = f"{study.quantiles[-1]:g} % quantile"
    rows = []
    for layer in layer_names(study):
        cells = [_times(found[layer, variant]) if (layer, variant) in found else _times(None) for variant in variants]
        rows.append(Row(None, (layer, *cells)))
    columns = (Column("Layer", numeric=False), *(Column(study.label(variant)) for variant in variants))
    note = f"The {top} after the last epoch, as a multiple of that after the first. 1 means unchanged."
    return Table("Growth of each layer", columns, tuple(rows), note)


def level_table(study: Study, baseline: str = "bn") -> Table | None:
    """The highest quantile of the last epoch over that of the baseline, by layer; None without both."""
    found = {(one.layer, one.variant): one.last for one in growths(study)}
    variants = [v for v in study.variants if v != baseline and any(key[1] == v for key in found)]
    layers = [layer for layer in layer_names(study) if found.get((layer, baseline), 0) > 0]
    if not variants or not layers:
        return None
    rows = []
    for layer in layers:
        theirs = [found.get((layer, variant)) for variant in variants]
        cells = [_times_of(None if last is None else last / found[layer, baseline]) for last in theirs]
        rows.append(Row(None, (layer, *cells)))
    columns = (Column("Layer", numeric=False), *(Column(study.label(variant)) for variant in variants))
    base = within(study.label(baseline))
    note = (
        f"The {study.quantiles[-1]:g} % quantile after the last epoch, as a multiple of {base}'s in the same layer. "
        "Growth counts from the first epoch, when a network that has not begun to learn has small features; this does "
        "not."
    )
    return Table(f"Against {base} at the end", columns, tuple(rows), note)


def _without(study: Study, found: tuple[Growth, ...]) -> str:
    """The network without normalization: its growth at the pooled features and where it is largest."""
    mine = [one for one in found if one.variant == "none" and math.isfinite(one.ratio)]
    others = [one for one in found if one.variant != "none" and math.isfinite(one.ratio)]
    if not mine:
        return ""
    top, most = f"{study.quantiles[-1]:g} % quantile", max(mine, key=lambda one: one.ratio)
    pooled = next((one for one in mine if one.layer == POOLED), None)
    words = f"Without normalization, the {top} "
    if pooled:
        words += (
            f"of the pooled features goes from {_value(pooled.first)} to {_value(pooled.last)} ({_times(pooled)}); it "
        )
    words += f"grows most at {most.layer}, {_times(most)}."
    theirs: dict[str, float] = {}
    for one in others:
        theirs[one.layer] = max(theirs.get(one.layer, 0.0), one.ratio)
    compared = [one for one in mine if one.layer in theirs]
    above = [one.layer for one in compared if one.ratio > theirs[one.layer]]
    if compared:
        where = "at none" if not above else "at all" if len(above) == len(compared) else f"at {len(above)}"
        words += f" It grows faster than in every normalized variant {where} of the {len(compared)} recorded layers" + (
            f" ({listed(above)})." if 0 < len(above) < min(len(compared), 7) else "."
        )
    return words


def _across(study: Study, found: tuple[Growth, ...]) -> str:
    """Each normalized variant's range of growth over its layers."""
    words = []
    for variant in study.variants:
        mine = [one for one in found if one.variant == variant and math.isfinite(one.ratio)]
        if mine and variant != "none":
            low, high = min(mine, key=lambda one: one.ratio), max(mine, key=lambda one: one.ratio)
            words.append(f"{within(study.label(variant))} {_times(low)} to {_times(high)} ({high.layer})")
    return f"With normalization, the growth over the layers lies between: {'; '.join(words)}." if words else ""


def _late(study: Study, found: tuple[Growth, ...]) -> list[str]:
    """Two places are worth one look each: what the study drew and what the Group Normalization paper drew."""
    layer = last_convolution(study)
    pairs = [(study.label(v), {one.layer: one.ratio for one in found if one.variant == v}) for v in study.variants]
    both = [(name, ratio[POOLED], ratio[layer]) for name, ratio in pairs if layer and {POOLED, layer} <= set(ratio)]
    if len(both) < 2:
        return []
    pooled, conv = (np.array(column, dtype=float) for column in zip(*[(a, b) for _, a, b in both], strict=True))
    largest = both[int(np.nanargmax(pooled))][0], both[int(np.nanargmax(conv))][0]
    places = "The published study looks at the pooled features, the Group Normalization paper at a convolution before "
    if largest[0] == largest[1]:
        return [f"{places}norm and ReLU; {within(largest[0])} grows most at both."]
    return [
        f"{places}norm and ReLU, and they do not agree: {within(largest[0])} grows most at the pooled features, "
        f"{within(largest[1])} at {layer}."
    ]


def _times(one: Growth | None) -> str:
    return _times_of(None if one is None else one.ratio)


def _times_of(ratio: float | None) -> str:
    if ratio is None or not math.isfinite(ratio):
        return number(None, 2)
    return f"{number(ratio, 2 if ratio < 10 else 1 if ratio < 100 else 0)} ×"


def _value(value: float) -> str:
    return f"{value:.3g}"
