"""Our own kernels: their numbers, when they are used, and JAX's transformations."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxnorm.conv import kernels
from jaxnorm.conv.convolution import convolve

ROOT = Path(__file__).parents[2]
IMAGES = ("NHWC", "HWIO", "NHWC")
HIGHEST = lax.Precision.HIGHEST
ONE = ((1, 1), (1, 1))


def skip_without_compiler():
    if kernels.is_off():
        pytest.skip(f"{kernels.SWITCH} is off")
    if kernels.compiler() is None:
        pytest.skip("there is no C++ compiler")
    assert kernels.missing() is None


@pytest.fixture
def calls(monkeypatch):
    """The calls of kernels, by name and whether exact. The kernels behave as with a single CPU device."""
    skip_without_compiler()
    monkeypatch.setattr(kernels, "alone", lambda: True)
    made = []
    plain = jax.ffi.ffi_call

    def recorded(target, *arguments, **options):
        def called(*arrays, **attributes):
            made.append((target.removeprefix("jaxnorm_conv_"), attributes["exact"]))
            return plain(target, *arguments, **options)(*arrays, **attributes)

        return called

    monkeypatch.setattr(jax.ffi, "ffi_call", recorded)
    return made


def all_three(exact=False):
    return sorted((name, exact) for name, *_ in kernels.PRODUCTS.values())


def arrays(batch, size, features, kernel, strides, padding, seed=0):
    """Input, kernel and a gradient of the output."""
    rng = np.random.default_rng(seed)
    lengths = [
        (length + sum(edges) - taps) // stride + 1
        for length, edges, taps, stride in zip(size, padding, kernel, strides, strict=True)
    ]
    shapes = (batch, *size, features[0]), (*kernel, *features), (batch, *lengths, features[1])
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def oracle(x, kernel, g, strides, padding):
    """The definition, in float64: output, and gradients by input and kernel."""
    x, kernel, g = (array.astype(np.float64) for array in (x, kernel, g))
    padded = np.pad(x, ((0, 0), *padding, (0, 0)))
    y, by_padded, by_kernel = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(kernel.shape[:2]):
        rows, columns = (
            slice(start, start + stride * (length - 1) + 1, stride)
            for start, stride, length in zip((i, j), strides, g.shape[1:3], strict=True)
        )
        part = padded[:, rows, columns]
        y += part @ kernel[i, j]
        by_kernel[i, j] = np.tensordot(part, g, ((0, 1, 2), (0, 1, 2)))
        by_padded[:, rows, columns] += g @ kernel[i, j].T
    (top, _), (left, _) = padding
    return y, by_padded[:, top : top + x.shape[1], left : left + x.shape[2]], by_kernel


def products(x, kernel, g, strides, padding, precision=None):
    fields = dict(strides=strides, padding=padding, precision=precision)
    y = kernels.forward(jax.ShapeDtypeStruct(g.shape, g.dtype), x, kernel, **fields)
    return [np.asarray(each) for each in (y, *kernels.gradients(x, kernel, g, **fields))]


def check(found, expected, tolerance=1e-5):
    for name, value, wanted in zip(("value", "by input", "by kernel"), found, expected, strict=True):
        assert value.shape == wanted.shape, name
        scale = np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=name)


CASES = [
    # batch, image, features, kernel, strides, padding
    (4, (8, 8), (3, 5), (3, 3), (2, 2), ONE),
    (3, (9, 7), (2, 4), (1, 1), (2, 2), ((0, 0), (0, 0))),
    (2, (10, 9), (2, 3), (2, 4), (1, 1), ((0, 2), (3, 1))),
    (3, (6, 7), (32, 16), (3, 3), (1, 1), ONE),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_of_convolve_are_jax_s_in_float64(case, calls):
    *_, strides, padding = case
    x, kernel, g = arrays(*case)

    def with_gradients(operation, x, kernel, g):
        y, pullback = jax.vjp(lambda *a: operation(*a, strides, padding, dimension_numbers=IMAGES), x, kernel)
        return y, *pullback(g)

    found = jax.jit(lambda *a: with_gradients(convolve, *a))(x, kernel, g)
    with jax.enable_x64(True):
        expected = with_gradients(lax.conv_general_dilated, *(each.astype(np.float64) for each in (x, kernel, g)))
    check(found, expected)
    check(oracle(x, kernel, g, strides, padding), expected, 1e-12)
    assert sorted(calls) == all_three()


NETWORK = [
    ((32, 32), (3, 16), (3, 3), (1, 1), ONE),
    ((32, 32), (16, 16), (3, 3), (1, 1), ONE),
    ((32, 32), (16, 32), (3, 3), (2, 2), ((0, 1), (0, 1))),
    ((32, 32), (16, 32), (1, 1), (2, 2), ((0, 0), (0, 0))),
    ((16, 16), (32, 32), (3, 3), (1, 1), ONE),
    ((8, 8), (64, 64), (3, 3), (1, 1), ONE),
]
ODD = [
    # Winograd's tiles beyond the edges
    (2, (9, 7), (32, 16), (3, 3), (1, 1), ONE),
    (2, (5, 5), (32, 16), (3, 3), (1, 1), ((3, 0), (1, 2))),
    (2, (1, 1), (32, 16), (3, 3), (1, 1), ((0, 3), (3, 2))),
    (2, (2, 3), (32, 16), (3, 3), (1, 1), ((2, 2), (0, 3))),
    (3, (9, 7), (16, 48), (3, 3), (1, 1), ((0, 0), (0, 0))),
    (2, (6, 6), (48, 16), (3, 3), (1, 1), ((5, 4), (4, 5))),
    # channels that do not fill a vector, and more than two vectors
    (2, (7, 6), (17, 5), (3, 3), (1, 1), ONE),
    (2, (7, 6), (5, 33), (3, 3), (1, 1), ONE),
    (2, (6, 5), (40, 70), (3, 3), (2, 1), ONE),
    # larger than a band, and more rows of tiles than fit into the cache
    (1, (70, 90), (64, 16), (3, 3), (1, 1), ONE),
    (1, (70, 90), (64, 20), (3, 3), (2, 2), ONE),
    (1, (3, 300), (16, 16), (3, 3), (1, 1), ONE),
    (1, (300, 3), (16, 16), (3, 3), (1, 1), ONE),
    # strides longer than the kernel
    (2, (9, 8), (3, 4), (1, 2), (3, 3), ((1, 2), (0, 3))),
    (2, (11, 11), (16, 16), (4, 5), (3, 2), ((2, 1), (4, 4))),
    (2, (8, 8), (16, 16), (5, 5), (1, 1), ((2, 2), (2, 2))),
]


@pytest.mark.parametrize("precision", [None, HIGHEST], ids=["default", "highest"])
@pytest.mark.parametrize(
    "case", [*((batch, *case) for case in NETWORK for batch in (3, 19)), (33, *NETWORK[4]), *ODD], ids=str
)
def test_the_network_s_shapes_and_odd_ones(case, precision, calls):
    *_, strides, padding = case
    given = arrays(*case)
    check(products(*given, strides, padding, precision), oracle(*given, strides, padding))
    assert sorted(calls) == all_three(exact=precision is HIGHEST)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_shapes_of_all_kinds(data):
    skip_without_compiler()

    def pair(low, high):
        return data.draw(st.tuples(*[st.integers(low, high)] * 2))

    fitting = data.draw(st.booleans())
    kernel, strides = ((3, 3), (1, 1)) if fitting else (pair(1, 5), pair(1, 3))
    features = data.draw(st.tuples(*[st.sampled_from([16, 32, 48])] * 2)) if fitting else pair(1, 40)
    padding = pair(0, 3), pair(0, 3)
    size = [max(side, taps - sum(edges)) for side, taps, edges in zip(pair(1, 14), kernel, padding, strict=True)]
    batch, precision = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([None, HIGHEST]))
    x, weights, g = arrays(batch, size, features, kernel, strides, padding)
    check(products(x, weights, g, strides, padding, precision), oracle(x, weights, g, strides, padding))


def squares(x, kernel, **options):
    def loss(x, kernel):
        y = convolve(x, kernel, (1, 1), "SAME", dimension_numbers=IMAGES, **options)
        return (y.astype(jnp.float32) ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))(x, kernel)


FORMS = ["highest", "float32", HIGHEST, (HIGHEST, HIGHEST), ("highest", "highest")]


@pytest.mark.parametrize("precision", FORMS, ids=str)
def test_the_highest_precision_takes_the_direct_sums(precision, calls):
    x, kernel, _ = arrays(1, (4, 4), (16, 16), (3, 3), (1, 1), ONE)
    squares(x, kernel, precision=precision)
    assert sorted(calls) == all_three(exact=True)


def test_the_default_precision_is_the_call_s_for_its_gradients_too(calls):
    x, kernel, g = arrays(1, (4, 4), (16, 16), (3, 3), (1, 1), ONE)
    with jax.default_matmul_precision("highest"):
        _, pullback = jax.vjp(lambda *a: convolve(*a, (1, 1), "SAME", dimension_numbers=IMAGES), x, kernel)
    pullback(g)
    assert sorted(calls) == all_three(exact=True)
    calls.clear()
    squares(x, kernel, precision="high")
    assert sorted(calls) == all_three()


@pytest.mark.parametrize("size", [1, 1e4], ids=["alike", "of all sizes"])
def test_errors_of_direct_sums_are_of_their_own_terms(size, calls):
    """Minimal filtering is as exact on the whole, but large pixels under small weights must cancel."""
    case = (8, (16, 16), (32, 32), (3, 3), (1, 1), ONE)
    x, kernel, g = arrays(*case)
    if size > 1:
        x[:, 3:7] *= size
        g[:, 3:7] *= size
        kernel[[0, 2]] = 0
    expected = oracle(x, kernel, g, *case[-2:])
    terms = oracle(*map(np.abs, (x, kernel, g)), *case[-2:])
    direct, filtered = (
        [(np.abs(a - b) / c).max() for a, b, c in zip(found, expected, terms, strict=True)]
        for found in (products(x, kernel, g, *case[-2:], precision) for precision in (HIGHEST, None))
    )
    assert max(direct) < 8e-7
    if size == 1:
        assert max(filtered) < 8e-7
    else:
        assert min(filtered[:2]) > 1e-5


@pytest.mark.parametrize("precision", [None, HIGHEST], ids=["default", "highest"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_changes_only_its_image(value, precision, calls):
    case = (3, (7, 7), (16, 16), (3, 3), (1, 1), ONE)
    x, kernel, g = arrays(*case)
    sound = products(x, kernel, g, *case[-2:], precision)
    x[1, 3, 6, 15] = g[1, 6, 0, 0] = value
    for found, wanted in zip(products(x, kernel, g, *case[-2:], precision)[:2], sound[:2], strict=True):
        assert not np.isfinite(found[1]).all()
        np.testing.assert_array_equal(found[[0, 2]], wanted[[0, 2]])


DIGEST = """
import concurrent.futures, hashlib, jax, numpy as np
from pathlib import Path
from jaxnorm.conv import kernels
with concurrent.futures.ThreadPoolExecutor(3) as pool:  # XLA would not accept a second registration
    assert list(pool.map(lambda _: kernels.missing(), range(3))) == [None] * 3
