import re

import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.cli.commands import Plan, power
from jaxnorm.study.config import PRESETS
from jaxnorm.study.planned import DRIVERS, parsed_plan, plan_file, read_plan, recorded

GOOD = """margin = 0.5
seeds = [0, 1]
deviation = 0.4
[[compare_norms]]
plus = ["bin"]
minus = ["bn"]
"""


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_plan(preset):
    for study in DRIVERS:
        found = read_plan(plan_file(preset), study)
        assert recorded({"planned": vars(found)}, plan_file(preset)) == found
    batches = parsed_plan(read_plan(plan_file(preset), "batch_size_study").plan)
    assert ("bn-bs2-fixed", "gn-bs128-fixed") in [one.plus for one in batches.comparisons]


def test_the_training_loss_that_seeds_0_and_1_suggested_is_tested_on_others():
    found = parsed_plan(read_plan(plan_file("short"), "compare_norms").plan)
    loss = [one for one in found.comparisons if one.quantity == "train_loss"]
    assert len(loss) == 1 and not {0, 1} & set(loss[0].seeds) and loss[0].test == "less"


@pytest.mark.parametrize(("old", "new", "words"), [
    ("margin = 0.5", "margin = ", "Invalid value"),
    ("margin = 0.5", "margin = 0", "must be positive"),
    ("margin = 0.5", "", "margin"),
    ("margin = 0.5", "margin = 0.5\nmagin = 1", "magin"),
    ("plus", "plos", "plos"),
    ('["bn"]', '["bin"]', "no variant twice"),
    ('["bn"]', '["bn", "gn"]', "as many"),
    ('["bn"]', '["bn"]\nquantity = "train_los"', "train_loss"),
    ('["bn"]', '["bn"]\ntest = "equal"', "equality"),
    ('["bn"]', '["bn"]\ntest = "less"', "difference, equality"),
    ('["bn"]', '["bn"]\n[[compare_norms]]\nplus = ["bn"]\nminus = ["bin"]', "twice"),
])  # fmt: skip
def test_a_wrong_plan_is_refused_in_one_line(tmp_path, old, new, words):
    path = tmp_path / "p.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        read_plan(path, "compare_norms")
    assert words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="no file"):
        read_plan(tmp_path / "absent.toml", "compare_norms")


def test_what_the_seeds_can_show(capsys):
    study = parsed_plan(read_plan(plan_file("study"), "compare_norms").plan)
    assert "10 seeds show 0.49 points with 80 % power" in power(study, 10)
    assert "cannot show any: the smallest p of 5 is 0.062" in power(study, 5)
    assert Plan(plan_file("study"), seeds=1).run() == 0
    assert "difference in accuracy, bin against bn" in capsys.readouterr().out
