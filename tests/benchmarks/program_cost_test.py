"""Costs read from compiled programs against programs that can be counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.program_cost import program_cost


def compiled(function, *arguments):
    return program_cost(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_loop_counts_as_often_as_it_runs():
    x = jnp.ones((8, 1000), jnp.float32)

    def function(x, steps):
        return lax.fori_loop(0, steps, lambda _, y: jnp.sqrt(y * y + x), x)

    short, long = (compiled(lambda x, n=n: function(x, n), x) for n in (3, 30))
    # Of a turn: y and x are read, y is written; a product, a sum and a root of each entry.
    assert long.flops - short.flops == 27 * 3 * x.size
    assert long.size - short.size == pytest.approx(27 * 3 * x.nbytes, rel=0.01)
    assert long.passes["sqrt, arccos"] - short.passes["sqrt, arccos"] == 27


def test_a_slice_counts_as_the_slice():
    x = jnp.ones((64, 4096), jnp.float32)

    def function(x):
        """Rows are read, doubled and written one by one."""

        def turn(total, row):
            return total, 2 * row

        return lax.scan(turn, jnp.float32(0), x)[1]

    cost = compiled(function, x)
    assert cost.flops == x.size
    # Read and written once, and the rows that nobody has written yet.
    assert 2 * x.nbytes <= cost.size <= 3.1 * x.nbytes
