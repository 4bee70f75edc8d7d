"""Ablations: the page is fresh, every line a valid configuration, gains are paired by seed."""

import json

import jax
import pytest

from kip_flax import config as config_lib
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import sharding
from results import ablations

LINES = [(name, change) for name, study in ablations.STUDIES.items() for change in study.changes]


def test_the_page_is_what_the_figures_make_it():
    assert (ablations.FOLDER / "ablations.md").read_text() == ablations.render()


@pytest.mark.parametrize(("name", "change"), LINES, ids=str)
def test_every_line_is_a_valid_configuration(name, change):
    config = ablations.config_of(name, change)
    config_lib.validate(config)
    assert config.dataset.validation > 0


def test_batches_of_other_sizes_cost_the_same_on_mnist():
    def cost(change):
        config = ablations.config_of("mnist", change)
        return config.num_steps * config.support.size * config.batch_size

    costs = [cost(change) for name, change in LINES if name == "mnist"]
    assert len(costs) > 10
    assert set(costs) == {240_000}


def test_gains_are_taken_seed_by_seed(monkeypatch):
    def runs(*accuracies):
        return {str(seed): {"accuracy": a} for seed, a in enumerate(accuracies)}

    kept = {
        "digits: nothing: the base": runs(0.50, 0.90, 0.50, 0.90, 0.50),
        "digits: `reg=0.01`": runs(0.52, 0.92, 0.52, 0.92, 0.52),
        "digits: `reg=0.0001`": runs(0.52, 0.92),
    }
    monkeypatch.setattr(ablations, "read", lambda: kept)
    lines = ablations.render().splitlines()
    assert "| nothing: the base | 126 | 66.00 ± 21.91 |  |" in lines
    assert "| `reg=0.01` | 126 | 68.00 ± 21.91 | +2.00 ± 0.00 |" in lines
    assert "| `reg=0.0001` | 126 | not measured | |" in lines  # Of five seeds three are missing.


def test_one_seed_has_no_deviation(monkeypatch):
    one = ablations.Study("one", ablations.STUDIES["digits"].base, 1, ({}, {"reg": 0.01}))
    monkeypatch.setattr(ablations, "STUDIES", {"digits": one})
    kept = {
        "digits: nothing: the base": {"0": {"accuracy": 0.5}},
        "digits: `reg=0.01`": {"0": {"accuracy": 0.52}},
    }
    monkeypatch.setattr(ablations, "read", lambda: kept)
    lines = ablations.render().splitlines()
    assert "| nothing: the base | 126 | 50.00 |  |" in lines
    assert "| `reg=0.01` | 126 | 52.00 | +2.00 |" in lines


def test_a_run_that_was_stopped_is_not_a_measurement(monkeypatch):
    written = []

    def stopped(config, folder):
        evaluations = [{"step": 0, "accuracy": 0.1, "mse": 0.1}]
        content = {"status": "stopped", "evaluations": evaluations}
        RunFolder(folder).result_file.write_text(json.dumps(content), encoding="utf-8")

    monkeypatch.setattr(ablations, "train_and_evaluate", stopped)
    monkeypatch.setattr(ablations, "read", dict)
    monkeypatch.setattr(ablations.files, "write_json", lambda *args: written.append(args))
    name, study = next(iter(ablations.STUDIES.items()))
    with pytest.raises(KeyboardInterrupt):
        ablations._measure(name, study.changes[0], 0, "")
    assert not written


def test_a_line_without_float64_is_measured_without_it(monkeypatch):
    found = []

    @sharding.with_float64
    def train(config, folder):
        found.append(jax.config.jax_enable_x64)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablations, "train_and_evaluate", train)
    for change in ({}, {"float64": False}):
        with pytest.raises(KeyboardInterrupt):
            ablations._measure("digits", change, seed=99, data="")
    assert found == [True, False]
