import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnorm.errors import UserError
from jaxnorm.study.analysis import arrays
from jaxnorm.study.analysis.histograms import Histogram, density_of, histograms, rebin, spread_of
from jaxnorm.study.analysis.layers import growths, last_convolution, layer_names, layer_paths
from jaxnorm.study.analysis.runs import read_study


def counted(values):
    """Counts by the upper half of the order-preserving key, value by value: the format's own words, as an oracle."""
    counts = np.zeros(arrays.BUCKETS, np.int64)
    for value in np.asarray(values, np.float32):
        bits = int(value.view(np.uint32))
        counts[((~bits & 0xFFFFFFFF) if bits >> 31 else bits | 0x80000000) >> 16] += 1
    return counts


def test_every_value_lies_in_its_bucket():
    edges = arrays.bucket_edges()
    for value in np.float32([-3e38, -1.5, -1.0, -1e-40, 0.0, 1e-40, 0.1, 1.0, 1.0078125, 7.3, 3e38]):
        (bucket,) = np.flatnonzero(counted([value]))
        assert edges[bucket] <= value < edges[bucket + 1]
    finite = edges[np.isfinite(edges)]
    assert (np.diff(finite) > 0).all()


@given(
    st.lists(st.floats(-1e6, 1e6, width=32).map(lambda value: value + 0.0), min_size=1, max_size=50), st.integers(2, 40)
)
def test_rebinning_counts_every_value_once_and_where_it_is(values, bins):
    wanted = np.linspace(-1.1e6, 1.1e6, bins)
    edges, counts = rebin(counted(values), wanted)
    assert counts.sum() == len(values)
    np.testing.assert_array_equal(counts, np.histogram(np.float64(values), edges)[0])
    np.testing.assert_allclose(edges, wanted, rtol=0.004, atol=1e-30)


def test_density_integrates_to_the_share_inside():
    values = np.random.default_rng(0).normal(0, 2, 20_000).astype(np.float32)
    histogram = Histogram(1, counted(values))
    low, high = spread_of(histogram)
    assert ((values < low) | (values > high)).mean() <= 1e-3
    middle, density = density_of(histogram, low, high, compressed=False)
    assert np.nansum(density) * np.diff(middle).mean() == pytest.approx(1, abs=0.01)
    at_zero = density[np.abs(middle).argmin()]
    assert at_zero == pytest.approx(1 / np.sqrt(8 * np.pi), rel=0.1)


def test_histograms_of_several_seeds_are_summed(make_workdir):
    workdir = make_workdir(norms=("none", "gn"), seeds=(0, 1), num_epochs=5, record_features="all")
    found = histograms(read_study(workdir), "stem_conv")
    assert {norm: [one.epoch for one in several] for norm, several in found.items()} == {
        "none": [1, 3, 5], "gn": [1, 3, 5],
    }  # fmt: skip
    assert all(one.counts.sum() == 2 * 4000 for several in found.values() for one in several)


def test_growth_is_the_last_quantile_over_the_first(features_workdir):
    study = read_study(features_workdir)
    assert layer_names(study)[0] == "stem_conv" and layer_names(study)[-1] == "pooled" and len(layer_names(study)) == 16
    assert last_convolution(study) == "stage3_block2/conv2"
    folder = features_workdir / "none-seed0/arrays"
    with np.load(folder / "epoch_0001.npz") as first, np.load(folder / "epoch_0005.npz") as last:
        expected = last["quantiles/stem_conv"][-1] / first["quantiles/stem_conv"][-1]
    assert next(one.ratio for one in growths(study) if (one.variant, one.layer) == ("none", "stem_conv")) == expected
    epochs, table = layer_paths(study)["bn"]["pooled"]
    assert epochs == [1, 2, 3, 4, 5] and table.shape == (5, 4)


def test_arrays_are_read_only_when_asked_for(make_workdir, monkeypatch):
    workdir = make_workdir(norms=("none",), num_epochs=2, record_features="all")
    loaded = []
    load = np.load
    monkeypatch.setattr(arrays.np, "load", lambda *args, **options: loaded.append(args) or load(*args, **options))
    (run,) = read_study(workdir).runs
    assert len(loaded) == 1  # the predictions
    assert list(run.arrays[0].read("quantiles", "pooled")) == ["pooled"]
    assert run.arrays[0].read("gate") == {}


@pytest.mark.parametrize("content", [b"", b"PK nonsense"])
def test_a_damaged_file_of_arrays_is_named(make_workdir, content):
    workdir = make_workdir(norms=("none",), num_epochs=2, record_features="all")
    path = workdir / "none-seed0/arrays/epoch_0002.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged") as caught:
        layer_paths(read_study(workdir))
    assert str(path) in str(caught.value)


def test_a_histogram_of_another_length_is_damage(make_workdir):
    workdir = make_workdir(norms=("none",), num_epochs=2, record_features="all")
    np.savez(workdir / "none-seed0/arrays/epoch_0002.npz", **{"histogram/pooled": np.zeros(10, np.int64)})
    with pytest.raises(UserError, match="histogram/pooled has shape"):
        histograms(read_study(workdir), "pooled")


def test_epochs_that_are_trained_again_do_not_count(make_workdir):
    """A run resumed from an older checkpoint still has the arrays of epochs beyond it."""
    workdir = make_workdir(norms=("none",), num_epochs=4, record_features="all", fates={("none", 0): ("unfinished", 4)})
    path = workdir / "none-seed0/metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    epochs, _ = layer_paths(read_study(workdir))["none"]["pooled"]
    assert epochs == [1, 2]
