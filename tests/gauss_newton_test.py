"""Gauss-Newton steps against NumPy's dense algebra and losses in float64, and whole runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import JACOBIAN, KERNEL, KINDS, losses, problem, residuals_of
from whole_runs import artefacts, assert_same, result, small, stop_at

from kip_flax import config as config_lib
from kip_flax import gauss_newton, krr, ridge_path, sharding, train


def stepper(kind, kernel=KERNEL, jacobian=JACOBIAN):
    residuals = residuals_of(kind, kernel, jacobian)
    return gauss_newton.make_step(residuals, iterations=50, key=jax.random.key(0))


def first(images, labels):
    return gauss_newton.init(images, labels, damping=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_lower_the_loss_and_tell_of_it(kind):
    images, labels, batch = problem()
    state = first(images, labels)
    step, told = stepper(kind), []
    for _ in range(8):
        before = np.array(state.params["images"])
        state, metrics = step(state, *batch)
        assert float(metrics["loss"]) == pytest.approx(
            losses[kind](before, labels, batch), rel=1e-4
        )
        told.append(float(metrics["loss"]))
        assert metrics["gain_ratio"] > 0
        assert metrics["grad_norm"] > 0
    assert told == sorted(told, reverse=True)
    assert told[-1] < 0.8 * told[0]
    assert int(state.step) == 8
    np.testing.assert_array_equal(state.support[1], labels)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    images, labels, batch = problem()
    expected, metrics = stepper(kind)(first(images, labels), *batch)
    padded = (np.pad(array, [(0, 2)] + [(0, 0)] * (array.ndim - 1)) for array in batch)
    found, same = stepper(kind)(first(images, labels), *padded)
    np.testing.assert_allclose(found.params["images"], expected.params["images"], atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_a_step_that_does_not_help_is_refused(wrong):
    """The trial's kernel says so; the damping has grown with every trial."""
    images, labels, batch = problem()
    step = stepper("solved", kernel=lambda a, b: KERNEL(a, b) * 0 + wrong)
    state, metrics = step(first(images, labels), *batch)
    np.testing.assert_array_equal(state.params["images"], images)
    assert float(state.opt_state["damping"]) == pytest.approx(0.1 * 4**6)
    assert float(metrics["gain_ratio"]) == 0
    assert int(state.step) == 1


def test_a_batch_that_promises_little_leaves_no_damping_behind(monkeypatch):
    """The next batch is free to dare what this one's model would have allowed."""
    monkeypatch.setattr(ridge_path, "choose", lambda *_: (jnp.float32(8), jnp.float32(0.1)))
    images, labels, batch = problem()
    state, metrics = stepper("solved")(first(images, labels), *batch)
    assert float(metrics["damping"]) == 8
    assert float(metrics["gain_ratio"]) > 0.75
    assert float(state.opt_state["damping"]) == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("solved", (2, 2)), pytest.param("fixed", (2, 2), marks=pytest.mark.slow), ("fixed", (3, 1))],
)
def test_a_mesh_takes_the_same_step(kind, shape):
    images, labels, batch = problem(targets=30)
    expected, metrics = stepper(kind)(first(images, labels), *batch)
    mesh = sharding.make_mesh(*shape)
    step = stepper(
        kind, sharding.shard_kernel(KERNEL, mesh), sharding.shard_jacobian(JACOBIAN, mesh)
    )
    targets = sharding.put_targets(mesh, batch.x, batch.y)
    found, same = step(sharding.replicate(mesh, first(images, labels)), *targets)
    np.testing.assert_allclose(found.params["images"], expected.params["images"], atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


def newton(**changes):
    return small(algorithm="kip_newton", num_steps=6, eval__steps=(3,), **changes)


@pytest.mark.parametrize(("learned", "descent"), [(True, "kip_solve"), (False, "kip")])
def test_six_steps_are_worth_more_than_those_of_descent(quick_kernels, tmp_path, learned, descent):
    config = newton(eval__num_test=0, batch_size=300, support__learn_labels=learned)
    train.train_and_evaluate(config, str(tmp_path / "newton"))
    config.algorithm = descent
    train.train_and_evaluate(config, str(tmp_path / "descent"))
    ends = [result(tmp_path / name)["evaluations"][-1] for name in ("newton", "descent")]
    assert ends[0]["accuracy"] > ends[1]["accuracy"] + 0.02
    assert ends[0]["mse"] < 0.9 * ends[1]["mse"]


def test_a_run_goes_on_to_the_same_bits(quick_kernels, tmp_path, monkeypatch):
    whole = train.train_and_evaluate(newton(), str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(newton(), str(tmp_path / "parts"))
    parts = train.train_and_evaluate(newton(), str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")


def test_fixed_labels_stay_and_the_set_says_so(quick_kernels, tmp_path):
    config = newton(support__learn_labels=False)
    state = train.train_and_evaluate(config, str(tmp_path))
    rows = np.asarray(state.support[1])
    np.testing.assert_allclose(rows, krr.centered_one_hot(np.argmax(rows, axis=1), 10), atol=1e-6)
    assert not list((tmp_path / "distilled").glob("*_l_*"))
    assert config_lib.labels_are(config_lib.flatten(config)) == "fixed"
    assert config_lib.labels_are(config_lib.flatten(newton())) == "solved"


def test_its_fields_decide_nothing_elsewhere_and_the_optimiser_nothing_here():
    assert not any(name.startswith("newton.") for name in config_lib.identity(small()))
    names = config_lib.identity(newton())
    assert "newton.damping" in names
    assert not any(name.startswith("optimizer.") for name in names)
    assert "num_steps" not in config_lib.identity(newton(optimizer__schedule="cosine"))
