import os
import subprocess
import sys

import pytest

from jaxnorm import jaxlib_guard

FLAG = "--xla_cpu_experimental_ynn_fusion_type="


def guard(version):
    """In a process without a backend, which the tests' own process is not."""
    jaxlib_guard.guard(version, started=lambda: False)


def test_the_faulty_release_gets_the_flag_and_a_users_own_flags_are_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    guard("0.10.2")
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=/tmp/x {FLAG}"
    guard("0.10.2")
    assert os.environ["XLA_FLAGS"].count(FLAG) == 1


def test_a_users_own_value_of_the_flag_remains(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{FLAG}2")
    guard("0.10.2")
    assert os.environ["XLA_FLAGS"] == f"{FLAG}2"


@pytest.mark.parametrize("version", ["0.10.1", "0.11.2", "0.12.0.1"])
def test_other_releases_are_left_alone(monkeypatch, version):
    monkeypatch.setenv("XLA_FLAGS", "")  # XLA aborts on a flag it does not know
    guard(version)
    assert os.environ["XLA_FLAGS"] == ""


def test_a_backend_that_started_unprotected_raises_an_error_with_the_fix():
    program = (
        "import jax; jax.devices()\n"
        "from jaxnorm.jaxlib_guard import guard\n"
        "try: guard('0.10.2')\n"
        "except RuntimeError as error: print(error)\n"
    )
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert "pip install 'jaxlib!=0.10.2'" in finished.stdout, finished.stderr


def test_the_installed_jaxlib_adds_up_correctly():
    import jax
    import jax.numpy as jnp

    rows = jax.random.normal(jax.random.key(0), (32_769, 3))
    with jax.numpy_rank_promotion("allow"):
        got = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)
    assert jnp.allclose(got, (rows**2).sum(axis=1), rtol=1e-5)
