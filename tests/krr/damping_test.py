"""Paths of solutions against NumPy's dense algebra, and the chosen step against fresh targets."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import KINDS, dense, problem, residuals_of

from kip_flax.krr import damping


@functools.cache
def explored(kind, iterations):
    images, labels, batch = problem()
    fit, model, *_ = residuals_of(kind).linearize(images, labels, batch, 4, None)
    path = damping.explore(model, fit.residuals, iterations)
    return dense(model, 4, 9).astype(float), np.asarray(fit.residuals).ravel().astype(float), path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [1e-3, 0.05, 1.0])
def test_a_whole_space_gives_the_solutions(kind, share):
    matrix, r, path = explored(kind, 36)
    ridge = share * np.trace(matrix.T @ matrix) / 36
    expected = np.linalg.solve(matrix.T @ matrix + ridge * np.eye(36), -matrix.T @ r)
    found = np.asarray(path.solution(ridge)).ravel()
    assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected)
    for length in (1.0, 0.3):
        gain = r @ r - np.sum((r + length * matrix @ expected) ** 2)
        assert float(path.gain(ridge, length)) == pytest.approx(gain, rel=1e-3)
    assert float(path.overlap(ridge)) == pytest.approx(-r @ matrix @ expected, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_space_gives_the_best_in_it(kind):
    matrix, r, path = explored(kind, 5)
    vectors = np.asarray(path.vectors).reshape(5, 36)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(5), atol=1e-5)
    thin, ridge = matrix @ vectors.T, 0.1 * np.trace(matrix.T @ matrix) / 36
    best = np.linalg.solve(thin.T @ thin + ridge * np.eye(5), -thin.T @ r)
    np.testing.assert_allclose(
        np.asarray(path.solution(ridge)).ravel(), vectors.T @ best, atol=2e-3 * np.abs(best).max()
    )
    downhill = -matrix.T @ r
    assert np.linalg.norm(vectors @ downhill) == pytest.approx(np.linalg.norm(downhill), rel=1e-4)


class Dense(NamedTuple):
    """A matrix (T, C, P) as the model of one image; labels fit what `basis` (T, S) spans."""

    matrix: jax.Array
    basis: jax.Array

    def forward(self, direction):
        return jnp.einsum("tcp,sp->tc", self.matrix, direction)

    def transpose(self, residuals):
        return jnp.einsum("tcp,tc->p", self.matrix, residuals)[None]

    def unfitted(self, residuals):
        return residuals - self.basis @ (self.basis.T @ residuals)


def model_of(matrix, columns=None):
    """With the columns' part of the matrix left out: labels follow at their best."""
    columns = np.zeros((len(matrix), 0)) if columns is None else columns
    basis = np.linalg.qr(columns)[0]
    return Dense(
        _single(matrix - np.tensordot(basis, np.tensordot(basis.T, matrix, 1), 1)), _single(basis)
    )


