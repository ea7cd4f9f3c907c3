"""A normalization's three forms give the same bits and the same errors."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import UserError, functional
from tests.norms.forms import FORMS, NORMS

SHAPE = (4, 5, 6, 8)
PROGRAMS = {}


def step(apply, arrays, x, mask, train):
    """Output, running statistics, and gradients by all arrays and by x."""

    def loss(arrays, x):
        y, running = apply(arrays, x, mask, train)
        return (y.astype(jnp.float32) ** 3).sum(), (y, running)

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True)).lower(arrays, x)
    text = lowered.as_text()
    if text not in PROGRAMS:  # equal forms are mostly equal programs, which need not be compiled and run again
        PROGRAMS.clear()
        PROGRAMS[text] = lowered.compile()(arrays, x)
    return PROGRAMS[text]


FIELDS = ({}, {"dtype": jnp.bfloat16}, {"use_fast_variance": False})
CASES = [
    (name, fields, masked, train)
    for name, norm in NORMS.items()
    for fields in FIELDS
    for masked in ([True, False] if norm.masked else [False])
    for train in ([True, False] if norm.running else [True])
    if norm.takes(fields)
]


@pytest.mark.parametrize("name, fields, masked, train", CASES, ids=str)
def test_the_three_forms_give_the_same_bits(name, fields, masked, train):
    norm = NORMS[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE) * 3 + 7, fields.get("dtype", jnp.float32))
    mask = np.random.default_rng(2).uniform(size=(4, 5, 6, 1)) < 0.7 if masked else None
    linen, nnx, function = (step(norm.form(form, **fields), norm.arrays(8), x, mask, train) for form in FORMS)
    for other in (nnx, function):
        jax.tree.map(np.testing.assert_array_equal, other, linen)
    assert linen[1][0].dtype == x.dtype


FULL = np.ones(SHAPE, np.float32)
EIGHT = np.ones((8, 3, 8), np.float32)
MISTAKES = {
    "a mask that does not fit": (
        [name for name in NORMS if NORMS[name].masked],
        {},
        FULL,
        np.ones((3, 1), bool),
        r"mask must broadcast to the input's",
    ),
    "a dtype of integers": (list(NORMS), {"dtype": jnp.int32}, FULL, None, "dtype must be floating-point or complex"),
    "other channels": (list(NORMS), {}, FULL[..., :4], None, r"must have the shape of the feature axes, \(4,\), but"),
    "one value": (
        ["batch", "mixed", "renorm", "switchable", "evo_b0", "iter"],
        {},
        FULL[:1, :1, :1],
        None,
        "needs more than one value per channel to train",
    ),
    "no such axis": (
        ["batch", "mixed", "renorm"],
        {"axis": 4},
        FULL,
        None,
        "axis must be axes of the input, from -4 to 3, but",
    ),
    "no such features": (
        ["instance", "layer", "rms", "dyt", "derf"],
        {"feature_axes": (1, -5)},
        FULL,
        None,
        "feature_axes must be axes of",
    ),
    "nothing to reduce": (["layer", "group"], {"reduction_axes": (1, 7)}, FULL, None, "reduction_axes must be axes of"),
    "samples as features": (["mixed"], {"axis": 0}, EIGHT, None, "cannot include the leading dimension"),
    "an instance's samples": (["instance"], {"feature_axes": 0}, EIGHT, None, "cannot include the leading dimension"),
    "no last axis": (["group"], {"reduction_axes": (1, 2)}, FULL, None, "must include the last axis, 3, but are"),
    "unequal groups": (["group"], {"group_size": 3}, FULL, None, "group_size must divide the 8 channels, but is 3"),
    "groups by two numbers": (["group"], {"num_groups": 2}, FULL, None, "takes num_groups or group_size"),
    "unequal ghosts": (["ghost"], {"ghost_batch_size": 3}, FULL, None, "must divide the batch of 4, but is 3"),
    "ghosts on several devices": (["ghost"], {"axis_name": "x"}, FULL, None, "a ghost batch must be on one device"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_the_three_forms_give_the_same_error(what):
    names, fields, x, mask, words = MISTAKES[what]
    for name in names:
        found = set()
        for form in FORMS:
            norm = NORMS[name]
            if what == "other channels" and form == "linen":
                continue  # flax itself compares the shapes of parameters
            with pytest.raises(UserError, match=words) as error:
                norm.form(form, **fields)(norm.arrays(8), jnp.asarray(x, jnp.float32), mask)
            found.add(str(error.value))
        assert len(found) == 1, found
        assert "\n" not in found.pop()


def test_training_starts_without_running_statistics_and_evaluation_does_not():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    _, running = functional.batch_norm(x, train=True, momentum=0.9)
    np.testing.assert_allclose(running["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)
    _, same = functional.batch_norm(x, running=running, train=False)
    jax.tree.map(np.testing.assert_array_equal, running, same)
    for wrong, found in ((None, "None"), ({"mean": running["mean"]}, "a dict of mean"), ({}, "a dict of nothing")):
        with pytest.raises(UserError, match=f"must be a dict of mean and var, but are {found}; give what training"):
            functional.batch_norm(x, running=wrong, train=False)
    with pytest.raises(UserError, match=r"running var must have the shape of the feature axes, \(8,\), but has \(4,\)"):
        functional.batch_norm(x, running={**running, "var": np.ones(4)}, train=False)


UNLIMITED = [name for name in NORMS if name not in ("dyt", "derf")]  # these two are bounded functions of any input


@pytest.mark.parametrize("name", UNLIMITED)
def test_no_false_finite_value_hides_that_squares_overflow(name):
    x = (np.random.default_rng(0).normal(size=SHAPE) * 1e25).astype(np.float32)
    norm = NORMS[name]
    cases = [
        (norm.form("functional", **fields), mask)
        for fields in ({}, {"use_fast_variance": False})
        for mask in (None, np.ones(SHAPE, bool))
        if norm.takes(fields)
    ]
    for y, running in jax.jit(lambda *given: [apply(*given, mask) for apply, mask in cases])(norm.arrays(8), x):
        assert not np.isfinite(y).any()
        assert not any(np.isfinite(running.get(kept, np.nan)).any() for kept in ("var", "cov"))


def without_affine(name, form):
    """A layer without `scale` and `bias`, and its other arrays."""
    norm = NORMS[name]
    own = [key for key in ("scale", "bias") if key in norm.parameters]
    fields = {} if form == "functional" else {f"use_{key}": False for key in own}
    return norm.form(form, **fields), {key: value for key, value in norm.arrays(8).items() if key not in own}


def affine(name, shape):
    rng = np.random.default_rng(3)
    given = {key: rng.uniform(0.5, 1.5, shape).astype(np.float32) for key in ("scale", "bias")}
    return {key: value for key, value in given.items() if key in NORMS[name].parameters}


@pytest.mark.parametrize("name", NORMS)
def test_scale_and_bias_at_the_call_in_three_forms(name):
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    given, found = affine(name, (4, 8)), []
    for form in FORMS:
        apply, rest = without_affine(name, form)
        found.append(apply(rest, x, **given)[0])
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    # a sample as in a batch where all have its parameters
    alone, _ = NORMS[name].form("linen")(rest | {key: value[1] for key, value in given.items()}, x)
    np.testing.assert_allclose(found[0][1], alone[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (4, 1, 1, 8), (4, 5, 6, 8)], ids=str)
def test_shapes_of_scale_and_bias(shape):
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    given = affine("layer", shape)
    scale, bias = (value.reshape(1, 1, 1, 8) if len(shape) < 4 else value for value in given.values())
    if shape == (1, 8):  # one sample
        x = x[:1]
    for form in FORMS:
        apply, rest = without_affine("layer", form)
        y, _ = apply(rest, jnp.asarray(x), **given)
        np.testing.assert_allclose(y, functional.layer_norm(x) * scale + bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_what_the_call_refuses(name):
    x, given = jnp.ones(SHAPE), affine(name, (4, 8))
    for form in FORMS[:2]:
        for key, value in given.items():
            with pytest.raises(UserError, match=f"{key} must be a parameter of the layer or .* with use_{key}=False"):
                NORMS[name].form(form)(NORMS[name].arrays(8), x, **{key: value})
    for form in FORMS:
        apply, rest = without_affine(name, form)
        for key, value in given.items():
            words = rf"{key} must have the shape of the feature axes, \(8,\), but has \(3, 8\).*, \(4, 8\) for a value"
            with pytest.raises(UserError, match=words):
                apply(rest, x, **{key: value[:3]})


def test_the_functions_need_no_flax():
    program = "import sys, jaxnorm.functional; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
