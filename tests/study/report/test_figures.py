import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.path import Path as MarkerPath
from PIL import Image

from jaxnorm.study.registry import NORMS
from jaxnorm.study.report import accuracy_figures, feature_figures, figures, style
from jaxnorm.study.report.folders import read_study
from jaxnorm.study.report.statistics import Interval

LABELS = {
    "flax_bn": "Flax batch norm",
    "bn": "Batch norm",
    "gn": "Group norm",
    "none": "No normalization",
    "bin": "Batch-instance norm",
    "mine": "A norm of $my_own^",
}
STEPS = 33
ABOUT = "scikit-learn digits · batch size 32"
LONG = f"{ABOUT} · 100 epochs · He initialization · 3 seeds · stage3_block2/conv2 · WWWWWWWWWW WWWWWWWWWWWWWW"


def make_runs(norms=("flax_bn", "bn", "gn"), seeds=(0, 1, 2), fates=None, num_epochs=6, **settings):
    """A row for each run; `fates` says (status, epochs finished) by norm and seed."""
    rows = []
    for norm in norms:
        for seed in seeds:
            status, epoch = (fates or {}).get((norm, seed), ("complete", num_epochs))
            rows.append(
                {
                    "name": f"{norm}-seed{seed}", "norm": norm, "variant": norm, "label": LABELS[norm],
                    "norm_label": LABELS[norm], "seed": seed, "status": status, "batch_size": 32, "learning_rate": 0.1,
                    "lr_rule": "fixed", "ghost_batch_size": None, "num_epochs": num_epochs, "epoch": epoch or None,
                    "diverged_at_step": epoch * STEPS + 11 if status == "diverged" else None, **settings,
                }
            )  # fmt: skip
    runs = pd.DataFrame(rows)
    return runs.assign(label=pd.Categorical(runs.label, runs.label.unique(), ordered=True))


def per_run(runs, rows_of):
    """The rows that `rows_of(run, random)` makes, each with its run's settings."""
    rows = []
    runs = runs.assign(label=runs.label.astype(str))
    for index, run in runs.iterrows():
        settings = run.drop(["epoch", "name"]).to_dict() | {"run": run["name"]}
        rows += [settings | row for row in rows_of(run, np.random.default_rng(index))]
    frame = pd.DataFrame(rows)
    return frame.assign(label=pd.Categorical(frame.label, list(dict.fromkeys(runs.label)), ordered=True))


def make_epochs(runs):
    def rows(run, random):
        for epoch in range(1, int(run.epoch or 0) + 1):
            share = epoch / run.num_epochs
            yield {
                "epoch": epoch, "step": epoch * STEPS, "train_loss": 2.3 - 2 * share + 0.1 * random.random(),
                "val_loss": 2.4 - 2 * share, "train_accuracy": 0.9 * share,
                "val_accuracy": share * random.uniform(0.8, 0.9),
                "q1": 0.1, "q20": 0.2, "q80": 1 + random.random(), "q99": 3 * share + random.random(),
            }  # fmt: skip

    return per_run(runs[runs.epoch.notna()], rows)


def make_evaluations(runs, split="test", statistics=("running",)):
    def rows(run, random):
        for kind in statistics:
            matrix = np.diag(random.integers(5, 30, 3)) + random.integers(0, 3, (3, 3))
            accuracy = float(np.trace(matrix) / matrix.sum())
            yield {"split": split, "statistics": kind, "accuracy": accuracy, "num_images": matrix.sum(),
                   "confusion_matrix": matrix.tolist()}  # fmt: skip

    return per_run(runs[runs.status == "complete"], rows)


def make_gates(runs):
    def rows(run, random):
        for epoch in range(1, int(run.epoch) + 1):
            for layer in ("stage1_block1/norm1", "stage2_block1/norm1", "stem_norm"):
                for channel, gate in enumerate(random.random(8).round(1)):
                    yield {"epoch": epoch, "layer": layer, "channel": channel, "gate": gate}

    return per_run(runs, rows)


def make_layers(runs, explodes=None):
    def rows(run, random):
        for epoch in range(1, int(run.epoch) + 1):
            for layer in ("stem_conv", "stage1_block1/conv1", "pooled"):
                high = (1e4 if run.norm == explodes else 1) * (1 + random.random())
                yield {"epoch": epoch, "layer": layer, "q1": -high, "q20": -0.2, "q80": 0.2, "q99": high}

    return per_run(runs, rows)


