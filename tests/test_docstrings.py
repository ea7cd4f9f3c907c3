"""Docstrings: their examples run, and each lists all fields or arguments, what is returned and what is raised."""

import ast
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest
from flax import nnx as flax_nnx

import jaxnorm
from jaxnorm import functional, interop, nnx

MODULES = ["jaxnorm", *sorted(info.name for info in pkgutil.walk_packages(jaxnorm.__path__, "jaxnorm."))]
PUBLIC = [
    *(getattr(jaxnorm, name) for name in jaxnorm.__all__ if not name.startswith("_")),
    *(getattr(module, name) for module in (functional, interop, nnx) for name in module.__all__),
]
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Note", "References", "Examples")
# Its functions are many and short, and their docstrings name the arguments in the sentence.
OPEN = ("jaxnorm.study.report",)
INHERITED = {"self", "parent", "name"}  # fields of every flax.linen.Module


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def sections(thing):
    """The sections of a docstring, by name; a method without one has that of the method it overrides."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):$", inspect.getdoc(thing) or "", flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed(text):
    return set(re.findall(r"^(?:  ){1,2}\**(\w+): ", text, re.M))  # flax, whose methods ours inherit, indents by two


def is_public(name):
    return not name.startswith("_") or name == "__call__"


def own(module):
    """The public functions and classes that a module defines, and the public methods of its classes."""
    for name, thing in vars(module).items():
        if not is_public(name) or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing)):
            yield name, thing
        if inspect.isclass(thing):
            for method in vars(thing):
                function = inspect.unwrap(getattr(thing, method))
                if is_public(method) and getattr(function, "__qualname__", "").startswith(f"{name}."):
                    yield f"{name}.{method}", getattr(thing, method)


def tree_of(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body[0]


def missing_of_function(thing):
    text, signature = sections(thing), inspect.signature(thing)
    arguments = {name for name in signature.parameters if name not in ("self", "cls") and not name.startswith("_")}
    yield from (f"argument {name}" for name in arguments - listed(text.get("Args", "")))
    yield from (f"no argument {name}" for name in listed(text.get("Args", "")) - arguments)
    if signature.return_annotation not in (None, "None", inspect.Signature.empty) and not {"Returns", "Yields"} & set(
        text
    ):
        yield "what it returns"
    raised = {node.exc for node in ast.walk(tree_of(thing)) if isinstance(node, ast.Raise) and node.exc}
    if raised and "Raises" not in text:
        yield "what it raises"


def missing_of_class(thing):
    tree = tree_of(thing)
    fields = {}
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and is_public(node.target.id):
            fields[node.target.id] = isinstance(following, ast.Expr)  # a docstring of its own
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            fields |= {each.arg: False for each in [*node.args.args[1:], *node.args.kwonlyargs]}
    text = sections(thing)
    names = listed(text.get("Attributes", "")) | listed(text.get("Args", ""))
    yield from (f"field {name}" for name, is_documented in fields.items() if not is_documented and name not in names)


@pytest.mark.parametrize("name", [name for name in MODULES if "main" not in name and not name.startswith(OPEN)])
def test_a_docstring_lists_all_that_a_reader_has_to_know(name):
    missing = []
    for each, thing in own(importlib.import_module(name)):
        find = missing_of_class if inspect.isclass(thing) else missing_of_function
        missing += [f"{each} lacks {what}" for what in find(thing)]
        if not inspect.getdoc(thing):
            missing.append(f"{each} lacks a docstring")
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_sections_are_those_that_doc_tools_know(name):
    tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for heading in re.findall(r"^([A-Z][a-z]+):(?:$| [A-Z(])", ast.get_docstring(node) or "", re.M):
                assert heading in SECTIONS, (node.name, heading)


def fields_or_arguments(thing):
    if not inspect.isclass(thing):
        return {name for name in inspect.signature(thing).parameters if is_public(name)}
    if thing is jaxnorm.Conv:  # which adds to the fields of flax.linen.Conv, and so do the next
        return {"conv_general_dilated"}
    if issubclass(thing, jaxnorm.Conv):
        return set(thing.__annotations__) - INHERITED
    if issubclass(thing, flax_nnx.Conv):
        return set(inspect.signature(thing.__init__).parameters) - {"self"}
    if not dataclasses.is_dataclass(thing):
        return set()
    return set(inspect.signature(thing.__init__).parameters) - INHERITED


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_the_library_s_docstrings_list_every_field_and_argument(thing):
    text = sections(thing)
    assert listed(text.get("Attributes", text.get("Args", ""))) == fields_or_arguments(thing)


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_the_library_s_docstrings_have_an_example(thing):
    is_protocol = getattr(thing, "_is_protocol", False)
    assert is_protocol or sections(thing)["Examples"].startswith("\n    >>> ")
