"""Every further normalization computes its definition: float64 NumPy, written from the papers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx as flax_nnx
from scipy import special

import jaxnorm
from jaxnorm import UserError, functional, nnx

SHAPE = (4, 3, 5, 6)
EPSILON = 1e-3
BATCH, POSITIONS, SAMPLE = (0, 1, 2), (1, 2), (1, 2, 3)


def mean(x, axes, mask):
    where = np.broadcast_to(True if mask is None else mask, x.shape)
    return (x * where).sum(axes, keepdims=True) / np.maximum(where.sum(axes, keepdims=True), 1)


def moments(x, axes, mask):
    center = mean(x, axes, mask)
    return center, mean((x - center) ** 2, axes, mask)


def grouped(x, mask):
    """Variance over positions and three neighbouring channels."""
    parts = [moments(x[..., at : at + 3], SAMPLE, None if mask is None else mask[..., at : at + 3])[1] for at in (0, 3)]
    return np.concatenate([np.repeat(part, 3, -1) for part in parts], -1)


def update(running, mean_of_batch=None, var=None):
    new = {"mean": mean_of_batch, "var": var}
    return {name: 0.9 * old + 0.1 * new[name].ravel() for name, old in running.items()}


def rms(x, p, mask, running, train):
    return x / np.sqrt(mean(x**2, SAMPLE, mask) + EPSILON) * (1 + p["scale"]), {}


def frn(x, p, mask, running, train):
    y = x / np.sqrt(mean(x**2, POSITIONS, mask) + EPSILON) * p["scale"] + p["bias"]
    return np.maximum(y, p["threshold"]), {}


def dyt(x, p, mask, running, train):
    return np.tanh(p["alpha"] * x) * p["scale"] + p["bias"], {}


def derf(x, p, mask, running, train):
    return special.erf(p["alpha"] * x + p["shift"]) * p["scale"] + p["bias"], {}


def grn(x, p, mask, running, train):
    where = True if mask is None else mask
    n = np.sqrt((x**2 * where).sum(POSITIONS, keepdims=True))
    return x + p["scale"] * x * n / (n.mean(-1, keepdims=True) + EPSILON) + p["bias"], {}


def iln(x, p, mask, running, train):
    (mi, vi), (ml, vl) = moments(x, POSITIONS, mask), moments(x, SAMPLE, mask)
    instance, layer = (x - mi) / np.sqrt(vi + EPSILON), (x - ml) / np.sqrt(vl + EPSILON)
    return p["scale"] * (p["gate"] * instance + (1 - p["gate"]) * layer) + p["bias"], {}


def evo_b0(x, p, mask, running, train):
    _, vi = moments(x, POSITIONS, mask)
    vb, new = running["var"], running
    if train:
        _, vb = moments(x, BATCH, mask)
        new = update(running, var=vb)
    divisor = np.maximum(np.sqrt(vb + EPSILON), p["slope"] * x + np.sqrt(vi + EPSILON))
    return x / divisor * p["scale"] + p["bias"], new


def evo_s0(x, p, mask, running, train):
    y = x * special.expit(p["slope"] * x) / np.sqrt(grouped(x, mask) + EPSILON)
    return y * p["scale"] + p["bias"], {}


def renorm(x, p, mask, running, train):
    s_running = np.sqrt(running["var"] + EPSILON)
    if not train:
        return (x - running["mean"]) / s_running * p["scale"] + p["bias"], running
    m, v = moments(x, BATCH, mask)
    s = np.sqrt(v + EPSILON)
    r = np.clip(s / s_running, 1 / 1.1, 1.1)
    d = np.clip((m - running["mean"]) / s_running, -0.3, 0.3)
    return ((x - m) / s * r + d) * p["scale"] + p["bias"], update(running, m, v)


def switchable(x, p, mask, running, train):
    sets, new = [moments(x, POSITIONS, mask), moments(x, SAMPLE, mask), (running["mean"], running["var"])], running
    if train:
        sets[2] = moments(x, BATCH, mask)
        new = update(running, *sets[2])
    m, v = (
        sum(share * each[at] for share, each in zip(special.softmax(p[f"{name}_weights"]), sets, strict=True))
        for at, name in enumerate(("mean", "var"))
    )
    return (x - m) / np.sqrt(v + EPSILON) * p["scale"] + p["bias"], new


def bgn(x, p, mask, running, train):
    """Parts of two samples and three channels; evaluation weighs a sample's own moments with 0.3."""
    scaled = lambda m, v: (x - m) / np.sqrt(v + EPSILON) * p["scale"] + p["bias"]  # noqa: E731
    where = np.ones(SHAPE, bool) if mask is None else mask

    def of_parts(samples):
        m, square, count = np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
        for first in range(0, len(x), samples):
            for channel in (0, 3):
                at = (slice(first, first + samples), ..., slice(channel, channel + 3))
                m[at], square[at] = x[at][where[at]].mean(), (x[at][where[at]] ** 2).mean()
                count[at] = where[at].sum()
        return m, square, count

    if not train:
        m, square, _ = of_parts(1)
        weighed = 0.3 * m + 0.7 * running["mean"]
        return scaled(weighed, 0.3 * square + 0.7 * (running["var"] + running["mean"] ** 2) - weighed**2), running
    m, square, count = of_parts(2)
    v, parts = square - m**2, slice(None, None, 2)
    share = count[parts, 0, 0] / count[parts, 0, 0].sum(0)
    return scaled(m, v), update(running, *((share * each[parts, 0, 0]).sum(0) for each in (m, v)))


