"""The ReLU's functions of a correlation c, on whole vectors: sqrt(1 - c^2), its inverse, D(c).

`kernels.relu` has the formulas. If |c| is 1 up to rounding, the patches count as equal (or
opposite), and sqrt(1 - c^2) and its inverse are both 0.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from kip_flax.kernels.cpu.vectors import (
    LANES,
    Vector,
    call,
    constant,
    fused,
    llvm_suffix,
    pointwise,
)

_HALF_OVER_PI = 0.5 / math.pi

# arccos(a) / sqrt(1 - a^2) on [0, 1]. float32: the polynomial whose error in arccos / (2 pi) is the
# smallest (5e-8), by linear programming. float64: interpolation at Chebyshev nodes, error 2e-12.
_ARCCOS32 = (
    *(1.5707960269471102, -0.9999334853949471, 0.7838225369374446, -0.6521041288265712),
    *(0.5199130903028161, -0.3411943632306951, 0.14947476049332517, -0.030778620775788846),
)
# A smaller 1 - c^2 is rounding error: the two patches count as equal (or opposite).
_EQUAL = {types.float32: 1e-6, types.float64: 2e-14}


def _arccos64(degree: int = 14) -> tuple[float, ...]:
    """The float64 coefficients, in powers of 2 a - 1, lowest first."""

    def ratio(a: np.ndarray) -> np.ndarray:
        return 2 * np.arcsin(np.sqrt((1 - a) / 2)) / np.sqrt((1 - a) * (1 + a))

    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(ratio, degree, domain=[0, 1])
    return tuple(np.polynomial.chebyshev.cheb2poly(nodes.coef))


def _sine_squared(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> ir.Value:
    return fused(builder, vector, builder.fneg(c), c, constant(vector, 1))


def _estimated_reciprocal_sine(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> ir.Value:
    """An estimate of 1 / sqrt(1 - c^2), for one Newton step to refine; 0 for equal patches."""
    s = _sine_squared(builder, vector, c)
    rough = _rough_rsqrt(builder, vector, s)
    equal = builder.fcmp_ordered("<", s, constant(vector, _EQUAL[vector.dtype]))
    return builder.select(equal, constant(vector, 0), rough)


def _rough_rsqrt(builder: ir.IRBuilder, vector: Vector, s: ir.Value) -> ir.Value:
    features = _cpu_features()
    if vector.dtype == types.float32 and "avx512f" in features:
        every = ir.Constant(ir.IntType(16), 0xFFFF)
        return call(builder, "llvm.x86.avx512.rsqrt14.ps.512", s, s, every)
    if vector.dtype == types.float32 and "avx" in features:
        return _by_halves(builder, "llvm.x86.avx.rsqrt.ps.256", s)
    root = call(builder, f"llvm.sqrt.{llvm_suffix(vector)}", s)
    return builder.fdiv(constant(vector, 1), root)


def _by_halves(builder: ir.IRBuilder, name: str, s: ir.Value) -> ir.Value:
    index = ir.VectorType(ir.IntType(32), LANES // 2)
    halves = [
        call(
            builder,
            name,
            builder.shuffle_vector(
                s, s, ir.Constant(index, list(range(first, first + LANES // 2)))
            ),
        )
        for first in (0, LANES // 2)
    ]
    every = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(LANES)))
    return builder.shuffle_vector(*halves, every)


def _cpu_features() -> frozenset[str]:
    """The features numba compiles for: this CPU's, unless NUMBA_CPU_FEATURES gives others."""
    from llvmlite import binding
    from numba.core import config as config_module

    config: Any = config_module

    if config.CPU_FEATURES is not None:
        given = config.CPU_FEATURES.split(",")
        return frozenset(name[1:] for name in given if name.startswith("+"))
    return frozenset(name for name, has in binding.get_host_cpu_features().items() if has)


def _sine(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> ir.Value:
    s = _sine_squared(builder, vector, c)
    root = call(builder, f"llvm.sqrt.{llvm_suffix(vector)}", s)
    equal = builder.fcmp_ordered("<", s, constant(vector, _EQUAL[vector.dtype]))
    return builder.select(equal, constant(vector, 0), root)


def _refined(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> tuple[ir.Value, ir.Value]:
    """sqrt(1 - c^2) and its inverse, by one Newton step each from an estimate."""
    s = _sine_squared(builder, vector, c)
    y = _estimated_reciprocal_sine(builder, vector, c)
    h = builder.fmul(s, y)
    error = fused(builder, vector, builder.fneg(h), y, constant(vector, 1))
    step = fused(builder, vector, error, constant(vector, 0.5), constant(vector, 1))
    return builder.fmul(h, step), builder.fmul(y, step)


def _derivative_kernel(
    builder: ir.IRBuilder,
    vector: Vector,
    c: ir.Value,
    sine: ir.Value,
    factor: ir.Value,
    signed: bool,
) -> ir.Value:
    """`factor` times D(c), from c and sqrt(1 - c^2); `signed` where c can be negative.

    The factor does not change in a loop, so the compiler multiplies the constants by it beforehand.
    """

    def scaled(value: float) -> ir.Value:
        return builder.fmul(constant(vector, value), factor)

    a = call(builder, f"llvm.fabs.{llvm_suffix(vector)}", c) if signed else c
    coefficients: tuple[float, ...] = _ARCCOS32
    if vector.dtype == types.float64:
        coefficients = _arccos64()
        a = fused(builder, vector, a, constant(vector, 2), constant(vector, -1))
    ratio = _polynomial(builder, vector, [scaled(_HALF_OVER_PI * q) for q in coefficients], a)
    if not signed:
        return fused(builder, vector, builder.fneg(sine), ratio, scaled(0.5))
    quarter = scaled(0.25)
    from_quarter = fused(builder, vector, builder.fneg(sine), ratio, quarter)
    return builder.fadd(quarter, _with_sign_of(builder, vector, c, from_quarter))


def _polynomial(
    builder: ir.IRBuilder, vector: Vector, coefficients: list[ir.Value], x: ir.Value
) -> ir.Value:
    """A polynomial, coefficients lowest first, in two parallel chains (even and odd powers)."""
    if len(coefficients) > 5:
        square = builder.fmul(x, x)
        even = _polynomial(builder, vector, coefficients[::2], square)
        odd = _polynomial(builder, vector, coefficients[1::2], square)
        return fused(builder, vector, odd, x, even)
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = fused(builder, vector, value, x, coefficient)
    return value


def _with_sign_of(
    builder: ir.IRBuilder, vector: Vector, c: ir.Value, magnitude: ir.Value
) -> ir.Value:
    """`magnitude`, negated where c is negative."""
    width = vector.dtype.bitwidth
    bits = ir.VectorType(ir.IntType(width), LANES)
    sign = ir.Constant(bits, [1 << (width - 1)] * LANES)
    flipped = builder.and_(builder.bitcast(c, bits), sign)
    return builder.bitcast(builder.xor(builder.bitcast(magnitude, bits), flipped), c.type)


sine_of = pointwise(1, _sine)
# Where both are used, they share one estimate.
estimated_sine = pointwise(1, lambda b, v, c: _refined(b, v, c)[0])
reciprocal_sine = pointwise(1, lambda b, v, c: _refined(b, v, c)[1])
# The last argument is a factor of the result that does not change in a loop.
derivative_kernel = pointwise(
    3, lambda b, v, c, sine, factor: _derivative_kernel(b, v, c, sine, factor, True)
)
derivative_kernel_of_positive = pointwise(
    3, lambda b, v, c, sine, factor: _derivative_kernel(b, v, c, sine, factor, False)
)
