"""Plan files: which comparisons are tested, fixed before the first run."""

import hashlib
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxnorm.errors import UserError
from jaxnorm.files import reading
from jaxnorm.study.config import PRESETS, nearest

DRIVERS = ("compare_norms", "batch_size_study", "feature_evolution")
TESTS = {"accuracy": ("difference", "equality"), "train_loss": ("difference", "less", "greater")}
"""What can be compared, accuracy on test or the training loss of the last epoch, and what a test can show of it.

That `plus` and `minus` differ, that `plus` is less or greater (one-sided), or that they are equal within the margin.
"""


@dataclass(frozen=True)
class Comparison:
    """A contrast of variants, paired by seed: the sum of `plus` less the sum of `minus`.

    Attributes:
        plus: variants such as ``bin`` or ``bn-bs2-fixed``, a norm and the tags of its runs.
        minus: as many others. Two on each side are a difference of differences.
        quantity: one of those in `TESTS`.
        test: one of `TESTS` for that quantity.
        seeds: the only seeds that count; all by default.
        family: the comparisons whose p-values are corrected together.
    """

    plus: tuple[str, ...]
    minus: tuple[str, ...]
    quantity: str = "accuracy"
    test: str = "difference"
    seeds: tuple[int, ...] = ()
    family: str = "planned"

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, ...]]]:
        """What is the same for the same comparison in either direction."""
        return self.quantity, frozenset((self.plus, self.minus))


@dataclass(frozen=True)
class Plan:
    """The comparisons of a study, fixed before its first run.

    Attributes:
        comparisons: what is tested.
        margin: in points of accuracy: closer than this is equal.
        seeds: the seeds to train.
        deviation: the standard deviation over seeds of a difference, in points, that was assumed for the power.
    """

    comparisons: tuple[Comparison, ...]
    margin: float
    seeds: tuple[int, ...]
    deviation: float

    @property
    def families(self) -> Counter[str]:
        """How many p-values are corrected together, by family."""
        return Counter(one.family for one in self.comparisons if one.test != "equality")


@dataclass(frozen=True)
class Recorded:
    """A plan as study.json holds it.

    Attributes:
        file: the plan file's name.
        sha256: hash of its bytes.
        date: when it was recorded, in UTC: before the first run.
        plan: what it says.
    """

    file: str
    sha256: str
    date: str
    plan: dict[str, Any] = field(repr=False)


def plan_file(preset: str) -> Path:
    """The plan file that a preset comes with.

    Args:
        preset: its name.

    Returns:
        The path.
    """
    return Path(__file__).parent / "plans" / f"{preset}.toml"


def read_plan(path: Path, study: str) -> Recorded:
    """A plan file's part for a driver, dated now.

    Args:
        path: the TOML file, or the name of a preset.
        study: the driver.

    Returns:
        What study.json records.

    Raises:
        UserError: if the file is absent, is no TOML or holds something else than a plan.
    """
    if not path.exists() and str(path) in PRESETS:
        path = plan_file(str(path))
    if not path.is_file():
        raise UserError(f"--plan must name a TOML file or a preset, but there is no file {path}; see docs/running.md")
    content = path.read_bytes()
    try:
        found = tomllib.loads(content.decode())
        mine = {key: value for key, value in found.items() if key not in DRIVERS}
        plan = parsed_plan({**mine, "comparisons": found.get(study, [])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"a plan file must follow docs/running.md, but {path} does not ({error}); fix it") from error
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Recorded(path.name, hashlib.sha256(content).hexdigest(), date, asdict(plan))


def parsed_plan(found: dict[str, Any]) -> Plan:
    """A plan from the values of a file, checked.

    Args:
        found: the values.

    Returns:
        The plan.

    Raises:
        ValueError: or TypeError, if they are no plan.
    """
    known = {**found, "comparisons": tuple(_comparison(entry) for entry in found["comparisons"])}
    plan = Plan(**{**known, "seeds": tuple(known["seeds"])})
    if not (plan.margin > 0 and plan.deviation > 0):
        raise ValueError("margin and deviation must be positive points of accuracy")
    keys = [(one.key, one.test) for one in plan.comparisons]
    if twice := [one for one, key in zip(plan.comparisons, keys, strict=True) if keys.count(key) > 1]:
        raise ValueError(f"{' '.join(twice[0].plus)} against {' '.join(twice[0].minus)} is there twice")
    return plan


def recorded(plan: dict[str, Any], where: Path) -> Recorded | None:
    """The plan that a study.json records.

    Args:
        plan: the content of study.json.
        where: its path, for the error message.

    Returns:
        The plan; None without one.

    Raises:
        UserError: if what it records is no plan.
    """
    if "planned" not in plan:
        return None
    with reading(where):
        found = Recorded(**plan["planned"])
        parsed_plan(found.plan)
        return found


def _comparison(entry: dict[str, Any]) -> Comparison:
    lists: dict[str, Any] = {name: tuple(entry[name]) for name in ("plus", "minus", "seeds") if name in entry}
    one = Comparison(**{**entry, **lists})
    if not one.plus or len(one.plus) != len(one.minus) or set(one.plus) & set(one.minus):
        raise ValueError("plus and minus must name as many variants, and no variant twice")
    if one.quantity not in TESTS:
        raise ValueError(f"the quantity is {one.quantity!r}, {nearest(one.quantity, TESTS)}")
    if one.test not in TESTS[one.quantity]:
        raise ValueError(f"the test of {one.quantity} is {one.test!r}, {nearest(one.test, TESTS[one.quantity])}")
    return one
