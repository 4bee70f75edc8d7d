"""Modules by name: built in, a user's own, and mistakes."""

import json
import json.decoder

import pytest

from kip_flax.runtime import plugins
from kip_flax.runtime.errors import UserError


def find(name):
    return plugins.find("thing", name, "json", ("decoder", "encoder"), ("JSONDecoder",))


def test_modules_are_built_in_or_anywhere():
    assert find("decoder") is json.decoder
    assert find("json.decoder") is json.decoder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "thing is 'nothing': take one of decoder, encoder, or a module of your own"),
        ("", "thing is '': take one of"),
        ("json.nothing", "thing is 'json.nothing': take one of"),
        ("nowhere.at_all", "thing is 'nowhere.at_all': take one of"),
        (".decoder", "thing is '.decoder': take one of"),
        ("json.scanner", "thing is 'json.scanner', which has no JSONDecoder"),
    ],
)
def test_mistakes_are_reported_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_modules_come_in_the_order_given_then_by_name(tmp_path):
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.py").write_text("")
    found = plugins.modules_in([str(tmp_path)], ("c", "gone", "a"))
    assert [module.name for module in found] == ["c", "a", "b", "d"]


@pytest.mark.parametrize("error", [ValueError, UserError])
def test_errors_of_a_module_of_ones_own_are_its_own(error, own_module):
    imported = f"from {error.__module__} import {error.__name__}"
    name = own_module("thing", f"{imported}\nraise {error.__name__}('of mine')")
    with pytest.raises(error, match="of mine"):
        find(name)


@pytest.mark.parametrize("name", ["mine.thing", "mine.needy.thing"])
def test_what_a_module_of_ones_own_lacks_is_said(name, own_module, tmp_path):
    """Not that there is no such module."""
    own_module("thing", "import no_such_package")
    (tmp_path / "mine" / "needy").mkdir()
    (tmp_path / "mine" / "needy" / "__init__.py").write_text("import no_such_package")
    message = f"thing is '{name}', which cannot be imported: No module named 'no_such_package'"
    with pytest.raises(UserError, match=message):
        find(name)
