"""How this process's program was started, in words that start it again."""

import sys
from pathlib import Path

from jaxnorm.study.home import typed


def program() -> list[str]:
    """The words that come before the arguments.

    Returns:
        ``jaxnorm``, ``python -m jaxnorm``, or ``python`` and the path of a file.
    """
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return ["python", "-m", path.parent.name]
    return ["jaxnorm"] if path.stem == "jaxnorm" else ["python", sys.argv[0]]


def command() -> str:
    """The command line that started this process.

    Returns:
        One line that a shell accepts; a comment if that is not this program but a notebook or an interpreter.
    """
    if Path(sys.argv[0]).name in ("", "-c", "ipykernel_launcher.py", "colab_kernel_launcher.py"):
        return "# jaxnorm.compare, called in an interpreter"
    return typed([*program(), *sys.argv[1:]])