digest = hashlib.sha256()
rng = np.random.default_rng(0)
cases = (19, 16, 32, 32, 1), (1, 32, 16, 16, 1), (33, 9, 3, 16, 1), (5, 8, 16, 20, 2)
for batch, size, inputs, outputs, stride in cases:
    length = -(-size // stride)
    shapes = (batch, size, size, inputs), (3, 3, inputs, outputs), (batch, length, length, outputs)
    x, kernel, g = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    fields = dict(strides=(stride, stride), padding=((1, 1), (1, 1)), precision=None)
    for _ in range(3):
        y = kernels.forward(jax.ShapeDtypeStruct(g.shape, g.dtype), x, kernel, **fields)
        found = [each.tobytes() for each in map(np.asarray, (y, *kernels.gradients(x, kernel, g, **fields)))]
        assert found == globals().setdefault(f"found{batch}", found), "calls differ"
    digest.update(b"".join(found))
names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
print(digest.hexdigest(), sum("Eigen" in name for name in names))
"""


def run(code, **environment):
    """What a program with one CPU device prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", **environment}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted by /proc")
def test_results_depend_neither_on_the_call_nor_on_the_number_of_threads():
    skip_without_compiler()
    (one, few), (other, many) = (run(DIGEST, NPROC=str(number)).split() for number in (1, 5))
    assert int(few) < int(many)
    assert one == other


