"""The predictions of least cross-entropy against SciPy's minimiser and the derivative by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from kip_flax import krr
from kip_flax.krr import cross_entropy, label_solve
from kip_flax.runtime.errors import UserError

S, T = 5, 400


def problem(classes):
    """Rows of a kernel between overlapping classes and some of their images, and the classes."""
    rng = np.random.default_rng(classes)
    labels = np.arange(T) % classes
    x = rng.normal(size=(classes, 3))[labels] + rng.normal(size=(T, 3))
    distances = ((x[:, None] - x[None, :S]) ** 2).sum(-1)
    return np.exp(-distances / 8).astype(np.float32), labels


def objective(alpha, k_ts, labels):
    predictions = jnp.asarray(k_ts, jnp.float64) @ alpha
    likely = jnp.take_along_axis(jax.nn.log_softmax(predictions), labels[:, None], axis=1)
    return -likely.mean() + cross_entropy.PENALTY / 2 * (predictions**2).sum(1).mean()


def scale(alpha, k_ts, labels):
    """The number by which least squares would multiply the predictions."""
    predictions = (k_ts.astype(float) @ alpha).ravel()
    classes = alpha.shape[1]
    wanted = (np.eye(classes)[labels] - 1 / classes).ravel()
    return np.linalg.lstsq(predictions[:, None], wanted, rcond=None)[0][0]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_predictions_are_those_of_the_least_cross_entropy(classes):
    k_ts, labels = problem(classes)
    both = jax.jit(jax.value_and_grad(lambda a: objective(a.reshape(S, classes), k_ts, labels)))
    found = minimize(
        lambda a: tuple(np.asarray(part, float) for part in both(a)),
        np.zeros(S * classes),
        jac=True,
        options={"gtol": 1e-9, "maxiter": 5000},
    )
    best = found.x.reshape(S, classes)
    alpha = cross_entropy.solution(k_ts, labels, classes)
    want = k_ts.astype(float) @ best * scale(best, k_ts, labels)
    np.testing.assert_allclose(k_ts.astype(float) @ alpha, want, atol=2e-4)
    assert scale(alpha, k_ts, labels) == pytest.approx(1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_is_refused(value):
    k_ts, labels = problem(3)
    k_ts[7, 2] = value
    with pytest.raises(UserError, match="kernel of targets and support holds NaN or inf"):
        cross_entropy.solution(k_ts, labels, 3)


def test_no_change_does_better():
    k_ts, labels = problem(3)
    alpha = cross_entropy.solution(k_ts, labels, 3)
    scales = np.geomspace(1, 20, 200)  # The solution is one of the multiples of `alpha`.
    times = scales[np.argmin([objective(s * alpha, k_ts, labels) for s in scales])]
    best = objective(times * alpha, k_ts, labels)
    assert best < 0.9 * np.log(3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed = times * alpha + 0.3 * rng.normal(size=alpha.shape)
        assert objective(changed, k_ts, labels) > best


def test_the_unit_of_the_kernel_is_irrelevant():
    k_ts, labels = problem(3)
    alpha = cross_entropy.solution(k_ts, labels, 3)
    other = cross_entropy.solution(1000 * k_ts, labels, 3)
    np.testing.assert_allclose(1000 * other, alpha, rtol=1e-3, atol=1e-3 * abs(alpha).max())


def test_a_class_without_targets_is_never_predicted():
    k_ts, labels = problem(3)
    alpha = cross_entropy.solution(k_ts, labels + (labels == 2), 4)  # There is no class 2.
    assert not alpha[:, 2].any()
    assert set(np.argmax(k_ts @ alpha, axis=1)) <= {0, 1, 3}


def test_fewer_errors_than_by_squared_error_where_a_class_is_far_away():
    """Least squares masks the class in the middle of three in a row; cross-entropy does not."""
    rng = np.random.default_rng(0)
    labels = np.arange(T) % 3
    x = 4.0 * labels + rng.normal(size=T)
    k_ts = np.stack([np.ones(T), x], axis=1)
    targets = jnp.asarray(np.eye(3)[labels] - 1 / 3)
    sums = label_solve.sum_targets(jnp.asarray(k_ts), targets, jnp.ones(T))
    by_squares = np.argmax(k_ts @ label_solve.solution(sums, 1e-9), axis=1)
    by_entropy = np.argmax(k_ts @ cross_entropy.solution(k_ts, labels, 3), axis=1)
    assert (by_squares == labels).mean() < 0.75
    assert (by_entropy == labels).mean() > 0.9


@pytest.mark.parametrize("reg", [1e-6, 0.1])
def test_labels_of_a_prediction_predict_it(reg):
    k_ts, labels = problem(3)
    alpha = cross_entropy.solution(k_ts, labels, 3)
    learned = label_solve.labels_of(jnp.asarray(k_ts[:S]), jnp.asarray(alpha), reg)
    assert learned.dtype == np.float32
    again = krr.predict(k_ts, krr.solve(k_ts[:S], learned, reg))
    np.testing.assert_allclose(again, k_ts @ alpha, atol=1e-3)


@pytest.mark.parametrize(("kernel", "classes"), [(0.0, 3), (1.0, 1)])
def test_a_kernel_of_zeros_or_a_single_class_is_refused(kernel, classes):
    k_ts, labels = problem(3)
    with pytest.raises(UserError, match="need targets of two classes or more"):
        cross_entropy.solution(kernel * k_ts, labels % classes, 3)