def lines(axis, norm=None, marker=None):
    """Lines of an axis in a norm's colour, with a marker."""
    found = [line for line in axis.lines if norm is None or to_hex(line.get_color()) == style.of(norm).colour]
    return [line for line in found if marker is None or line.get_marker() == marker]


def words(figure):
    """All text of a figure."""
    artists = [artist for artist in figure.findobj() if hasattr(artist, "get_text")]
    return [artist.get_text() for artist in artists if isinstance(artist.get_text(), str)]


def means(rows, column, norm):
    return rows[rows.norm == norm].groupby("epoch")[column].mean().to_numpy()


def test_a_norm_has_one_style_whatever_is_beside_it():
    known = {norm: style.of(norm) for norm in ("flax_bn", "none", "bn", "in", "bin", "ln", "gn", "bin_frozen")}
    assert len({one.colour for one in known.values()}) == len({one.marker for one in known.values()}) == len(known)
    assert style.DIVERGED.marker not in {one.marker for one in known.values()}
    assert [*style.STYLES] == [*NORMS][: len(style.STYLES)]  # the built-in norms come first
    assert len({(one.colour, one.dash) for one in style.STYLES.values()}) == len(style.STYLES)
    mine = style.of("mine")
    assert mine == style.of("mine") and mine.colour not in {one.colour for one in known.values()}
    for norms in (("gn",), ("bn", "mine", "gn")):
        runs = make_runs(norms)
        for kind in ("accuracy", "loss"):
            figure = figures.curves(runs, make_epochs(runs), kind, ABOUT)
            for axis, norm in zip(figure.axes, norms, strict=True):
                line = lines(axis, norm, style.of(norm).marker)[0]
                assert line.get_marker() == style.of(norm).marker
                assert (line.get_linestyle() == "-") == (not style.of(norm).dash)


@pytest.mark.parametrize(("seeds", "band_ends"), [(3, (0, 1)), (5, (0.25, 0.75))])
def test_curves_are_medians_of_finished_runs_with_a_band_of_quartiles_or_of_the_range_of_a_few(seeds, band_ends):
    fates = {("gn", 1): ("diverged", 2), ("bn", 2): ("unfinished", 3)}
    norms, runs = ("flax_bn", "bn", "gn"), make_runs(seeds=range(seeds), fates=fates)
    epochs = make_epochs(runs)
    for kind, scale in (("accuracy", 100), ("loss", 1)):
        figure = figures.curves(runs, epochs, kind, ABOUT)
        for axis, norm in zip(figure.axes, norms, strict=True):
            done = epochs[(epochs.status == "complete") & (epochs.norm == norm)]
            found = done.groupby("epoch")[[f"train_{kind}", f"val_{kind}"]].quantile([*band_ends, 0.5]).unstack()
            drawn = [line.get_ydata() for line in lines(axis, norm) if len(line.get_xdata()) == 6]
            np.testing.assert_allclose(drawn, scale * found.xs(0.5, axis=1, level=1).T)
            band = axis.collections[1].get_paths()[0].vertices
            last = band[band[:, 0] == 6][:, 1]
            np.testing.assert_allclose([last.min(), last.max()], scale * found[f"val_{kind}"].loc[6, list(band_ends)])
        lengths = sorted(len(line.get_xdata()) for line in lines(figure.axes[1], "bn"))
        assert lengths == [3, 3, 6, 6]  # one run ends early
    assert figure.axes[0].get_yscale() == "log"


def test_one_seed_has_a_panel_for_training_and_one_for_validation():
    runs = make_runs(seeds=(0,))
    epochs = make_epochs(runs)
    for axis, column in zip(
        figures.curves(runs, epochs, "accuracy", ABOUT).axes, ("train_accuracy", "val_accuracy"), strict=True
    ):
        drawn = [line.get_ydata() for line in axis.lines]
        np.testing.assert_allclose(
            drawn, 100 * np.array([means(epochs, column, norm) for norm in ("flax_bn", "bn", "gn")])
        )


def test_a_loss_that_is_not_finite_is_a_gap():
    runs = make_runs(("bn",), seeds=(0, 1))
    epochs = make_epochs(runs)
    epochs.loc[(epochs.seed == 1) & (epochs.epoch == 3), "val_loss"] = np.inf
    line = figures.curves(runs, epochs, "loss", ABOUT).axes[0].lines[1]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("kind", ["accuracy", "loss"])
