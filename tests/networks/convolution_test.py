"""The convolution against XLA's, with its gradients, and the form in which XLA gets it."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.networks.convolution import convolve


def images(n, shape, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, *shape), jnp.float32)


def xlas(x, kernel, stride, padding):
    pads = "SAME" if padding is None else [(padding, padding)] * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [None, 0, 2])
@pytest.mark.parametrize("channels", [3, 17])
def test_convolution_is_xlas(size, stride, padding, channels, monkeypatch):
    x = images(2, (7, 10, channels))
    kernel = images(size, (size, channels, 4), seed=1)
    expected = xlas(x, kernel, stride, padding)
    np.testing.assert_allclose(convolve(x, kernel, stride, padding), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # Where XLA's own is taken.
    there = convolve(x, kernel, stride, padding)
    np.testing.assert_allclose(there, expected, rtol=1e-6, atol=1e-6)
    mixed = convolve(x.astype(float), kernel, stride, padding)
    assert mixed.dtype == np.float64
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-4)


def with_gradients(function, x, kernel, stride, padding):
    """Outputs, gradients, and the gradients of a function of the gradients."""

    def value(x, kernel):
        return jnp.sum(jnp.sin(function(x, kernel, stride, padding)))

    def of_gradients(x, kernel):
        d_x, d_kernel = jax.grad(value, (0, 1))(x, kernel)
        return jnp.sum(d_x**2) + jnp.sum(jnp.cos(d_kernel))

    return (
        function(x, kernel, stride, padding),
        jax.grad(value, (0, 1))(x, kernel),
        jax.grad(of_gradients, (0, 1))(x, kernel),
    )


def shapes():
    """Sizes, strides, paddings. Nine cases have every pair of them; the other 18 are slow."""
    for at in itertools.product(range(3), repeat=3):
        case = (1, 3, 4)[at[0]], (1, 2, 3)[at[1]], (None, 0, 2)[at[2]]
        yield pytest.param(*case, marks=[pytest.mark.slow] if sum(at) % 3 else [])


@pytest.mark.parametrize(("size", "stride", "padding"), list(shapes()))
def test_gradients_of_first_and_second_order_are_xlas(size, stride, padding):
    x = images(2, (7, 10, 3)).astype(float)
    kernel = images(size, (size, 3, 4), seed=1).astype(float)
    found, expected = (
        jax.jit(with_gradients, static_argnums=(0, 3, 4))(function, x, kernel, stride, padding)
        for function in (convolve, xlas)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-9, 1e-9), found, expected)


def test_stacked_kernels_are_convolved_one_by_one():
    x, kernels = images(2, (7, 10, 3)), images(5, (3, 3, 3, 4), seed=1)
    together = jax.vmap(convolve, (None, 0))(x, kernels)
    one_by_one = jnp.stack([convolve(x, kernel) for kernel in kernels])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-5)


def forms(function):
    """The forms of the convolutions in a loop over `with_gradients`, compiled for a CPU."""

    def body(_, arrays):
        _, first, second = with_gradients(function, *arrays, 2, None)
        return jax.tree.map(lambda a, b: a + b, first, second)

    arrays = images(2, (8, 8, 3)), images(3, (3, 3, 4), seed=1)
    loop = jax.jit(lambda arrays: jax.lax.fori_loop(0, 3, body, arrays))
    return set(re.findall(r"dim_labels=(\S+?),", loop.lower(arrays).compile().as_text()))


def test_loops_hold_convolutions_of_the_form_that_is_fast():
    assert forms(convolve) == {"b01f_01io->b01f"}
    assert len(forms(xlas)) > 1  # The gradients that JAX derives have others.
