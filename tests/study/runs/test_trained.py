"""A finished run as its model."""

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnorm import Config, ResNet, UserError, load_run, train
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.runs.workdir import Workdir
from tests.study.report.workdirs import DIGITS, provenance_of, write_workdir

CONFIG = Config(norm="bn", num_epochs=1, batch_size=512)
OWN = ResNet(num_blocks=1, num_filters=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """The folders of a run of the study's network and of a network of one's own, and what training returned."""
    folder, found = tmp_path_factory.mktemp("w"), {}
    for name, model in (("study", None), ("own", OWN)):
        run = RunDirectory(folder / name / CONFIG.name, CONFIG)
        run.begin(digits, provenance_of(CONFIG, DIGITS, "Batch norm"))
        result = train(CONFIG, digits, model=model, record=run)
        run.complete(result)
        found[name] = run.path, result
    return found


@pytest.mark.parametrize("name, model", [("study", None), ("own", OWN)])
def test_a_run_answers_as_it_did_when_it_was_trained(trained, digits, name, model):
    path, result = trained[name]
    run = load_run(path, model=model)
    assert run.config == CONFIG and run.class_names == digits.class_names and run.mean == digits.mean
    np.testing.assert_array_equal(run.logits(digits.test.image), result.test_logits)
    np.testing.assert_array_equal(run.predict(digits.test.image[:3]), result.test_logits[:3].argmax(1))
    assert run.history.val_loss.tolist() == [row["val_loss"] for row in result.rows]
    assert run.result["test"]["accuracy"] == result.splits["test"].accuracy


def test_features_are_those_that_the_classifier_sees(trained, digits):
    run = load_run(trained["study"][0])
    features = run.features(digits.test.image[:203])  # more than one batch
    assert features["stem_conv"].shape == (203, 16, 16, 16)
    last = run.variables["params"]["head"]
    logits = features["pooled"] @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    np.testing.assert_allclose(logits, run.logits(digits.test.image[:203]), rtol=1e-4, atol=1e-5)


def test_the_weights_are_read_in_one_line_without_the_study(trained):
    path, result = trained["study"]
    variables = unflatten_dict(safetensors.flax.load_file(path / "model.safetensors"), sep="/")
    found, expected = flatten_dict(variables), flatten_dict(result.variables)
    assert found.keys() == expected.keys()
    assert all((jnp.asarray(expected[name]) == array).all() for name, array in found.items())


@pytest.mark.parametrize(
    "images", [np.zeros((2, 16, 16, 3)), np.zeros((16, 16, 3), np.uint8), np.zeros((0, 9, 9, 3), "u1")]
)
def test_other_images_are_refused(trained, images):
    with pytest.raises(UserError, match=r"images must be uint8 \(N, H, W, 3\).*give them"):
        load_run(trained["study"][0]).predict(images)


def test_what_is_no_finished_run_is_named(tmp_path):
    write_workdir(tmp_path / "w", norms=("bn", "gn"), fates={("gn", 0): ("crashed", 1)}, num_epochs=2)
    for path, words in (
        (tmp_path / "w", "is a whole study"),
        (tmp_path / "none", "holds none"),
        (tmp_path / "w" / "gn-seed0", "finished run with model.safetensors"),
    ):
        with pytest.raises(UserError, match=words) as error:
            load_run(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_damage_and_an_unknown_norm_are_named(tmp_path, registry):
    write_workdir(tmp_path / "w", norms=("bn",), num_epochs=2)
    path = tmp_path / "w" / "bn-seed0"
    assert load_run(path, model=nn.Dense(1)).variables["params"]["scale"].tolist() == [1, 1]
    norm = registry.pop("bn")
    with pytest.raises(UserError, match="'bn' is not.*import"):
        load_run(path)
    registry["bn"] = norm
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors must be as manifest.json"):
        load_run(path)


def test_a_run_that_goes_on_has_no_weights_of_before(tmp_path):
    write_workdir(tmp_path / "w", norms=("gn",), num_epochs=2)
    run = Workdir(tmp_path / "w", "compare_norms").directory(Config(norm="gn", num_epochs=2))
    assert "model.safetensors" in json.loads((run.path / "manifest.json").read_text())["files"]
    run.crash(RuntimeError("late"))
    assert "model.safetensors" not in json.loads((run.path / "manifest.json").read_text())["files"]
