"""Recorded histograms, rebinned exactly: a bin is a whole number of the buckets that were counted."""

from dataclasses import dataclass

import numpy as np

from jaxnorm.study.analysis.arrays import bucket_edges
from jaxnorm.study.analysis.runs import Study

NUM_BINS = 80


@dataclass(frozen=True, eq=False)
class Histogram:
    """One layer's values over the validation images after one epoch; `counts` (65536,) summed over the seeds."""

    epoch: int
    counts: np.ndarray


def histograms(study: Study, layer: str) -> dict[str, list[Histogram]]:
    """By variant: the layer's histograms in the order of the epochs; without variants that recorded none."""
    found: dict[str, list[Histogram]] = {}
    for variant in study.variants:
        having = [run for run in study.of(variant) if run.arrays]
        counts: dict[int, np.ndarray] = {}
        runs = [run for run in having if run.complete] or having
        for run in runs:
            known = {epoch.epoch for epoch in run.epochs}
            for arrays in run.arrays:
                for one in arrays.read("histogram", layer).values() if arrays.epoch in known else ():
                    counts[arrays.epoch] = counts.get(arrays.epoch, 0) + one
        if counts:
            found[variant] = [Histogram(epoch, counts[epoch]) for epoch in sorted(counts)]
    return found


def spread_of(histogram: Histogram, outside: float = 1e-3) -> tuple[float, float]:
    """The values between which all but the share `outside` of the histogram lies, as edges of buckets."""
    edges, counts = bucket_edges(), _finite(histogram.counts)
    until = counts.cumsum()
    low = int(np.searchsorted(until, until[-1] * outside / 2, side="right"))
    high = int(np.searchsorted(until, until[-1] * (1 - outside / 2), side="left"))
    return float(edges[min(low, _LAST)]), float(edges[min(high + 1, _LAST)])


def rebin(counts: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts in coarse bins: `wanted` edges are moved to the nearest bucket's, so that every count is exact.

    Buckets are narrower than 0.8 % of their value, so no edge moves by more than 0.4 %. Values outside are left out.

    Returns:
        The edges that were taken, ascending, and the count between each two.
    """
    edges = bucket_edges()[_FIRST : _LAST + 1]
    above = np.clip(np.searchsorted(edges, wanted), 1, len(edges) - 1)
    nearest = np.unique(above - (wanted - edges[above - 1] < edges[above] - wanted))
    until = np.concatenate([[0], counts.cumsum()])
    return edges[nearest], np.diff(until[nearest + _FIRST])


def density_of(histogram: Histogram, low: float, high: float, *, compressed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Middles of about 80 bins, of equal width on the drawn axis (asinh where compressed), and the density in each.

    Density is the bin's share of all values over the bin's width in values; nan where a bin is empty.
    """
    there, back = (np.arcsinh, np.sinh) if compressed else (np.asarray, np.asarray)
    wanted = back(np.linspace(there(low), there(high), NUM_BINS + 1))
    edges, counts = rebin(histogram.counts, wanted)
    density = counts / max(int(histogram.counts.sum()), 1) / np.diff(edges)
    return back((there(edges[:-1]) + there(edges[1:])) / 2), np.where(counts > 0, density, np.nan)


def _finite(counts: np.ndarray) -> np.ndarray:
    kept = np.zeros_like(counts)
    kept[_FIRST:_LAST] = counts[_FIRST:_LAST]
    return kept


_FINITE = np.flatnonzero(np.isfinite(bucket_edges()))
_FIRST, _LAST = int(_FINITE[0]), int(_FINITE[-1])
