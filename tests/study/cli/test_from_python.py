"""A study from Python: own data, own network, own norm."""

import flax.linen as nn
import numpy as np
import pytest

from jaxnorm import Config, compare, dataset_from_arrays, load_run, read_study, register_norm
from jaxnorm.errors import UserError

SMALL = dict(num_epochs=2, batch_size=16)


pytestmark = pytest.mark.usefixtures("registry")


class Tiny(nn.Module):
    norm: object
    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        x = self.norm(train=train, axis_name=None, dtype=None, name="norm")(nn.Conv(4, (3, 3))(x))
        return nn.Dense(self.num_classes)(nn.relu(x).mean((1, 2)))


class Shift(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("bias", nn.initializers.zeros, x.shape[-1:])


@pytest.fixture
def stripes():
    """Images whose class is the place of a bright column."""
    label = np.arange(120) % 3
    image = np.random.default_rng(0).integers(0, 60, (120, 9, 9, 3), np.uint8)
    for one, place in zip(image, label, strict=True):
        one[:, 3 * place : 3 * place + 3] += 120
    return dataset_from_arrays("stripes", (image, label), class_names=["left", "middle", "right"], flip=False)


def test_own_data_network_and_norm_give_a_study_that_continues(stripes, tmp_path, capsys):
    register_norm("shift", lambda *, train, axis_name, dtype, name: Shift(name=name), label="Shift only")
    configs = [Config(norm=norm, seed=seed, **SMALL) for norm in ("bn", "shift") for seed in (3, 4)]
    study = compare(configs[:3], stripes, workdir=tmp_path / "w", model=Tiny)
    assert study.runs.name.tolist() == ["bn-seed3", "bn-seed4", "shift-seed3"]
    assert (study.runs.status == "complete").all()
    assert study.final("test").num_images.eq(24).all()
    shown = capsys.readouterr().out
    assert "stripes" in shown and f"Report: {tmp_path / 'w' / 'report.html'}" in shown
    page = (tmp_path / "w" / "report.md").read_text(encoding="utf-8")
    assert "The network “tiny” is trained on stripes" in page and "Shift only" in page

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").glob("*/result.json")}
    again = compare(configs, stripes, workdir=tmp_path / "w", model=Tiny, quiet=True)
    assert again.runs.name.tolist() == [config.name for config in configs]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert read_study(tmp_path / "w").final("test").accuracy.tolist() == again.final("test").accuracy.tolist()

    run = load_run(tmp_path / "w" / "shift-seed4")
    assert run.class_names == ("left", "middle", "right") and type(run.model) is Tiny
    accuracy = (run.predict(stripes.test.image) == stripes.test.label).mean()
    assert accuracy == again.final("test").set_index("run").accuracy["shift-seed4"]


def test_other_data_or_another_network_is_refused(stripes, tmp_path):
    config = Config(norm="none", num_blocks=1, num_filters=2, **SMALL)
    compare([config], stripes, workdir=tmp_path / "w", quiet=True)
    other = dataset_from_arrays("stripes", (255 - stripes.train.image, stripes.train.label))
    more = [config, Config(norm="none", seed=1, num_blocks=1, num_filters=2, **SMALL)]
    with pytest.raises(UserError, match="data fingerprint"):
        compare(more, other, workdir=tmp_path / "w", quiet=True)
    with pytest.raises(UserError, match="`model`: resnet -> tiny"):
        compare([Config(norm="none", seed=1, **SMALL)], stripes, workdir=tmp_path / "w", model=Tiny, quiet=True)


def test_rates_are_compared_if_the_runs_have_tags(stripes, tmp_path):
    configs = [
        Config(norm="bn", learning_rate=rate, tags=(f"lr{rate}",), num_blocks=1, num_filters=2, **SMALL)
        for rate in (0.1, 0.01)
    ]
    study = compare(configs, stripes, workdir=tmp_path / "w", quiet=True)
    assert study.runs.learning_rate.tolist() == [0.1, 0.01]


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ([], "given none"),
        ("bn", "is given str"),
        (3, "is given int"),
        ([Config(norm="gn", num_filters=3)], "group_size must divide the 3 channels"),
        ([Config(), Config()], "2 are called bn-seed0"),
        ([Config(), Config(seed=1, num_epochs=3)], "`num_epochs` is 12 in bn-seed0 and 3 in bn-seed1"),
        ([Config(norm="bm")], "did you mean 'bn'"),
        ([Config(model="resnext")], "did you mean 'resnet'"),
        ([Config(batch_size=1000)], "must not exceed the 72 training images of stripes"),
    ],
)
def test_runs_that_do_not_fit_are_named_and_nothing_is_written(stripes, tmp_path, configs, words):
    with pytest.raises(UserError, match=words) as error:
        compare(configs, stripes, workdir=tmp_path / "w")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "w").glob("[!.]*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(dataset="digits"), "must be a Dataset, but is a str"),
        (dict(workdir=None), "must be a path, but is None"),
        (dict(model="resnet"), "must have a function"),
    ],
)
def test_what_is_no_study_is_named(stripes, tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        compare(**{"configs": [Config()], "dataset": stripes, "workdir": tmp_path / "w", **arguments})
    assert not (tmp_path / "w").exists()


def network(returns, has_parameters=True):
    """Builds networks that return something else than logits."""

    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            y = nn.Dense(3)(x.mean((1, 2))) if has_parameters else x.mean((1, 2))
            return returns(y)

    return lambda *, norm, num_classes: Wrong()


def failing(y):
    raise KeyError("no such layer")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (network(lambda y: y[:, :2]), r"return floats \(2, 3\) .* but returns float32 \(2, 2\)"),
        (network(lambda y: (y, y)), "but returns  tuple"),
        (network(lambda y: y.astype(int)), "but returns int32"),
        (network(lambda y: y, has_parameters=False), "and has no parameters"),
        (network(failing), "fails with KeyError: .*no such layer"),
        (network(lambda y: nn.Dropout(0.5, deterministic=False)(y)), "gets no random numbers"),
        (lambda *, norm, num_classes: None, "must return a Flax module"),
        (lambda *, norm, num_classes: nn.Dense(3), "fails with TypeError.*train"),
    ],
)
def test_a_network_that_does_not_fit_is_named_before_anything_is_written(stripes, tmp_path, model, words):
    with pytest.raises(UserError, match=words) as error:
        compare([Config(norm="none", **SMALL)], stripes, workdir=tmp_path / "w", model=model)
    assert "\n" not in str(error.value) and not list((tmp_path / "w").glob("[!.]*"))
