"""README against the repository: it is short, its Python runs, its commands and links exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import main
from kip_flax import export, preprocess
from kip_flax.config import FIELDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


def test_the_distilled_file_in_four_lines(tmp_path, monkeypatch):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) == 4
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    fitted = preprocess.fit("standard", pixels)
    labels = rng.standard_normal((10, 10)).astype(np.float32)
    (path,) = re.findall(r'"(.*\.npz)"', code)
    export.write_distilled(
        tmp_path / path,
        preprocess.apply(fitted, pixels),
        labels,
        export.Description(fitted, tuple("0123456789")),
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    np.testing.assert_array_equal(names["labels"], labels)
    assert names["images"].shape == (10, 8, 8, 1)
    np.testing.assert_allclose(names["pictures"], pixels / 255, atol=1e-5)


def test_the_table_lists_every_configuration():
    experiments = {path.stem for path in (ROOT / "configs").glob("[!_]*.py")} - {"default"}
    page = (ROOT / "docs" / "configurations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+: ", page, re.MULTILINE)
    assert sorted(rows) == sorted(experiments)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_files_and_flags_that_exist(command):
    for word in shlex.split(command):
        name, _, value = word.partition("=")
        if name.startswith("--config."):
            assert name.removeprefix("--config.") in FIELDS
        elif name.startswith("--"):
            assert name.removeprefix("--") in main.FLAGS
        path = value if name == "--config" else word
        if re.fullmatch(r"[\w/]+\.(py|sh|txt)", path):
            assert (ROOT / path).is_file(), path


def test_it_is_read_in_a_minute():
    assert len(README.splitlines()) <= 150


def test_ci_runs_the_test_command():
    assert COMMANDS[1] == "bash tests/run.sh"
    assert f"\n{COMMANDS[1]}\n" in CI


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert "docs/digits.png" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_ci_checks_the_spelling():
    assert '"$VENV/bin/codespell"' in CI.splitlines()
    tools = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8")
    assert re.search(r"^codespell==", tools, re.MULTILINE)
