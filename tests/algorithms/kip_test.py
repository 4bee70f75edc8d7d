"""One KIP step against neural_tangents, NumPy solves and Adam by hand, all in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.algorithms import interface, kip, kip_solve
from kip_flax.data import Targets
from kip_flax.runtime import sharding

REG, RATE, S, T, CLASSES = 1e-3, 0.02, 4, 7, 3
SPEC = arch.fc(1)
pytestmark = pytest.mark.usefixtures("compiled_kernel")


def problem(size=3):
    rng = np.random.default_rng(0)
    x_s, x_t = (rng.normal(size=(n, size, size, 1)).astype(np.float32) for n in (S, T))
    x_t[0] = x_s[1]  # A support image is drawn from the targets.
    y_s, y_t = (np.eye(CLASSES)[rng.integers(CLASSES, size=n)] - 1 / CLASSES for n in (S, T))
    return x_s, y_s.astype(np.float32), x_t, y_t.astype(np.float32)


@partial(jax.jit, static_argnums=0)
def reference_loss(spec, x_s, y_s, x_t, y_t):
    """Loss and predictions from the symbols of the paper, nothing of `kip` or `krr`."""
    kernel = kernels.make_kernel(spec, implementation="neural_tangents")

    def loss(x_s, y_s):
        k_ss = kernel(x_s, x_s)
        k_reg = k_ss + REG * jnp.trace(k_ss) / S * jnp.eye(S)
        pred = kernel(x_t, x_s) @ jnp.linalg.solve(k_reg, y_s)
        return 0.5 * jnp.mean((pred - y_t) ** 2), pred

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(x_s, y_s)


def exact(*problem, spec=SPEC):
    """Loss, predictions and gradients (images, labels) in float64."""
    (value, pred), gradients = reference_loss(spec, *(np.asarray(a, np.float64) for a in problem))
    return float(value), np.asarray(pred), [np.asarray(g) for g in gradients]


def update(kernel, tx, loss=kip.kip_loss):
    """A step of `tx`."""
    return kip.make_update(partial(loss, kernel=kernel, reg=REG), tx)


def start(tx, learn_labels, spec=SPEC, size=3, implementation="auto"):
    """A step function, and a state whose arrays it may take over."""
    x_s, y_s, _, _ = problem(size)
    state = kip.first_state(x_s, y_s, tx, learn_labels)
    kernel = kernels.make_kernel(spec, implementation=implementation)
    return update(kernel, tx), jax.tree.map(np.array, state)


@pytest.mark.parametrize(
    ("learn_labels", "spec", "size", "implementation"),
    [
        pytest.param(False, SPEC, 3, "auto", id="fixed"),
        pytest.param(True, SPEC, 3, "auto", id="learned"),
        pytest.param(True, arch.convnet(2), 6, "cpu", id="convnet-cpu", marks=pytest.mark.slow),
        pytest.param(True, arch.convnet(2), 6, "xla", id="convnet-xla", marks=pytest.mark.slow),
    ],
)
def test_one_step_of_gradient_descent(learn_labels, spec, size, implementation):
    """With plain descent at rate 1 the change of the support is the gradient."""
    step, state = start(optax.sgd(1.0), learn_labels, spec, size, implementation)
    x_s, y_s, x_t, y_t = problem(size)
    after, metrics = step(jax.tree.map(np.copy, state), x_t, y_t, np.ones(T, np.float32))
    loss, pred, gradients = exact(x_s, y_s, x_t, y_t, spec=spec)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    right = np.mean(pred.argmax(1) == y_t.argmax(1))
    assert float(metrics["accuracy"]) == pytest.approx(right)
    moved = [x_s - after.params["images"]]
    if learn_labels:
        moved.append(y_s - after.params["labels"])
    used = gradients[: len(moved)]
    for change, gradient in zip(moved, used, strict=True):
        np.testing.assert_allclose(change, gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())
    norm = np.sqrt(sum(np.sum(g**2) for g in used))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    assert int(after.step) == 1
    np.testing.assert_array_equal(after.labels, y_s)


def test_the_gradient_is_a_finite_difference():
    """Of the whole loss, through both kernels and the solve, in one direction."""
    x_s, y_s, x_t, y_t = problem()
    direction = np.random.default_rng(1).normal(size=x_s.shape)
    losses = [exact(x_s + e * direction, y_s, x_t, y_t)[0] for e in (1e-4, -1e-4)]
    step, state = start(optax.sgd(1.0), False)
    after, _ = step(state, x_t, y_t, np.ones(T, np.float32))
    slope = float(np.sum((x_s - after.params["images"]) * direction))
    assert slope == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=1e-3)


def test_adam_by_hand():
    """The first two steps of Adam (Kingma and Ba 2015, Algorithm 1), recomputed in float64."""
    step, state = start(optax.adam(RATE), True)
    x_s, y_s, x_t, y_t = problem()
    values = [x_s.astype(float), y_s.astype(float)]
    first, second = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    for count in (1, 2):
        _, _, gradients = exact(*values, x_t, y_t)
        for i, gradient in enumerate(gradients):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            mean, square = first[i] / (1 - 0.9**count), second[i] / (1 - 0.999**count)
            values[i] = values[i] - RATE * mean / (np.sqrt(square) + 1e-8)
        state, _ = step(state, x_t, y_t, np.ones(T, np.float32))
    np.testing.assert_allclose(state.params["images"], values[0], atol=1e-5)
    np.testing.assert_allclose(state.params["labels"], values[1], atol=1e-5)
    assert int(state.step) == 2


def test_targets_without_weight_do_not_count():
    step, state = start(optax.sgd(1.0), True)
    x_s, y_s, x_t, y_t = problem()
    padded = np.concatenate([x_t, 100 * x_t[:3]]), np.concatenate([y_t, y_t[2:5]])
    weights = np.array([1] * T + [0] * 3, np.float32)
    plain, metrics = step(jax.tree.map(np.copy, state), x_t, y_t, np.ones(T, np.float32))
    after, padded_metrics = step(state, *padded, weights)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        (plain.params, metrics),
        (after.params, padded_metrics),
    )
    assert float(metrics["loss"]) == pytest.approx(exact(x_s, y_s, x_t, y_t)[0], rel=1e-5)


def test_the_loss_falls_and_fixed_labels_stay():
    _, y_s, x_t, y_t = problem()
    for learn_labels in (False, True):
        step, state = start(optax.adam(RATE), learn_labels)
        losses = []
        for _ in range(60):
            state, metrics = step(state, x_t, y_t, np.ones(T, np.float32))
            losses.append(float(metrics["loss"]))
        assert losses[-1] < 0.6 * losses[0]
        images, labels = state.support
        assert images.shape == (S, 3, 3, 1)
        assert np.array_equal(labels, y_s) is not learn_labels


def test_init_counts_from_zero_in_float32():
    x_s, y_s, _, _ = problem()
    state = kip.first_state(x_s.astype(np.float64), y_s.astype(np.float64), optax.adam(1.0), True)
    assert state.step == 0
    assert {a.dtype for a in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(state.support[0], x_s)
    np.testing.assert_array_equal(state.support[1], y_s)
    assert set(kip.first_state(x_s, y_s, optax.adam(1.0), False).params) == {"images"}


def test_a_kernel_that_is_not_positive_definite_gives_a_loss_that_is_not_finite():
    """`train` watches for it; here it must not come out as a number."""
    tx = optax.sgd(1.0)
    x_s, y_s, x_t, y_t = problem()

    def indefinite(a, b):
        return -jnp.ones((len(a), len(b)))

    step = update(indefinite, tx)
    state = jax.tree.map(np.array, kip.first_state(x_s, y_s, tx, False))
    _, metrics = step(state, x_t, y_t, np.ones(T, np.float32))
    assert np.isnan(metrics["loss"])


def test_with_solved_labels_the_gradient_is_that_through_the_solution():
    """The best labels are held fixed in the step; autodiff here goes through them, in float64."""
    x_s, y_s, x_t, y_t = problem()
    kernel = kernels.make_kernel(SPEC, implementation="neural_tangents")

    @jax.jit
    def reference(x_s, x_t):
        k_ts = kernel(x_t, x_s)

        def loss(x_s):
            k_ts = kernel(x_t, x_s)
            alpha = jnp.linalg.solve(k_ts.T @ k_ts + REG / S * jnp.eye(S), k_ts.T @ y_t)
            return 0.5 * jnp.mean((k_ts @ alpha - y_t) ** 2)

        return k_ts, jax.grad(loss)(x_s)

    k_ts, gradient = reference(x_s.astype(float), x_t.astype(float))
    best = np.linalg.lstsq(np.asarray(k_ts), y_t, rcond=None)[0]
    tx = optax.sgd(1.0)
    step = update(kernels.make_kernel(SPEC), tx, kip_solve.solved_loss)
    state = jax.tree.map(np.array, kip.first_state(x_s, y_s, tx, learn_labels=False))
    # A padded target counts for nothing.
    images, labels = (np.concatenate([a, 9 * a[:1]]) for a in (x_t, y_t))
    new, metrics = step(state, images, labels, np.r_[np.ones(T), 0].astype(np.float32))
    np.testing.assert_allclose(metrics["loss"], 0.5 * np.mean((k_ts @ best - y_t) ** 2), rtol=1e-2)
    moved = x_s - np.asarray(new.params["images"])
    np.testing.assert_allclose(moved, gradient, rtol=2e-2, atol=2e-3 * np.abs(gradient).max())


def seen_by_steps(augment, steps):
    """The targets and labels that steps with `augment` get: (steps, T, H, W, C) and (steps, T, C).

    Every image of the training set is one of a kind, and not its mirror image.
    """
    config = default.get_config()
    config.augment, config.batch_size = augment, 12
    images = np.random.default_rng(0).normal(size=(30, 2, 3, 1)).astype(np.float32)
    targets = Targets(images, np.arange(30) % 3, 3)
    problem = interface.Problem(config, targets, None, sharding.make_mesh(1), jax.random.key(0))
    step = kip.on_batches(problem, lambda state, x, y, weights: (state, {"x": x, "y": y}))
    seen = [step({"step": np.zeros(1)}, number)[1] for number in range(1, steps + 1)]
    return targets, *(np.stack([np.asarray(each[name]) for each in seen]) for name in ("x", "y"))


def rows_of(targets, images):
    """The number of the training image that each image is, and where one is none; -1."""
    same = [np.all(targets.images == image, axis=(1, 2, 3)) for image in images]
    return np.array([int(np.argmax(row)) if row.any() else -1 for row in same])


def test_every_step_draws_its_own_targets():
    targets, x, y = seen_by_steps("", steps=4)
    rows = np.stack([rows_of(targets, images) for images in x])
    assert rows.min() >= 0
    for numbers, labels in zip(rows, y, strict=True):
        assert len(set(numbers)) == 12
        np.testing.assert_array_equal(np.bincount(numbers % 3), [4, 4, 4])
        np.testing.assert_allclose(labels, np.eye(3)[numbers % 3] - 1 / 3, atol=1e-6)
    assert len({frozenset(numbers) for numbers in rows}) == 4


def test_augmented_targets_keep_their_labels():
    targets, x, y = seen_by_steps("flip", steps=4)
    as_they_are, mirrored = (
        np.stack([rows_of(targets, images) for images in views]) for views in (x, x[:, :, :, ::-1])
    )
    assert np.all((as_they_are >= 0) ^ (mirrored >= 0))
    assert 0.2 < np.mean(mirrored >= 0) < 0.8
    numbers = np.maximum(as_they_are, mirrored)
    np.testing.assert_allclose(y, np.eye(3)[numbers % 3] - 1 / 3, atol=1e-6)
    assert len({tuple(row) for row in mirrored >= 0}) > 1  # Each step mirrors others.