OUT_OF_MEMORY = """
import os, resource, jax, numpy as np
from pathlib import Path
from jaxnorm.conv import kernels
assert kernels.missing() is None
c = int(os.environ["CHANNELS"])
x, g = np.ones((16, 1, 1, c), np.float32), np.ones((16, 1, 1, c), np.float32)
kernel = np.broadcast_to(np.float32(0), (1, 1, c, c))  # whose shape is used, and no value
product = jax.jit(lambda x, kernel, g: kernels.gradients(
    x, kernel, g, strides=(1, 1), padding=((0, 0), (0, 0)), precision=None)[1]).lower(
    x, jax.ShapeDtypeStruct((1, 1, c, c), np.float32), g).compile()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 96 * 2**20, resource.RLIM_INFINITY))
try:
    product(x, kernel, g).block_until_ready()
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert (product(x, kernel, g) == 16).all()
print("went on")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited as Linux does")
def test_lack_of_memory_is_an_error_that_a_program_survives():
    skip_without_compiler()
    said = run(OUT_OF_MEMORY, CHANNELS="4096")  # 64 MiB for the gradient, and as much for its sums
    assert "RESOURCE_EXHAUSTED: in a convolution" in said
    assert "went on" in said


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited as Linux does")
def test_a_large_kernel_s_gradient_is_summed_in_few_parts():
    skip_without_compiler()
    assert run(OUT_OF_MEMORY, CHANNELS="2048") == "went on\n"  # 16 MiB; a part for each image would take 256


# When they are used


def test_the_compiled_program_calls_them(calls):
    x, kernel, _ = arrays(1, (4, 4), (16, 16), (3, 3), (1, 1), ONE)
    text = jax.jit(squares).lower(x, kernel).as_text()
    for name, *_ in kernels.PRODUCTS.values():
        assert f"@jaxnorm_conv_{name}" in text
    assert "stablehlo.convolution" not in text


def no_devices(*_):
    raise RuntimeError("Unknown backend cpu. Available backends are ['cuda']")


@pytest.mark.parametrize("why", ["devices", "float64", "bfloat16", "negative padding", "dilation", "off", "no CPU"])
def test_they_are_not_used_for(why, calls, monkeypatch):
    x, kernel, _ = arrays(2, (6, 6), (16, 16), (3, 3), (1, 1), ONE)
    padding, options = ONE, {}
    if why in ("devices", "no CPU"):
        monkeypatch.undo()
        monkeypatch.setattr(jax.ffi, "ffi_call", lambda *_, **__: pytest.fail("a kernel is called"))
    if why == "no CPU":
        monkeypatch.setattr(jax, "device_count", no_devices)
    if why == "off":
        monkeypatch.setenv(kernels.SWITCH, "off")
        assert (kernels.missing(), kernels.description()) == ("JAXNORM_KERNELS is off", "XLA")
    if why == "negative padding":
        padding = ((-1, 1), (1, 1))
    if why == "dilation":
        options = dict(rhs_dilation=(2, 2))
    dtype = why if why in ("float64", "bfloat16") else "float32"
    with jax.enable_x64(dtype == "float64"):
        x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
        found, expected = (
            jax.grad(
                lambda *a, operation: (
                    operation(*a, (1, 1), padding, dimension_numbers=IMAGES, **options).astype(jnp.float32) ** 2
                ).sum()
            )(x, kernel, operation=operation)
            for operation in (convolve, lax.conv_general_dilated)
        )
    assert found.dtype == dtype
    np.testing.assert_allclose(*(np.asarray(each, np.float32) for each in (found, expected)), rtol=1e-4, atol=1e-3)
    assert calls == []


def test_the_description_says_whose_they_are(calls, monkeypatch):
    assert kernels.description() == "jaxnorm"
    monkeypatch.setattr(kernels, "alone", lambda: False)
    assert kernels.description() == "XLA"


# Under JAX's transformations

STRIDES = pytest.mark.parametrize("strides", [(1, 1), (2, 2)], ids=["one", "two"])


def agree(calls, transformed, tolerance=1e-4):
    """Our kernels, which are called, and XLA's convolution give the same."""
    found = transformed(convolve)
    assert calls
    calls.clear()
    expected = transformed(lax.conv_general_dilated)
    assert not calls
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()),
        found,
        expected,
    )


