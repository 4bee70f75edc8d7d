"""Gauss-Newton steps against NumPy's dense algebra, derivatives of the kernel, and whole runs."""

import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import artefacts, assert_same, result, small, stop_at

from kip_flax import architectures as arch
from kip_flax import config as config_lib
from kip_flax import gauss_newton, kernels, krr, sharding, train
from kip_flax.errors import UserError
from kip_flax.kernels import jacobian as jacobian_lib

SPEC = arch.fc(1)
KERNEL = kernels.make_kernel(SPEC, implementation="xla")
JACOBIAN = jacobian_lib.make_jacobian(SPEC, implementation="xla")
REG = 1e-9


def problem(support=4, targets=30, classes=3, side=3, seed=0):
    rng = np.random.default_rng(seed)
    x_t = rng.normal(size=(targets, side, side, 1)).astype(np.float32)
    y_t = np.asarray(krr.centered_one_hot(rng.integers(classes, size=targets), classes))
    return x_t[:support] + 0.5, x_t, y_t, np.ones(targets, np.float32)


def model_of(images, x_t, y_t, weights):
    k, dk = JACOBIAN(x_t, images)
    fit = gauss_newton.fit(k, y_t, weights, REG)
    dk = dk.reshape(*dk.shape[:2], -1)
    return gauss_newton.Model(dk, fit.alpha.astype(jnp.float32), fit.basis, weights), fit


def best_loss(images, x_t, y_t):
    """With the labels solved for anew, in NumPy."""
    k = np.asarray(KERNEL(x_t.astype(float), images.astype(float)))
    residuals = k @ np.linalg.lstsq(k, y_t, rcond=None)[0] - y_t
    return 0.5 * np.mean(residuals**2)


def dense(model, support, size):
    """The model as a matrix (T C, S P), a column for every pixel."""
    columns = np.eye(support * size).reshape(-1, support, size).astype(np.float32)
    return np.stack([np.asarray(model.forward(d)).ravel() for d in columns], axis=1)


