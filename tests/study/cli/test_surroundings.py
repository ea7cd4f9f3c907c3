"""Real processes in surroundings of all kinds: other encodings, closed streams, devices that are not there."""

import json
import subprocess
import sys

import pytest

from tests.drivers import ROOT, environment, path_of

LABEL = "Größe → ∞ −1"
NORM = f"""
import flax.linen as nn
from jaxnorm import register_norm

class Scale(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("scale", nn.initializers.ones, (x.shape[-1],))

register_norm("scale", lambda *, train, axis_name, dtype, name: Scale(name=name), label="{LABEL}")
"""
RUN = [path_of("compare_norms"), "--batch-size", "512", "--num-epochs", "1", "--workdir", "w"]


def python(tmp_path, *arguments, redirected="", **variables):
    """Runs Python in an empty folder, with streams as a shell redirects them."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, *map(str, arguments)],
        cwd=tmp_path,
        env={**environment(tmp_path), "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        timeout=300,
    )


def test_a_run_needs_no_utf_8(tmp_path):
    (tmp_path / "mine.py").write_text(NORM, encoding="utf-8")
    command = ["-X", "warn_default_encoding", *RUN, "--norms", "scale", "--import", "mine.py"]
    finished = python(tmp_path, *command, PYTHONIOENCODING="latin-1", JAXNORM_KERNELS="off")
    assert finished.returncode == 0, finished.stderr
    assert "Größe ? ? -1".encode("latin-1") in finished.stdout
    warned = [line for line in finished.stderr.decode("latin-1").splitlines() if "EncodingWarning" in line]
    ours = tuple(str(ROOT / folder) for folder in ("jaxnorm", "experiments"))
    assert not [line for line in warned if line.startswith(ours)]
    for name in ("study.json", "scale-seed0/result.json", "scale-seed0/provenance.json"):
        assert LABEL in json.dumps(json.loads((tmp_path / "w" / name).read_bytes()), ensure_ascii=False)


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&- <&-"])
def test_nobody_has_to_listen(tmp_path, redirected):
    finished = python(tmp_path, "-m", "jaxnorm", "--help", redirected=redirected)
    assert finished.returncode == 0, finished.stderr
    finished = python(tmp_path, "-m", "jaxnorm", "report", "nowhere", redirected=redirected)
    assert finished.returncode == 2
    assert finished.stderr.count(b"\n") == ("2>" not in redirected)


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    program = "import os; from jaxnorm.study.cli import entry; entry.run(lambda: os.open('x', os.O_CREAT) < 3)"
    assert python(tmp_path, "-c", program, redirected=">&- 2>&- <&-").returncode == 0


@pytest.mark.parametrize(
    "name, value, more",
    [("JAX_PLATFORMS", "cuda", ["--jobs", 2]), ("JAX_PLATFORMS", "no_such", []), ("JAX_ENABLE_X64", "perhaps", [])],
)
def test_what_jax_refuses_is_one_line(tmp_path, name, value, more):
    finished = python(tmp_path, *RUN, "--seeds", 0, 1, *more, **{name: value})
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith(b"error: JAX must ") and finished.stderr.count(b"\n") == 1
    assert name in finished.stderr.decode()
    assert not list(tmp_path.iterdir())
