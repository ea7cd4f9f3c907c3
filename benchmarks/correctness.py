"""Whether a device computes what it should: python benchmarks/correctness.py

Loss and gradients of every variant in three training steps: float32 at matmul precision "highest" on the default
device, beside float64 on the CPU, each at the float64 run's weights, on the digits. The network has silu in place of
relu. A unit whose input is within rounding of 0 has another gradient on either side of relu's jump, and one such unit
of a million moves the gradient by 2e-3 (measured), which would hide everything smaller.

Then: whether the same call gives the same bits twice, and whether a run that is stopped and resumed gives the bits of
one that is not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing
from jaxnorm.study.config import DEFAULT_NORMS

STEPS = 3
BATCH_SIZE = 128
TOLERANCE = 1e-4
RESUMED_NORMS = ("bn", "gn")
NORMS = (*DEFAULT_NORMS, "bin_frozen")


def smooth_state(norm: str, dtype: Any, tiny: bool) -> Any:
    """A variant's state before the first step, with silu for relu; of 8 layers and few channels if it is tiny."""
    import flax.linen as nn

    from jaxnorm import NORMS as REGISTERED
    from jaxnorm import ResNet
    from jaxnorm.study.config import Config
    from jaxnorm.study.data import load_dataset
    from jaxnorm.study.training.state import initial_state

    size = dict(num_blocks=1, num_filters=4) if tiny else {}
    model = ResNet(norm=REGISTERED[norm], activation=nn.silu, **size)
    return cast(initial_state(Config(norm=norm, batch_size=BATCH_SIZE), load_dataset("digits"), model), dtype)


def cast(tree: Any, dtype: Any) -> Any:
    """`tree` with its floating-point arrays in `dtype`."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def batches(dtype: Any) -> Iterator[tuple[Any, Any]]:
    """The images and labels of the steps."""
    import numpy as np

    from jaxnorm.study.data import load_dataset

    digits = load_dataset("digits")
    for start in range(0, STEPS * BATCH_SIZE, BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        yield (digits.train.image[rows] / 255 - np.array(digits.mean)).astype(dtype), digits.train.label[rows]


def write_reference(norm: str, folder: Path, tiny: bool) -> None:
    """Trains `STEPS` steps in float64; writes weights, loss and gradients of each."""
    import jax
    import numpy as np
    import optax

    from jaxnorm.study.param_groups import project
    from jaxnorm.study.training.step import loss_and_gradients

    state = smooth_state(norm, np.float64, tiny)
    program = jax.jit(loss_and_gradients)
    arrays: dict[str, Any] = {}
    for step, (image, label) in enumerate(batches(np.float64)):
        (loss, (_, model_state)), gradients = program(state, image, label)
        arrays[f"loss{step}"] = loss
        for name, tree in (("params", state.params), ("model_state", state.model_state), ("gradients", gradients)):
            arrays |= {f"{name}{step}_{i:03}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}
        updates, opt_state = state.tx.update(gradients, state.opt_state, state.params)
        params = project(optax.apply_updates(state.params, updates))
        state = state.replace(params=params, model_state=model_state, opt_state=opt_state)
    part = folder / f"{norm}.part.npz"
    np.savez(part, **arrays)
    part.rename(folder / f"{norm}.npz")


def compare(norm: str, reference: Path, tiny: bool) -> dict[str, Any]:
    """Relative errors of a variant's loss and gradients in each step, and whether two calls give the same bits."""
    import jax
    import numpy as np

    from jaxnorm.study.training.step import loss_and_gradients

    state = smooth_state(norm, np.float32, tiny)
    program = jax.jit(loss_and_gradients)
    with np.load(reference) as arrays:
        found = dict(arrays)

    def leaves(name: str, like: Any) -> Any:
        values = [value for key, value in sorted(found.items()) if key.startswith(f"{name}_")]
        return jax.tree.unflatten(jax.tree.structure(like), values)

    losses, gradients, same = [], [], True
    for step, (image, label) in enumerate(batches(np.float32)):
        here = state.replace(
            params=cast(leaves(f"params{step}", state.params), np.float32),
            model_state=cast(leaves(f"model_state{step}", state.model_state), np.float32),
        )
        (loss, _), gradient = program(here, image, label)
        again = program(here, image, label)
        same &= all(map(np.array_equal, jax.tree.leaves(gradient), jax.tree.leaves(again[1])))
        exact = leaves(f"gradients{step}", gradient)
        losses.append(relative_error([loss], [found[f"loss{step}"]]))
        gradients.append(relative_error(jax.tree.leaves(gradient), jax.tree.leaves(exact)))
    return {
        "loss_error": losses,
        "gradient_error": gradients,
        "same_bits_twice": same,
        "passed": same and max(losses + gradients) <= TOLERANCE,
    }


