from dataclasses import asdict

import numpy as np
import pytest

from jaxnorm import UserError, files, read_study
from jaxnorm.study.planned import read_plan
from jaxnorm.study.report import batch_sizes, compare_norms
from jaxnorm.study.report.comparisons import chosen, null_words, nulls, paired
from jaxnorm.study.report.formats import p_value, points
from jaxnorm.study.report.publish import publish
from jaxnorm.study.report.statistics import holm, mean_interval, sign_flip_p
from jaxnorm.study.runs.manifest import read_sealed, sealed
from tests.study.report.workdirs import reseal


def by_pair(study):
    return {(one.norm, one.baseline): one for one in paired(study).itertuples()}


def test_pairs_share_their_seeds(session_workdir):
    study = read_study(
        session_workdir("five", norms=("flax_bn", "bn", "bin", "bin_frozen", "gn", "ln"), seeds=range(5),
                        fates={("gn", 2): ("diverged", 4)})
    )  # fmt: skip
    found = by_pair(study)
    assert list(found) == [
        ("flax_bn", "bn"), ("bin", "bn"), ("bin_frozen", "bn"), ("gn", "bn"), ("ln", "bn"), ("bin", "bin_frozen"),
    ]  # fmt: skip
    test = study.final("test").pivot(index="seed", columns="norm", values="accuracy")
    expected = (test.gn - test.bn).dropna()
    group = found["gn", "bn"]
    assert group.seeds == [0, 1, 3, 4] and group.differences == expected.tolist()
    assert group.interval == mean_interval(expected.tolist())
    nulls = [pair for pair, one in found.items() if one.test == "null"]
    assert nulls == [("flax_bn", "bn"), ("bin_frozen", "bn")]
    tested = [one for pair, one in found.items() if pair not in nulls]
    assert [one.holm_p for one in tested] == holm([one.p for one in tested])
    assert not any(one.planned for one in found.values())
    assert [one.differs for one in tested] == [None] * 4  # five seeds can show no difference
    assert {one.equal for one in found.values()} == {None}  # without a margin fixed beforehand


PLAN = """
margin = 0.5
seeds = [0, 1, 2, 3, 4, 5, 6]
deviation = 0.4
[[compare_norms]]
plus = ["gn"]
minus = ["bn"]
[[compare_norms]]
plus = ["flax_bn", "gn"]
minus = ["bn", "ln"]
[[compare_norms]]
plus = ["flax_bn"]
minus = ["bn"]
test = "equality"
[[compare_norms]]
family = "loss"
plus = ["ln"]
minus = ["bn"]
quantity = "train_loss"
test = "less"
seeds = [5, 6]
[[compare_norms]]
plus = ["bin"]
minus = ["bn"]
[[batch_size_study]]
plus = ["bn-bs2"]
minus = ["bn-bs128"]
[[batch_size_study]]
plus = ["bn-bs2", "gn-bs128"]
minus = ["bn-bs128", "gn-bs2"]
"""


def planned(workdir, text=PLAN):
    (workdir / "plan.toml").write_text(text)
    study = read_sealed(workdir / "study.json")
    study["planned"] = asdict(read_plan(workdir / "plan.toml", study["study"]))
    files.write_json(workdir / "study.json", sealed(study))
    return read_study(workdir)


def test_the_plan_says_what_is_tested(make_workdir):
    study = planned(make_workdir(norms=("flax_bn", "bn", "gn", "ln"), seeds=range(7)))
    found = paired(study)
    assert found[["norm", "baseline", "planned", "family"]].to_numpy().tolist() == [
        ["gn", "bn", True, "planned"], ["flax_bn", "bn", True, "planned"], ["flax_bn", "bn", True, "planned"],
        ["ln", "bn", True, "loss"], ["ln", "bn", False, ""],
    ]  # fmt: skip
    test = study.final("test").pivot(index="seed", columns="norm", values="accuracy")
    contrast = test.flax_bn + test.gn - test.bn - test.ln
    np.testing.assert_allclose(found.differences[1], contrast)
    # bin was planned, too, and has no runs
    assert found.holm_p[:2].tolist() == holm([*found.p[:2], 1.0])[:2] and found.differs[0] is True
    assert found.holm_p[4:].isna().all() and found.differs[4] is None  # exploratory
    narrow = found.narrow[2]
    assert found.equal[2] == (max(-narrow.low, narrow.high) < 0.005) and found.equal.notna().sum() == 1
    last = study.epochs.drop_duplicates("run", keep="last").pivot(index="seed", columns="norm", values="train_loss")
    assert found.seeds[3] == [5, 6] and found.differences[3] == (last.ln - last.bn)[[5, 6]].tolist()
    assert found.both[3] is None and found.p[3] == sign_flip_p(found.differences[3], "less")
    text = compare_norms.page(study)
    assert "plan.toml" in next(section for section in text.sections if section.title == "Paired differences").text[0]


