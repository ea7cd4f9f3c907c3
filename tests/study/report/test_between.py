"""Two studies beside each other."""

import dataclasses

import pytest
from scipy import stats

from jaxnorm import read_study
from jaxnorm.study.report.between import between, changes, table
from tests.study.report.workdirs import write_workdir


@pytest.fixture
def studies(tmp_path):
    first = write_workdir(tmp_path / "a", norms=("bn", "gn", "none"), seeds=range(6), num_epochs=2)
    other = dict(learning_rate=0.05, num_blocks=3)
    second = write_workdir(
        tmp_path / "b",
        norms=("gn", "bn", "ln"),
        seeds=range(2, 9),
        num_epochs=2,
        fates={("gn", 3): ("crashed", 1)},
        **other,
    )
    found = read_study(second)  # made-up runs of a norm and seed are alike at all rates: here they depend on the seed
    changed = found.evaluations.assign(accuracy=found.evaluations.accuracy - 0.001 * found.evaluations.seed**2)
    return read_study(first), dataclasses.replace(found, evaluations=changed)


def test_differences_are_paired_by_the_seeds_in_common(studies):
    found = between(*studies).set_index("variant")
    assert found.index.tolist() == ["bn", "gn"]
    assert found.seeds["bn"] == [2, 3, 4, 5] and found.seeds["gn"] == [2, 4, 5]
    one, two = (study.final("test").query("norm == 'bn'").set_index("seed").accuracy[[2, 3, 4, 5]] for study in studies)
    assert found["first"]["bn"] == pytest.approx(one.mean()) and found.second["bn"] == pytest.approx(two.mean())
    assert found.difference["bn"] == pytest.approx((two - one).mean())
    interval = stats.t.interval(0.95, 3, (two - one).mean(), stats.sem(two - one))
    assert (found.interval["bn"].low, found.interval["bn"].high) == pytest.approx(interval)
    assert found.interval["gn"] is None
    assert table(found.reset_index()).iloc[1, -1] == "3 seeds"


def test_studies_without_a_seed_in_common_have_means_alone(tmp_path):
    studies = [
        read_study(write_workdir(tmp_path / name, norms=("bn",), seeds=seeds, num_epochs=2))
        for name, seeds in (("a", (0, 1)), ("b", (2, 3, 4, 5)))
    ]
    (one,) = between(*studies).itertuples()
    means = [study.final("test").accuracy.mean() for study in studies]
    assert one.seeds == [] and one.interval is None and [one.first, one.second] == pytest.approx(means)
    assert table(between(*studies)).iloc[0, -1] == "no seed in common"


def test_what_differs_is_listed(studies):
    assert sorted(changes(*studies)) == ["learning_rate: 0.1 -> 0.05", "num_blocks: 2 -> 3"]
    assert changes(studies[0], studies[0]) == []
