"""The compiled kernel as a JAX function: callbacks with hand-written derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from kip_flax.kernels.cpu import pairs
from kip_flax.kernels.cpu.host_call import host_call
from kip_flax.kernels.cpu.pair_gradients import pair_gradients
from kip_flax.kernels.cpu.pairs import Programs
from kip_flax.kernels.head import head, head_variances
from kip_flax.kernels.plan import KernelPlan
from kip_flax.kernels.relu import deviation
from kip_flax.runtime.precision import widest_dtype


def make_compiled_kernel(
    plan: KernelPlan, channels: int, tangent: bool
) -> Callable[[jax.Array, jax.Array, bool], jax.Array]:
    """`kernel(x1, x2, same)` (n1, n2) of images (n, H, W, C) with C = `channels`.

    It has gradients in x1 and x2. With `same`, x1 and x2 are one set and only x1 has a gradient.
    """
    programs = _Hashed(pairs.make_programs(plan, channels, tangent), (plan, channels, tangent))

    def kernel(x1: jax.Array, x2: jax.Array, same: bool) -> jax.Array:
        dtype = x1.dtype
        x1, x2 = x1.reshape(len(x1), -1), x2.reshape(len(x2), -1)
        v1, end1 = _variances(programs, x1)
        v2, end2 = (v1, end1) if same else _variances(programs, x2)
        if same:
            x2, v2, end2 = jax.lax.stop_gradient((x2, v2, end2))
        s1, s2 = (deviation(v).astype(dtype) for v in (v1, v2))
        k, t = _ends(programs, same, x1, s1, x2, s2)
        heads = [[deviation(v) for v in head_variances(plan.head, end)] for end in (end1, end2)]
        ends1, ends2 = tuple(s[:, None] for s in heads[0]), tuple(s[None] for s in heads[1])
        return head(plan.head, k, t, ends1, ends2)[tangent].astype(dtype)

    return kernel


class _Hashed:
    """Programs that compare equal if their keys do, so that JAX compiles them once."""

    def __init__(self, programs: Programs, key: tuple):
        self.programs, self._key = programs, key

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self._key == other._key


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _variances(programs: _Hashed, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Variances (n, maps) at the planes' ReLUs and (n,) at their end, of images (n, pixels * C).

    Without a gradient they are computed in the images' own precision, which is enough.
    """
    return _variances_in(x.dtype, programs, x)


def _variances_in(precision: Any, programs: _Hashed, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    size, dtype = programs.programs.variance.maps, widest_dtype()
    shapes = (
        jax.ShapeDtypeStruct((len(x), size), dtype),
        jax.ShapeDtypeStruct((len(x),), dtype),
    )
    return tuple(host_call(_variances_callback, (precision, programs), shapes, x))


def _variances_callback(static: tuple[Any, _Hashed], x: np.ndarray) -> Any:
    precision, programs = static
    return pairs.variances(programs.programs, x, precision)


def _variances_fwd(programs: _Hashed, x: jax.Array) -> tuple:
    found = _variances_in(np.dtype(np.float64), programs, x)
    return found, (x, found[0])


def _variances_bwd(programs: _Hashed, saved: tuple, g: tuple) -> tuple:
    x, found = saved
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return (host_call(_variances_gradient_callback, programs, shape, x, found, *g),)


def _variances_gradient_callback(programs: _Hashed, *args: np.ndarray) -> np.ndarray:
    return pairs.variances_gradient(programs.programs, *args)


_variances.defvjp(_variances_fwd, _variances_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ends(
    programs: _Hashed, same: bool, x1: jax.Array, s1: jax.Array, x2: jax.Array, s2: jax.Array
) -> jax.Array:
    """K and T (2, n1, n2) at the end of the planes."""
    shape = jax.ShapeDtypeStruct((2, len(x1), len(x2)), widest_dtype())
    return host_call(_kernel_callback, (same, programs), shape, x1, s1, x2, s2)


def _kernel_callback(static: tuple[bool, _Hashed], *args: np.ndarray) -> np.ndarray:
    same, programs = static
    x1, s1, x2, s2 = args
    if len(x1) > len(x2):  # The smaller set is the fixed side.
        return pairs.kernel(programs.programs, x2, s2, x1, s1, same).swapaxes(1, 2)
    return pairs.kernel(programs.programs, x1, s1, x2, s2, same)


def _ends_fwd(programs: _Hashed, same: bool, *args: CustomVJPPrimal) -> tuple:
    values = tuple(arg.value for arg in args)
    # The tree structure encodes which sets need a gradient: () for yes, None for no.
    asked = tuple(() if args[i].perturbed or args[i + 1].perturbed else None for i in (0, 2))
    return _ends(programs, same, *values), (values, asked)


def _ends_bwd(programs: _Hashed, same: bool, saved: tuple, g: Any) -> tuple:
    (x1, s1, x2, s2), asked = saved
    if isinstance(g, SymbolicZero):
        return None, None, None, None
    first = second = (None, None)
    if asked[0] is not None:
        first = _gradient(programs, x1, s1, x2, s2, g)
    if asked[1] is not None:
        second = _gradient(programs, x2, s2, x1, s1, g.swapaxes(1, 2))
    return *first, *second


def _gradient(programs: _Hashed, x1: Any, s1: Any, x2: Any, s2: Any, g: Any) -> tuple:
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x1, s1))
    return tuple(host_call(_gradient_callback, programs, shapes, x1, s1, x2, s2, g))


def _gradient_callback(programs: _Hashed, *args: np.ndarray) -> Any:
    return pairs.gradient(programs.programs, *args)


_ends.defvjp(_ends_fwd, _ends_bwd, symbolic_zeros=True)


def make_compiled_jacobian(
    plan: KernelPlan, channels: int, tangent: bool
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """`jacobian(x2, x1)`: `kernel` (n2, n1) and each pair's gradient in x1, (n1, n2, H, W, C).

    The head of the plan must not have a ReLU.
    """
    programs = _Hashed(pairs.make_programs(plan, channels, tangent), (plan, channels, tangent))

    def ends(k: jax.Array, t: jax.Array) -> jax.Array:
        return head(plan.head, k, t, (), ())[tangent]

    def jacobian(x2: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
        dtype, pixels = x1.dtype, x1.shape[1:]
        x1, x2 = x1.reshape(len(x1), -1), x2.reshape(len(x2), -1)
        v1, _ = _variances_in(np.dtype(np.float64), programs, x1)
        s2 = deviation(_variances_in(dtype, programs, x2)[0]).astype(dtype)
        zero = jnp.zeros((), widest_dtype())
        g = jnp.stack(jax.grad(ends, argnums=(0, 1))(zero, zero))
        shapes = (
            jax.ShapeDtypeStruct((2, len(x1), len(x2)), widest_dtype()),
            jax.ShapeDtypeStruct((len(x1), len(x2), x1.shape[1]), dtype),
        )
        found, gradients = host_call(_jacobian_callback, programs, shapes, x1, v1, x2, s2, g)
        k = ends(found[0], found[1]).astype(dtype)
        return k.T, gradients.reshape(len(x1), len(x2), *pixels)

    return jacobian


def _jacobian_callback(programs: _Hashed, *args: np.ndarray) -> Any:
    x1, v1, x2, s2, g = args
    return pair_gradients(programs.programs, x1, np.asarray(v1, np.float64), x2, s2, g)
