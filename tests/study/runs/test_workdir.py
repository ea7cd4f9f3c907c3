"""Which runs may be added to a folder or continued in it."""

import dataclasses
import json

import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.planned import plan_file, read_plan
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.workdir import Workdir

CONFIG = Config(norm="bn")


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "study", study="compare_norms")


def plan_of(workdir):
    return json.loads((workdir.path / "study.json").read_text())


def test_checking_touches_nothing(workdir):
    workdir.check([CONFIG])
    assert not workdir.path.exists()


def test_more_norms_and_seeds_and_a_later_stop_are_welcome(workdir, begin):
    begin(workdir, dataclasses.replace(CONFIG, stop_after_epoch=2))
    more = [dataclasses.replace(CONFIG, norm=norm, seed=seed) for norm in ("bn", "gn") for seed in (0, 1)]
    workdir.check(more)
    workdir.describe(more, preset="quick", command="python x.py --norms bn gn")
    plan = plan_of(workdir)
    assert plan["labels"] == {c.norm: NORMS[c.norm].label for c in more}
    assert (plan["norms"], plan["seeds"]) == (["bn", "gn"], [0, 1])
    assert "norm" not in plan["recipe"]
    assert plan["command"] == "python x.py\npython x.py --norms bn gn"


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_any_other_difference_is_refused_and_listed_for_old_runs_and_new_ones(workdir, begin, norm):
    begin(workdir, CONFIG)
    other = dataclasses.replace(CONFIG, norm=norm, batch_size=64, learning_rate=0.3)
    with pytest.raises(UserError, match=r"`batch_size`: 32 -> 64; `learning_rate`: 0.1 -> 0.3"):
        workdir.check([other])


def test_another_learning_rate_may_be_allowed_and_leaves_finished_runs_as_they_are(workdir, begin):
    half = dataclasses.replace(CONFIG, norm="gn")
    begin(workdir, CONFIG, status="complete", epoch=12)
    begin(workdir, half)
    slower = [dataclasses.replace(config, learning_rate=0.05) for config in (CONFIG, half)]
    with pytest.raises(UserError, match="`learning_rate`: 0.1 -> 0.05.*accept with --allow-changes"):
        workdir.check(slower)
    assert workdir.check(slower, allow_changes=True) == ["learning_rate: 0.1 -> 0.05"]
    workdir.describe(slower, preset="quick", command="python x.py --learning-rate 0.05")
    begin(workdir, slower[1])
    assert workdir.check(slower) == [], "once allowed, it is the study's"
    longer = [dataclasses.replace(config, num_epochs=20, learning_rate=0.02) for config in slower]
    with pytest.raises(UserError, match="`num_epochs`: 12 -> 20(?!.*--allow-changes)"):
        workdir.check(longer, allow_changes=True)


def test_other_versions_are_refused_while_a_run_is_unfinished_and_other_cores_are_noted(workdir, begin, now):
    begin(workdir, CONFIG)
    assert workdir.check_surroundings([CONFIG], now()) == []
    slower = {"platform": "cpu", "kind": "AMD EPYC 7B13", "count": 1, "cores": 1}
    assert workdir.check_surroundings([CONFIG], now(device=slower)) == ["device cores: 2 -> 1"]
    other = now(device=slower, versions={"jax": "0.12.0"})
    with pytest.raises(UserError, match="jax: 0.10.1 -> 0.12.0.*--allow-changes"):
        workdir.check_surroundings([CONFIG], other)
    changes = ["jax: 0.10.1 -> 0.12.0", "device cores: 2 -> 1"]
    assert workdir.check_surroundings([CONFIG], other, allow_changes=True) == changes
    begin(workdir, CONFIG, status="complete", epoch=12)
    assert workdir.check_surroundings([CONFIG], other) == changes, "there is nothing to train"


