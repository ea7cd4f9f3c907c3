"""Docstrings: their examples run, and those of the library list every field and argument."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import jaxnorm
from jaxnorm import interop

MODULES = ["jaxnorm", *sorted(info.name for info in pkgutil.walk_packages(jaxnorm.__path__, "jaxnorm."))]
PUBLIC = [
    *(getattr(jaxnorm, name) for name in jaxnorm.__all__ if not name.startswith("_")),
    *(getattr(interop, name) for name in interop.__all__),
]
INHERITED = {"parent", "name"}  # fields of every flax.linen.Module


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def fields_or_arguments(thing):
    if not inspect.isclass(thing):
        return set(inspect.signature(thing).parameters)
    if not dataclasses.is_dataclass(thing):
        return set()
    if thing is jaxnorm.Conv:  # which adds to the fields of flax.linen.Conv
        return {"conv_general_dilated"}
    return {field.name for field in dataclasses.fields(thing)} - INHERITED


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_the_library_s_docstrings_list_every_field_and_argument(thing):
    sections = re.split(r"^(Attributes|Args|Returns|Raises|Examples):$", inspect.getdoc(thing), flags=re.M)
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    listed = set(re.findall(r"^    \**(\w+): ", text.get("Attributes", text.get("Args", "")), re.M))
    assert listed == fields_or_arguments(thing)


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_the_library_s_docstrings_have_an_example(thing):
    is_protocol = getattr(thing, "_is_protocol", False)
    assert is_protocol or re.search(r"^Examples:\n    >>> ", inspect.getdoc(thing), re.M)
