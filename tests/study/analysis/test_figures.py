import io
import json
import math
import re
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from PIL import Image

from jaxnorm.study.analysis import curves, quantiles, svg
from jaxnorm.study.analysis.figures import _PLANS, draw_figures, figure_names
from jaxnorm.study.analysis.rates import chosen
from jaxnorm.study.analysis.runs import read_study
from jaxnorm.study.analysis.sheet import NARROW, RC, WIDE
from jaxnorm.study.analysis.styles import DIVERGED, styles_for
from jaxnorm.study.analysis.svg import to_inline, to_svg

COMPARED = ["test_accuracy", "accuracy", "loss", "sanity_check", "feature_quantiles", "gate_histograms", "gate_paths"]
FATES = {("none", 0): ("diverged", 0), ("gn", 0): ("diverged", 5), ("in", 0): ("unfinished", 7)}


@pytest.fixture(scope="module")
def drawn(session_workdir):
    return draw_figures(read_study(session_workdir("curves", fates=FATES)))


def test_every_figure_is_a_valid_png_and_svg(drawn):
    assert [figure.name for figure in drawn] == COMPARED
    for figure in drawn:
        image = np.asarray(Image.open(io.BytesIO(figure.png)).convert("L"))
        assert image.shape[1] == 1536 and image.std() > 5
        root = ElementTree.fromstring(figure.svg)
        assert root.tag.endswith("svg")
        text = " ".join(root.itertext())
        assert figure.title.split()[-1] in text or figure.name == "sanity_check"
        assert "scikit-learn digits" in text and "scikit-learn digits" in figure.caption


def test_ids_of_inline_figures_are_unique_and_every_reference_is_inside(drawn):
    inline = [part for figure in drawn for part in (figure.inline_wide, figure.inline_narrow)]
    ids = [found for part in inline for found in re.findall(r' id="([^"]+)"', part)]
    assert len(ids) == len(set(ids)) > 100
    for part in inline:
        own = set(re.findall(r' id="([^"]+)"', part))
        used = set(re.findall(r'href="#([^"]+)"', part)) | set(re.findall(r"url\(#([^)]+)\)", part))
        assert used and used <= own
        assert "http" not in part and "<style" not in part and "<script" not in part
        assert "var(--ink" in part and "DejaVu" not in part


def test_a_variant_keeps_its_style_whatever_stands_beside_it():
    alone, among = styles_for(["bn"]), styles_for(["mine", "flax_bn", "bn", "gn", "theirs"])
    assert alone["bn"] == among["bn"]
    assert len({(style.colour, style.marker) for style in among.values()}) == 5
    every = styles_for(["flax_bn", "none", "bn", "in", "bin", "ln", "gn", "bin_frozen", *"abcdef"])
    assert len({style.colour for style in every.values()}) == 14
    assert len({style.marker for style in every.values()}) == 14
    assert DIVERGED not in {style.marker for style in every.values()}


def test_a_run_that_diverged_is_crossed_at_its_step(session_workdir):
    study = read_study(session_workdir("curves", fates=FATES))
    figure = curves.draw_accuracy(study, WIDE)
    for axis in figure.axes:
        crosses = [line for line in axis.lines if line.get_marker() == DIVERGED]
        where = sorted(float(line.get_xdata()[0]) for line in crosses)
        assert where == pytest.approx([17 / 33, 5 + 17 / 33])  # 33 steps an epoch
    legend = [text.get_text() for text in figure.texts]
    assert "Group norm (diverged)" in legend and "diverged at this step" in legend
    assert "Instance norm (unfinished)" in legend


def test_the_mean_is_over_finished_seeds_and_does_not_jump(make_workdir):
    study = read_study(make_workdir(norms=("bn",), seeds=(0, 1, 2), fates={("bn", 1): ("diverged", 6)}))
    axis = curves.draw_accuracy(study, WIDE).axes[0]
    lines = [line for line in axis.lines if len(line.get_xdata()) > 2]
    assert sorted(len(line.get_xdata()) for line in lines) == [6, 12]
    mean = next(line for line in lines if len(line.get_xdata()) == 12).get_ydata()
    finished = [[100 * e.train_accuracy for e in run.epochs] for run in study.finished("bn")]
    np.testing.assert_allclose(mean, np.mean(finished, axis=0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(norms=("gn",)), ["test_accuracy", "accuracy", "loss", "feature_quantiles"]),
        (dict(norms=("gn", "bn"), num_epochs=1), ["test_accuracy", "accuracy", "loss", "feature_quantiles"]),
        (dict(norms=("bn",), fates={("bn", 0): ("unfinished", 2)}), ["accuracy", "loss", "feature_quantiles"]),
        (dict(norms=("bn",), fates={("bn", 0): ("diverged", 0)}), []),
        (dict(norms=("bn", "gn"), fates={("bn", 0): ("missing", 0), ("gn", 0): ("unfinished", 0)}), []),
    ],
)
def test_no_figure_without_data(make_workdir, options, expected):
    assert [figure.name for figure in draw_figures(read_study(make_workdir(**options)))] == expected


