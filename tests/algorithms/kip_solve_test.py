"""KIP with solved labels: whole runs against the closed form, and what it refuses."""

import jax
import numpy as np
import pytest
from whole_runs import artefacts, assert_same, exact_kernels, result, small, stop_at

from kip_flax import config as config_lib
from kip_flax import data, export, krr, preprocess
from kip_flax.algorithms import kip_solve
from kip_flax.krr import cross_entropy
from kip_flax.modes.train import mode as train
from kip_flax.runs import setup
from kip_flax.runtime.errors import UserError


@pytest.mark.parametrize(
    ("reg", "few"), [(1e-6, 0), (0.1, 10_000), pytest.param(1e-6, 50, marks=pytest.mark.slow)]
)
def test_kip_solve_gives_its_images_the_best_labels_for_its_ridge(tmp_path, reg, few):
    config = small(algorithm="kip_solve", num_steps=6, eval__steps=(3,), eval__num_test=0, reg=reg)
    config.eval.label_targets = few
    state = train.train_and_evaluate(config, str(tmp_path))
    digits = data.load_dataset("digits")
    rows = np.arange(len(digits.train_labels))
    if few == 50:
        key = jax.random.fold_in(setup.keys(config)[1], 1)
        rows = data.balanced_draw(digits.train_labels, few, 10, key)
    fitted = preprocess.fit("standard", digits.train_images)
    x = preprocess.apply(fitted, digits.train_images[rows])
    y = np.eye(10)[digits.train_labels[rows]] - 0.1
    (path,) = (tmp_path / "distilled").glob("*_l_*ckpt6.npz")
    distilled = export.load_distilled(path)
    np.testing.assert_array_equal(distilled.images, state.params["images"])
    k_ts, k_ss = exact_kernels(distilled.images, x)
    k_reg = k_ss + reg * np.trace(k_ss) / 10 * np.eye(10)
    ridge = np.sqrt(reg / 10) * np.eye(10)
    rows_of_ridge = np.concatenate([k_ts, ridge]), np.concatenate([y, np.zeros((10, 10))])
    best = k_reg @ np.linalg.lstsq(*rows_of_ridge, rcond=None)[0]
    np.testing.assert_allclose(distilled.labels, best, rtol=1e-2, atol=1e-2)
    first, _, last = result(tmp_path)["evaluations"]
    assert last["accuracy"] > first["accuracy"]
    assert last["mse"] < first["mse"]


@pytest.mark.parametrize(
    ("algorithm", "devices"),
    [("kip_solve", 4), pytest.param("kip_newton", 1, marks=pytest.mark.slow)],
)
def test_labels_of_a_set_by_cross_entropy(tmp_path, algorithm, devices):
    """Those of logistic regression on the same targets, which may not be shared out evenly."""
    config = small(algorithm=algorithm, num_steps=2, eval__num_test=0, eval__label_targets=515)
    config.update_from_flattened_dict({"batch_size": 130, "mesh.data": devices, "eval.steps": (2,)})
    config.eval.label_loss = "cross_entropy"
    train.train_and_evaluate(config, str(tmp_path))
    digits = data.load_dataset("digits")
    key = jax.random.fold_in(setup.keys(config)[1], 1)
    rows = data.balanced_draw(digits.train_labels, 515, 10, key)
    x = preprocess.apply(preprocess.fit("standard", digits.train_images), digits.train_images)
    (path,) = (tmp_path / "distilled").glob("*_l_*ckpt2.npz")
    distilled = export.load_distilled(path)
    k_ts, k_ss = exact_kernels(distilled.images, x[rows])
    alpha = cross_entropy.solution(k_ts, digits.train_labels[rows], 10)
    predictions = krr.predict(k_ts, krr.solve(k_ss, distilled.labels, 1e-6))
    np.testing.assert_allclose(predictions, k_ts @ alpha, atol=0.01)


def test_the_losses_that_may_label_a_set_are_those_there_are():
    assert set(kip_solve.LABELLERS) == {"squared_error", "cross_entropy"}
    with pytest.raises(UserError, match=r"eval\.label_loss is 'hinge': take one of squared_error"):
        config_lib.validate(small(algorithm="kip_solve", eval__label_loss="hinge"))


def test_kip_solve_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    config = small(algorithm="kip_solve", num_steps=6, eval__steps=(3,))
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(config, str(tmp_path / "parts"))
    parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")


def test_kip_solve_does_not_take_fixed_labels():
    with pytest.raises(UserError, match="kip_solve solves for the labels"):
        config_lib.validate(small(algorithm="kip_solve", support__learn_labels=False))


@pytest.mark.parametrize("name", ["kip_solve", "kip_newton"])
def test_labels_that_fit_a_whole_batch_are_refused(name):
    """As many images as targets: nothing would be left for the images to learn."""
    fields = {"algorithm": name, "support__size": 20}
    config_lib.validate(small(**fields, batch_size=21))
    with pytest.raises(UserError, match=r"batch_size is 20 and support\.size 20:") as caught:
        config_lib.validate(small(**fields, batch_size=20))
    assert "\n" not in str(caught.value)
    if name == "kip_newton":
        config_lib.validate(small(**fields, batch_size=20, support__learn_labels=False))
    config_lib.validate(small(**fields, eval__label_targets=21))
    with pytest.raises(
        UserError, match=r"eval\.label_targets is 20 and support\.size 20:"
    ) as caught:
        config_lib.validate(small(**fields, eval__label_targets=20))
    assert "\n" not in str(caught.value)
