"""On a mesh with Explicit axes, the default of `jax.make_mesh`, everything gives the answer of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnorm import Conv, functional
from jaxnorm.conv.convolution import convolve
from tests.norms.forms import FORMS, NORMS

SHAPE = (8, 4, 6, 8)
SPECS = [P("data"), P(None, "data"), P(None, None, None, "model"), P("data", None, None, "model"), P()]


@pytest.fixture
def mesh():
    if len(jax.devices()) < 8:
        pytest.skip("needs 8 devices; tests/conftest.py forces them on CPU")
    return jax.make_mesh((4, 2), ("data", "model"))


def data(shape=SHAPE):
    return np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)


def spec_of(array):
    return jax.typeof(array).sharding.spec


def step(apply, arrays, x, mask=None):
    """Output, running statistics, and gradients by the parameters and by x."""

    def loss(arrays, x):
        y, running = apply(arrays, x, mask)
        return (y**3).sum(), (y, running)

    gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)(arrays, x)
    return outputs, gradients


def assert_same(found, expected):
    def same(value, wanted):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())

    jax.tree.map(same, found, expected)


@pytest.mark.parametrize("name", NORMS)
def test_outputs_statistics_and_gradients(name, mesh):
    norm, x = NORMS[name], data()
    arrays, mask = norm.arrays(8), x > -1
    forms = [norm.form(form) for form in FORMS]
    expected = jax.jit(lambda *a: (step(forms[-1], *a), step(forms[-1], *a, mask)))(arrays, x)
    cases = [(forms[-1], spec) for spec in SPECS] + [(form, P("data")) for form in forms[:-1]]

    @jax.jit
    def program(arrays, xs, masked):
        found = [step(form, arrays, x) for (form, _), x in zip(cases, xs, strict=True)]
        return found, step(forms[-1], arrays, masked, mask)

    xs = [jax.device_put(x, NamedSharding(mesh, spec)) for _, spec in cases]
    with jax.set_mesh(mesh):
        found, masked = program(arrays, xs, xs[3])
    for given, each in zip(xs, found, strict=True):
        assert_same(each, expected[0])
        (y, running), (_, by_x) = each
        assert spec_of(y) == spec_of(by_x) == spec_of(given)
        assert all(value.sharding.is_fully_replicated for value in running.values())
    assert_same(masked, expected[1])


def test_without_a_context_mesh(mesh):
    x, scale = data(), np.linspace(0.5, 2, 8).astype(np.float32)
    sharded = jax.device_put(x, NamedSharding(mesh, P("data", None, None, "model")))
    running = {"mean": jnp.zeros(8), "var": jnp.ones(8)}
    kept = jax.device_put(running, NamedSharding(mesh, P("model")))
    expected = functional.batch_norm(x, scale, running=running, train=True)
    for batch_norm in (functional.batch_norm, jax.jit(functional.batch_norm, static_argnames="train")):
        y, updated = found = batch_norm(sharded, scale, running=kept, train=True)
        assert_same(found, expected)
        assert spec_of(y) == spec_of(sharded)
        assert spec_of(updated["var"]) == spec_of(kept["var"])
    assert_same(functional.rms_norm(sharded, scale), functional.rms_norm(x, scale))


def test_parameters_are_updated_outside_of_jit(mesh):
    x = jax.device_put(data((8, 6)), NamedSharding(mesh, P("data", "model")))
    scale = jnp.linspace(0.5, 2, 6)  # not on the mesh
    with jax.set_mesh(mesh):
        updated = scale - jax.grad(lambda scale: (functional.layer_norm(x, scale) ** 3).sum())(scale)
    expected = scale - jax.grad(lambda scale: (functional.layer_norm(data((8, 6)), scale) ** 3).sum())(scale)
    assert_same(updated, expected)


@pytest.mark.parametrize("manual", [{"data"}, {"data", "model"}], ids=len)
def test_within_shard_map(manual, mesh):
    x = data()

    def loss(x, axis_name=None):
        y, running = functional.batch_norm(x, train=True, axis_name=axis_name)
        return (y**3).sum(), running["var"]

    def local(x):
        total, var = loss(x, "data")
        return jax.lax.psum(total, "data"), var

    with jax.set_mesh(mesh):
        mapped = jax.shard_map(local, in_specs=P("data"), out_specs=(P(), P()), axis_names=manual)
        found = jax.jit(jax.value_and_grad(mapped, has_aux=True))(jax.reshard(x, P("data")))
    assert_same(found, jax.value_and_grad(loss, has_aux=True)(x))


@pytest.mark.parametrize("case", ["image", "strides", "bfloat16", "dilation", "groups", "one dimension"])
def test_convolutions(case, mesh):
    x, kernel = data(), np.random.default_rng(1).normal(size=(3, 3, 8, 4)).astype(np.float32)
    options = dict(window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    dtype = jnp.bfloat16 if case == "bfloat16" else jnp.float32
    if case == "strides":
        options |= dict(window_strides=(2, 2))  # two rows, which four devices cannot divide
    if case == "dilation":
        options |= dict(rhs_dilation=(2, 1))
    if case == "groups":
        kernel = kernel[:, :, :4]
        options |= dict(feature_group_count=2)
    if case == "one dimension":
        x, kernel = x.reshape(8, 24, 8), kernel[0]
        options |= dict(window_strides=(1,), dimension_numbers=("NHC", "HIO", "NHC"))

    def both(x, kernel):
        def loss(x, kernel):
            y = convolve(x.astype(dtype), kernel.astype(dtype), **options)
            return (y.astype(jnp.float32) ** 2).sum(), y

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)

    last = (None,) * (x.ndim - 1)
    cases = [(P("data"), P()), (P(None, "data"), P(*last, "model")), (P("data", *last[1:], "model"), P(*last, "model"))]
    given = [
        [jax.device_put(each, NamedSharding(mesh, spec)) for each, spec in zip((x, kernel), specs, strict=True)]
        for specs in cases
    ]
    expected = jax.jit(both)(x, kernel)
    with jax.set_mesh(mesh):
        found = jax.jit(lambda given: [both(*each) for each in given])(given)
    for each, (of_x, of_kernel) in zip(found, given, strict=True):
        tolerance = 2e-2 if case == "bfloat16" else 1e-5
        for value, wanted in zip(jax.tree.leaves(each), jax.tree.leaves(expected), strict=True):
            value, wanted = np.asarray(value, np.float32), np.asarray(wanted, np.float32)
            np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())
        assert spec_of(each[0][0]) == spec_of(of_x)
        assert spec_of(each[0][1]) == spec_of(of_kernel)
    assert found[2][1].sharding.spec[0] == "data"


def test_the_layer_conv_without_a_context_mesh(mesh):
    x = data()
    layer = Conv(4, (3, 3))
    variables = layer.init(jax.random.key(0), x)
    found = layer.apply(variables, jax.device_put(x, NamedSharding(mesh, P("data"))))
    assert_same(found, layer.apply(variables, x))
    assert found.sharding.spec[0] == "data"
