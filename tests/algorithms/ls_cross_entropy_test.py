"""Label Solve by cross-entropy: whole runs on the digits."""

import jax
import numpy as np
import pytest
from whole_runs import artefacts, assert_same, exact_kernels, result, small, stop_at

from kip_flax import config as config_lib
from kip_flax import data, export, krr, preprocess
from kip_flax.algorithms import ls_cross_entropy
from kip_flax.krr import cross_entropy
from kip_flax.modes.train import mode as train
from kip_flax.runtime.errors import UserError


def config(algorithm="ls_cross_entropy", **fields):
    return small(algorithm=algorithm, batch_size=400, support__size=20, **fields)


def targets():
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    return preprocess.apply(fitted, digits.train_images), digits.train_labels


def entropy(workdir):
    """Cross-entropy of the training digits, at the best scale of the last set's predictions."""
    (path,) = (workdir / "distilled").glob("*_l_*ckpt1.npz")
    distilled = export.load_distilled(path)
    x, labels = targets()
    k_ts, k_ss = exact_kernels(distilled.images, x)
    predictions = krr.predict(k_ts, krr.solve(k_ss, distilled.labels, 1e-6))
    return least(predictions, labels), k_ts, predictions


def least(predictions, labels):
    """The cross-entropy of the best scale."""
    losses = []
    for scale in np.geomspace(0.5, 50, 100):
        likely = np.asarray(jax.nn.log_softmax(scale * predictions))
        losses.append(-likely[np.arange(len(labels)), labels].mean())
    return min(losses)


@pytest.mark.parametrize("devices", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 4])
def test_a_run_finds_the_labels_of_least_cross_entropy(tmp_path, devices):
    """1,438 targets by 400: the last tile is shorter, and is padded on four devices."""
    state = train.train_and_evaluate(config(mesh__data=devices), str(tmp_path / "run"))
    assert state.step == 4
    found, k_ts, predictions = entropy(tmp_path / "run")
    np.testing.assert_allclose(state.k_ts, k_ts, rtol=1e-4)
    wanted = k_ts @ cross_entropy.solution(k_ts, targets()[1], 10)
    np.testing.assert_allclose(predictions, wanted, atol=0.02)
    first, last = result(tmp_path / "run")["evaluations"]
    assert last["accuracy"] > first["accuracy"]
    if devices == 4:
        labels = targets()[1]
        squares = k_ts @ np.linalg.lstsq(k_ts, np.eye(10)[labels] - 0.1, rcond=None)[0]
        assert found < 0.95 * least(squares, labels)


def test_a_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    options = config(checkpoint__every_steps=1, log__every_steps=1)
    whole = train.train_and_evaluate(options, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        stopped = train.train_and_evaluate(options, str(tmp_path / "parts"))
    assert stopped.step < 4
    assert not np.asarray(stopped.k_ts)[1200:].any()
    parts = train.train_and_evaluate(options, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")


def test_the_state_has_a_row_for_each_target_and_keeps_the_tiles_apart():
    rng = np.random.default_rng(0)
    x, labels = (rng.normal(size=shape).astype(np.float32) for shape in ((10, 4), (3, 2)))
    state = ls_cross_entropy.init(None, x[:3], labels, train_size=10)
    np.testing.assert_array_equal(state.support[1], labels)

    def linear(a, b):
        return a @ b.T

    for first, count in ((0, 4), (4, 4), (8, 2)):
        padded = np.concatenate([x[first : first + count], np.full((2, 4), 9, np.float32)])
        state = ls_cross_entropy.make_update(linear, 4, count)(state, padded)
    assert state.step == 3
    np.testing.assert_allclose(state.k_ts, x @ x[:3].T, rtol=1e-5, atol=1e-6)


def test_augmented_targets_are_refused():
    with pytest.raises(UserError, match="Label Solve does not augment"):
        config_lib.validate(config(augment="flip"))
