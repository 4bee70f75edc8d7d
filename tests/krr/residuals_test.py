"""Residuals and their linear models against losses and derivatives in float64, by NumPy."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import KERNEL, KINDS, REG, dense, losses, problem, residuals_of

from kip_flax import architectures, kernels
from kip_flax.kernels import jacobian
from kip_flax.krr import residuals


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_closed_form(kind):
    images, labels, batch = problem()
    expected = losses[kind](images, labels, batch)
    found = residuals_of(kind).linearize(images, labels, batch, 4, None)
    fit = found.fit
    assert float(fit.loss) == pytest.approx(expected, rel=1e-5)
    assert float(found.evaluate(images)[0]) == pytest.approx(expected, rel=1e-5)
    assert 0.5 * np.mean(np.square(fit.residuals)) == pytest.approx(expected, rel=1e-5)
    best = np.argmax(fit.residuals + batch.y, axis=1) == np.argmax(batch.y, axis=1)
    assert float(fit.accuracy) == pytest.approx(np.mean(best))


def test_the_basis_is_orthonormal_and_spans_the_kernel():
    images, labels, batch = problem()
    fit, model, *_ = residuals_of("solved").linearize(images, labels, batch, 4, None)
    k = np.asarray(KERNEL(batch.x, images))
    np.testing.assert_allclose(model.basis.T @ model.basis, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(model.basis @ (model.basis.T @ k), k, rtol=1e-5)
    assert np.abs(model.basis.T @ fit.residuals).max() < 1e-5


def test_with_solved_labels_the_model_leaves_out_what_labels_take_away():
    images, labels, batch = problem()
    model = residuals_of("solved").linearize(images, labels, batch, 4, None).model
    way = np.random.default_rng(1).normal(size=images.shape)
    step = 1e-5
    ends = [np.asarray(KERNEL(batch.x.astype(float), images + s * step * way)) for s in (1, -1)]
    change = (ends[0] - ends[1]) / (2 * step) @ np.asarray(model.alpha)
    k = np.asarray(KERNEL(batch.x.astype(float), images.astype(float)))
    left = change - k @ np.linalg.lstsq(k, change, rcond=None)[0]
    found = model.forward(way.reshape(4, -1).astype(np.float32))
    np.testing.assert_allclose(found, left, atol=1e-3 * np.abs(left).max())


@pytest.mark.parametrize("reg", [REG, 0.3])
def test_with_fixed_labels_the_model_is_the_derivative_of_the_predictions(reg):
    images, labels, batch = problem()
    model = residuals_of("fixed", reg=reg).linearize(images, labels, batch, 4, None).model
    way = np.random.default_rng(1).normal(size=images.shape)
    step = 1e-5

    def predicted(x):
        k_ss = np.asarray(KERNEL(x, x))
        alpha = np.linalg.solve(k_ss + reg * np.trace(k_ss) / 4 * np.eye(4), labels)
        return np.asarray(KERNEL(batch.x.astype(float), x)) @ alpha

    slope = (predicted(images + step * way) - predicted(images - step * way)) / (2 * step)
    found = model.forward(way.reshape(4, -1).astype(np.float32))
    np.testing.assert_allclose(found, slope, atol=1e-3 * np.abs(slope).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_loss(kind):
    images, labels, batch = problem()
    fit, model, *_ = residuals_of(kind).linearize(images, labels, batch, 4, None)
    gradient = np.asarray(model.transpose(fit.residuals)) / batch.y.size
    way = np.random.default_rng(2).normal(size=images.shape)
    step = 1e-5
    ends = [losses[kind](images + sign * step * way, labels, batch) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert float(np.vdot(gradient, way)) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reg", [REG, 0.3])
def test_forward_and_transpose_are_each_other_s(kind, reg):
    images, labels, batch = problem()
    batch.weights[5:] = 0  # Padding.
    model = residuals_of(kind, reg=reg).linearize(images, labels, batch, 4, None).model
    rng = np.random.default_rng(3)
    way, some = rng.normal(size=(4, 9)), rng.normal(size=batch.y.shape)
    way, some = way.astype(np.float32), some.astype(np.float32)
    one = np.vdot(model.forward(way), some)
    assert float(one) == pytest.approx(np.vdot(way, model.transpose(some)), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_is_that_of_a_model_whose_alpha_is_held(kind):
    images, labels, batch = problem()
    model = residuals_of(kind).linearize(images, labels, batch, 4, None).model
    held = {"solved": "basis", "fixed": "smoother"}[kind]
    matrix = dense(model._replace(**{held: jnp.zeros_like(getattr(model, held))}), 4, 9)
    expected = (matrix**2).sum(axis=0).reshape(4, 9).mean(axis=1)
    np.testing.assert_allclose(model.diagonal(), expected, rtol=1e-4)


def of_a_block(kind, reg=REG):
    """Of the first two of four images."""
    images, labels, batch = problem()
    made = residuals_of(kind, reg=reg)
    return made.linearize(images, labels, batch, 2, made.entries(images, batch))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reg", [REG, 0.3])
def test_a_block_has_the_model_of_the_whole_with_the_other_images_held(kind, reg):
    images, labels, batch = problem()
    whole = residuals_of(kind, reg=reg).linearize(images, labels, batch, 4, None)
    block = of_a_block(kind, reg)
    np.testing.assert_allclose(block.fit.residuals, whole.fit.residuals, atol=1e-5)
    rng = np.random.default_rng(5)
    way, some = rng.normal(size=(2, 9)), rng.normal(size=batch.y.shape)
    way, some = way.astype(np.float32), some.astype(np.float32)
    held = np.pad(way, ((0, 2), (0, 0)))
    expected = np.asarray(whole.model.forward(held))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(block.model.forward(way), expected, atol=1e-4 * scale)
    expected = np.asarray(whole.model.transpose(some))[:2]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(block.model.transpose(some), expected, atol=1e-4 * scale)
    expected = whole.model.diagonal()[:2]
    np.testing.assert_allclose(block.model.diagonal(), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_block_is_that_of_all_images_with_others_in_its_place(kind):
    images, labels, batch = problem()
    others = images[:2] - 0.3
    loss, entries = of_a_block(kind).evaluate(others)
    moved = np.concatenate([others, images[2:]])
    assert float(loss) == pytest.approx(losses[kind](moved, labels, batch), rel=1e-5)
    expected = residuals_of(kind).entries(moved, batch)
    np.testing.assert_allclose(entries.ts, expected.ts, rtol=1e-5)
    assert (entries.ss is None) == (kind == "solved")
    if kind == "fixed":
        np.testing.assert_allclose(entries.ss, expected.ss, rtol=1e-5)


GROWTH = """
import resource
import jax, jax.numpy as jnp
from kip_flax.krr.residuals import SolvedModel

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model = SolvedModel(*map(jnp.ones, [(50, 1000, 400), (50, 10), (1000, 50), (1000,)]))
jax.block_until_ready(model)
diagonal = jax.jit(SolvedModel.diagonal).lower(model).compile()
before = peak()
jax.block_until_ready(diagonal(model))
print((peak() - before) / model.dk.nbytes)
"""


def test_the_diagonal_writes_no_second_dk_down():
    """What XLA's code takes as it runs is in no analysis of a program: the process knows."""
    run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.3


