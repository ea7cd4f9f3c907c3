import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import BatchNorm, Config, GroupNorm, train
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.training.devices import devices_for
from jaxnorm.study.training.layer_rates import angle
from jaxnorm.study.training.record import Memory, Stopped
from jaxnorm.study.training.smoothness import along_gradient
from tests.study.report.workdirs import DIGITS, provenance_of

OFF = Config(norm="mine", batch_size=8, num_epochs=3)  # an epoch has three steps
ON = dataclasses.replace(OFF, probe_learning_rate=True, probe_smoothness=2)
WHOLE = dataclasses.replace(ON, batch_size=24, probe_smoothness=1)  # an epoch is one step


class ScaleInvariant(nn.Module):
    """Its convolution is divided by the deviation of its own output: its kernel's length changes nothing."""

    variance: float = 1.0

    @nn.compact
    def __call__(self, x, *, train):
        kernel = nn.initializers.variance_scaling(self.variance, "fan_in", "truncated_normal")
        y = nn.Conv(4, (3, 3), use_bias=False, name="invariant", kernel_init=kernel)(x)
        y = nn.relu((y - y.mean((0, 1, 2))) / y.std((0, 1, 2)))
        return nn.Dense(3, name="head")(y.mean((1, 2)))


class Normalized(nn.Module):
    """Two convolutions, one before batch norm and one before group norm."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3), name="first")(x)))
        x = nn.relu(GroupNorm(2)(nn.Conv(8, (3, 3), name="second")(x)))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def probed(config, dataset, **options):
    """The result, and of each epoch the arrays of probes."""
    record = Memory()
    result = train(config, dataset, record=record, **options)
    return result, record.arrays


def without_time(rows):
    return [row | {"seconds": 0} for row in rows]


def test_a_scale_invariant_layer_turns_and_grows_as_its_closed_form_says(tiny):
    """The gradient is at right angles to the kernel: a step of SGD turns it by atan(rate |g| / |w|)."""
    found = probed(WHOLE, tiny, model=ScaleInvariant())[1]
    for epoch in (1, 2):
        weight, gradient, _ = found[epoch]["rates/invariant"]
        longer, _, turned = found[epoch + 1]["rates/invariant"]
        assert turned == pytest.approx(np.arctan(0.1 * gradient / weight), rel=1e-4)
        assert longer**2 - weight**2 == pytest.approx((0.1 * gradient) ** 2, rel=2e-2), "a difference of near numbers"
        weight, gradient, _ = found[epoch]["rates/head"]
        assert found[epoch + 1]["rates/head"][2] != pytest.approx(np.arctan(0.1 * gradient / weight), rel=1e-2)


def test_a_kernel_of_three_times_the_length_turns_a_ninth(tiny):
    short, long = (
        probed(WHOLE, tiny, model=ScaleInvariant(variance))[1][1]["rates/invariant"] for variance in (1.0, 9.0)
    )
    assert long[0] == pytest.approx(3 * short[0], rel=1e-3)
    assert np.tan(long[2]) == pytest.approx(np.tan(short[2]) / 9, rel=1e-3)


def test_the_probes_change_no_bit_of_the_training(tiny):
    (off, nothing), (on, found) = (probed(config, tiny, model=Normalized()) for config in (OFF, ON))
    chex.assert_trees_all_equal(on.variables, off.variables)
    np.testing.assert_array_equal(on.test_logits, off.test_logits)
    assert without_time(on.rows) == without_time(off.rows)
    assert nothing == {1: {}, 2: {}, 3: {}}
    assert [name for name in found[3] if name.startswith("rates/")] == ["rates/first", "rates/head", "rates/second"]
    assert found[3]["smoothness/step"].tolist() == [6, 8], "before the first and the third of an epoch's three steps"
    assert all(np.isfinite(one).all() and (one > 0).all() for one in found[3].values())


def test_several_devices_find_what_one_finds(tiny):
    one, four = (probed(ON, tiny, model=Normalized(), devices=devices_for(ON, count))[1] for count in (1, 4))
    chex.assert_trees_all_close(one, four, rtol=1e-3)


class StopsAt(RunDirectory):
    """Asks to stop after a step."""

    stop_at = step = 0

    def stepped(self, step):
        super().stepped(step)
        self.step = step

    def should_stop(self):
        return self.step == self.stop_at > 0


@pytest.mark.parametrize("stop_at", [3, 4])
def test_what_a_run_on_disk_has_probed_is_the_same_if_it_was_stopped_on_the_way(tiny, tmp_path, stop_at):
    whole, found = probed(ON, tiny, model=Normalized())
    for stops in (True, False):
        run = StopsAt(tmp_path / ON.name, ON)
        run.stop_at = stop_at if stops else 0
        run.begin(tiny, provenance_of(None, DIGITS, "mine"))
        if stops:
            with pytest.raises(Stopped):
                train(ON, tiny, model=Normalized(), record=run)
    result = train(ON, tiny, model=Normalized(), record=run)
    chex.assert_trees_all_equal(result.variables, whole.variables)
    for epoch in (1, 2, 3):
        with np.load(run.path / f"arrays/epoch_{epoch:04d}.npz") as arrays:
            chex.assert_trees_all_equal(dict(arrays), found[epoch])


def test_along_the_gradient_a_quadratic_is_as_smooth_as_its_matrix_says():
    """The gradient A x changes by t A g along t g, so that beta is |A g| / |g|: in the end, an eigenvalue."""
    draw = np.random.default_rng(0)
    turned = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    eigenvalues, lengths = np.array([0.1, 1.0, 2.0, 3.0, 5.0, 40.0]), (0.01, 0.5, 3.0)
    matrix = turned @ np.diag(eigenvalues) @ turned.T
    with jax.enable_x64(True):
        bowl = jax.value_and_grad(lambda tree: tree["x"] @ jnp.asarray(matrix) @ tree["x"] / 2)
        for start, wanted in [*zip(turned.T, eigenvalues, strict=True), (draw.normal(size=6), None)]:
            found, gradient = along_gradient(bowl, {"x": jnp.asarray(start)}, lengths), matrix @ start
            assert float(found.gradient) == pytest.approx(np.linalg.norm(gradient))
            for length, loss, change in zip(lengths, found.losses, found.changes, strict=True):
                there = start - length * gradient
                assert float(loss) == pytest.approx(there @ matrix @ there / 2, rel=1e-9, abs=1e-12)
                beta = wanted or np.linalg.norm(matrix @ gradient) / np.linalg.norm(gradient)
                assert float(change / (length * found.gradient)) == pytest.approx(beta)


def test_the_loss_one_rate_along_the_gradient_is_that_after_the_step(tiny):
    """On the same images, whose order in the batch does not matter, without augmentation."""
    found = probed(WHOLE, dataclasses.replace(tiny, pad=0, flip=False), model=ScaleInvariant())[1]
    for epoch in (1, 2):
        along, after = found[epoch]["smoothness/loss_1"], found[epoch + 1]["smoothness/loss"]
        assert along.tolist() == pytest.approx(after.tolist(), rel=1e-4)
        assert found[epoch]["smoothness/change_4"] > found[epoch]["smoothness/change_0.5"]


def test_an_angle_keeps_its_digits_where_it_is_small():
    start = np.random.default_rng(0).normal(size=1000)
    aside = np.zeros(1000)
    aside[:2] = start[1], -start[0]
    aside *= np.linalg.norm(start) / np.linalg.norm(aside)
    for wanted in (1e-12, 1e-6, 0.3, 2.0):
        turned = 7 * (np.cos(wanted) * start + np.sin(wanted) * aside)
        assert angle(start, turned) == pytest.approx(wanted, rel=1e-9, abs=1e-15)
    assert np.isnan(angle(start, 0 * start))
    assert np.isnan(angle(start, jnp.full(1000, jnp.inf)))
