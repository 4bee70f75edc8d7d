"""Modules of a user's own, as files in a folder that Python finds."""

import importlib
import sys

import pytest


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """`own_module(name, text)` writes a module and returns its dotted name, 'mine.NAME'."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return f"mine.{name}"

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]