def test_a_run_that_diverged_has_a_cross_at_its_step(kind):
    runs = make_runs(fates={("gn", 1): ("diverged", 2), ("bn", 2): ("diverged", 0), ("bn", 1): ("unfinished", 3)})
    figure = figures.curves(runs, make_epochs(runs), kind, ABOUT)
    crosses = [[line.get_xdata()[0] for line in lines(axis, marker=style.DIVERGED.marker)] for axis in figure.axes]
    assert crosses == [[], [pytest.approx(11 / STEPS)], [pytest.approx(2 + 11 / STEPS)]]
    assert "diverged" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Group norm (1 of 3 not finished)" in [text.replace("\n", " ") for text in words(figure)]
    alone = runs[runs.seed == 1]
    for axis in figures.curves(alone, make_epochs(alone), kind, ABOUT).axes:
        assert [line.get_xdata()[0] for line in lines(axis, marker="X")] == pytest.approx([2 + 11 / STEPS])


def test_test_accuracy_shows_seeds_mean_interval_and_published_value():
    runs = make_runs(("bn", "gn"))
    test = make_evaluations(runs)
    intervals = {LABELS["bn"]: (0.8, 1.04), LABELS["gn"]: (0.7, 0.9)}
    (axis,) = accuracy_figures.test_accuracy(test, intervals, ABOUT, {"bn": 0.878}).axes
    for row, norm in enumerate(("bn", "gn")):
        mine = [line for line in axis.lines if set(np.atleast_1d(line.get_ydata())) == {row}]
        values = 100 * test[test.norm == norm].accuracy.to_numpy()
        drawn = [np.asarray(line.get_xdata(), float) for line in mine]
        assert any(len(x) == 3 and np.allclose(x, values) for x in drawn)
        assert any(len(x) == 1 and np.isclose(x[0], values.mean()) for x in drawn)
        ends = next(x for x in drawn if len(x) == 2)
        np.testing.assert_allclose(ends, [80, 100] if norm == "bn" else [70, 90])  # none passes 100 %
        published = [line for line in mine if line.get_marker() == style.PUBLISHED.marker]
        assert [float(line.get_xdata()[0]) for line in published] == ([87.8] if norm == "bn" else [])
    assert [text.get_text() for text in axis.get_yticklabels()] == [LABELS["bn"], LABELS["gn"]]


def test_the_scale_of_test_accuracy_is_the_logit_and_is_broken_before_100_per_cent():
    test = make_evaluations(make_runs(("bn", "gn"), seeds=(0,))).assign(num_images=360, accuracy=[1.0, 0.9])
    ends = {LABELS["bn"]: (0.99, 1.0), LABELS["gn"]: (0.88, 0.92)}
    (axis,) = accuracy_figures.test_accuracy(test, ends, ABOUT, {}).axes
    places = axis.xaxis.get_transform().transform(np.array([90, 99, 100]))
    right = np.array([324, 356.4, 360])
    np.testing.assert_allclose(places, np.log((right + 0.5) / (360 - right + 0.5)))
    assert axis.get_xlim()[1] > 100 and "logit" in axis.get_xlabel()
    strokes = [line for line in axis.lines if isinstance(line.get_marker(), MarkerPath)]
    assert len(strokes) == 1 and 99.9 < strokes[0].get_xdata()[0] < 100 and "broken" in axis.get_xlabel()
    assert {text.get_text() for text in axis.get_xticklabels()} >= {"90", "99", "100"}


@pytest.mark.parametrize("far", [False, True])
def test_a_forest_has_the_differences_their_intervals_and_the_null_band(far):
    values = ([0.001, 0.003], [-0.004, -0.5 if far else -0.005], [0.002, 0.0])
    rows = [
        {"norm": norm, "label": LABELS[norm], "against": "Batch norm", "mean": np.mean(one), "differences": one,
         "interval": Interval(min(one), max(one), "") if norm != "gn" else None}
        for norm, one in zip(("flax_bn", "bin", "gn"), values, strict=True)
    ]  # fmt: skip
    figure = accuracy_figures.forest(pd.DataFrame(rows), 0.004, ABOUT)
    (axis,) = figure.axes
    for row, one in enumerate(values):
        drawn = [line.get_xdata() for line in axis.lines if set(np.atleast_1d(line.get_ydata())) == {row}]
        expected = [100 * np.array(one), 100 * np.array([min(one), max(one)]), 100 * np.array([np.mean(one)])]
        for found, wanted in zip(drawn, expected[:1] + expected[1 + (row == 2) :], strict=True):
            np.testing.assert_allclose(found, wanted)
    assert list(axis.lines[0].get_xdata()) == [0, 0]
    assert axis.patches[0].get_x() == -0.4 and axis.patches[0].get_width() == 0.8
    assert axis.get_xscale() == ("asinh" if far else "linear")
    assert any("asinh" in text for text in words(figure)) == far
    assert "0.40 points" in figure.legends[0].get_texts()[0].get_text()
    assert not accuracy_figures.forest(pd.DataFrame(rows), None, ABOUT).legends


