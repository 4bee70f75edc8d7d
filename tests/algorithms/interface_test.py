"""The members of an algorithm's module, on the page and in the code, and the defaults."""

import importlib
import inspect
import re
import types
from dataclasses import fields
from pathlib import Path

import pytest
from whole_runs import small

from kip_flax import algorithms
from kip_flax.algorithms import interface

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-an-algorithm.md"
MEMBERS = {member.name: member.default for member in fields(interface.Algorithm)}
OPTIONAL = [name for name in MEMBERS if name not in ("init", "make_step") and name.islower()]


def test_the_page_lists_the_members_of_a_module():
    cells = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {re.match(r"`(\w+)", cell)[1] for cell in cells} <= set(MEMBERS)
    assert {name for cell in cells for name in re.findall(r"`(\w+)", cell)} >= set(MEMBERS)


@pytest.mark.parametrize("name", algorithms.NAMES)
def test_members_take_as_many_arguments_as_their_defaults(name):
    module = importlib.import_module(f"kip_flax.algorithms.{name}")
    own = {member: getattr(module, member) for member in OPTIONAL if hasattr(module, member)}
    assert own
    for member, function in own.items():
        assert getattr(algorithms.find(name), member) is function
        inspect.signature(function).bind(*inspect.signature(MEMBERS[member]).parameters)


def test_a_module_without_optional_members_has_the_defaults():
    module = types.ModuleType("bare")
    module.init, module.make_step = (lambda *_: "state"), (lambda problem: "step")
    found = interface.Algorithm.of(module)
    assert (found.init(), found.make_step(None)) == ("state", "step")
    config = small(batch_size=30, num_steps=7)
    assert found.total_steps(config, 100) == 7
    assert found.batch_size(config, 3) == 30
    assert found.pairs(config, 100) == found.label_targets(config, 100) == 0
    assert found.make_support(None)(types.SimpleNamespace(support="images")) == "images"
    assert found.kept_gradients(config, (8, 8, 1), 30, 1) == (0, 0)
    assert found.kept_rows(config, 100) == (0, False)
    assert found.declared(config, 100, 7) == {}
    assert (found.FACTS, found.FIELDS, found.SECTION) == (None, {}, None)


def test_a_module_that_is_not_imported_makes_no_steps():
    with pytest.raises(NotImplementedError, match="not imported"):
        algorithms.known("mine.unknown").make_step(None)


def test_published_steps_are_marked():
    steps = interface.default_eval_steps(small(eval__steps=()), 2100)
    assert {0, 1, 54, 695, 1000, 1500, 2000, 2100} <= steps
    assert steps & set(range(700, 2101)) == {1000, 1500, 2000, 2100}
    assert interface.default_eval_steps(small(eval__steps=(3, 9000)), 2100) == {3, 2100}
