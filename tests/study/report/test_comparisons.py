import numpy as np
import pytest

from jaxnorm import UserError, read_study
from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.publish import publish
from jaxnorm.study.report.statistics import holm, mean_interval
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
    planned = [one for one in found.values() if one.planned]
    assert [(one.norm, one.baseline) for one in planned] == [("bin", "bn"), ("gn", "bn"), ("bin", "bin_frozen")]
    assert [one.holm_p for one in planned] == holm([one.p for one in planned])
    assert np.isnan(found["ln", "bn"].holm_p)
    assert found["flax_bn", "bn"].equal is True and found["ln", "bn"].equal is False


def test_one_seed_has_only_the_interval_over_images(session_workdir):
    one = by_pair(read_study(session_workdir("one_seed", norms=("bn", "none"))))["none", "bn"]
    assert one.interval is None and one.p is None and np.isnan(one.holm_p) and one.equal is None
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
