import numpy as np
import pandas as pd
import pytest

from jaxnorm import read_study
from jaxnorm.study.report import effective_rates, smoothness
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.publish import publish
from jaxnorm.study.report.sections import Sections

PROBED = dict(norms=("bn", "ln"), seeds=(0, 1), num_epochs=4, probe_learning_rate=True, probe_smoothness=20)


@pytest.fixture(scope="module")
def workdir(session_workdir):
    return session_workdir("probed", **PROBED)


def test_the_effective_rate_is_the_epochs_rate_over_the_square_of_the_kernels_norm(workdir):
    rows = effective_rates.effective_rates(read_study(workdir))
    assert len(rows) == 2 * 2 * 4 * 16
    for epoch, rate in ((1, 0.1), (4, 0.001)):  # the schedule has fallen twice by then
        with np.load(workdir / f"bn-seed1/arrays/epoch_{epoch:04d}.npz") as arrays:
            weight, gradient, rotation = arrays["rates/stem_conv"].astype(float)
        (one,) = rows.query(f"run == 'bn-seed1' and epoch == {epoch} and layer == 'stem_conv'").itertuples()
        assert (one.ratio, one.effective) == pytest.approx((gradient / weight, rate / weight**2))
        assert one.rotation == pytest.approx(180 * rotation / np.pi)
    assert [rows.layer.cat.categories[at] for at in (0, 1, -1)] == ["stem_conv", "stage1_block1/conv1", "head"]


def test_the_table_has_the_geometric_mean_over_layers_and_the_median_over_seeds(workdir):
    study = read_study(workdir)
    (table,) = effective_rates.section(Sections(chosen(study), study)).tables
    first = study.rates[(study.rates.epoch == 1) & (study.rates.norm == "ln")]
    wanted = first.groupby("run", observed=True).weight.agg(lambda one: np.exp(np.log(one).mean())).median()
    cell = table.frame[("Kernel's norm", "epoch 1")]["ln"]
    assert float(cell) == pytest.approx(wanted, rel=5e-3), "three digits"


def test_beta_is_the_largest_change_of_the_gradient_over_the_distance(workdir):
    """The changes in the files are (3 - length / 2) times the distance: largest at half a rate."""
    rows = smoothness.smoothness(read_study(workdir))
    assert len(rows) == 2 * 2 * 4 * 2
    np.testing.assert_allclose(rows.beta, 2.75, rtol=1e-5)
    np.testing.assert_allclose(rows.change, 0.4 * rows.gradient, rtol=1e-5)  # (3 - 0.5 * 4) * 4 * 0.1
    np.testing.assert_allclose(rows.range, 0.4 * rows.loss, rtol=1e-5)
    (one,) = rows.query("run == 'ln-seed0' and step == 53").itertuples()
    with np.load(workdir / "ln-seed0/arrays/epoch_0002.npz") as arrays:
        assert (one.epoch, one.loss) == (2, arrays["smoothness/loss"][1])
    within = rows[rows.level.notna()]
    assert all(level.left <= loss < level.right for level, loss in zip(within.level, within.loss, strict=True))


def test_a_step_to_a_loss_that_is_not_finite_has_no_smoothness(make_workdir):
    path = make_workdir(**PROBED | {"norms": ("bn",), "seeds": (0,)})
    known = smoothness.smoothness(read_study(path))
    study = read_study(path)
    study.smoothness.loc[3, "loss_4"] = np.inf
    rows = smoothness.smoothness(study)
    assert rows[["range", "change", "beta"]].loc[3].isna().all()
    pd.testing.assert_frame_equal(rows.drop(index=3)[["range", "beta"]], known.drop(index=3)[["range", "beta"]])


def test_variants_are_compared_at_equal_step_and_at_equal_loss(workdir):
    study = read_study(workdir)
    by_step, by_loss = smoothness.section(Sections(chosen(study), study)).tables
    rows = smoothness.smoothness(study)
    level = rows.level.cat.categories[3]  # from 1 to 2
    title = ("Range of the loss", f"loss {level.left:g} to {level.right:g}")
    for table, place, mine in (
        (by_step, ("Range of the loss", "epoch 1"), rows[rows.epoch == 1]),
        (by_loss, title, rows[(rows.loss >= 1) & (rows.loss < 2)]),
    ):
        wanted = mine[mine.norm == "bn"].groupby("run", observed=True).range.median().median()
        assert float(table.frame[place]["bn"]) == pytest.approx(wanted, rel=5e-3), "three digits"


def test_a_publication_has_what_was_probed_and_other_studies_have_no_such_section(workdir, tmp_path, make_workdir):
    made = publish(workdir, tmp_path / "results")
    for name in ("rates", "smoothness"):
        theirs, ours = getattr(made, name), getattr(read_study(workdir), name)
        pd.testing.assert_frame_equal(theirs, ours, check_exact=True)
    figures = {path.stem for path in (tmp_path / "results/figures").iterdir()}
    assert {"effective_rates", "rotation", "smoothness"} <= figures
    other = read_study(make_workdir(norms=("bn",), num_epochs=2))
    for probe in (effective_rates, smoothness):
        assert probe.section(Sections(chosen(other), other)).empty
