"""Solves in pairs of float32 against float64, and float64 with JAX's switch off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from kip_flax.runtime import precision


def matrix(size, condition):
    """Symmetric, with these extremes of its spectrum."""
    basis = np.linalg.qr(np.random.default_rng(size).normal(size=(size, size)))[0]
    a = (basis * np.geomspace(1, 1 / condition, size)) @ basis.T
    return ((a + a.T) / 2).astype(np.float32)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e7])
@pytest.mark.parametrize("size", [10, 100])
def test_solves_in_pairs_are_float64s(condition, size):
    a = matrix(size, condition)
    b = np.random.default_rng(1).normal(size=(size, 3)).astype(np.float32)
    inverse = np.linalg.inv(a.astype(float))
    with jax.enable_x64(False):
        solved = jax.jit(precision.solve_in_pairs)(a, b)
        factor = jax.jit(precision.inverse_factor_in_pairs)(a)
    assert solved.dtype == factor.dtype == np.float32
    assert np.linalg.norm(solved - inverse @ b) / np.linalg.norm(inverse @ b) < 1e-5
    np.testing.assert_array_equal(factor, np.tril(factor))
    squared = np.asarray(factor, float).T @ np.asarray(factor, float)
    assert np.linalg.norm(squared - inverse) / np.linalg.norm(inverse) < 1e-5


def test_a_matrix_that_is_not_positive_definite_gives_nan():
    a = np.diag([1, -1, 2]).astype(np.float32)
    assert np.isnan(precision.solve_in_pairs(a, np.ones((3, 1), np.float32))).any()
    assert np.isnan(precision.inverse_factor_in_pairs(a)).any()


def sine_of_a_small_difference(x):
    """Zero in float32."""

    def exact(x):
        return jnp.sin((x.astype(jnp.float64) + 1e-9) - x).astype(jnp.float32)

    return precision.in_float64(exact, jnp.zeros_like, x)


def test_float64_does_not_depend_on_the_switch():
    with jax.enable_x64(False):
        found = jax.jit(sine_of_a_small_difference)(jnp.ones(3, jnp.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1e-9, rtol=1e-6)


@pytest.mark.parametrize(("platform", "float64"), [("cuda", True), ("tpu", False)])
def test_a_tpu_gets_no_float64(platform, float64):
    with jax.enable_x64(False):
        exported = export.export(jax.jit(sine_of_a_small_difference), platforms=[platform])
        text = exported(jax.ShapeDtypeStruct((3,), np.float32)).mlir_module()
    assert ("f64" in text) == float64
