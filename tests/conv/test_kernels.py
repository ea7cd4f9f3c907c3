"""Our own kernels: their numbers."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxnorm.conv.convolution import convolve
from tests.conv.convolutions import (
    HIGHEST,
    IMAGES,
    ONE,
    all_three,
    arrays,
    check,
    oracle,
    products,
    skip_without_compiler,
    squares,
)

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
