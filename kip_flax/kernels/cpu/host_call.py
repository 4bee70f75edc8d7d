"""Calls from compiled JAX into Python, with NumPy arrays.

`jax.pure_callback` first converts the arguments to JAX arrays, for which it waits for a thread of a
pool that its caller may have filled. On one core, or with one device per core, it waits for ever.
This lowering passes NumPy arrays.

Results of float64 come back as their bits, in uint32. JAX rounds what a callback returns by the
settings of the thread that it runs in, a thread of XLA's own: `jax.enable_x64` is not on there.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.extend.core
import numpy as np
from jax.interpreters import mlir

_host_call = jax.extend.core.Primitive("kip_flax_host_call")
_host_call.multiple_results = True


def host_call(function: Callable[..., Any], static: Hashable, shapes: Any, *args: jax.Array) -> Any:
    """`function(static, *args)` on NumPy arrays; it must be pure.

    Args:
        function: a module-level function.
        static: its first argument; calls with equal ones share compiled code.
        shapes: tree of `jax.ShapeDtypeStruct` that describes its result.
    """
    leaves, tree = jax.tree.flatten(shapes)
    results = tuple((leaf.shape, np.dtype(leaf.dtype)) for leaf in leaves)
    carried = _host_call.bind(*args, function=function, static=static, results=results)
    found = [
        jax.lax.bitcast_convert_type(a, dtype) if dtype == np.float64 else a
        for a, (_, dtype) in zip(carried, results, strict=True)
    ]
    return jax.tree.unflatten(tree, found)


def _run(function: Callable[..., Any], static: Hashable, results: tuple, args: Any) -> list:
    found = jax.tree.leaves(function(static, *(np.ascontiguousarray(a) for a in args)))
    return [
        _carried(np.ascontiguousarray(a, dtype).reshape(shape))
        for a, (shape, dtype) in zip(found, results, strict=True)
    ]


def _carried(array: np.ndarray) -> np.ndarray:
    """The array; of float64, its bits (..., 2)."""
    return array[..., None].view(np.uint32) if array.dtype == np.float64 else array


@_host_call.def_abstract_eval
def _shapes(*avals: Any, function: Any, static: Any, results: tuple) -> list:
    return [
        jax.core.ShapedArray((*shape, 2), np.uint32)
        if dtype == np.float64
        else jax.core.ShapedArray(shape, dtype)
        for shape, dtype in results
    ]


@_host_call.def_impl
def _at_once(*args: Any, function: Any, static: Any, results: tuple) -> list:
    return [jax.numpy.asarray(a) for a in _run(function, static, results, args)]


def _lowering(ctx: Any, *args: Any, function: Any, static: Any, results: tuple) -> Any:
    def callback(*arrays: np.ndarray) -> tuple:
        return tuple(_run(function, static, results, arrays))

    found, _, _ = mlir.emit_python_callback(
        ctx, callback, None, list(args), ctx.avals_in, ctx.avals_out, has_side_effect=False,
        returns_token=False,
    )  # fmt: skip
    return found


mlir.register_lowering(_host_call, _lowering, cacheable=False)
