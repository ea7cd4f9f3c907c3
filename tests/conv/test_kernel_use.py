"""When our own kernels are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnorm.conv import kernels
from jaxnorm.conv.convolution import convolve
from tests.conv.convolutions import IMAGES, ONE, arrays, squares


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