def gradient_with(operation, strides):
    def loss(x, kernel):
        return (operation(x, kernel, strides, ONE, dimension_numbers=IMAGES) ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))


@STRIDES
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=["both", "images", "kernels"])
def test_over_mapped_axes(axes, strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)
    given = [
        np.stack([each, 2 * each, -each]) if axis == 0 else each for each, axis in zip((x, kernel), axes, strict=True)
    ]
    agree(calls, lambda operation: jax.vmap(gradient_with(operation, strides), in_axes=axes)(*given))


@STRIDES
def test_gradients_of_gradients(strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)

    def penalty(operation):
        def size(x, kernel):
            by_x, by_kernel = gradient_with(operation, strides)(x, kernel)
            return (by_x**2).sum() + (by_kernel**3).sum()

        return jax.jit(jax.grad(size, argnums=(0, 1)))(x, kernel)

    agree(calls, penalty)


def test_within_shard_map(calls):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec
    x, kernel, _ = arrays(4, (6, 6), (16, 16), (3, 3), (1, 1), ONE)

    def gradient(operation):
        def loss(kernel, x):
            y = operation(x, kernel, (1, 1), "SAME", dimension_numbers=IMAGES)
            return lax.pmean((y**2).mean(), "data")

        return jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec())(kernel, x)

    agree(calls, gradient)


@STRIDES
def test_with_a_donated_input(strides, calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), strides, ONE)

    def step(operation):
        images, weights = jnp.array(x), jnp.array(kernel)
        found = jax.jit(gradient_with(operation, strides), donate_argnums=(0, 1))(images, weights)
        assert images.is_deleted() and weights.is_deleted()
        return found

    agree(calls, step)


def test_within_loops(calls):
    x, kernel, _ = arrays(2, (6, 5), (16, 16), (3, 3), (1, 1), ONE)
    xs = np.stack([x, 2 * x, -x])

    def looped(operation):
        def step(kernel, x):
            by_x, by_kernel = gradient_with(operation, (1, 1))(x, kernel)
            return kernel - 1e-4 * by_kernel, by_x

        return lax.scan(step, kernel, xs), lax.map(lambda x: gradient_with(operation, (1, 1))(x, kernel), xs)

    agree(calls, looped)
