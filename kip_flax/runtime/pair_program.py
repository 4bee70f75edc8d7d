"""Runs a float64 program in pairs of float32, operation by operation.

JAX traces the function in float64, gradients included. Every operation of that trace then has a
rule here that does the same with pairs. Operations that only move numbers are done twice, once for
each half.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core

from kip_flax.runtime import float_pairs as pairs
from kip_flax.runtime.float_pairs import Pair

_Value = Any  # An array, or a `Pair` in the place of a float64 array.


def in_pairs(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, computed in pairs of float32.

    Args:
        fn: a function of float64 arrays that `jax.make_jaxpr` can trace; it may contain
            `jax.vjp`.

    Returns:
        A function of float32 arrays with the results of `fn` as float32. It has no gradient.

    Raises:
        NotImplementedError: on call, `fn` contains an operation that has no rule.
    """

    def run(*args: Array) -> Any:
        with jax.enable_x64(True):
            shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float64) for x in args]
            traced, out = jax.make_jaxpr(fn, return_shape=True)(*shapes)
        program = _Program(args[0].ravel()[0])
        found = program.run(traced.jaxpr, traced.consts, [pairs.widened(x) for x in args])
        results = [pairs.rounded(x) if isinstance(x, tuple) else x for x in found]
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return run


class _Program:
    """Evaluates a trace on pairs; `pairs.one` makes its 1 from `anchor`, any float32 of the run."""

    def __init__(self, anchor: Array) -> None:
        self.unit = pairs.one(anchor)

    def run(self, jaxpr: core.Jaxpr, consts: list[Any], args: list[_Value]) -> list[_Value]:
        """The results of a trace."""
        values: dict[core.Var, _Value] = {}

        def read(atom: Any) -> _Value:
            if not isinstance(atom, core.Literal):
                return values[atom]
            return self._constant(atom.val) if _is_double(atom) else atom.val

        values |= {var: self._constant(c) for var, c in zip(jaxpr.constvars, consts, strict=True)}
        values |= dict(zip(jaxpr.invars, args, strict=True))
        for equation in jaxpr.eqns:
            found = self._apply(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _constant(self, value: Any) -> _Value:
        value = np.asarray(value)
        if value.dtype != np.float64:
            return value
        return pairs.constant(value, self.unit)

    def _apply(self, equation: core.JaxprEqn, values: list[_Value]) -> list[_Value]:
        """The results of one operation."""
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            inner = params[_CALLS[name]]
            return self.run(inner.jaxpr, inner.consts, values)
        if name == "optimization_barrier":
            return lax.optimization_barrier(values)
        bind = functools.partial(_bind, equation)
        if not any(map(_is_double, [*equation.invars, *equation.outvars])):
            return bind(values)
        if name in _MOVES:
            halves = ([v[i] if isinstance(v, tuple) else v for v in values] for i in (0, 1))
            return list(zip(*map(bind, halves), strict=True))
        if (factor := _power_of_two(equation)) is not None:
            return [pairs.by_power_of_two(values[0], factor)]
        if name in _POINTWISE:
            shapes = [jnp.shape(x) for x in jax.tree.leaves(values)]
            shape = jnp.broadcast_shapes(*shapes)
            return [_POINTWISE[name](*(_broadcast(v, shape) for v in values))]
        if name in _OTHERS:
            return [_OTHERS[name](*values, params)]
        raise NotImplementedError(f"operation '{name}' has no rule for pairs of float32.")


def _power_of_two(equation: core.JaxprEqn) -> float | None:
    """The factor of a product with, or a quotient by, a constant power of two on the right."""
    if equation.primitive.name not in ("mul", "div"):
        return None
    right = equation.invars[1]
    if not isinstance(right, core.Literal) or math.frexp(right.val)[0] != 0.5:
        return None
    return float(right.val) if equation.primitive.name == "mul" else 1 / float(right.val)


def _bind(equation: core.JaxprEqn, values: list[Any]) -> list[Any]:
    found = equation.primitive.bind(*values, **equation.params)
    return list(found) if equation.primitive.multiple_results else [found]


def _is_double(atom: Any) -> bool:
    return getattr(atom.aval, "dtype", None) == np.float64


def _broadcast(value: _Value, shape: tuple[int, ...]) -> _Value:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), value)


def _converted(value: _Value, params: dict[str, Any]) -> _Value:
    if params["new_dtype"] == np.float64:
        return value if isinstance(value, tuple) else pairs.widened(value)
    return pairs.rounded(value).astype(params["new_dtype"])


def _power(value: Pair, params: dict[str, Any]) -> Pair:
    if params["y"] != 2:
        raise NotImplementedError("of the powers only the square has a rule for pairs of float32.")
    return pairs.multiply(value, value)


def _compared(compare: Callable[[Array, int], Array]) -> Callable[[Pair, Pair], Array]:
    return lambda a, b: compare(pairs.subtract(a, b)[0], 0)


def _larger(a: Pair, b: Pair) -> Pair:
    first = pairs.subtract(a, b)[0] >= 0
    return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])


def _smaller(a: Pair, b: Pair) -> Pair:
    return pairs.negative(_larger(pairs.negative(a), pairs.negative(b)))


_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
_MOVES = {
    *("broadcast_in_dim", "concatenate", "copy", "dynamic_slice", "neg", "pad", "reshape"),
    *("select_n", "slice", "split", "squeeze", "stack", "stop_gradient", "transpose", "unstack"),
}
_POINTWISE: dict[str, Callable[..., Any]] = {
    **{"add": pairs.add, "add_any": pairs.add, "sub": pairs.subtract, "mul": pairs.multiply},
    **{"div": pairs.divide, "sqrt": pairs.sqrt, "atan2": pairs.arctan2},
    **{"max": _larger, "min": _smaller, "square": lambda a: pairs.multiply(a, a)},
    **{"eq": _compared(jnp.equal), "ne": _compared(jnp.not_equal)},
    **{"gt": _compared(jnp.greater), "ge": _compared(jnp.greater_equal)},
    **{"lt": _compared(jnp.less), "le": _compared(jnp.less_equal)},
}
_OTHERS: dict[str, Callable[..., Any]] = {
    "convert_element_type": _converted,
    "integer_pow": _power,
    "reduce_sum": lambda value, params: pairs.sum_over(value, params["axes"]),
}
