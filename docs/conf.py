"""The settings of the documentation: `make docs` builds it from the pages here and from docstrings."""

import inspect
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = PROJECT.get("urls", {}).get("Repository")
UPWARDS = re.compile(r"(?<!!)\[([^]\n]+)\]\((\.\./[^)\s]+)\)")

project = PROJECT["name"]
author = "the authors of jaxnorm"
release = PROJECT["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "jaxnorm"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# The notebooks run on the CPU, with the program jaxnorm of this environment. An error in one ends the build.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell
nb_merge_streams = True
nb_output_stderr = "remove-warn"

myst_heading_anchors = 4
default_role = "code"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # fields are listed once, in the docstring
autodoc_typehints = "none"  # signatures stay short; docstrings say types and shapes
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100


def link_to_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links out of docs/ lead to the repository, once pyproject.toml has its address. Until then they are text.

    Args:
        app: Sphinx.
        docname: the page.
        source: its text, which is replaced.
    """

    def link(match: re.Match[str]) -> str:
        target = (app.srcdir / docname).parent.joinpath(match[2]).resolve().relative_to(ROOT)
        if target.parts[0] == "docs":
            return match[0]
        return f"[{match[1]}]({ADDRESS}/blob/main/{target})" if ADDRESS else match[1]

    source[0] = UPWARDS.sub(link, source[0])


def show_fields(
    app: Sphinx,  # noqa: ARG001
    what: str,
    name: str,  # noqa: ARG001
    thing: Any,
    options: Any,  # noqa: ARG001
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """A short signature. Of a layer it has the fields alone: Flax's metaclasses hide them, or add their own.

    Args:
        app: Sphinx.
        what: kind of the object.
        name: of the object.
        thing: the object.
        options: of the directive.
        signature: as autodoc found it.
        returns: annotation of the result.

    Returns:
        Signature and annotation.
    """
    if what in ("class", "function"):
        found = inspect.signature(thing.__init__ if what == "class" else thing)
        kept = [
            each.replace(annotation=inspect.Parameter.empty)
            for each in found.parameters.values()
            if each.name not in ("self", "parent", "name") and not each.name.startswith("_")
        ]
        signature = str(found.replace(parameters=kept, return_annotation=inspect.Signature.empty))
    if signature is not None:
        signature = re.sub(r"<class '(?:[^'.]*[.])*([^'.]*)'>|<function (?:[^ >]*[.])?(\w+)[^>]*>", r"\1\2", signature)
    return signature, returns


def setup(app: Sphinx) -> None:
    """Connects the above.

    Args:
        app: Sphinx.
    """
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-signature", show_fields)