def whitened(x, p, mask, running, train):
    """Groups of three channels, five iterations."""
    where = np.broadcast_to(True if mask is None else mask, SHAPE)
    m, cov, new = running["mean"], running["cov"], running
    if train:
        m = mean(x, BATCH, mask)
        d = ((x - m) * where).reshape(-1, 2, 3)
        both = where.reshape(-1, 2, 3).astype(float)
        cov = np.einsum("ngi,ngj->gij", d, d) / np.einsum("ngi,ngj->gij", both, both)
        new = {"mean": 0.9 * running["mean"] + 0.1 * m.ravel(), "cov": 0.9 * running["cov"] + 0.1 * cov}
    roots = []
    for matrix in cov + EPSILON * np.eye(3):
        root = np.eye(3)
        for _ in range(5):
            root = (3 * root - np.linalg.matrix_power(root, 3) @ matrix / np.trace(matrix)) / 2
        roots.append(root / np.sqrt(np.trace(matrix)))
    y = np.einsum("...gi,gij->...gj", (x - m).reshape(*SHAPE[:-1], 2, 3), np.stack(roots)).reshape(SHAPE)
    return y * p["scale"] + p["bias"], new


@dataclasses.dataclass(frozen=True)
class Definition:
    function: Callable[..., Any]
    oracle: Callable[..., Any]
    parameters: tuple[str, ...] = ("scale", "bias")
    running: tuple[str, ...] = ()
    masked: bool = True
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


BOTH = ("mean", "var")
DEFINITIONS = {
    "rms": Definition(
        functional.rms_norm, rms, ("scale",), fields={"scale_offset": 1.0, "reduction_axes": SAMPLE, "feature_axes": 3}
    ),
    "frn": Definition(functional.filter_response_norm, frn, ("scale", "bias", "threshold")),
    "dyt": Definition(functional.dynamic_tanh, dyt, ("scale", "bias", "alpha"), masked=False),
    "derf": Definition(functional.dynamic_erf, derf, ("scale", "bias", "alpha", "shift"), masked=False),
    "grn": Definition(functional.global_response_norm, grn),
    "iln": Definition(functional.instance_layer_norm, iln, ("scale", "bias", "gate")),
    "evo_b0": Definition(functional.evo_norm_b0, evo_b0, ("scale", "bias", "slope"), ("var",)),
    "evo_s0": Definition(functional.evo_norm_s0, evo_s0, ("scale", "bias", "slope"), fields=dict(num_groups=2)),
    "renorm": Definition(functional.batch_renorm, renorm, running=BOTH, fields=dict(r_max=1.1, d_max=0.3)),
    "switchable": Definition(
        functional.switchable_norm, switchable, ("scale", "bias", "mean_weights", "var_weights"), BOTH
    ),
    "bgn": Definition(
        functional.batch_group_norm,
        bgn,
        running=BOTH,
        fields=dict(group_size=3, ghost_batch_size=2, own_weight=0.3),
    ),
    "iter": Definition(functional.iter_norm, whitened, running=("mean", "cov"), fields=dict(group_size=3)),
}


def arrays(definition, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, SHAPE) * rng.uniform(0.5, 2, 6)
    size = {"mean_weights": 3, "var_weights": 3}
    parameters = {name: rng.uniform(0.5, 1.5, size.get(name, 6)) for name in definition.parameters}
    running = {name: rng.uniform(0.5, 1.5, 6) for name in definition.running}
    if "cov" in running:
        factors = rng.normal(size=(2, 3, 3))
        running["cov"] = factors @ factors.transpose(0, 2, 1) + np.eye(3)
    return jax.tree.map(lambda value: value.astype(dtype), (x, parameters, running))


def apply(definition, x, parameters, running, mask, train):
    settings = dict(definition.fields)
    if definition.running:
        settings |= dict(running=running, train=train, momentum=0.9)
    if definition.masked:
        settings |= dict(mask=mask, epsilon=EPSILON)
    found = definition.function(x, **parameters, **settings)
    return found if definition.running else (found, {})