def test_a_space_that_ends_early_gives_the_solution():
    """Two directions only: vectors after them are zeros and change nothing."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 1, 2)) @ rng.normal(size=(2, 30))
    r = rng.normal(size=(20, 1)).astype(np.float32)
    path = damping.explore(model_of(matrix), jnp.asarray(r), 10)
    dense_matrix = matrix[:, 0]
    expected = np.linalg.solve(
        dense_matrix.T @ dense_matrix + np.eye(30), -dense_matrix.T @ r[:, 0]
    )
    np.testing.assert_allclose(path.solution(1.0)[0], expected, atol=1e-4)


def test_noise_overlaps_as_much_as_the_hat_matrix_says():
    """Mean over signs: the sum over targets of r_t^T H_tt r_t."""
    matrix, r, _ = explored("solved", 1)
    ridge = 0.05 * np.trace(matrix.T @ matrix) / 36
    hat = matrix @ np.linalg.solve(matrix.T @ matrix + ridge * np.eye(36), matrix.T)
    blocks = hat.reshape(30, 3, 30, 3)
    expected = sum(r[3 * t : 3 * t + 3] @ blocks[t, :, t] @ r[3 * t : 3 * t + 3] for t in range(30))
    images, labels, batch = problem()
    fit, model, *_ = residuals_of("solved").linearize(images, labels, batch, 4, None)

    def overlap(key):
        return damping.paths(model, fit.residuals, key, 36)[1].overlap(jnp.float32(ridge))

    found = np.asarray(jax.lax.map(overlap, jax.random.split(jax.random.key(0), 400)))
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - expected) < 4 * error
    assert error < 0.05 * expected


@pytest.mark.slow
def test_the_chosen_step_follows_the_noise_and_is_near_the_best_for_other_targets():
    """Sixty unknowns of falling weight, seen through 400 targets of three classes each.

    All classes of a target are wrong together, which a count of parameters would not know.
    """
    weight, lengths = 1 / np.arange(1, 61), {}
    for noise in (0.03, 0.3, 3.0):
        shares = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            truth = rng.normal(size=60)
            seen, other = (rng.normal(size=(n, 3, 60)) * weight for n in (400, 2000))
            wrong = noise * rng.normal(size=(400, 1)) * np.ones((400, 3))
            chosen, steps = choose(seen, -(seen @ truth + wrong), jax.random.key(seed))
            missed = [np.mean((other @ (truth - step)) ** 2) for step in (chosen, *steps)]
            nothing, best = np.mean((other @ truth) ** 2), min(missed)
            shares.append((nothing - missed[0]) / (nothing - best))
            lengths.setdefault(noise, []).append(np.linalg.norm(chosen))
        assert np.mean(shares) > 0.9, (noise, shares)
    means = [np.mean(lengths[noise]) for noise in (0.03, 0.3, 3.0)]
    assert means[0] > means[1] > 1.5 * means[2], means


@pytest.mark.parametrize("noise", [1.0, pytest.param(3.0, marks=pytest.mark.slow)])
def test_a_promise_holds_where_every_residual_could_be_fitted(noise):
    """300 targets and 1,200 unknowns: what fits all leaves no residuals to judge by."""
    weight, kept = np.arange(1.0, 1201) ** -0.25, []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=1200)
        seen, other = (rng.normal(size=(n, 1, 1200)) * weight for n in (300, 2000))
        wrong, later = (noise * rng.normal(size=(n, 1)) for n in (300, 2000))
        residuals = -(seen @ truth + wrong)
        found, path, mean = _choose(model_of(seen), _single(residuals), jax.random.key(seed))
        step = np.asarray(found.length * path.solution(found.damping * mean))[0]
        predicted = float(found.predicted_loss) * np.mean(residuals**2)
        kept.append(np.mean((other @ (truth - step) + later) ** 2) / predicted)
    assert 0.85 < np.mean(kept) < 1.15, kept


def test_a_promise_knows_what_labels_have_taken():
    """300 targets whose labels are solved for: of their noise as much is gone as there are images.

    Others see it twice: once for the labels, and once more for what the step takes of the rest.
    """
    weight, kept, size = np.arange(1.0, 601) ** -0.5, [], 100
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = 0.3 * rng.normal(size=600)
        (seen, other), (columns, others) = (
            [rng.normal(size=(n, m)) for n in (300, 4000)] for m in (600, size)
        )
        seen, other = seen * weight, other * weight
        wrong, later = (rng.normal(size=(n, 1)) for n in (300, 4000))
        y, y_other = seen @ truth[:, None] + wrong, other @ truth[:, None] + later
        model = model_of(seen[:, None], columns)
        residuals = -model.unfitted(_single(y))
        found, path, mean = _choose(model, residuals, jax.random.key(seed))
        step = np.asarray(found.length * path.solution(found.damping * mean)).T
        labels = np.linalg.lstsq(columns, y - seen @ step, rcond=None)[0]
        predicted = float(found.predicted_loss) * np.mean(residuals**2) / (1 - size / 300) ** 2
        kept.append(np.mean((y_other - other @ step - others @ labels) ** 2) / predicted)
    assert 0.85 < np.mean(kept) < 1.15, kept


def _single(x):
    return jnp.asarray(x, jnp.float32)


def choose(seen, residuals, key):
    """The step that is chosen, and all that it could have been."""
    found, path, mean = _choose(model_of(seen), _single(residuals), key)
    grid = [(d, n) for d in damping.DAMPINGS for n in damping.LENGTHS]
    steps = [np.asarray(n * path.solution(d * mean))[0] for d, n in (found[:2], *grid)]
    return steps[0], steps[1:]


@jax.jit
def _choose(model, residuals, key):
    mean = jnp.mean(jnp.sum(model.matrix**2, axis=(0, 1)))
    path, noise = damping.paths(model, residuals, key, 60)
    return damping.choose(path, noise, mean, jnp.float32(0)), path, mean


def test_no_damping_below_the_least_is_chosen():
    images, labels, batch = problem()
    fit, model, *_ = residuals_of("solved").linearize(images, labels, batch, 4, None)
    path, noise = damping.paths(model, fit.residuals, jax.random.key(0), 36)
    mean = jnp.mean(model.diagonal())

    choose = jax.jit(lambda least: damping.choose(path, noise, mean, least)[0])

    def chosen(least):
        return float(choose(jnp.float32(least)))

    assert chosen(0) < 5
    assert chosen(5) >= 5
    assert chosen(1000) == 1000
