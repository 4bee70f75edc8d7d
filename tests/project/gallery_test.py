"""The gallery: the page is fresh, has every set once and in order, and its lines load the sets."""

import re

import numpy as np
import pytest

from results import gallery, record, words
from results.experiments import EXPERIMENTS

RESULTS = gallery.ROOT / "results"
TEXT = gallery.PAGE.read_text(encoding="utf-8")
DONE = {e.name for e in EXPERIMENTS if record.is_done(e, RESULTS)}


def section(name):
    return TEXT.partition(f"### [{name}]")[2].partition("\n### ")[0]


def test_the_page_is_what_the_figures_make_it():
    assert gallery.render(RESULTS) == TEXT


def test_every_set_is_there_once_sorted_by_data_set_size_and_accuracy():
    shown = re.findall(r"^### \[(\w+)\]", TEXT, re.MULTILINE)
    assert sorted(shown) == sorted(DONE)
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert titles == [
        words.DATASETS[name] for name in ("digits", "mnist", "fashion_mnist", "cifar10")
    ]
    keys = []
    for name in shown:
        figures = record.read(RESULTS / name)
        accuracy = float(re.search(r"\| KRR \| (\d+\.\d\d)", section(name))[1])
        mean = 100 * np.mean([draw["final"]["accuracy"] for draw in figures["draws"]])
        assert accuracy == pytest.approx(mean, abs=5e-3)
        keys.append((words.dataset(figures["config"]), figures["config"]["support"]["size"], -mean))
    assert keys == sorted(keys, key=lambda key: (titles.index(key[0]), *key[1:]))


def test_a_row_that_was_not_measured_is_left_out():
    for name in DONE:
        measured = {row["network"] for row in record.read(RESULTS / name).get("network", [])}
        rows = set(re.findall(r"^\| (Networks[\w, ]*) \|", section(name), re.MULTILINE))
        expected = zip(words.NETWORKS, ("Networks", "Networks, normalised"), strict=True)
        assert rows == {row for network, row in expected if network in measured}


@pytest.mark.parametrize("name", ["kip_digits_10", "kip_newton_cifar10_10"])
def test_the_line_of_a_set_loads_it(name, monkeypatch):
    monkeypatch.chdir(gallery.ROOT)
    (line,) = re.findall(r"```python\n(.*?)```", section(name), re.DOTALL)
    names = {}
    exec(f"from kip_flax import export\n{line}", names)
    size = record.read(RESULTS / name)["config"]["support"]["size"]
    assert len(names["file"].images) == len(names["file"].labels) == size