def test_a_batch_page_begins_with_its_planned_contrasts(make_grid):
    study = planned(make_grid("batches", seeds=range(7), sizes=(128, 2), rules=("fixed",)))
    found, lead = paired(study), batch_sizes.page(study).lead
    assert found.planned.sum() == 2
    test = study.final("test").pivot(index="seed", columns="variant", values="accuracy")
    lost = {norm: test[f"{norm}-bs2"] - test[f"{norm}-bs128"] for norm in ("bn", "gn")}
    np.testing.assert_allclose(found.differences[0], lost["bn"])
    np.testing.assert_allclose(found.differences[1], lost["bn"] - lost["gn"])
    for one in found[found.planned].itertuples():
        assert any(points(one.mean) in text and p_value(one.holm_p) in text for text in lead)


def test_what_runs_of_one_function_differ_by(session_workdir):
    study = read_study(session_workdir("two", norms=("flax_bn", "bn", "bin_frozen", "gn"), seeds=range(2)))
    found = nulls(study)
    assert len(found) == 6 and set(found["first"]) | set(found["second"]) == {"flax_bn", "bn", "bin_frozen"}
    assert f"up to {100 * found.difference.abs().max():.2f} points" in null_words(study)[0]


def test_one_seed_has_only_the_interval_over_images(session_workdir):
    one = by_pair(read_study(session_workdir("one_seed", norms=("bn", "none"))))["none", "bn"]
    assert one.interval is None and one.both is None and one.p < 0.05 and one.differs is None
    assert one.image_interval.low < one.mean < one.image_interval.high


def test_nothing_to_pair(make_workdir):
    assert len(paired(read_study(make_workdir(norms=("gn", "ln"))))) == 0


def test_each_setting_is_compared_by_itself(make_grid):
    found = paired(read_study(make_grid("batches", seeds=(0, 1, 2))))
    assert found[["tags", "norm"]].to_numpy().tolist() == [["bs128", "gn"], ["bs8", "gn"], ["bs8 linear", "gn"]]
    assert (found.holm_p >= found.p).all()


def test_predictions_on_other_images_are_refused(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"))
    published = workdir.parent / "published"
    publish(workdir, published)
    with np.load(published / "predictions.npz") as arrays:
        found = dict(arrays)
    for name in ("label", "predicted", "log_likelihood"):  # the same answers to the same images in another order
        found[name][1] = found[name][1][::-1]
    np.savez(published / "predictions.npz", **found)
    reseal(published)
    with pytest.raises(UserError, match="all runs of a study have the same test images, but those of gn-seed0 in"):
        read_study(published)


VALUES = {"none": (0.8, 0.7, 0.1), "bn": (0.85, 0.9, 0.91), "gn": (0.82, 0.88, 0.86)}
RATES = {
    f"{norm}{tag}-seed0": (value, value - 0.05)
    for norm, values in VALUES.items()
    for tag, value in zip(("-lr0.03", "", "-lr0.3"), values, strict=True)
}


def test_validation_decides_the_rate_and_the_others_are_left_out(make_grid):
    better = {"gn-lr0.3-seed0": (0.86, 0.99)}  # a better test accuracy must not matter
    best = chosen(read_study(make_grid("rates", norms=("none", "bn", "gn"), accuracies=RATES | better)))
    assert best.runs.name.tolist() == ["none-lr0.03-seed0", "bn-lr0.3-seed0", "gn-seed0"]  # in the order of the norms
    assert best.runs.variant.tolist() == ["none", "bn", "gn"]
    assert set(best.epochs.run) == set(best.evaluations.run) == set(best.runs.name)


def test_a_rate_at_which_a_seed_diverged_is_not_chosen(make_grid):
    fates, best = {"bn-lr0.3-seed1": ("diverged", 2)}, {"bn-lr0.3-seed0": (1.0, 1.0)}
    workdir = make_grid("rates", norms=("bn",), seeds=(0, 1), fates=fates, accuracies=best)
    assert 0.3 not in set(chosen(read_study(workdir)).runs.learning_rate)


def test_one_rate_of_a_grid_is_the_chosen_one(make_grid, make_workdir):
    assert chosen(read_study(make_grid("rates", rates=(0.3,)))).runs.variant.tolist() == ["none", "bn", "gn"]
    study = read_study(make_workdir(norms=("bn",)))
    assert chosen(study) is study


def test_a_norm_without_a_finished_run_is_shown(make_grid):
    fates = {f"none{tag}-seed0": ("diverged", 1) for tag in ("-lr0.03", "", "-lr0.3")}
    assert "none" in set(chosen(read_study(make_grid("rates", fates=fates))).runs.norm)