CASES = [
    (name, masked, train)
    for name, definition in DEFINITIONS.items()
    for masked in ([False, True] if definition.masked else [False])
    for train in ([True, False] if definition.running else [True])
]


@pytest.mark.parametrize("name, masked, train", CASES)
def test_value_running_statistics_and_gradient_are_those_of_the_definition(name, masked, train):
    definition = DEFINITIONS[name]
    rng = np.random.default_rng(1)
    mask = rng.uniform(size=SHAPE) < 0.7 if masked else None
    cotangent = rng.normal(size=SHAPE)
    with jax.enable_x64(True):
        x, parameters, running = arrays(definition, np.float64)
        direction = jax.tree.map(lambda value: rng.normal(size=value.shape), (x, parameters))

        def both(x, parameters):
            (y, new), pull = jax.vjp(lambda *given: apply(definition, *given, running, mask, train), x, parameters)
            return y, new, pull((jnp.asarray(cotangent), jax.tree.map(jnp.zeros_like, new)))

        y, new, gradient = jax.device_get(jax.jit(both)(x, parameters))
    expected, expected_new = definition.oracle(x, parameters, mask, running, train)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), new, dict(expected_new))
    if name == "renorm" and train:  # r and d are constants for derivatives, not for differences: see the next test
        return

    def loss(step):
        moved = jax.tree.map(lambda value, d: value + step * d, (x, parameters), direction)
        return (definition.oracle(*moved, mask, running, train)[0] * cotangent).sum()

    slope = sum(float((a * b).sum()) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    differences = (8 * (loss(1e-4) - loss(-1e-4)) - (loss(2e-4) - loss(-2e-4))) / 12e-4
    np.testing.assert_allclose(slope, differences, rtol=1e-7)


def test_batch_renorm_is_batch_norm_whose_scale_and_bias_are_corrected():
    """The gradient too: r and d are constants for it."""
    x, parameters, running = arrays(DEFINITIONS["renorm"], np.float32)
    s_running, s = np.sqrt(running["var"] + EPSILON), np.sqrt(x.var(BATCH) + EPSILON)
    r = np.clip(s / s_running, 1 / 1.1, 1.1)
    d = np.clip((x.mean(BATCH) - running["mean"]) / s_running, -0.3, 0.3)

    def corrected(x):
        scale, bias = parameters["scale"] * r, parameters["scale"] * d + parameters["bias"]
        return (functional.batch_norm(x, scale, bias, train=True, epsilon=EPSILON)[0] ** 3).sum()

    def ours(x):
        return (apply(DEFINITIONS["renorm"], x, parameters, running, None, True)[0] ** 3).sum()

    for found, expected in zip(jax.value_and_grad(ours)(x), jax.value_and_grad(corrected)(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_large_means_cost_no_digits_and_half_precision_does_not_overflow(name):
    definition = DEFINITIONS[name]
    x, parameters, running = arrays(definition, np.float32)
    if name in (
        "iln",
        "evo_b0",
        "evo_s0",
        "renorm",
        "switchable",
        "bgn",
        "iter",
    ):  # the others divide by the mean square
        moved = (x + np.float32(1e4)).astype(np.float32)
        y = np.asarray(apply(definition, moved, parameters, running, None, True)[0])
        expected = definition.oracle(*jax.tree.map(np.float64, (moved, parameters)), None, running, True)[0]
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-3)
    half = (x * 300).astype(np.float16)
    y = np.asarray(apply(definition, half, jax.tree.map(np.float16, parameters), running, None, True)[0])
    assert y.dtype == np.float16
    exact = definition.oracle(
        *jax.tree.map(np.float64, (half, jax.tree.map(np.float16, parameters))), None, running, True
    )
    np.testing.assert_allclose(y, exact[0], rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_zeros_have_finite_gradients(name):
    definition = DEFINITIONS[name]
    _, parameters, running = arrays(definition, np.float32)
    gradient = jax.grad(lambda x: apply(definition, x, parameters, running, None, True)[0].sum())(
        np.zeros((2, 1, 1, 6))
    )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name not in ("rms", "iln")])
def test_complex_input_is_refused(name):
    _, parameters, running = arrays(DEFINITIONS[name], np.float32)
    with pytest.raises(UserError, match="input must be real, but is complex64; normalize real and imaginary part"):
        apply(DEFINITIONS[name], np.ones(SHAPE, np.complex64), parameters, running, None, True)


def test_a_mistake_names_rule_value_and_fix():
    x = np.ones(SHAPE, np.float32)
    with pytest.raises(UserError, match=r"must have the shape \(3,\): instance, layer, batch; but have \(2,\); give"):
        functional.switchable_norm(x, mean_weights=np.ones(2), var_weights=np.ones(3), train=True)
    with pytest.raises(UserError, match="evo_norm_s0's num_groups must divide the 6 channels, but is 4; choose"):
        functional.evo_norm_s0(x, num_groups=4)
    with pytest.raises(UserError, match="running statistics must be a dict of var, but are a dict of mean; give"):
        functional.evo_norm_b0(x, running={"mean": np.zeros(6)}, train=False)
    with pytest.raises(UserError, match="evo_norm_b0 needs more than one value per channel to train"):
        functional.evo_norm_b0(x[:1, :1, :1], train=True)
    with pytest.raises(UserError, match="own_weight must be from 0 to 1, but is 1.5; choose"):
        functional.batch_group_norm(x, train=True, own_weight=1.5)
    with pytest.raises(
        UserError, match="iter_norm's group_size must divide the 6 channels, but is 4; choose a divisor"
    ):
        functional.iter_norm(x, train=True, group_size=4)
    with pytest.raises(UserError, match=r"running cov must have the shape \(1, 6, 6\), but has \(2, 3, 3\); give what"):
        functional.iter_norm(x, running={"mean": np.zeros(6), "cov": np.zeros((2, 3, 3))}, train=False)
    with pytest.raises(
        UserError, match=r"needs more than one weight per output channel, but a kernel of shape \(1, 4\)"
    ):
        functional.standardize_weights(np.ones((1, 4)))


CORNERS = {
    "batch": (dict(group_size=1), lambda x: functional.batch_norm(x, train=True, epsilon=EPSILON)[0]),
    "ghost": (
        dict(group_size=1, ghost_batch_size=2),
        lambda x: functional.batch_norm(x, train=True, epsilon=EPSILON, ghost_batch_size=2)[0],
    ),
    "group": (
        dict(group_size=3, ghost_batch_size=1),
        lambda x: functional.group_norm(x, num_groups=2, epsilon=EPSILON),
    ),
    "instance": (dict(group_size=1, ghost_batch_size=1), lambda x: functional.instance_norm(x, epsilon=EPSILON)),
    "layer": (
        dict(num_groups=1, group_size=None, ghost_batch_size=1),
        lambda x: functional.layer_norm(x, reduction_axes=SAMPLE, epsilon=EPSILON),
    ),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_the_corners_of_batch_group_norm_are_other_norms(corner):
    fields, other = CORNERS[corner]
    x = np.random.default_rng(0).normal(3, 2, SHAPE).astype(np.float32)
    y, _ = functional.batch_group_norm(x, train=True, epsilon=EPSILON, **fields)
    np.testing.assert_allclose(y, other(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (6, 5)])
def test_standardized_weights_are_those_of_the_definitions(shape):
    kernel, gain = np.random.default_rng(0).normal(2, 3, shape), np.random.default_rng(1).normal(size=5)
    axes, count = tuple(range(len(shape) - 1)), kernel[..., 0].size
    centered, var = kernel - kernel.mean(axes), kernel.var(axes)
    with jax.enable_x64(True):
        for found, expected in (
            (functional.standardize_weights(kernel), centered / (kernel.std(axes, ddof=1) + 1e-5)),
            (functional.standardize_weights(kernel, epsilon=1e-6, unbiased=False), centered / np.sqrt(var + 1e-6)),
            (
                functional.standardize_and_scale_weights(kernel, gain),
                centered * gain / np.sqrt(np.maximum(count * var, 1e-4)),
            ),
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def convolution(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("name", ["WeightStandardizedConv", "ScaledWeightStandardizedConv"])
def test_convolutions_standardize_their_kernels_in_both_interfaces(name):
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    linen = getattr(jaxnorm, name)(4, (3, 3), use_bias=False)
    variables = linen.init(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    layer = getattr(nnx, name)(3, 4, (3, 3), use_bias=False, rngs=flax_nnx.Rngs(0))
    layer.kernel[...] = kernel
    function = functional.standardize_weights
    if name.startswith("Scaled"):
        variables["params"]["gain"] = layer.gain[...] = jnp.arange(1.0, 5.0)
        function = functools.partial(functional.standardize_and_scale_weights, gain=jnp.arange(1.0, 5.0))

    def loss(kernel):
        return (convolution(x, function(kernel)) ** 2).sum()

    value, gradient = jax.value_and_grad(loss)(kernel)
    found = jax.value_and_grad(lambda variables: (linen.apply(variables, x) ** 2).sum())(variables)
    np.testing.assert_allclose(found[0], value, rtol=1e-5)
    np.testing.assert_allclose(found[1]["params"]["kernel"], gradient, rtol=1e-4, atol=1e-2)
    of_nnx = flax_nnx.value_and_grad(lambda layer: (layer(x) ** 2).sum())(layer)
    np.testing.assert_allclose(of_nnx[0], value, rtol=1e-5)
    np.testing.assert_allclose(of_nnx[1]["kernel"][...], gradient, rtol=1e-4, atol=1e-2)