def test_the_fit_is_the_least_squares_fit():
    images, x_t, y_t, weights = problem()
    _, fit = model_of(images, x_t, y_t, weights)
    assert float(fit.loss) == pytest.approx(best_loss(images, x_t, y_t), rel=1e-5)
    k = np.asarray(KERNEL(x_t, images))
    np.testing.assert_allclose(fit.basis.T @ fit.basis, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(fit.basis @ (fit.basis.T @ k), k, rtol=1e-5)
    assert np.abs(fit.basis.T @ fit.residuals).max() < 1e-5


def test_the_model_is_the_derivative_less_what_labels_take_away():
    images, x_t, y_t, weights = problem()
    model, fit = model_of(images, x_t, y_t, weights)
    way = np.random.default_rng(1).normal(size=images.shape)
    step = 1e-5
    ends = [np.asarray(KERNEL(x_t.astype(float), images + sign * step * way)) for sign in (1, -1)]
    change = (ends[0] - ends[1]) / (2 * step) @ np.asarray(fit.alpha)
    k = np.asarray(KERNEL(x_t.astype(float), images.astype(float)))
    left = change - k @ np.linalg.lstsq(k, change, rcond=None)[0]
    found = model.forward(way.reshape(4, -1).astype(np.float32))
    np.testing.assert_allclose(found, left, atol=1e-3 * np.abs(left).max())


def test_the_gradient_is_that_of_the_loss_with_solved_labels():
    images, x_t, y_t, weights = problem()
    model, fit = model_of(images, x_t, y_t, weights)
    gradient = np.asarray(model.transpose(fit.residuals)) / y_t.size
    way = np.random.default_rng(2).normal(size=images.shape)
    step = 1e-5
    ends = [best_loss(images + sign * step * way, x_t, y_t) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert float(np.vdot(gradient, way)) == pytest.approx(slope, rel=1e-3)


def test_forward_and_transpose_are_each_other_s():
    images, x_t, y_t, weights = problem()
    weights[5:] = 0  # Padding.
    model, _ = model_of(images, x_t, y_t, weights)
    rng = np.random.default_rng(3)
    way, residuals = rng.normal(size=(4, 9)), rng.normal(size=y_t.shape)
    way, residuals = way.astype(np.float32), residuals.astype(np.float32)
    one = np.vdot(model.forward(way), residuals)
    assert float(one) == pytest.approx(np.vdot(way, model.transpose(residuals)), rel=1e-4)


def test_the_direction_solves_the_damped_normal_equations():
    images, x_t, y_t, weights = problem()
    model, fit = model_of(images, x_t, y_t, weights)
    matrix, damping = dense(model, 4, 9).astype(float), 0.05
    ridge = damping * np.mean(model.diagonal())
    curved = matrix.T @ matrix + ridge * np.eye(36)
    downhill = -matrix.T @ np.asarray(fit.residuals).ravel()

    def short_of(iterations):
        found = gauss_newton.direction(model, fit.residuals, jnp.float32(damping), iterations)
        return np.linalg.norm(curved @ np.asarray(found).ravel() - downhill)

    assert short_of(200) < 5e-3 * np.linalg.norm(downhill)
    assert short_of(2) > 5e-2 * np.linalg.norm(downhill)


def test_the_diagonal_is_that_of_the_model_before_labels_follow():
    images, x_t, y_t, weights = problem()
    model, _ = model_of(images, x_t, y_t, weights)
    matrix = dense(model._replace(basis=jnp.zeros_like(model.basis)), 4, 9)
    np.testing.assert_allclose(model.diagonal().ravel(), (matrix**2).sum(axis=0), rtol=1e-4)


def stepper(kernel=KERNEL, jacobian=JACOBIAN):
    return gauss_newton.make_step(kernel, jacobian, REG, iterations=50)


def test_steps_lower_the_loss_and_tell_of_it():
    images, x_t, y_t, weights = problem()
    state = gauss_newton.init(images, np.zeros((4, 3)), damping=0.1)
    step, losses = stepper(), []
    for _ in range(8):
        before = np.array(state.params["images"])
        state, metrics = step(state, x_t, y_t, weights)
        assert float(metrics["loss"]) == pytest.approx(best_loss(before, x_t, y_t), rel=1e-4)
        losses.append(float(metrics["loss"]))
        assert metrics["gain_ratio"] > 0
        assert metrics["grad_norm"] > 0
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert int(state.step) == 8


def test_padding_changes_nothing():
    images, x_t, y_t, weights = problem()
    state = gauss_newton.init(images, np.zeros((4, 3)), damping=0.1)
    expected, metrics = stepper()(state, x_t, y_t, weights)
    pad = [(0, 2)] + [(0, 0)] * 3
    state = gauss_newton.init(images, np.zeros((4, 3)), damping=0.1)
    padded = np.pad(x_t, pad), np.pad(y_t, pad[:2]), np.pad(weights, pad[:1])
    found, same = stepper()(state, *padded)
    np.testing.assert_allclose(found.params["images"], expected.params["images"], atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_a_step_that_does_not_help_is_refused(wrong):
    """The trial's kernel says so; the damping has grown with every trial."""
    images, x_t, y_t, weights = problem()
    state = gauss_newton.init(images, np.zeros((4, 3)), damping=0.1)
    step = stepper(kernel=lambda a, b: KERNEL(a, b) * 0 + wrong)
    state, metrics = step(state, x_t, y_t, weights)
    np.testing.assert_array_equal(state.params["images"], images)
    assert float(metrics["damping"]) == pytest.approx(0.1 * 4**6)
    assert float(metrics["gain_ratio"]) == 0
    assert int(state.step) == 1


def test_a_mesh_takes_the_same_step():
    images, x_t, y_t, weights = problem(targets=32)
    expected, metrics = stepper()(
        gauss_newton.init(images, np.zeros((4, 3)), damping=0.1), x_t, y_t, weights
    )
    mesh = sharding.make_mesh(2, 2)
    step = stepper(sharding.shard_kernel(KERNEL, mesh), sharding.shard_jacobian(JACOBIAN, mesh))
    state = gauss_newton.init(images, np.zeros((4, 3)), damping=0.1)
    targets = sharding.put_targets(mesh, x_t, y_t)
    found, same = step(sharding.replicate(mesh, state), *targets)
    np.testing.assert_allclose(found.params["images"], expected.params["images"], atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


def newton(**changes):
    return small(algorithm="kip_newton", num_steps=6, eval__steps=(3,), **changes)


def test_six_steps_are_worth_more_than_those_of_descent(quick_kernels, tmp_path):
    config = newton(eval__num_test=0, batch_size=300)
    train.train_and_evaluate(config, str(tmp_path / "newton"))
    config.algorithm = "kip_solve"
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


def test_it_does_not_take_fixed_labels():
    with pytest.raises(UserError, match="kip_newton solves for the labels"):
        config_lib.validate(newton(support__learn_labels=False))


def test_its_fields_decide_nothing_elsewhere_and_the_optimiser_nothing_here():
    assert not any(name.startswith("newton.") for name in config_lib.identity(small()))
    names = config_lib.identity(newton())
    assert "newton.damping" in names
    assert not any(name.startswith("optimizer.") for name in names)
    assert "num_steps" not in config_lib.identity(newton(optimizer__schedule="cosine"))
