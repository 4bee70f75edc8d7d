"""The regularised solve and its measures against NumPy in float64 and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import krr
from kip_flax.runtime.errors import UserError

S, T, C, REG = 6, 9, 4, 1e-3


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def x64(request):
    with jax.enable_x64(request.param):
        yield request.param


def problem(seed=0):
    """A kernel of S support and T target points, support labels and target labels."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(S + T, 12))
    k = features @ features.T
    return k[:S, :S], k[S:, :S], rng.normal(size=(S, C)), rng.integers(C, size=T)


def numpy_predict(k_ss, k_ts, y_s):
    return k_ts @ np.linalg.solve(k_ss + REG * np.trace(k_ss) / S * np.eye(S), y_s)


def test_prediction_is_numpys(x64):
    k_ss, k_ts, y_s, _ = problem()
    alpha = jax.jit(krr.solve)(k_ss, y_s, REG)
    assert alpha.dtype == (jnp.float64 if x64 else jnp.float32)
    pred = krr.predict(k_ts, alpha)
    assert pred.dtype == jnp.float32
    want = numpy_predict(k_ss, k_ts, y_s)
    np.testing.assert_allclose(pred, want, rtol=1e-4, atol=1e-5)
    if x64:
        np.testing.assert_allclose(k_ts @ alpha, want, rtol=1e-11)


def test_the_absolute_ridge_of_label_solve(x64):
    k, _, y, _ = problem()
    alpha = krr.solve_positive_definite(krr.add_ridge(k, 0.5), y)
    want = np.linalg.solve(k + 0.5 * np.eye(S), y)
    np.testing.assert_allclose(alpha, want, rtol=1e-10 if x64 else 1e-4, atol=1e-6)


def test_the_relative_regulariser_ignores_the_kernels_scale():
    k_ss, k_ts, y_s, _ = problem()
    pred = 1e4 * k_ts @ np.asarray(krr.solve(1e4 * k_ss, y_s, REG))
    np.testing.assert_allclose(pred, numpy_predict(k_ss, k_ts, y_s), rtol=1e-4, atol=1e-5)


def test_float64_solves_an_ill_conditioned_float32_kernel():
    x = np.linspace(-1, 1, 12)
    k = np.exp(-np.square(x[:, None] - x[None]) / 8).astype(np.float32)
    want = np.linalg.solve(k.astype(np.float64) + 1e-6 * np.eye(12), x[:, None])
    with jax.enable_x64(True):
        alpha = krr.solve_positive_definite(krr.add_ridge(k, 1e-6), x[:, None])
    np.testing.assert_allclose(alpha, want, rtol=1e-8)


@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_float32_arrays_are_solved_in_float64_without_the_switch(condition):
    """And so is their gradient, which is one more solve."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    k = (basis * np.geomspace(1, 1 / condition, 40)) @ basis.T
    k = ((k + k.T) / 2).astype(np.float32)
    y, weights = rng.normal(size=(2, 40, C)).astype(np.float32)

    def solved(y):
        alpha = krr.solve_positive_definite(jnp.asarray(k), y)
        return jnp.sum(weights * alpha), alpha

    with jax.enable_x64(False):
        gradient, alpha = jax.jit(jax.grad(solved, has_aux=True))(y)
    assert alpha.dtype == np.float32
    for found, b in ((alpha, y), (gradient, weights)):
        want = np.linalg.solve(k.astype(float), b)
        assert np.linalg.norm(found - want) / np.linalg.norm(want) < 1e-6


@pytest.mark.parametrize("which", [0, 1, 2], ids=["k_ss", "k_ts", "y_s"])
def test_gradient_is_a_finite_difference(which):
    k_ss, k_ts, y_s, labels = problem()
    y_t = np.eye(C)[labels] - 1 / C
    args = [k_ss, k_ts, y_s]

    def numpy_loss(value):
        changed = [*args[:which], value, *args[which + 1 :]]
        # The solve sees the symmetric part of K_ss, so entry (i, j) moves (j, i) by half as well.
        changed[0] = (changed[0] + changed[0].T) / 2
        return 0.5 * np.mean((numpy_predict(*changed) - y_t) ** 2)

    def jax_loss(k_ss, k_ts, y_s):
        return 0.5 * jnp.mean((k_ts @ krr.solve(k_ss, y_s, REG) - y_t) ** 2)

    want = np.empty_like(args[which])
    for index in np.ndindex(want.shape):
        step = np.zeros_like(want)
        step[index] = 1e-5
        want[index] = (numpy_loss(args[which] + step) - numpy_loss(args[which] - step)) / 2e-5
    with jax.enable_x64(True):
        exact = jax.grad(jax_loss, argnums=which)(*args)
    np.testing.assert_allclose(exact, want, rtol=1e-5, atol=1e-7 * np.abs(want).max())

    def shipped_loss(k_ss, k_ts, y_s):
        return krr.loss(krr.predict(k_ts, krr.solve(k_ss, y_s, REG)), jnp.asarray(y_t, jnp.float32))

    with jax.enable_x64(True):
        shipped = jax.grad(shipped_loss, argnums=which)(*args)
    np.testing.assert_allclose(shipped, want, atol=1e-5 * np.abs(want).max())


def test_centered_one_hot():
    y = krr.centered_one_hot(np.array([2, 0]), 4)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, [[-0.25, -0.25, 0.75, -0.25], [0.75, -0.25, -0.25, -0.25]])


def test_loss_and_accuracy_ignore_padded_rows():
    rng = np.random.default_rng(1)
    pred, labels = rng.normal(size=(T, C)).astype(np.float32), rng.integers(C, size=T)
    y = np.eye(C)[labels]
    np.testing.assert_allclose(krr.loss(pred, y), 0.5 * np.mean((pred - y) ** 2), rtol=1e-6)
    np.testing.assert_allclose(krr.accuracy(pred, labels), np.mean(pred.argmax(1) == labels))
    weights = np.arange(T) < 5
    want_loss = 0.5 * np.mean((pred[:5] - y[:5]) ** 2)
    want_accuracy = np.mean(pred[:5].argmax(1) == labels[:5])
    np.testing.assert_allclose(krr.loss(pred, y, weights), want_loss, rtol=1e-6)
    np.testing.assert_allclose(krr.accuracy(pred, labels, weights), want_accuracy, rtol=1e-6)


def test_an_indefinite_kernel_is_refused_with_the_regulariser_named():
    k = np.diag([1.0, 1.0, -0.1])
    with pytest.raises(UserError, match=r"regulariser reg=0\.001: .*--config\.reg=0\.01"):
        krr.check_positive_definite(k, 1e-3)
    assert np.isnan(krr.solve(k, np.ones((3, 1)), 1e-3)).all()
    krr.check_positive_definite(k, 1.0)
    with pytest.raises(UserError, match="NaN"):
        krr.check_positive_definite(np.full((2, 2), np.nan), 1e-3)
