"""Algorithms by name, and the page that says how to add one."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from whole_runs import assert_same, result, small

from kip_flax import algorithms, data, preprocess
from kip_flax import config as config_lib
from kip_flax.modes.train import mode as train
from kip_flax.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-an-algorithm.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The page's two files, in a folder that Python finds."""
    module, configuration = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "class_means.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield module, configuration
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]


def test_the_example_of_the_page_runs_and_goes_on(example, quick_kernels, tmp_path):
    module, configuration = example
    assert len(module.splitlines()) <= 42
    names = {}
    exec(configuration, names)
    config = names["get_config"]()
    config.mesh.data, config.eval.num_test, config.report.num_train = 2, 60, 0
    config.kernel.architecture, config.kernel.depth = "fc", 1
    config_lib.validate(config)
    assert algorithms.facts("mine.class_means").title == "Class means"
    state = train.train_and_evaluate(config, str(tmp_path / "whole"))
    evaluations = result(tmp_path / "whole")["evaluations"]
    assert evaluations[-1]["accuracy"] > evaluations[0]["accuracy"] + 0.1
    # Twelve steps of half the way each: the means of the last batches, and near the whole means.
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    pixels = preprocess.apply(fitted, digits.train_images)
    means = np.stack([pixels[digits.train_labels == c].mean(0) for c in range(10)])
    assert np.abs(np.asarray(state.support[0]) - means).mean() < 0.2
    config.num_steps = 5
    train.train_and_evaluate(config, str(tmp_path / "parts"))
    config.num_steps = 12
    assert_same(train.train_and_evaluate(config, str(tmp_path / "parts")), state)


def test_mistakes_in_naming_an_algorithm_are_reported(example):
    for name, message in (
        (
            "gan",
            "algorithm is 'gan': take one of bptt, dc, dp_kip, dsa, frepo, kip, kip_newton, "
            "kip_solve, ls, ls_cross_entropy, rfad, or a module of your own",
        ),
        ("mine.none", "algorithm is 'mine.none': take one of"),
        ("nowhere.at_all", "algorithm is 'nowhere.at_all': take one of"),
        ("kip_flax.krr", "'kip_flax.krr', which has no init and no make_step"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            algorithms.find(name)
        assert "\n" not in str(caught.value)
    config = small(algorithm="mine.class_means")
    with pytest.raises(UserError, match=r"config without the field means\.rate"):
        config_lib.validate(config)
