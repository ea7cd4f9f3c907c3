"""The study's programs, compiled for an H100 on a machine that has none: python benchmarks/aot.py

Needs an environment with JAX's CUDA wheels, 6 GB: pip install "jax[cuda13]" beside the study's packages. Nothing is
run, so there are no times. The numbers of kernels are exact for this compiler, except that it cannot try algorithms out
(autotuning is off). A variant takes half a minute on two CPU cores.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  clock_rate_ghz: 1.98  device_memory_size: 84978434048
  shared_memory_per_block_optin: 232448  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
PROGRAMS = ("train", "evaluate")
KERNELS = ("fusion", "custom-call", "copy", "sort", "scatter", "reduce", "dot", "convolution")


def sharding() -> Any:
    """Where arrays are: on the H100 that is not there."""
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    topology = topologies.get_topology_desc("", platform="cuda", target_config=H100, topology="1x1x1")
    return NamedSharding(Mesh(np.array(topology.devices).reshape(-1)[:1], ("data",)), PartitionSpec())


def compile_program(program: str, norm: str, batch_size: int, num_steps: int) -> str:
    """Compiles the whole program that a run of the study calls, and returns XLA's text of it.

    Args:
        program: "train" for `train_steps`, "evaluate" for `eval_steps` of 10,000 images.
        norm: id of the variant.
        batch_size: of training.
        num_steps: in one call of `train_steps`.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.workload import random_images
    from jaxnorm.study.config import Config
    from jaxnorm.study.training.evaluation import eval_steps
    from jaxnorm.study.training.images import on_device
    from jaxnorm.study.training.state import initial_state
    from jaxnorm.study.training.step import train_steps

    dataset = random_images(8, 8)
    there = sharding()

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        shape = (40_000 if leaf.shape[0] == 8 else leaf.shape[0], *leaf.shape[1:]) if leaf.ndim else ()
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=there)

    config = Config(norm=norm, dataset="cifar10", batch_size=8, num_epochs=100)
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), initial_state(config, dataset)
    )
    images = jax.tree.map(abstract, on_device(dataset.train, dataset))
    if program == "train":
        order = jax.ShapeDtypeStruct((40_000,), jnp.int32, sharding=there)
        lowered = train_steps.lower(state, images, order, batch_size=batch_size, num_steps=num_steps)
    else:
        start = jax.ShapeDtypeStruct((), jnp.int32, sharding=there)
        lowered = eval_steps.lower(state.model, state.variables, images, start, batch_size=2000, num_steps=5)
    return lowered.compile().as_text()


def num_kernels(text: str) -> dict[str, int]:
    """Kernels that a program's text launches, by kind; those in a loop's body count once."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?%?([\w.-]+) .*{$", line):
            lines = computations["main" if found[1] else found[2]] = []
        lines.append(line)
    counts: dict[str, int] = {}
    waiting = ["main"]
    while waiting:
        for line in computations[waiting.pop()]:
            if not (found := re.search(r" = (?:\(.*?\)|\S+) ([\w-]+)\(", line)):
                continue
            if found[1] in KERNELS:
                counts[found[1]] = counts.get(found[1], 0) + 1
            elif found[1] in ("while", "call", "conditional"):
                waiting += re.findall(r"(?:body|to_apply|calls)=%?([\w.-]+)", line)
    return counts


def main() -> None:
    from jaxnorm.study.config import DEFAULT_NORMS

    parser = timing.parser(__doc__)
    parser.add_argument("--norms", nargs="+", default=[*DEFAULT_NORMS, "bin_frozen"])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--num-steps", type=int, default=312)
    parser.add_argument("--text", type=Path, help="folder for the programs' text")
    args = parser.parse_args()
    results = []
    for norm in args.norms:
        for program in args.programs:
            text = compile_program(program, norm, args.batch_size, args.num_steps)
            if args.text:
                args.text.mkdir(parents=True, exist_ok=True)
                (args.text / f"{norm}-{program}.txt").write_text(text, encoding="utf-8")
            results.append({"norm": norm, "program": program, "kernels": num_kernels(text)})
            print(f"{norm} {program}: {results[-1]['kernels']}", flush=True)
    timing.keep(args.json, results=results)


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0 " + os.environ.get("XLA_FLAGS", "")
    main()
