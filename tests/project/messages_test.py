"""The page of messages: it is current, and what the program raises is on it."""

import functools
import importlib.util
import re

import pytest
from command import ROOT

from configs import default
from kip_flax import architectures, data, modes, preprocess
from kip_flax import config as config_lib
from kip_flax.runtime import files, sharding
from kip_flax.runtime.errors import UserError

SPEC = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "site" / "messages.py")
messages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(messages)


def changed(name, value):
    config = default.get_config()
    config.update_from_flattened_dict({name: value})
    return config


@functools.cache
def patterns():
    """Those of the page's errors; their ellipses stand for anything."""
    lines = (f"{one.wrong}: {one.remedy}" if one.remedy else one.wrong for one in messages.read())
    specific = (line for line in lines if len(re.findall(r"[a-z]{3,}", line)) >= 2)
    return [re.compile(".*".join(map(re.escape, line.split("…")))) for line in specific]


def is_there(line):
    """Whether an error is one of the page's."""
    return any(pattern.fullmatch(line) for pattern in patterns())


def test_the_page_is_what_the_sources_make_it():
    assert messages.PAGE.read_text(encoding="utf-8") == messages.render()


@pytest.mark.parametrize(
    "provoke",
    [
        lambda: config_lib.validate(changed("support.size", 0)),
        lambda: config_lib.validate(changed("eval.steps", (3, -1))),
        lambda: config_lib.validate(changed("transfer.ladder", (10, 0))),
        lambda: config_lib.validate(changed("transfer.networks", ("vit",))),
        lambda: modes.find("fly"),
        lambda: data.load_dataset("mnist"),
        lambda: preprocess.fit("pca", None),
        lambda: architectures.build("myrtle", 6),
        lambda: files.read_arrays(ROOT / "no_such_file.npz"),
        lambda: sharding.make_mesh(4096),
    ],
)
def test_what_is_raised_is_on_the_page(provoke):
    with pytest.raises(UserError) as caught:
        provoke()
    assert is_there(str(caught.value)), str(caught.value)


def test_what_is_never_raised_is_not_on_the_page():
    assert not is_there("the moon is full: wait until it wanes.")


def test_the_lines_of_troubleshooting_are_on_the_page():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    lines = re.findall(r"^error: (.*)$", text, re.MULTILINE)
    assert len(lines) >= 10
    assert [line for line in lines if not is_there(line)] == []


def test_texts_of_a_source():
    source = (
        "raise UserError(f'{x} is bad: take {y!r}.')\nerrors.UserError('a' + b)\n"
        "UserError(text)\nValueError('no')\n"
    )
    assert list(messages.texts(source)) == ["… is bad: take ….", "a…"]
    assert messages._parts("… is bad: take ….") == ("… is bad", "take ….")
    assert messages._parts("…: no images") == ("…: no images", "")
