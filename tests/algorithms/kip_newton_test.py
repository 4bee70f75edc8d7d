"""Whole runs by Gauss-Newton steps."""

import numpy as np
import pytest
from whole_runs import artefacts, assert_same, result, small, stop_at

from kip_flax import algorithms, export, krr
from kip_flax import config as config_lib
from kip_flax.algorithms import kip_newton
from kip_flax.modes.train import mode as train
from kip_flax.runtime.errors import UserError


def newton(**changes):
    return small(algorithm="kip_newton", num_steps=6, eval__steps=(3,), **changes)


@pytest.mark.slow
@pytest.mark.parametrize(("learned", "descent"), [(True, "kip_solve"), (False, "kip")])
def test_six_steps_are_worth_more_than_those_of_descent(quick_kernels, tmp_path, learned, descent):
    config = newton(eval__num_test=0, batch_size=300, support__learn_labels=learned)
    train.train_and_evaluate(config, str(tmp_path / "newton"))
    config.algorithm = descent
    train.train_and_evaluate(config, str(tmp_path / "descent"))
    ends = [result(tmp_path / name)["evaluations"][-1] for name in ("newton", "descent")]
    assert ends[0]["accuracy"] > ends[1]["accuracy"] + 0.02
    assert ends[0]["mse"] < 0.9 * ends[1]["mse"]


def check_images(workdir, state):
    """The set holds the mean of the images of the steps."""
    found = export.load_distilled(next((workdir / "distilled").glob("*_ckpt6.npz"))).images
    np.testing.assert_array_equal(found, kip_newton.averaged(state).support[0])
    assert np.abs(found - state.support[0]).max() > 1e-3


@pytest.mark.parametrize("block", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_run_goes_on_to_the_same_bits(quick_kernels, tmp_path, monkeypatch, block):
    config = newton(newton__block=block)
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(config, str(tmp_path / "parts"))
    parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")
    check_images(tmp_path / "whole", whole)


def test_fixed_labels_stay_and_the_set_says_so(quick_kernels, tmp_path):
    config = newton(support__learn_labels=False)
    state = train.train_and_evaluate(config, str(tmp_path))
    check_images(tmp_path, state)
    rows = np.asarray(state.support[1])
    np.testing.assert_allclose(rows, krr.centered_one_hot(np.argmax(rows, axis=1), 10), atol=1e-6)
    assert not list((tmp_path / "distilled").glob("*_l_*"))
    assert [algorithms.labels("kip_newton", learned) for learned in (False, True)] == [
        "fixed",
        "solved",
    ]


def test_blocks_that_do_not_divide_the_images_are_refused():
    with pytest.raises(UserError, match="take 5, or 0 for all"):
        config_lib.validate(newton(newton__block=4))
    config_lib.validate(newton(newton__block=5))


def test_its_fields_decide_nothing_elsewhere_and_the_optimiser_nothing_here():
    assert not any(name.startswith("newton.") for name in config_lib.identity(small()))
    names = config_lib.identity(newton())
    assert "newton.damping" in names
    assert not any(name.startswith("optimizer.") for name in names)
    assert "num_steps" not in config_lib.identity(newton(optimizer__schedule="cosine"))
