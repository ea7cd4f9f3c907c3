"""Which of our own kernels a test calls."""

import jax
import pytest

from jaxnorm.conv import kernels
from tests.conv.convolutions import skip_without_compiler


@pytest.fixture
def calls(monkeypatch):
    """The calls of kernels, by name and whether exact. The kernels behave as with a single CPU device."""
    skip_without_compiler()
    monkeypatch.setattr(kernels, "alone", lambda: True)
    jax.clear_caches()  # of programs with or without a call
    made = []
    plain = jax.ffi.ffi_call

    def recorded(target, *arguments, **options):
        def called(*arrays, **attributes):
            made.append((target.removeprefix("jaxnorm_conv_"), attributes["exact"]))
            return plain(target, *arguments, **options)(*arrays, **attributes)

        return called

    monkeypatch.setattr(jax.ffi, "ffi_call", recorded)
    return made
