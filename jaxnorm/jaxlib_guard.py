"""Protection from the one jaxlib release that computes wrong numbers on CPU without an error."""

import importlib.metadata
import os
import sys
from collections.abc import Callable

WRONG = "0.10.2"  # jax issue 39103: its default YNNPACK fusions; 0.10.1 and 0.12 are correct
FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def backend_started() -> bool:
    """Whether jax has started a backend in this process.

    Returns:
        True if it has.
    """
    # jax has no public function for this, and importing jax to find out would be slow.
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge is not None and bridge.backends_are_initialized())


def guard(version: str | None = None, *, started: Callable[[], bool] = backend_started) -> None:
    """Turns off the wrong fusions of jaxlib 0.10.2 through XLA_FLAGS. Does nothing for any other release.

    XLA reads its flags when its first backend starts, so this must come earlier. Other flags in XLA_FLAGS remain, and
    so does a user's own value of this flag.

    Args:
        version: jaxlib's version; by default the installed one.
        started: Whether a backend has started.

    Raises:
        RuntimeError: If a backend has started without the flag.
    """
    if version is None:
        try:
            version = importlib.metadata.version("jaxlib")
        except importlib.metadata.PackageNotFoundError:
            return
    flags = os.environ.get("XLA_FLAGS", "")
    if version != WRONG or FLAG in flags:
        return
    if started():
        raise RuntimeError(
            f"jaxlib {WRONG} computes wrong numbers on CPU (jax issue 39103) and has already started without the flag "
            f"that prevents it; import jaxnorm before the first use of jax, set XLA_FLAGS={FLAG}= or install another "
            "jaxlib: pip install 'jaxlib!=0.10.2'"
        )
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=".strip()
