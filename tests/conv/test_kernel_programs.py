"""Our own kernels in a program of their own: threads and memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conv.convolutions import skip_without_compiler

ROOT = Path(__file__).parents[2]

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
        arrays = dict(y=g, x=x, kernel=kernel)
        products = [
            kernels.product(of, *(arrays[name] for name in names), shape=arrays[of].shape, **fields)
            for of, (_, *names) in kernels.PRODUCTS.items()
        ]
        found = [np.asarray(each).tobytes() for each in products]
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
product = jax.jit(lambda x, g: kernels.product(
    "kernel", x, g, shape=(1, 1, c, c), strides=(1, 1), padding=((0, 0), (0, 0)), precision=None)).lower(x, g).compile()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 96 * 2**20, resource.RLIM_INFINITY))
try:
    product(x, g).block_until_ready()
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert (product(x, g) == 16).all()
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