def test_a_finished_run_beside_the_wanted_ones_is_checked_before_they_are_trained(workdir, begin):
    more = dataclasses.replace(CONFIG, norm="gn")
    begin(workdir, CONFIG, more, status="complete", epoch=12)
    (workdir.path / "gn-seed0" / "predictions.npz").unlink()
    with pytest.raises(UserError, match="gn-seed0/predictions.npz must be as manifest.json .* says, but is gone"):
        workdir.check([CONFIG])


def test_less_epochs_than_already_trained_are_refused(workdir, begin):
    begin(workdir, CONFIG, status="complete", epoch=12)
    with pytest.raises(UserError, match="is trained to epoch 12, but --stop-after-epoch 3 asks for less"):
        workdir.check([dataclasses.replace(CONFIG, stop_after_epoch=3)])


def test_another_study_and_a_folder_of_other_things_and_a_damaged_plan_are_refused(workdir, begin, tmp_path):
    begin(workdir, CONFIG)
    with pytest.raises(UserError, match="must belong to batch_size_study, but .* holds 'compare_norms'"):
        Workdir(workdir.path, study="batch_size_study").check([CONFIG])
    with pytest.raises(UserError, match="holds other files"):
        Workdir(tmp_path, study="compare_norms").check([CONFIG])
    path = workdir.path / "study.json"
    for content in ("{", path.read_text().replace('"seeds"', '"seedz"')):
        path.write_text(content)
        with pytest.raises(UserError, match="study.json"):
            workdir.check([CONFIG])


def test_hidden_files_do_not_keep_a_folder_from_being_used(workdir):
    workdir.path.mkdir()
    (workdir.path / ".DS_Store").write_text("")
    workdir.check([CONFIG])


def test_runs_may_differ_in_what_the_study_varies_and_in_nothing_else(tmp_path, begin):
    workdir = Workdir(tmp_path / "study", study="batch_size_study", varied=("batch_size",))
    configs = [dataclasses.replace(CONFIG, batch_size=size, tags=(f"bs{size}",)) for size in (8, 16)]
    begin(workdir, *configs)
    assert plan_of(workdir)["grid"] == {"batch_sizes": [8, 16]}
    assert [run["name"] for run in plan_of(workdir)["runs"]] == ["bn-bs8-seed0", "bn-bs16-seed0"]
    more = dataclasses.replace(CONFIG, batch_size=4, tags=("bs4",))
    workdir.check([more])
    with pytest.raises(UserError, match="`learning_rate`: 0.1 -> 0.3"):
        workdir.check([dataclasses.replace(more, learning_rate=0.3)])
    with pytest.raises(UserError, match="varied: "):
        dataclasses.replace(workdir, varied=()).check([more])


def test_a_plan_is_recorded_before_the_first_run_and_then_fixed(tmp_path):
    workdir, given = Workdir(tmp_path / "w", study="compare_norms"), read_plan(plan_file("quick"), "compare_norms")
    other = dataclasses.replace(given, sha256="0" * 64)
    assert workdir.planned(given, demanded=True) == given
    workdir.describe([Config()], preset="quick", command="python x.py", planned=given)
    later = dataclasses.replace(given, date="2099-01-01T00:00:00+00:00")
    for one, demanded in ((later, True), (other, False)):
        found = workdir.planned(one, demanded=demanded)
        assert (found.date, found.sha256) == (given.date, given.sha256)
    workdir.describe([Config(seed=1)], preset="quick", command="python x.py")
    assert plan_of(workdir)["planned"]["date"] == given.date
    with pytest.raises(UserError, match=r"before the first run.*quick\.toml"):
        workdir.planned(other, demanded=True)


def test_runs_that_began_without_a_plan_get_none(tmp_path):
    workdir, given = Workdir(tmp_path / "w", study="compare_norms"), read_plan(plan_file("quick"), "compare_norms")
    workdir.describe([Config()], preset="quick", command="python x.py")
    (tmp_path / "w/bn-seed0").mkdir()
    (tmp_path / "w/bn-seed0/provenance.json").write_text("{}")
    assert workdir.planned(given, demanded=False) is None
    with pytest.raises(UserError, match="has begun without one"):
        workdir.planned(given, demanded=True)
