"""KIP with solved labels: whole runs against the closed form, and what it refuses."""

import jax
import numpy as np
import pytest
from whole_runs import artefacts, assert_same, result, small, stop_at

from kip_flax import architectures, data, export, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.modes.train import mode as train
from kip_flax.runs import setup
from kip_flax.runtime.errors import UserError


@pytest.mark.parametrize(("reg", "few"), [(1e-6, 0), (0.1, 10_000), (1e-6, 50)])
def test_kip_solve_gives_its_images_the_best_labels_for_its_ridge(
    quick_kernels, tmp_path, reg, few
):
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
    kernel = kernels.make_kernel(architectures.fc(1), implementation="neural_tangents")
    (path,) = (tmp_path / "distilled").glob("*_l_*ckpt6.npz")
    distilled = export.load_distilled(path)
    np.testing.assert_array_equal(distilled.images, state.params["images"])
    k_ts, k_ss = (
        np.asarray(kernel(a.astype(float), distilled.images.astype(float)))
        for a in (x, distilled.images)
    )
    k_reg = k_ss + reg * np.trace(k_ss) / 10 * np.eye(10)
    ridge = np.sqrt(reg / 10) * np.eye(10)
    rows_of_ridge = np.concatenate([k_ts, ridge]), np.concatenate([y, np.zeros((10, 10))])
    best = k_reg @ np.linalg.lstsq(*rows_of_ridge, rcond=None)[0]
    np.testing.assert_allclose(distilled.labels, best, rtol=1e-2, atol=1e-2)
    first, _, last = result(tmp_path)["evaluations"]
    assert last["accuracy"] > first["accuracy"]
    assert last["mse"] < first["mse"]


def test_kip_solve_goes_on_to_the_same_bits(quick_kernels, tmp_path, monkeypatch):
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
