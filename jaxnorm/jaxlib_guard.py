"""Protection from the one jaxlib release that computes silently wrong numbers on CPU."""

import importlib.metadata
import os
import sys

WRONG = "0.10.2"  # jax issue 39103: its default YNNPACK fusions; 0.10.1 and 0.12 are right
FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def guard(version: str | None = None) -> None:
    """Turns off the faulty fusions of jaxlib 0.10.2 through XLA_FLAGS; does nothing for any other release.

    XLA reads its flags when its first backend starts, so that must not have happened yet. Other flags in XLA_FLAGS are
    kept, and so is a user's own setting of this one.

    Args:
        version: jaxlib's version; by default the installed one.

    Raises:
        RuntimeError: if a backend has started without the protecting flag.
    """
    if version is None:
        try:
            version = importlib.metadata.version("jaxlib")
        except importlib.metadata.PackageNotFoundError:
            return
    flags = os.environ.get("XLA_FLAGS", "")
    if version != WRONG or FLAG in flags:
        return
    if _backend_started():
        raise RuntimeError(
            f"jaxlib {WRONG} computes wrong numbers on CPU (jax issue 39103) and has already started without the flag "
            f"that prevents it; import jaxnorm before the first use of jax, set XLA_FLAGS={FLAG}= or install another "
            "jaxlib: pip install 'jaxlib!=0.10.2'"
        )
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=".strip()


def _backend_started() -> bool:
    # jax offers no public way to ask, and importing it to find out would itself be slow.
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge is not None and bridge.backends_are_initialized())