def test_learning_rates_show_every_seed_the_chosen_rate_and_what_diverged():
    norms, fates = ("bn", "none"), {0.3: {("none", 1): ("diverged", 2)}}
    cells = [make_runs(norms, fates=fates.get(rate), learning_rate=rate) for rate in (0.1, 0.3)]
    runs = pd.concat(cells, ignore_index=True)
    rows = make_evaluations(runs, "validation")
    rows.loc[0, "accuracy"] = 1.0
    figure = accuracy_figures.learning_rates(runs, rows, {"bn": 0.3}, ABOUT)
    assert figure.axes[0].get_yscale() == "log"
    for axis, norm in zip(figure.axes, ("bn", "none"), strict=True):
        mine = rows[rows.norm == norm]
        error = 100 * np.maximum(1 - mine.accuracy, 0.5 / mine.num_images)
        dots, line, *crosses = axis.lines
        np.testing.assert_allclose(dots.get_ydata(), error)
        assert list(np.round(dots.get_xdata())) == [[0.1, 0.3].index(rate) for rate in mine.learning_rate]
        np.testing.assert_allclose(line.get_ydata(), error.groupby(mine.learning_rate).mean())
        assert [round(cross.get_xdata()[0]) for cross in crosses] == ([1] if norm == "none" else [])
        assert [patch.get_x() + patch.get_width() / 2 for patch in axis.patches] == ([1.0] if norm == "bn" else [])


def test_confusion_shows_the_share_of_each_true_class_over_all_seeds():
    runs = make_runs(("bn", "gn"))
    test = make_evaluations(runs)
    figure = figures.confusion(test, ["cat", "dog", "ship"], ABOUT)
    for axis, norm in zip(figure.axes, ("bn", "gn"), strict=False):
        counts = np.sum([np.array(matrix) for matrix in test.confusion_matrix[test.norm == norm]], axis=0)
        np.testing.assert_allclose(axis.images[0].get_array(), 100 * counts / counts.sum(axis=1, keepdims=True))
    assert {"cat", "dog", "ship"} <= set(words(figure))


def test_a_fan_is_the_mean_of_the_quantiles_with_the_published_ones_beside_it():
    runs = make_runs(("bn", "gn"), fates={("gn", 0): ("diverged", 2)})
    epochs = make_epochs(runs)
    published = {"bn": (0.05, 0.35, 1.55, 3.4)}
    figure = feature_figures.feature_quantiles(epochs, ABOUT, published=published)
    for axis, norm in zip(figure.axes, ("bn", "gn"), strict=True):
        done = epochs[epochs.status == "complete"]
        drawn = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 6]
        np.testing.assert_allclose(drawn, [means(done, name, norm) for name in ("q1", "q20", "q80", "q99")])
    diamonds = lines(figure.axes[0], marker=style.PUBLISHED.marker)
    np.testing.assert_allclose([line.get_ydata() for line in diamonds], [published["bn"]])
    assert figure.axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("explodes", [None, "none"])
def test_an_axis_is_compressed_and_says_so_where_features_explode(explodes):
    rows = make_layers(make_runs(("bn", "gn", "none")), explodes)
    pooled = feature_figures.feature_quantiles(rows[rows.layer == "pooled"], ABOUT)
    for figure in (pooled, feature_figures.layers(rows, ABOUT)):
        assert {axis.get_yscale() for axis in figure.axes} == {"asinh" if explodes else "linear"}
        assert any("asinh" in text for text in words(figure)) == bool(explodes)


