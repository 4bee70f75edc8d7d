"""The tutorial runs from top to bottom, as it stands, on pictures that it makes of real digits."""

import csv
import re
import shlex

import numpy as np
import pytest
from command import ROOT, linked, python
from PIL import Image

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SETUP = "python3 -m venv"
PYTHON = ".venv/bin/python"


def steps():
    """Commands and files, in the order of the page: ('run', command) or (name, content)."""
    fenced = re.findall(
        r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL
    )
    for language, title, block in fenced:
        if language == "bash":
            yield from (("run", line) for line in block.splitlines())
        elif title:
            yield title, block


@pytest.fixture
def folder(tmp_path):
    """What the commands name, as in a copy of the repository."""
    return linked(tmp_path)


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    printed = []
    for kind, what in steps():
        if kind != "run":
            (folder / kind).write_text(what, encoding="utf-8")
        elif not what.startswith(SETUP):
            program, *rest = shlex.split(what)
            assert program == PYTHON
            done = python(folder, *rest)
            assert (done.returncode, done.stderr) == (0, ""), what
            printed.append(done.stdout)
    assert len(printed) == 6
    _, distilled, transferred, predicted, classified, exported = printed
    before, after = re.search(r"accuracy +(\S+)% at step 0, (\S+)% at step 60", distilled).groups()
    assert float(before) < 75 < 95 < float(after)
    (learned,) = re.findall(r"^8 distilled +\S+ +(\S+) ±", transferred, re.MULTILINE)
    (real,) = re.findall(r"^8 random +\S+ ± \S+ +(\S+) ±", transferred, re.MULTILINE)
    assert float(learned) > float(real) + 10
    assert re.search(r"720 pictures, runs/mine_predictions/predictions\.csv$", predicted)
    with open(folder / "runs" / "mine_predictions" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([row["file"].split("/")[0] == row["class"] for row in rows]) > 0.9
    assert classified == "['zero']\n"
    assert "data-set card" in exported
    with Image.open(folder / "runs" / "mine" / "images.png") as picture:
        assert picture.width > 500
