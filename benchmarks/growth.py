"""How a training step's time and memory grow with the batch and with the image: python benchmarks/growth.py

The study's network on one device, float32, the bare compiled step. What grows with devices is measured by
benchmarks/devices.py, with seeds by benchmarks/seeds.py. About two minutes on two CPU cores.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxnorm.study.allocator import restart_with_large_pages


def measure(norm: str, batch_size: int, side: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step, images per second and the step's working memory."""
    import jax

    from jaxnorm import NORMS
    from jaxnorm.study.models.resnet import ResNet14
    from jaxnorm.study.training.optimizer import make_optimizer
    from jaxnorm.study.training.step import create_state, train_step

    state = create_state(ResNet14(norm=NORMS[norm]), make_optimizer(0.1, 10.0, 10, 312), 0, (side, side, 3))
    image = jax.random.normal(jax.random.key(0), (batch_size, side, side, 3))
    label = jax.random.randint(jax.random.key(1), (batch_size,), 0, 10)
    step = jax.jit(train_step, donate_argnums=0).lower(state, image, label).compile()

    def run(count: int) -> float:
        nonlocal state
        started = time.perf_counter()
        for _ in range(count):
            state, loss = step(state, image, label)
        jax.block_until_ready(loss)
        return (time.perf_counter() - started) / count

    run(2)
    count = max(1, round(seconds / run(2)))
    took = statistics.median(run(count) for _ in range(3))
    memory = step.memory_analysis().temp_size_in_bytes
    return {
        "batch_size": batch_size,
        "side": side,
        "milliseconds": 1e3 * took,
        "images_per_second": batch_size / took,
        "working_megabytes": memory / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[2, 8, 32, 128, 512], help="at 32x32 pixels")
    parser.add_argument("--sides", nargs="+", type=int, default=[16, 64, 128], help="of images, at a batch of 32")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each of three measurements")
    parser.add_argument("--json", type=Path, default=None, help="also write everything there")
    args = parser.parse_args()
    restart_with_large_pages()  # as the drivers do

    import jaxnorm  # noqa: F401  (before jax, for the flag that one jaxlib needs)

    # isort: split
    import jax
    from rich.console import Console
    from rich.table import Table

    title = f"{args.norm}, jax {jax.__version__}, {jax.devices()[0].device_kind}"
    table = Table("batch", "image", "ms a step", "images/s", "megapixels/s", "working memory", title=title)
    found = []
    for batch_size, side in [*((size, 32) for size in args.batch_sizes), *((32, side) for side in args.sides)]:
        row = measure(args.norm, batch_size, side, args.seconds)
        found.append(row)
        rate = row["images_per_second"]
        table.add_row(
            str(batch_size),
            f"{side}x{side}",
            f"{row['milliseconds']:.1f}",
            f"{rate:.0f}",
            f"{rate * side**2 / 1e6:.2f}",
            f"{row['working_megabytes']:.0f} MB",
        )
    Console(width=100).print(table)
    if args.json:
        args.json.write_text(
            json.dumps({"title": title, "command": " ".join(sys.argv), "rows": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