def test_layers_has_a_panel_for_each_layer_and_variant():
    rows = make_layers(make_runs(("bn", "gn"), fates={("gn", 0): ("unfinished", 2)}))
    figure = feature_figures.layers(rows, ABOUT)
    assert len(figure.axes) == 6
    done = rows[(rows.status == "complete") & (rows.norm == "gn") & (rows.layer == "stage1_block1/conv1")]
    np.testing.assert_allclose(figure.axes[3].lines[3].get_ydata(), done.groupby("epoch").q99.mean())


def test_gates_show_how_far_the_channels_of_the_last_epoch_are_from_one():
    runs = make_runs(("bin", "bn"), seeds=(0, 1), fates={("bin", 1): ("unfinished", 3)})
    gates = make_gates(runs[runs.norm == "bin"])
    (axis,) = feature_figures.gates(runs, gates, ABOUT).axes
    names = [text.get_text() for text in axis.get_xticklabels()]
    assert names == ["stem_norm", "stage1_block1/norm1", "stage2_block1/norm1"]  # by depth
    last = gates[(gates.seed == 0) & (gates.epoch == 6)]
    away = [1 - last.gate[last.layer == name] for name in names]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [one.median() for one in away])
    ends = [path.vertices[:, 1] for path in axis.collections[0].get_paths()]
    np.testing.assert_allclose(ends, [[one.min(), one.max()] for one in away], atol=1e-12)
    (equal,) = feature_figures.gates(runs, gates.assign(gate=1.0), ABOUT).axes
    assert equal.get_yscale() == "symlog" and set(equal.lines[0].get_ydata()) == {0}


def test_ridges_have_the_share_of_the_values_in_each_part_of_the_axis(features_workdir):
    study = read_study(features_workdir)
    rows = study.histograms
    assert list(dict.fromkeys(rows.layer))[-1] == "pooled" and rows.layer.nunique() == 2
    assert (rows.low < rows.high).all() and rows[rows.layer == "pooled"].low.min() >= -1e-30
    rows = rows[rows.layer == "pooled"]
    assert set(rows.groupby(["run", "epoch"], observed=True)["count"].sum()) == {4000}
    figure = feature_figures.ridges(rows, ABOUT)
    for axis, norm in zip(figure.axes, ("none", "bn", "bin", "bin_frozen"), strict=True):
        heights = np.array([line.get_ydata() - (2 - index) for index, line in enumerate(axis.lines)])
        assert heights.shape == (3, 120) and heights.max() == pytest.approx(1.6) and heights.min() > -1e-9
        x, shares = axis.lines[2].get_xdata(), heights[2] / heights[2].sum()
        last = rows[(rows.norm == norm) & (rows.epoch == 5)]
        place = np.arcsinh if axis.get_xscale() == "asinh" else np.asarray
        median = np.median(np.repeat((last.low + last.high) / 2, last["count"].astype(int)))
        middle = place(x)[np.searchsorted(shares.cumsum(), 0.5)]
        assert middle == pytest.approx(place(median), abs=1.1 * np.diff(place(x)).max())
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["epoch 5", "epoch 3", "epoch 1"]


def make_batches(ghosts=False):
    cells = [make_runs(("bn", "gn"), batch_size=size, lr_rule=rule) for size, rule in
             ((128, "fixed"), (8, "fixed"), (8, "linear"))]  # fmt: skip
    if ghosts:
        cells.append(make_runs(("bn",), batch_size=128, ghost_batch_size=8))
    return pd.concat(cells, ignore_index=True).assign(name=lambda runs: [f"run{index}" for index in range(len(runs))])


def test_batch_sizes_show_a_panel_a_rule_with_the_reference_in_both():
    runs = make_batches()
    evaluations = make_evaluations(runs, "validation", ("running", "precise"))
    figure = figures.batch_sizes(runs, evaluations, ABOUT)
    running = evaluations[(evaluations.norm == "bn") & (evaluations.statistics == "running")]
    for axis, rule in zip(figure.axes, ("fixed", "linear"), strict=True):
        line = lines(axis, "bn", style.of("bn").marker)[0]
        shown = running[(running.lr_rule == rule) | (running.batch_size == 128)]
        np.testing.assert_allclose(line.get_xdata(), [8, 128])
        np.testing.assert_allclose(line.get_ydata(), 100 * (1 - shown.groupby("batch_size").accuracy.mean()))
        hollow = [line for line in axis.lines if line.get_marker() == "D"]
        assert len(hollow) == 2
    assert figure.axes[0].get_xlim()[0] > figure.axes[0].get_xlim()[1]


