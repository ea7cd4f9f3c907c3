import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from jaxnorm.study.report import feature_figures, figures, style

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
            yield {"split": split, "statistics": kind, "accuracy": accuracy, "confusion_matrix": matrix.tolist()}

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
    mine = style.of("mine")
    assert mine == style.of("mine") and mine.colour not in {one.colour for one in known.values()}
    for norms in (("gn",), ("bn", "mine", "gn")):
        runs = make_runs(norms)
        for figure in (
            figures.curves(runs, make_epochs(runs), "accuracy", ABOUT),
            figures.curves(runs, make_epochs(runs), "loss", ABOUT),
        ):
            for norm in norms:
                line = next(line for line in lines(figure.axes[1], norm) if len(line.get_xdata()) == 6)
                assert line.get_marker() == style.of(norm).marker
                assert (line.get_linestyle() == "-") == (not style.of(norm).dash)


def test_curves_are_the_means_of_the_finished_runs_with_a_band_from_lowest_to_highest():
    runs = make_runs(fates={("gn", 1): ("diverged", 2), ("bn", 2): ("unfinished", 3)})
    epochs = make_epochs(runs)
    figure = figures.curves(runs, epochs, "accuracy", ABOUT)
    for axis, column in zip(figure.axes, ("train_accuracy", "val_accuracy"), strict=True):
        for norm in ("flax_bn", "bn", "gn"):
            line = next(line for line in lines(axis, norm) if len(line.get_xdata()) == 6)
            np.testing.assert_allclose(line.get_ydata(), 100 * means(epochs[epochs.status == "complete"], column, norm))
        assert sorted(len(line.get_xdata()) for line in lines(axis, "bn")) == [3, 6]  # the unfinished run ends
    bands = [band.get_paths()[0].vertices[:, 1] for band in figure.axes[1].collections]
    done = epochs[(epochs.norm == "bn") & (epochs.status == "complete")]
    assert any(np.isclose(band.max(), 100 * done.val_accuracy.max()) for band in bands)
    losses = figures.curves(runs, epochs, "loss", ABOUT)
    line = next(line for line in lines(losses.axes[0], "bn") if len(line.get_xdata()) == 6)
    np.testing.assert_allclose(line.get_ydata(), means(done, "train_loss", "bn"))
    assert losses.axes[0].get_yscale() == "log"


def test_a_loss_that_is_not_finite_is_a_gap():
    runs = make_runs(("bn",), seeds=(0, 1))
    epochs = make_epochs(runs)
    epochs.loc[(epochs.seed == 1) & (epochs.epoch == 3), "val_loss"] = np.inf
    line = figures.curves(runs, epochs, "loss", ABOUT).axes[1].lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("kind", ["accuracy", "loss"])
def test_a_run_that_diverged_has_a_cross_at_its_step(kind):
    runs = make_runs(fates={("gn", 1): ("diverged", 2), ("bn", 2): ("diverged", 0), ("bn", 1): ("unfinished", 3)})
    figure = figures.curves(runs, make_epochs(runs), kind, ABOUT)
    for axis in figure.axes:
        crosses = lines(axis, marker=style.DIVERGED.marker)
        assert sorted(line.get_xdata()[0] for line in crosses) == pytest.approx([11 / STEPS, 2 + 11 / STEPS])
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(entries) == 4 and "Flax batch norm" in entries  # the norms, and the cross
    finished = make_runs()
    assert not any(
        lines(axis, marker="X") for axis in figures.curves(finished, make_epochs(finished), kind, ABOUT).axes
    )


def test_one_epoch_is_drawn_as_markers():
    runs = make_runs(("bn", "bin"), num_epochs=1)
    epochs = make_epochs(runs)
    for figure in (
        figures.curves(runs, epochs, "accuracy", ABOUT),
        feature_figures.feature_quantiles(epochs, ABOUT),
    ):
        shown = [line for axis in figure.axes for line in axis.lines]
        assert shown and all(line.get_marker() not in ("", "None", None) for line in shown)


def test_test_accuracy_shows_seeds_mean_interval_and_published_value():
    runs = make_runs(("bn", "gn"))
    test = make_evaluations(runs)
    intervals = {LABELS["bn"]: (0.8, 1.04), LABELS["gn"]: (0.7, 0.9)}
    (axis,) = figures.test_accuracy(test, intervals, ABOUT, {"bn": 0.878}).axes
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


def test_gate_histograms_count_the_channels_of_the_last_epoch():
    runs = make_runs(("bin", "bn"), seeds=(0, 1), fates={("bin", 1): ("unfinished", 3)})
    gates = make_gates(runs[runs.norm == "bin"])
    figure = feature_figures.gate_histograms(runs, gates, ABOUT)
    assert figure.axes[0].get_title(loc="left") == "stem_norm"
    last = gates[(gates.seed == 0) & (gates.epoch == 6) & (gates.layer == "stem_norm")].gate
    steps = figure.axes[0].patches[-1].get_data()
    np.testing.assert_allclose(steps.values, 100 * np.histogram(last, steps.edges)[0] / len(last))
    equal = feature_figures.gate_histograms(runs, gates.assign(gate=1.0), ABOUT)
    assert not equal.axes[0].patches and list(equal.axes[0].lines[0].get_xdata()) == [1, 1]


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
        feature_figures.gate_histograms(runs, gates, LONG),
    ]
    if (runs.status == "complete").any():
        test = make_evaluations(runs)
        ends = dict.fromkeys(LABELS.values(), (0.1, 0.9))
        drawn += [
            figures.test_accuracy(test, ends, LONG, {}),
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