def test_padding_is_left_out():
    images, labels, batch = problem()
    more = residuals.Batch(*(np.pad(a, [(0, 2)] + [(0, 0)] * (a.ndim - 1)) for a in batch))
    for kind in KINDS:
        made = residuals_of(kind)
        (expected, *_), (found, model, *_) = (
            made.linearize(images, labels, each, 4, None) for each in (batch, more)
        )
        assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-6)
        assert float(found.accuracy) == pytest.approx(float(expected.accuracy))
        assert not np.any(np.asarray(found.residuals)[-2:])
        ones = np.ones((4, 9), np.float32)
        assert not np.any(np.asarray(model.forward(ones))[-2:])


def test_the_jacobian_of_the_support_has_its_diagonal_by_halves():
    """k(x, x) moves with both its images: the model counts the derivative of one twice."""
    images, _, _ = problem()
    options = kernels.KernelOptions(architectures.fc(1), implementation="xla")
    kernel = jax.jit(kernels.make_kernel(options))
    _, dk = jax.jit(jacobian.make_jacobian(options))(images, images)
    way, step = np.random.default_rng(4).normal(size=images.shape), 1e-5
    ends = [np.diag(kernel(images + s * step * way, images + s * step * way)) for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    halves = np.einsum("ssp,sp->s", dk, way.reshape(len(way), -1))
    np.testing.assert_allclose(2 * halves, slope, rtol=1e-4)