def test_ghosts_are_drawn_at_their_own_size():
    runs = make_batches(ghosts=True)
    evaluations = make_evaluations(runs, "validation")
    ghosts = evaluations[evaluations.ghost_batch_size.notna()]
    for axis in figures.batch_sizes(runs, evaluations, ABOUT).axes:
        real, ghost = (line for line in lines(axis, "bn") if line.get_linestyle() != "None")
        assert list(real.get_xdata()) == [8, 128] and list(ghost.get_xdata()) == [8]
        np.testing.assert_allclose(ghost.get_ydata(), 100 * (1 - ghosts.accuracy.mean()))


def test_steps_show_the_same_accuracies_by_epoch_and_by_step():
    runs = make_batches(ghosts=True)
    settings = zip(runs.norm, runs.batch_size, runs.lr_rule, runs.ghost_batch_size, strict=True)
    epochs = make_epochs(runs.assign(variant=[str(one) for one in settings]))
    figure = figures.steps(epochs.assign(step=epochs.epoch * 4096 // epochs.batch_size), 360, ABOUT)
    assert len(figure.axes) == 8  # two norms under two rules
    left, right = figure.axes[:2]
    drawn = {}
    for by_epoch, by_step in zip(left.lines, right.lines, strict=True):
        np.testing.assert_allclose(by_epoch.get_ydata(), by_step.get_ydata())
        dashed = by_epoch.get_linestyle() == "--"
        drawn[dashed, by_step.get_xdata()[0]] = by_epoch.get_ydata()
    assert set(drawn) == {(False, 32), (False, 512), (True, 32)}  # ghosts have the steps of the large batch
    alone = figures.steps(epochs[epochs.batch_size == 128], 360, ABOUT)  # no batch of 8 is in the legend
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["batch size 128", "ghosts of 8"]
    wide = epochs[(epochs.norm == "bn") & (epochs.batch_size == 128)]
    for ghosts in (False, True):
        mine = wide[wide.ghost_batch_size.notna() == ghosts]
        np.testing.assert_allclose(drawn[ghosts, 32], 100 * mine.groupby("epoch").val_accuracy.median())


CASES = {
    "one run": dict(norms=("bin",), seeds=(0,)),
    "many seeds": dict(norms=("flax_bn", "bn", "bin", "mine"), seeds=range(10), num_epochs=2),
    "unfinished": dict(
        norms=("flax_bn", "bn", "bin"),
        fates={("bn", 0): ("unfinished", 2), ("bin", 1): ("crashed", 1), ("bin", 2): ("missing", 0)},
    ),
    "none finished": dict(norms=("flax_bn", "bn", "bin"), seeds=(0,), fates={
        (norm, 0): ("unfinished", 2) for norm in ("flax_bn", "bn", "bin")
    }),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_drawn_names_the_data_and_stays_on_its_sheet(case):
    runs = make_runs(**CASES[case])
    epochs, begun = make_epochs(runs), runs[runs.epoch.notna()]
    gates = make_gates(begun[begun.norm == "bin"])
    drawn = [
        figures.curves(runs, epochs, "accuracy", LONG),
        figures.curves(runs, epochs, "loss", LONG),
        feature_figures.feature_quantiles(epochs, LONG),
        feature_figures.layers(make_layers(begun), LONG),
        feature_figures.gates(runs, gates, LONG),
    ]
    if (runs.status == "complete").any():
        test = make_evaluations(runs)
        ends = dict.fromkeys(LABELS.values(), (0.1, 0.9))
        drawn += [
            accuracy_figures.test_accuracy(test, ends, LONG, {}),
            figures.confusion(test, ["a", "b", "c"], LONG),
            figures.batch_sizes(runs, test, LONG),
        ]
    for figure in drawn:
        assert any("scikit-learn digits" in text for text in words(figure))
        figure.draw_without_rendering()
        whole = figure.get_tightbbox()
        assert whole.x0 > -0.02 and whole.y0 > -0.02
        assert whole.x1 < figure.get_figwidth() + 0.02 and whole.y1 < figure.get_figheight() + 0.02


def test_png_is_small_and_the_same_each_time():
    runs = make_runs()
    first, second = (style.png(figures.curves(runs, make_epochs(runs), "accuracy", ABOUT)) for _ in range(2))
    assert first == second and len(first) < 60_000
    with Image.open(io.BytesIO(first)) as image:
        assert image.mode == "P" and image.width > 1000
