"""How a training step's time and memory grow with the batch and with the image: python benchmarks/growth.py

The original paper's network on one device, float32, the bare compiled step. benchmarks/devices.py measures what grows
with the number of devices. About two minutes on two CPU cores.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing
from jaxnorm.study.allocator import share_one_heap


def measure(norm: str, batch_size: int, side: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Seconds of a step by round, its images per second and its working memory."""
    from benchmarks.workload import bare_step
    from jaxnorm import NORMS, ResNet14

    call, memory = bare_step(ResNet14(norm=NORMS[norm]), batch_size, side)
    taken = timing.in_turn({"step": timing.clock(call)}, rounds=rounds, seconds=seconds)["step"]
    middle = timing.quartiles(taken)[1]
    return {
        "batch_size": batch_size,
        "side": side,
        "seconds_by_round": taken,
        "milliseconds": 1e3 * middle,
        "images_per_second": batch_size / middle,
        "working_megabytes": memory / 1e6,
    }


def row_of(result: dict[str, Any]) -> list[str]:
    """A result as the table shows it."""
    rate, side = result["images_per_second"], result["side"]
    return [
        str(result["batch_size"]),
        f"{side}x{side}",
        f"{result['milliseconds']:.1f}",
        f"{rate:.0f}",
        f"{rate * side**2 / 1e6:.2f}",
        f"{result['working_megabytes']:.0f} MB",
    ]


def main() -> None:
    parser = timing.parser(__doc__, rounds=3, seconds=1.0)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-sizes", nargs="*", type=int, default=[2, 8, 32, 128, 512], help="at 32x32 pixels")
    parser.add_argument("--sides", nargs="*", type=int, default=[16, 64, 128], help="of images, at a batch of 32")
    args = parser.parse_args()
    share_one_heap()  # as the drivers do

    points = [*((size, 32) for size in args.batch_sizes), *((32, side) for side in args.sides)]
    results = [measure(args.norm, batch_size, side, args.rounds, args.seconds) for batch_size, side in points]
    headings = ("batch", "image", "ms a step", "images/s", "megapixels/s", "working memory")
    timing.show(f"{args.norm}; {timing.described()}", headings, map(row_of, results))
    timing.keep(args.json, norm=args.norm, results=results)


if __name__ == "__main__":
    main()