def test_each_study_has_its_figures(features_workdir, batches_workdir, rates_workdir):
    def possible(workdir):
        study = read_study(workdir)
        return {plan.name for plan in _PLANS if plan.possible(study if plan.every_rate else chosen(study))}

    features, batches, rates = map(possible, (features_workdir, batches_workdir, rates_workdir))
    layers = {"pooled_histograms", "last_convolution", "convolution_histograms", "layers"}
    assert features == {*COMPARED, *layers} - {"sanity_check"}
    assert batches == {"batch_sizes", "ghosts", "batch_curves_fixed", "batch_curves_linear", "batch_time"}
    assert rates == {"test_accuracy", "accuracy", "loss", "feature_quantiles", "learning_rates"}
    assert features | batches | rates | {"sanity_check"} == set(figure_names())


@pytest.mark.parametrize("layout", [WIDE, NARROW])
@pytest.mark.parametrize("kind", ["curves", "features", "batches", "rates"])
def test_nothing_leaves_the_sheet_and_no_words_overlap(request, session_workdir, kind, layout):
    # bold and plain DejaVu Sans is among the widest fonts: what fits here fits with any a browser may take
    workdir = session_workdir("curves", fates=FATES) if kind == "curves" else request.getfixturevalue(f"{kind}_workdir")
    study = read_study(workdir)
    with matplotlib.style.context(["default", RC]):
        for plan in _PLANS:
            shown = study if plan.every_rate else chosen(study)
            if not plan.possible(shown):
                continue
            figure = plan.draw(shown, layout)
            figure.draw_without_rendering()
            width, height = figure.bbox.width, figure.bbox.height
            boxes = [(text, text.get_window_extent()) for text in figure.texts]
            for axis in figure.axes:
                texts = [axis.title, axis._left_title, axis.xaxis.label, *axis.texts]
                for ticks, (low, high) in (
                    (axis.xaxis, sorted(axis.get_xlim())),
                    (axis.yaxis, sorted(axis.get_ylim())),
                ):
                    shown_ticks = [tick for tick in ticks.get_major_ticks() if low <= tick.get_loc() <= high]
                    texts += [tick.label1 for tick in shown_ticks if tick.label1.get_visible()]
                boxes += [(text, text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]
            for index, (text, box) in enumerate(boxes):
                what = f"{plan.name}: {text.get_text()}"
                assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, what
                clash = [other.get_text() for other, theirs in boxes[:index] if box.overlaps(theirs)]
                assert not clash, f"{what} lies on {clash}"


def test_hostile_names_are_drawn_as_they_are(make_workdir):
    labels = {"bn": '$\\frac{a}$ <b>_x</b> & "q"', "mine": "_日本 \x07 " + "x" * 100}
    study = read_study(make_workdir(norms=("bn", "mine"), labels=labels))
    with matplotlib.style.context(["default", RC]):
        drawn = to_svg(curves.draw_loss(study, NARROW))
    assert labels["bn"] in set(ElementTree.fromstring(drawn).itertext())
    inline = to_inline(drawn, "p-", labels["bn"], {})
    assert ElementTree.fromstring(inline).get("aria-label") == labels["bn"]
    assert "<b>" not in inline and "\x07" not in inline


def points_of(path):
    """The points of an SVG path of absolute and relative commands, and "z" where a subpath is closed."""
    points, here, start = [], np.zeros(2), np.zeros(2)
    for command, numbers in re.findall(r"([MLlCcQqz])([^MLlCcQqz]*)", path):
        if command == "z":
            points.append("z")
            here = start
            continue
        found = np.array(re.findall(r"-?(?:\d+\.?\d*|\.\d+)", numbers), np.float64).reshape(-1, 2)
        found += here * command.islower()
        points += list(found)
        here = found[-1]
        start = here if command == "M" else start
    return points


def test_paths_are_matplotlib_s_to_half_a_hundredth_and_shorter(monkeypatch):
    figure = Figure()
    axis, x = figure.add_subplot(), np.arange(300)
    axis.plot(x, np.cumsum(np.random.default_rng(0).normal(size=300)), "o-")
    axis.fill_between(x, np.sin(x / 30), 3 + np.sin(x / 20))
    axis.add_patch(Wedge((150, 2), 2, 0, 200))
    short = to_svg(figure).decode()
    monkeypatch.setattr(svg, "_relative", lambda path: path)
    long = to_svg(figure).decode()
    paths = [re.findall(r' d="([^"]*)"', text) for text in (long, short)]
    assert len(paths[0]) == len(paths[1]) > 10
    for one, other in zip(*paths, strict=True):
        for expected, found in zip(points_of(one), points_of(other), strict=True):
            assert (found == "z") if isinstance(expected, str) else np.abs(found - expected).max() < 0.0051
    assert sum(map(len, paths[1])) < 0.6 * sum(map(len, paths[0]))


@pytest.mark.parametrize("loss", [0.0, 1e12, math.inf, math.nan])
@pytest.mark.parametrize("draw", [curves.draw_loss, quantiles.draw_quantiles])
def test_extreme_numbers_are_drawn(make_workdir, loss, draw):
    workdir = make_workdir(norms=("bn",))
    path = workdir / "bn-seed0/metrics.jsonl"
    extreme = {"train_loss": loss, "val_loss": loss, "feature_quantiles": [0.0, 0.0, 0.0, loss]}
    path.write_text("".join(json.dumps(json.loads(line) | extreme) + "\n" for line in path.read_text().splitlines()))
    with matplotlib.style.context(["default", RC]):
        assert b"Epoch" in to_svg(draw(read_study(workdir), WIDE))