def relative_error(found: list[Any], exact: list[Any]) -> float:
    """|found - exact| / |exact| over all arrays together, Euclidean, in float64."""
    import numpy as np

    one, other = (np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in some]) for some in (found, exact))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def resume(norm: str, num_epochs: int = 2) -> dict[str, Any]:
    """Whether a run that is stopped within its first epoch and resumed ends in the bits of one that is not."""
    import signal

    import jax
    import numpy as np

    from jaxnorm.study.config import Config
    from jaxnorm.study.data import load_dataset
    from jaxnorm.study.runs.directory import RunDirectory
    from jaxnorm.study.runs.progress import Progress
    from jaxnorm.study.runs.provenance import provenance, surroundings
    from jaxnorm.study.runs.signals import StopRequest
    from jaxnorm.study.training.record import Stopped
    from jaxnorm.study.training.run import Result, train

    class StopAt(Progress):
        def __init__(self, stop: StopRequest, step: int) -> None:
            self.stop, self.step = stop, step

        def stepped(self, config: Any, step: int) -> None:  # noqa: ARG002
            if step == self.step:
                self.stop.request(signal.SIGTERM)

    config = Config(norm=norm, batch_size=BATCH_SIZE, num_epochs=num_epochs)
    digits = load_dataset("digits")
    found = provenance(norm, surroundings(digits.to_json()))

    def run(folder: Path, stop_at: int | None = None) -> Result | None:
        stop = StopRequest(quiet=True)
        progress = StopAt(stop, -1 if stop_at is None else stop_at)
        record = RunDirectory(folder, config, progress=progress, stop=stop)
        record.begin(digits, found)
        try:
            return train(config, digits, record=record, steps_per_call=4)
        except Stopped:
            return None

    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder) / "whole" / config.name)
        stopped = run(Path(folder) / "parts" / config.name, stop_at=4)
        resumed = run(Path(folder) / "parts" / config.name)
    if whole is None or resumed is None or stopped is not None:
        raise RuntimeError("the run was not stopped where it should")
    pairs = zip(jax.tree.leaves(whole.variables), jax.tree.leaves(resumed.variables), strict=True)
    same = all(np.array_equal(one, other) for one, other in pairs)
    return {"resumed_bits_are_equal": same and bool(np.array_equal(whole.test_logits, resumed.test_logits))}


def precision() -> dict[str, float]:
    """Relative errors of a product and a convolution in float32 at JAX's precisions; near 3e-4 means TF32."""
    import jax
    import numpy as np

    draw = np.random.default_rng(0)
    left, right = draw.standard_normal((2, 512, 512))
    image, kernel = draw.standard_normal((8, 32, 32, 16)), draw.standard_normal((3, 3, 16, 16))
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(padded[:, i : i + 32, j : j + 32] @ kernel[i, j] for i in range(3) for j in range(3))
    errors = {}
    numbers = ("NHWC", "HWIO", "NHWC")
    left32, right32, image32, kernel32 = (array.astype(np.float32) for array in (left, right, image, kernel))
    for name in ("default", "highest"):
        with jax.default_matmul_precision(name):
            product = jax.numpy.dot(left32, right32)
            convolved = jax.lax.conv_general_dilated(image32, kernel32, (1, 1), "SAME", dimension_numbers=numbers)
        errors[f"product_{name}"] = relative_error([product], [left @ right])
        errors[f"convolution_{name}"] = relative_error([convolved], [exact])
    return errors


def references(norms: list[str], folder: Path, arguments: list[str]) -> "subprocess.Popen[bytes]":
    """Starts the float64 process on the CPU."""
    own = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "JAXNORM_KERNELS": "off", "XLA_FLAGS": ""}
    arguments = ["--reference", str(folder), "--norms", *norms, *arguments]
    return timing.child("correctness.py", *arguments, env={**os.environ, **own}, stdout=subprocess.DEVNULL)


def check(norms: list[str], path: Path | None, tiny: bool) -> dict[str, Any]:
    """Checks everything; keeps each result as soon as it is there."""
    found: dict[str, Any] = {"precision": precision(), "tolerance": TOLERANCE, "norms": {}, "resume": {}}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        process = references(norms, folder, ["--tiny"] if tiny else [])

        def when_there(norm: str) -> dict[str, Any]:
            while not (folder / f"{norm}.npz").exists():
                if process.poll() not in (None, 0):
                    return {"passed": False, "error": f"the float64 process ended with exit code {process.returncode}"}
                time.sleep(0.2)
            return compare(norm, folder / f"{norm}.npz", tiny)

        try:
            tasks = {("norms", norm): pool.submit(when_there, norm) for norm in norms}
            tasks |= {("resume", norm): pool.submit(resume, norm) for norm in RESUMED_NORMS if norm in norms}
            for (kind, norm), task in tasks.items():
                try:
                    found[kind][norm] = task.result()
                except Exception as error:
                    found[kind][norm] = {"passed": False, "error": f"{type(error).__name__}: {error}"[:500]}
                print(f"{kind} {norm}: {found[kind][norm]}", flush=True)
                timing.keep(path, results=found)
        finally:
            process.kill()
    return found


def main() -> None:
    parser = timing.parser(__doc__)
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS), metavar="NORM")
    parser.add_argument("--tiny", action="store_true", help="a network of 8 layers and 4 channels, for a rehearsal")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.end_with_parent:
        timing.end_with_parent()
    if args.reference:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for task in [pool.submit(write_reference, norm, args.reference, args.tiny) for norm in args.norms]:
                task.result()
        return
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    found = check(args.norms, args.json, args.tiny)
    rows = [
        [norm, *(f"{max(entry[key]):.1e}" if key in entry else "failed" for key in ("loss_error", "gradient_error"))]
        for norm, entry in found["norms"].items()
    ]
    timing.show(f"Largest relative error; {timing.described()}", ["variant", "loss", "gradients"], rows)
    passed = all(entry["passed"] for entry in found["norms"].values())
    passed &= all(entry.get("resumed_bits_are_equal") for entry in found["resume"].values())
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
