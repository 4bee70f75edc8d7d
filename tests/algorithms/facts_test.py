"""What algorithms state about themselves, and what holds for one that states nothing."""

import sys
import types

import numpy as np
import pytest

from configs import default
from kip_flax import algorithms
from kip_flax import config as config_lib
from kip_flax.algorithms import interface

SECTIONS = {"optimizer", "newton", "matching", "frepo", "rfad", "bptt", "privacy"}
STARTS = (
    *("Kernel Inducing", "Label Solve", "Dataset Condensation", "Neural", "Random Feature"),
    *("Truncated backpropagation", "Differentially Private"),
)


@pytest.mark.parametrize("name", algorithms.NAMES)
def test_an_algorithm_states_its_facts(name):
    facts = algorithms.facts(name)
    assert facts is algorithms.find(name).FACTS
    assert facts.title != name
    assert facts.full_title.startswith(STARTS)
    assert facts.bibtex.startswith(("@inproceedings", "@misc"))
    assert bool(facts.sections) == facts.learns_images  # Label Solve has no fields of its own.
    assert set(facts.sections) <= SECTIONS
    assert "10 per class" in facts.published_recipe(10) or facts.uses_kernel
    # Those that learn images by finite networks compute no kernel entries.
    by_networks = {
        "bptt": "unrolled-training",
        "dc": "gradient-matching",
        "dsa": "gradient-matching",
        "frepo": "feature-regression",
        "rfad": "kernel-ridge-regression",
    }
    assert facts.uses_kernel != (name in by_networks)
    assert facts.tag == by_networks.get(name, "kernel-ridge-regression")


def test_sets_for_networks_are_told_apart_from_those_for_the_kernel():
    made = {name for name in algorithms.NAMES if algorithms.facts(name).for_networks}
    assert made == {"bptt", "dc", "dsa", "frepo", "rfad"}


def test_titles_and_variants_tell_the_algorithms_apart():
    facts = [algorithms.facts(name) for name in algorithms.NAMES]
    assert len({(x.title, x.variant) for x in facts}) == len(algorithms.NAMES)
    newton = algorithms.facts("kip_newton")
    assert newton.full_title == "Kernel Inducing Points (KIP), Gauss-Newton"
    assert newton.krr_loss
    assert not algorithms.facts("ls").krr_loss


def test_labels_are_learned_fixed_or_solved():
    labels = {
        name: [algorithms.known(name).labels(x) for x in (True, False)] for name in algorithms.NAMES
    }
    assert labels == {
        "bptt": ["learned", "fixed"],
        "dc": ["learned", "fixed"],
        "dp_kip": ["learned", "fixed"],
        "dsa": ["learned", "fixed"],
        "frepo": ["learned", "fixed"],
        "kip": ["learned", "fixed"],
        "kip_newton": ["solved", "fixed"],
        "kip_solve": ["solved", "solved"],
        "ls": ["solved", "solved"],
        "ls_cross_entropy": ["solved", "solved"],
        "rfad": ["learned", "fixed"],
    }


@pytest.mark.parametrize("name", algorithms.NAMES)
def test_advice_names_fields_that_the_algorithm_reads(name):
    facts = algorithms.facts(name)
    named = {word.strip(",") for word in facts.if_not_finite.split() if "." in word}
    assert named <= set(config_lib.FIELDS)
    assert {word.partition(".")[0] for word in named} <= set(facts.sections)


def test_label_solve_changes_labels_in_one_published_step():
    ls, kip = algorithms.find("ls"), algorithms.find("kip")
    assert [ls.labels_changed(False, step) for step in (0, 1, 9)] == [False, True, True]
    assert [kip.labels_changed(True, step) for step in (0, 9)] == [True, True]
    assert not kip.labels_changed(False, 9)
    assert [ls.published_step(step) for step in (0, 1, 9)] == [0, 1, 1]
    assert [kip.published_step(step) for step in (0, 1, 9)] == [0, 1, 9]


def test_gauss_newton_keeps_gradients():
    config = default.get_config()
    sizes = (8, 8, 1), 200, 2  # Of an image, targets, devices.
    assert algorithms.find(config.algorithm).kept_gradients(config, *sizes) == (0, 0)
    config.algorithm = "kip_newton"
    assert (
        algorithms.find(config.algorithm).kept_gradients(config, *sizes).images
        == config.support.size
    )
    config.newton.block = 2
    gradients, bases = (
        np.zeros((2, 100, 64), "f4"),
        np.zeros((4, 2, config.newton.iterations, 64), "f4"),
    )
    assert algorithms.find(config.algorithm).kept_gradients(config, *sizes) == (
        2,
        gradients.nbytes + bases.nbytes,
    )


def test_cross_entropy_keeps_the_rows_of_the_targets_that_labels_are_solved_for():
    config = default.get_config()
    assert algorithms.find(config.algorithm).kept_rows(config, 900) == (0, False)
    config.algorithm = "ls_cross_entropy"
    assert algorithms.find(config.algorithm).kept_rows(config, 900) == (900, True)
    for config.algorithm in ("kip_solve", "kip_newton"):
        config.eval.label_loss, config.eval.label_targets = "squared_error", 300
        assert algorithms.find(config.algorithm).kept_rows(config, 900) == (0, False)
        config.eval.label_loss = "cross_entropy"
        assert algorithms.find(config.algorithm).kept_rows(config, 900) == (300, False)
    config.support.learn_labels = False
    assert algorithms.find(config.algorithm).kept_rows(config, 900) == (0, False)


@pytest.mark.parametrize("name", ["", "mine", "mine.none", "json", "antigravity.no"])
def test_an_unknown_algorithm_has_defaults_and_its_name(name):
    assert algorithms.facts(name) == interface.Facts(title=name)
    assert algorithms.facts(name).full_title == name
    assert algorithms.known(name).labels(True) == "learned"
    assert algorithms.known(name).labels_changed(True, 0)
    assert algorithms.known(name).published_step(7) == 7


def test_a_foreign_algorithm_is_asked_once_it_is_imported(tmp_path, monkeypatch):
    """To read a file that names a module must run no code of it."""
    (tmp_path / "foreign_facts.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert algorithms.facts("foreign_facts").title == "foreign_facts"
    module = types.ModuleType("foreign_facts")
    module.FACTS = interface.Facts(title="Foreign", unit="epoch")
    module.labels = lambda learn_labels: "solved"
    monkeypatch.setitem(sys.modules, "foreign_facts", module)
    assert algorithms.facts("foreign_facts").unit == "epoch"
    assert algorithms.known("foreign_facts").labels(False) == "solved"
