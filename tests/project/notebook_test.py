"""The notebook runs from top to bottom, and its networks learn more from the distilled set."""

import json
from pathlib import Path

import pytest

from kip_flax.export import pictures

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem == "transfer"))
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs(path, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    names = {}
    for number, source in enumerate(cells(path, "code")):
        exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
    assert names["kernel_accuracy"]["distilled"] > names["kernel_accuracy"]["real"] + 0.1
    assert names["network_accuracy"]["distilled"] > names["network_accuracy"]["real"] + 0.05
    assert names["used_accuracy"] == names["network"].facts["test"] > 0.6
    assert "distilled" in capsys.readouterr().out
    assert len(pictures.png_bytes(names["picture"])) > 1000


def test_notebooks_are_there_without_outputs():
    assert [path.stem for path in NOTEBOOKS] == ["transfer"]
    for path in NOTEBOOKS:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert all(not cell.get("outputs") for cell in content["cells"])
