"""The description for PyPI: README.md, whose links to files lead to the repository. pyproject.toml has all the rest.

Until pyproject.toml has the repository's address, such links are text, and pictures are left out.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
ADDRESS = (
    tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository")
)


def described(text: str) -> str:
    """README.md as a page of its own.

    Args:
        text: its content.

    Returns:
        The content, without relative links.
    """
    if ADDRESS:
        text = re.sub(r"\]\((?![a-z]+:|#)", f"]({ADDRESS}/blob/main/", text)
        return re.sub(r'(<img src=")(?![a-z]+:)', rf"\1{ADDRESS}/raw/main/", text)
    text = re.sub(r"\[([^]\n]+)\]\((?![a-z]+:|#)[^)]+\)", r"\1", text)
    return re.sub(r'<img src="(?![a-z]+:)[^>]+>\n+', "", text)


setup(
    long_description=described((HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
