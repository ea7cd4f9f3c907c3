import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Config, UserError, train
from jaxnorm.study.training.images import on_device
from jaxnorm.study.training.recalibration import batch_statistics_logits, evaluate_statistics, precise_statistics
from jaxnorm.study.training.record import Memory
from jaxnorm.study.training.state import initial_state


@pytest.fixture(scope="module")
def trained(tiny):
    """A network that has seen a few steps, without crop and flip in what follows so that images can be recomputed."""
    result = train(Config(norm="bn", batch_size=5, num_epochs=1), tiny)
    model = initial_state(Config(norm="bn"), tiny).model
    images = {name: on_device(getattr(tiny, name), tiny).replace(pad=0, flip=False) for name in ("train", "test")}
    return model, result.variables, images


def float64_conv(x, layer, stride=1):
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height = (x.shape[1] - kernel.shape[0]) // stride + 1
    out = np.zeros((len(x), height, height, kernel.shape[3]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += x[:, i : i + stride * height : stride, j : j + stride * height : stride] @ kernel[i, j]
    return out + bias


def float64_pass(params, x):
    """The network in training mode in float64; returns mean and E[x^2] of every norm layer's input by its path."""
    moments = {}

    def norm(x, path, layer):
        mean, square = x.mean(axis=(0, 1, 2)), (x**2).mean(axis=(0, 1, 2))
        moments[path] = mean, square
        scale, bias = (np.asarray(layer[name], np.float64) for name in ("scale", "bias"))
        return (x - mean) / np.sqrt(square - mean**2 + 1e-5) * scale + bias

    x = np.maximum(norm(float64_conv(x, params["stem_conv"]), "stem_norm", params["stem_norm"]), 0)
    for stage in (1, 2, 3):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            layers = params[name]
            stride = 2 if stage > 1 and block == 1 else 1
            y = np.maximum(norm(float64_conv(x, layers["conv1"], stride), f"{name}/norm1", layers["norm1"]), 0)
            y = norm(float64_conv(y, layers["conv2"]), f"{name}/norm2", layers["norm2"])
            if stride == 2:
                x = norm(float64_conv(x, layers["conv_proj"], 2), f"{name}/norm_proj", layers["norm_proj"])
            x = np.maximum(y + x, 0)
    return moments


@pytest.mark.parametrize("batch_size", [6, 7])
def test_precise_statistics_equal_a_float64_loop_over_the_same_batches(trained, batch_size):
    model, variables, images = trained
    key = jax.random.key(4)
    got = precise_statistics(model, variables, images["train"], batch_size, key)
    order = np.asarray(jax.random.permutation(jax.random.split(key)[0], 24))
    pixels = np.asarray(images["train"].normalized(images["train"].image), np.float64)
    total = {}
    for start in range(0, 24, batch_size):
        index = order[start : start + batch_size]
        for path, (mean, square) in float64_pass(variables["params"], pixels[index]).items():
            old = total.get(path, (0, 0))
            total[path] = old[0] + len(index) / 24 * mean, old[1] + len(index) / 24 * square
    for path, (mean, square) in total.items():
        found = got
        for name in path.split("/"):
            found = found[name]
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-5, err_msg=path)
        np.testing.assert_allclose(found["var"], square - mean**2, rtol=1e-4, atol=1e-5, err_msg=path)


def test_for_a_layer_that_sees_the_data_it_does_not_matter_how_they_are_cut(trained, tiny):
    model, variables, _ = trained
    images = on_device(tiny.train, tiny)  # augmented, too
    stems = [
        precise_statistics(model, variables, images, batch_size, jax.random.key(1))["stem_norm"]
        for batch_size in (1, 5, 24)
    ]
    for stem in stems[1:]:
        for name in ("mean", "var"):
            np.testing.assert_allclose(stem[name], stems[0][name], rtol=1e-5, atol=1e-6)


def test_the_statistics_of_the_evaluated_batch_are_those_of_training_mode(trained):
    model, variables, images = trained
    logits, order = batch_statistics_logits(model, variables, images["test"], 4, jax.random.key(2))
    assert sorted(order) == list(range(7))
    first = images["test"].normalized(images["test"].image[order[:4]])
    expected, _ = model.apply(variables, first, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(logits[:4], expected, atol=1e-5)


def test_a_run_evaluates_its_weights_under_all_four_and_changes_nothing(tiny):
    config = Config(norm="bn", batch_size=6, num_epochs=1, evaluate_statistics=True)
    result = train(config, tiny)
    assert list(result.statistics) == ["running", "precise", "precise_128", "evaluation_batch"]
    for kind in result.statistics.values():
        assert kind["validation"]["num_images"] == 10
        assert kind["test"]["num_images"] == 7
    assert result.statistics["running"]["test"]["accuracy"] == result.splits["test"].accuracy
    assert result.statistics["precise"]["test"]["loss"] != result.statistics["running"]["test"]["loss"]


def test_ghosts_are_evaluated_as_batches_of_their_size_though_they_do_not_divide_the_split(tiny):
    config = Config(norm="bn", batch_size=10, ghost_batch_size=5, num_epochs=1, evaluate_statistics=True)
    result = train(config, tiny)
    assert result.statistics["evaluation_batch"]["test"]["num_images"] == 7
    assert result.statistics["running"]["test"]["accuracy"] == result.splits["test"].accuracy


class MeanSquare(nn.Module):
    """A network with running values of another kind."""

    @nn.compact
    def __call__(self, x, *, train):
        square = self.variable("batch_stats", "square", jnp.ones, x.shape[-1:])
        if train and not self.is_initializing():
            square.value = 0.9 * square.value + 0.1 * (x**2).mean((0, 1, 2))
        return nn.Dense(3)((x / jnp.sqrt(square.value)).mean((1, 2)))


def test_running_values_that_cannot_be_computed_anew_are_refused_before_training(tiny):
    config, record = Config(norm="mine", batch_size=6, num_epochs=1, evaluate_statistics=True), Memory()
    with pytest.raises(UserError, match="is none of these; .* or turn `evaluate_statistics` off"):
        train(config, tiny, model=MeanSquare(), record=record)
    assert record.rows == []
    assert train(dataclasses.replace(config, evaluate_statistics=False), tiny, model=MeanSquare()).status == "complete"


class Noisy(nn.Module):
    """A network that asks for random numbers in training."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2)))


def test_random_numbers_are_refused_before_training(tiny):
    config, record = Config(norm="mine", batch_size=6, num_epochs=1), Memory()
    with pytest.raises(UserError, match="gets no random numbers .* layer of mine-seed0 asks for .*dropout") as caught:
        train(config, tiny, model=Noisy(), record=record)
    assert "\n" not in str(caught.value) and record.rows == []


def test_norms_without_batch_statistics_have_nothing_to_compare(tiny):
    state = initial_state(Config(norm="gn"), tiny)
    splits = {name: on_device(getattr(tiny, name), tiny) for name in ("train", "validation", "test")}
    assert evaluate_statistics(state.model, state.variables, splits, 4, jax.random.key(0)) is None
