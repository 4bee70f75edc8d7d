"""Calls into Python from XLA's own threads, which do not have the settings of the caller's."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.kernels.cpu.host_call import host_call

X = np.linspace(0.1, 2, 7, dtype=np.float32)


def roots(names, x):
    """Float64 that no float32 has, and float32; the thread's name goes to the list `names`."""
    names.append(threading.current_thread().name)
    return np.sqrt(x.astype(np.float64)), -x


def asked(names, x):
    shapes = (jax.ShapeDtypeStruct(x.shape, np.float64), jax.ShapeDtypeStruct(x.shape, x.dtype))
    return host_call(roots, names, shapes, x)


class Names(list):
    """A list that is hashed and compared by what it is, not by what it holds."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.fixture
def float64_off():
    """For all threads but those that turn it on."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def test_float64_comes_back_whole_from_a_thread_that_has_it_off(float64_off):
    names, zeros = Names(), np.zeros((700, 700), np.float32)
    slow = jax.jit(lambda m: X + jax.lax.fori_loop(0, 40, lambda _, m: jnp.tanh(m @ m), m)[0, 0])
    with jax.enable_x64(True):
        call = jax.jit(lambda x: asked(names, x))
        jax.block_until_ready(call(slow(zeros)))  # Compiles both.
        names.clear()
        wide, single = call(slow(zeros))  # The images are not there yet: it runs later, elsewhere.
        assert (wide.dtype, single.dtype) == (np.float64, np.float32)
        np.testing.assert_array_equal(wide, np.sqrt(X.astype(np.float64)), strict=True)
        np.testing.assert_array_equal(single, -X, strict=True)
    assert names
    assert threading.main_thread().name not in names


def test_without_jit_it_is_the_function():
    found = asked(Names(), jnp.asarray(X))
    for ours, true in zip(found, roots([], X), strict=True):
        np.testing.assert_array_equal(ours, true, strict=True)
