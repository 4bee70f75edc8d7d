"""Near-duplicates: which pairs, and that they alone are replaced, with a float64 gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.kernels import near_duplicates


def paired(a, b):
    """A kernel with all precisions visible; symmetric. (m, ...), (m, ...) -> (m,)."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    return jnp.exp(-jnp.mean((a - b) ** 2, axis=-1)) * jnp.sum(a * b, axis=-1)


def dense(a, b):
    pair = jax.vmap(lambda x, y: paired(x[None], y[None])[0], (None, 0))
    return jax.vmap(pair, (0, None))(a, b)


def image_sets(copies=2):
    rng = np.random.default_rng(0)
    x1 = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    ordinary = rng.normal(size=(2, 4, 4, 2))
    noise = rng.normal(size=(copies, 1, 4, 4, 2)) * 1e-2
    return x1, np.concatenate([ordinary, *(x1 + noise), x1]).astype(np.float32)


def test_near_is_the_relative_distance():
    x1, x2 = image_sets()
    scales = 10 ** np.linspace(-4, 0, 40)
    x2 = np.concatenate([x2, *(x1[:1] * (1 + s) for s in scales)]).astype(np.float32)
    a, b = (x.reshape(len(x), 1, -1).astype(float) for x in (x1, x2))
    b = b.transpose(1, 0, 2)
    relative = np.sum((a - b) ** 2, -1) / (np.sum(a * a, -1) + np.sum(b * b, -1))
    mask = np.asarray(near_duplicates.near(x1, x2))
    clear = np.abs(relative - 1e-3) > 1e-5  # The rest is rounding.
    np.testing.assert_array_equal(mask[clear], (relative <= 1e-3)[clear])
    assert clear.mean() > 0.98
    assert 0 < mask.sum() < mask.size


def test_zero_images_are_equal():
    zeros = jnp.zeros((2, 3, 3, 1))
    assert near_duplicates.near(zeros, zeros).all()


@pytest.mark.parametrize("copies", [2, 9], ids=["one chunk", "more pairs than a chunk holds"])
def test_near_pairs_are_replaced_and_others_left(copies):
    x1, x2 = image_sets(copies)
    mask = np.asarray(near_duplicates.near(x1, x2))
    assert (mask.sum() > near_duplicates._CHUNK) == (copies == 9)
    assert mask.sum() % near_duplicates._CHUNK  # The last chunk is not full.
    wrong = jnp.full(mask.shape, -7, jnp.float32)
    k = jax.jit(lambda *x: near_duplicates.corrected(paired, wrong, *x))(x1, x2)
    exact = dense(x1.astype(float), x2.astype(float))
    np.testing.assert_array_equal(k, np.where(mask, exact.astype(np.float32), -7))


@pytest.mark.parametrize("copies", [2, 9], ids=["one chunk", "more pairs than a chunk holds"])
def test_gradients_of_the_replaced_pairs(copies):
    """In both images, summed over the pairs of each; the kernel given keeps its own elsewhere."""
    x1, x2 = image_sets(copies)
    mask = np.asarray(near_duplicates.near(x1, x2))
    weights = np.random.default_rng(1).normal(size=mask.shape)

    def ours(a, b):
        return (weights * near_duplicates.corrected(paired, 3 * dense(a, b), a, b)).sum()

    def theirs(a, b):
        k = dense(a, b)
        return (weights * jnp.where(mask, k, 3 * k)).sum()

    gradients = jax.jit(jax.grad(ours, (0, 1)))(x1, x2)
    exact = jax.jit(jax.grad(theirs, (0, 1)))(x1.astype(float), x2.astype(float))
    for gradient, want in zip(gradients, exact, strict=True):
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_without_near_pairs_nothing_runs():
    """Not one chunk: a pair kernel of NaN would show."""
    x1, x2 = map(jnp.asarray, image_sets())
    k = jnp.ones((3, 2), jnp.float32)

    def nan(a, b):
        return jnp.full(len(a), jnp.nan)

    np.testing.assert_array_equal(near_duplicates.corrected(nan, k, x1, x2[:2]), k)


def test_near_pairs_are_float64s_with_the_switch_off():
    """Values and gradients are what they are with it on."""
    x1, x2 = image_sets()
    weights = np.random.default_rng(1).normal(size=(3, len(x2))).astype(np.float32)

    def measured(x1, x2):
        def value(x1):
            k = near_duplicates.corrected(paired, jnp.zeros((3, len(x2)), jnp.float32), x1, x2)
            return jnp.sum(weights * k), k

        return jax.jit(jax.grad(value, has_aux=True))(x1)

    on = measured(x1, x2)
    with jax.enable_x64(False):
        off = measured(x1, x2)
    for a, b in zip(off, on, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
