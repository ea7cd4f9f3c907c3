import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.analysis.comparison import compare
from jaxnorm.study.analysis.runs import read_study
from jaxnorm.study.analysis.statistics import holm, mean_interval


def by_pair(study):
    return {(one.norm, one.baseline): one for one in compare(study)}


def test_pairs_share_their_seeds(session_workdir):
    study = read_study(
        session_workdir("five", norms=("flax_bn", "bn", "bin", "bin_frozen", "gn", "ln"), seeds=range(5),
                        fates={("gn", 2): ("diverged", 4)})
    )  # fmt: skip
    found = by_pair(study)
    assert list(found) == [
        ("flax_bn", "bn"), ("bin", "bn"), ("bin_frozen", "bn"), ("gn", "bn"), ("ln", "bn"), ("bin", "bin_frozen"),
    ]  # fmt: skip
    group = found["gn", "bn"]
    assert group.seeds == (0, 1, 3, 4)
    expected = [
        next(r for r in study.of("gn") if r.seed == s).splits["test"].accuracy
        - next(r for r in study.of("bn") if r.seed == s).splits["test"].accuracy
        for s in (0, 1, 3, 4)
    ]
    assert group.differences == tuple(expected)
    assert group.interval == mean_interval(expected)
    assert {pair for pair, one in found.items() if one.planned} == {("bin", "bn"), ("bin", "bin_frozen"), ("gn", "bn")}
    planned = [one for one in found.values() if one.planned]
    assert [one.holm_p for one in planned] == holm([one.p_value for one in planned])
    assert found["ln", "bn"].holm_p is None
    assert found["flax_bn", "bn"].equal is True
    assert found["ln", "bn"].equal is False


def test_one_seed_has_only_the_interval_over_images(session_workdir):
    found = by_pair(read_study(session_workdir("one_seed", norms=("bn", "none"))))
    one = found["none", "bn"]
    assert one.interval is None and one.p_value is None and one.holm_p is None and one.equal is None
    assert one.image_interval.low < one.mean < one.image_interval.high


def test_nothing_to_pair(make_workdir):
    assert compare(read_study(make_workdir(norms=("gn", "ln")))) == ()


def test_predictions_on_other_images_are_refused(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"))
    path = workdir / "gn-seed0/predictions.npz"
    with np.load(path) as arrays:
        logits, label = arrays["logits"], arrays["label"]
    np.savez(path, logits=logits[::-1], label=label[::-1])
    with pytest.raises(UserError, match=r"gn-seed0/predictions\.npz"):
        compare(read_study(workdir))


def test_without_predictions_there_is_no_interval_over_images(make_workdir):
    workdir = make_workdir(norms=("bn", "gn"))
    (workdir / "gn-seed0/predictions.npz").unlink()
    (one,) = compare(read_study(workdir))
    assert one.image_interval is None
