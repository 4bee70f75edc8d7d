"""The page of configurations: fresh, every file once, figures those of docstrings and results."""

import ast
import importlib
import re
import types

import pytest

from kip_flax import config as config_lib
from results import configurations, record
from results.experiment import Experiment
from results.experiments import EXPERIMENTS

RESULTS = configurations.ROOT / "results"
CONFIGS = configurations.ROOT / "configs"
TEXT = configurations.PAGE.read_text(encoding="utf-8")
DONE = [e for e in EXPERIMENTS if record.is_done(e, RESULTS)]
AS_IT_IS = ("kip_digits", "kip_mnist", "kip_cifar10", "kip_newton_digits", "kip_newton_mnist")


def row(name):
    """The line of the page that links to a set."""
    (line,) = [line for line in TEXT.splitlines() if f"](gallery.md#{name})" in line]
    return line


def test_the_page_is_what_configurations_and_figures_make_it():
    assert configurations.render(RESULTS) == TEXT


def test_every_file_has_its_row_with_the_words_of_its_docstring():
    for path in sorted(CONFIGS.glob("[!_]*.py")):
        if path.stem == "default":
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        (line,) = re.findall(rf"^\| `{path.stem}` \| .*$", TEXT, re.MULTILINE)
        title = docstring.splitlines()[0].rstrip(".")
        expected = re.search(r"^Expected: (\S+)", docstring, re.MULTILINE)[1]
        assert line.startswith(f"| `{path.stem}` | {title} | {expected}")


@pytest.mark.parametrize("experiment", DONE, ids=lambda e: e.name)
def test_a_measured_row_has_its_accuracy_and_the_fields_that_differ(experiment):
    line = row(experiment.name)
    draws = record.read(RESULTS / experiment.name)["draws"]
    before, after = (
        100 * sum(d[part]["accuracy"] for d in draws) / len(draws) for part in ("initial", "final")
    )
    match = re.search(r"\[(\d+\.\d\d)(?: ± \S+)? to (\d+\.\d\d)", line)
    assert [float(x) for x in match.groups()] == pytest.approx([before, after], abs=5.1e-3)
    module = importlib.import_module(f"configs.{experiment.config}")
    base = config_lib.flatten(module.get_config())
    for name in ("support.size", "num_steps", "reg", "batch_size", "support.learn_labels"):
        differs = name in experiment.fields and experiment.fields[name] != base[name]
        assert (f"`{name}=" in line) is differs


@pytest.mark.parametrize("name", AS_IT_IS)
def test_what_a_docstring_says_was_measured_is_in_the_results(name):
    (experiment,) = (e for e in DONE if e.config == name and "| as it is |" in row(e.name))
    final = record.read(RESULTS / experiment.name)["draws"][0]["final"]["accuracy"]
    docstring = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text(encoding="utf-8")))
    assert f"{100 * final:.2f} %" in docstring.partition("Measured:")[2]


def test_fields_that_only_watch_are_no_difference():
    (one,) = (c for c in configurations.read() if c.name == "kip_digits")
    watched = Experiment("a", "kip_digits", {"eval.steps": (1,), "reg": 1e-6})
    assert configurations._changed(one, watched) == "as it is"
    other = Experiment("b", "kip_digits", {"augment": "flip", "support.init": "results/c/d.npz"})
    assert configurations._changed(one, other) == "`augment=flip`, on from `c`"


def test_a_docstring_without_its_parts_is_refused(monkeypatch):
    new = types.ModuleType("new", "New.")
    monkeypatch.setattr(configurations.importlib, "import_module", lambda _: new)
    with pytest.raises(ValueError, match=r"configs/new\.py lacks 'Expected:'"):
        configurations._read("new")
