"""docs/figures: what examples measured, kept; the tables of their pages say the same."""

import json
from pathlib import Path

import pytest

from examples.architecture_search import ranks
from examples.continual_learning import results
from examples.continual_learning.results import Curve
from examples.continual_learning.settings import MEMORIES

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES = DOCS / "figures"
# Of the other memories the page alone has the figures.
KEPT = {f"continual_{name}_10": {"herding", "frepo"} for name in ("mnist", "cifar10")}
ORDERS = list(range(5))
TITLES = {"finite": "Finite networks", "ntk": "NTKs", "nngp": "NNGPs"}


def page(name):
    return (DOCS / f"{name}.md").read_text().splitlines()


CONTINUAL, SEARCH = (sorted(FIGURES.glob(f"{name}_*.json")) for name in ("continual", "search"))


def test_every_file_has_a_test_and_a_link():
    assert CONTINUAL
    assert SEARCH
    assert {*CONTINUAL, *SEARCH} == set(FIGURES.iterdir())
    pages = "".join(path.read_text() for path in DOCS.glob("*.md"))
    for path in FIGURES.iterdir():
        assert f"(figures/{path.name})" in pages


@pytest.mark.parametrize("path", CONTINUAL, ids=lambda path: path.stem)
def test_memories_have_the_accuracies_that_were_kept(path):
    rows = json.loads(path.read_text())["curves"]
    names = ("memory", "per_class", "learner", "accuracies")
    curves = [Curve(**{name: row[name] for name in names}, orders=ORDERS) for row in rows]
    assert {len(curve.accuracies) for curve in curves} == {len(ORDERS)}
    assert {curve.memory for curve in curves} == KEPT.get(path.stem, set(MEMORIES))
    lines = page("continual-learning")
    for curve in (*curves, *results.above(curves, "herding")):
        assert f"| {curve.learner} | {curve.memory} | {' | '.join(curve.entries)} |" in lines


@pytest.mark.parametrize("path", SEARCH, ids=lambda path: path.stem)
def test_networks_have_the_ranks_that_were_kept(path):
    found = json.loads(path.read_text())
    lines = page("architecture-search")
    for kind, title in TITLES.items():
        rows = found[kind]["networks"]
        head, _, *rankings = ranks.table(title, rows).split("\n\n")[0].splitlines()
        assert len(rankings) == 4
        assert {head, *rankings} <= set(lines)
        assert any(line.startswith(f"{len(rows)} networks, trained on the whole") for line in lines)
