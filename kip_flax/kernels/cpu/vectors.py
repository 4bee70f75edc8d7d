"""A numba type for 16 numbers at once, so that vector code does not hang on the optimiser's mood.

`load` makes one from an array, `store` puts it back; `+ - *`, `fma`, `maximum` and the functions of
a correlation below are instructions on whole vectors. The width of a vector register is the
compiler's business: it takes one of 16 floats with AVX-512, two of 8 with AVX2, four with NEON.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

_HALF_OVER_PI = 0.5 / math.pi

# arccos(a) / sqrt(1 - a^2) on [0, 1]. float32: the polynomial whose error in arccos / (2 pi) is the
# smallest (5e-8), by linear programming. float64: interpolation at Chebyshev nodes, error 2e-12.
_ARCCOS32 = (
    *(1.5707960269471102, -0.9999334853949471, 0.7838225369374446, -0.6521041288265712),
    *(0.5199130903028161, -0.3411943632306951, 0.14947476049332517, -0.030778620775788846),
)
# Below this 1 - c^2 is rounding: the two patches count as equal.
_EQUAL = {types.float32: 1e-6, types.float64: 2e-14}


def _arccos64(degree: int = 14) -> tuple[float, ...]:
    """Coefficients in 2 a - 1, lowest first."""

    def ratio(a: np.ndarray) -> np.ndarray:
        return 2 * np.arcsin(np.sqrt((1 - a) / 2)) / np.sqrt((1 - a) * (1 + a))

    nodes = np.polynomial.chebyshev.Chebyshev.interpolate(ratio, degree, domain=[0, 1])
    return tuple(np.polynomial.chebyshev.cheb2poly(nodes.coef))


# numba hands an intrinsic its typing context: who calls it from compiled code leaves that out.
instruction: Callable[[Callable[..., Any]], Any] = intrinsic


class Vector(types.Type):
    """`LANES` numbers of type `dtype`."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector):
        super().__init__(manager, vector, _llvm_type(vector))


def _llvm_type(vector: Vector) -> ir.VectorType:
    number = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(number, LANES)


def _constant(vector: Vector, value: float) -> ir.Constant:
    kind = _llvm_type(vector)
    return ir.Constant(kind, [ir.Constant(kind.element, float(value))] * LANES)


def _call(builder: ir.IRBuilder, name: str, *args: ir.Value, result: Any = None) -> ir.Value:
    kind = ir.FunctionType(result or args[0].type, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, args)


def _llvm_suffix(vector: Vector) -> str:
    return f"v{LANES}f{vector.dtype.bitwidth}"


def _fma(builder: ir.IRBuilder, vector: Vector, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    return _call(builder, f"llvm.fma.{_llvm_suffix(vector)}", a, b, c)


class Row(types.Type):
    """A pointer to numbers of type `dtype`: `lanes` of them for each vector, all or one for all."""

    def __init__(self, dtype: types.Float, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Row({dtype}, {lanes})")


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, row: Row):
        super().__init__(manager, row, _llvm_type(Vector(row.dtype)).element.as_pointer())


@instruction
def row_at(typingctx: Any, array: Any, index: Any) -> Any:
    """The row from `array[index]` on: of an array (n, LANES), or (n,) for all lanes alike."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        data = context.make_array(array)(context, builder, value=args[0]).data
        return builder.gep(data, [_in_numbers(builder, row, args[1])])

    row = Row(array.dtype, 1 if array.ndim == 1 else LANES)
    return row(array, types.intp), code


@instruction
def shifted(typingctx: Any, row: Any, index: Any) -> Any:
    """The row that begins `index` vectors later."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.gep(args[0], [_in_numbers(builder, row, args[1])])

    return row(row, types.intp), code


def _in_numbers(builder: ir.IRBuilder, row: Row, index: ir.Value) -> ir.Value:
    return builder.mul(index, ir.Constant(index.type, row.lanes))


@instruction
def load(typingctx: Any, row: Any, index: Any) -> Any:
    """Vector number `index` of a row."""
    vector = Vector(row.dtype)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        address = builder.gep(args[0], [_in_numbers(builder, row, args[1])])
        if row.lanes == 1:
            return _splat(builder, vector, builder.load(address))
        address = builder.bitcast(address, _llvm_type(vector).as_pointer())
        return builder.load(address, align=row.dtype.bitwidth // 8)

    return vector(row, types.intp), code


@instruction
def store(typingctx: Any, row: Any, index: Any, vector: Any) -> Any:
    """Writes vector number `index` of a row."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        address = builder.gep(args[0], [_in_numbers(builder, row, args[1])])
        address = builder.bitcast(address, args[2].type.as_pointer())
        builder.store(args[2], address, align=row.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(row, types.intp, vector), code


@instruction
def splat(typingctx: Any, row: Any, number: Any) -> Any:
    """A vector of one number, in the precision of `row`."""
    vector = Vector(row.dtype)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return _splat(builder, vector, args[1])

    return vector(row, row.dtype), code


def _splat(builder: ir.IRBuilder, vector: Vector, number: ir.Value) -> ir.Value:
    start = ir.Constant(_llvm_type(vector), ir.Undefined)
    one = builder.insert_element(start, number, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, one, lanes)


@instruction
def stay_apart(typingctx: Any) -> Any:
    """Keeps the function that calls it from being inlined.

    In the middle of a large function the compiler loads the constants of a loop again each time.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), code


def _pointwise(arity: int, build: Callable[..., ir.Value]) -> Callable[..., Any]:
    """An intrinsic of `arity` vectors; `build(builder, vector type, *values)` writes its code."""

    def typed(typingctx: Any, *vectors: Any) -> Any:
        vector = vectors[0]
        if not all(isinstance(v, Vector) and v == vector for v in vectors):
            return None

        def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
            return build(builder, vector, *args)

        return vector(*vectors), code

    return {
        1: instruction(lambda typingctx, a: typed(typingctx, a)),
        2: instruction(lambda typingctx, a, b: typed(typingctx, a, b)),
        3: instruction(lambda typingctx, a, b, c: typed(typingctx, a, b, c)),
    }[arity]


add = _pointwise(2, lambda builder, vector, a, b: builder.fadd(a, b))
subtract = _pointwise(2, lambda builder, vector, a, b: builder.fsub(a, b))
multiply = _pointwise(2, lambda builder, vector, a, b: builder.fmul(a, b))
fma = _pointwise(3, _fma)
negative_fma = _pointwise(3, lambda b, v, x, y, z: _fma(b, v, b.fneg(x), y, z))


def _operator(symbol: Any, function: Any) -> None:
    @overload(symbol)
    def implementation(a, b):  # type: ignore[no-untyped-def]  # numba compares annotations too.
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: function(a, b)
        return None


_operator(operator.add, add)
_operator(operator.sub, subtract)
_operator(operator.mul, multiply)


def _sine_squared(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> ir.Value:
    return _fma(builder, vector, builder.fneg(c), c, _constant(vector, 1))


def _reciprocal_sine(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> ir.Value:
    """An estimate of 1 / sqrt(1 - c^2), for one Newton step to refine; 0 for equal patches."""
    s = _sine_squared(builder, vector, c)
    rough = _rough_rsqrt(builder, vector, s)
    equal = builder.fcmp_ordered("<", s, _constant(vector, _EQUAL[vector.dtype]))
    return builder.select(equal, _constant(vector, 0), rough)


def _rough_rsqrt(builder: ir.IRBuilder, vector: Vector, s: ir.Value) -> ir.Value:
    features = _cpu_features()
    if vector.dtype == types.float32 and "avx512f" in features:
        every = ir.Constant(ir.IntType(16), 0xFFFF)
        return _call(builder, "llvm.x86.avx512.rsqrt14.ps.512", s, s, every)
    if vector.dtype == types.float32 and "avx" in features:
        return _by_halves(builder, "llvm.x86.avx.rsqrt.ps.256", s)
    root = _call(builder, f"llvm.sqrt.{_llvm_suffix(vector)}", s)
    return builder.fdiv(_constant(vector, 1), root)


def _by_halves(builder: ir.IRBuilder, name: str, s: ir.Value) -> ir.Value:
    index = ir.VectorType(ir.IntType(32), LANES // 2)
    halves = [
        _call(
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
    """What numba compiles for: this CPU, unless NUMBA_CPU_FEATURES says otherwise."""
    from llvmlite import binding
    from numba.core import config as config_module

    config: Any = config_module

    if config.CPU_FEATURES is not None:
        given = config.CPU_FEATURES.split(",")
        return frozenset(name[1:] for name in given if name.startswith("+"))
    return frozenset(name for name, has in binding.get_host_cpu_features().items() if has)


def _sine(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> ir.Value:
    s = _sine_squared(builder, vector, c)
    root = _call(builder, f"llvm.sqrt.{_llvm_suffix(vector)}", s)
    equal = builder.fcmp_ordered("<", s, _constant(vector, _EQUAL[vector.dtype]))
    return builder.select(equal, _constant(vector, 0), root)


def _refined(builder: ir.IRBuilder, vector: Vector, c: ir.Value) -> tuple[ir.Value, ir.Value]:
    """sqrt(1 - c^2) and its inverse, by one Newton step each from an estimate."""
    s = _sine_squared(builder, vector, c)
    y = _reciprocal_sine(builder, vector, c)
    h = builder.fmul(s, y)
    error = _fma(builder, vector, builder.fneg(h), y, _constant(vector, 1))
    step = _fma(builder, vector, error, _constant(vector, 0.5), _constant(vector, 1))
    return builder.fmul(h, step), builder.fmul(y, step)


def _derivative_kernel(
    builder: ir.IRBuilder,
    vector: Vector,
    c: ir.Value,
    sine: ir.Value,
    signed: bool,
) -> ir.Value:
    """D(c) from c and sqrt(1 - c^2); `signed` where c can be negative."""
    a = _call(builder, f"llvm.fabs.{_llvm_suffix(vector)}", c) if signed else c
    coefficients: tuple[float, ...] = _ARCCOS32
    if vector.dtype == types.float64:
        coefficients = _arccos64()
        a = _fma(builder, vector, a, _constant(vector, 2), _constant(vector, -1))
    coefficients = tuple(_HALF_OVER_PI * coefficient for coefficient in coefficients)
    ratio = _polynomial(builder, vector, coefficients, a)
    if not signed:
        return _fma(builder, vector, builder.fneg(sine), ratio, _constant(vector, 0.5))
    quarter = _constant(vector, 0.25)
    from_quarter = _fma(builder, vector, builder.fneg(sine), ratio, quarter)
    return builder.fadd(quarter, _with_sign_of(builder, vector, c, from_quarter))


def _polynomial(
    builder: ir.IRBuilder, vector: Vector, coefficients: tuple[float, ...], x: ir.Value
) -> ir.Value:
    """Coefficients lowest first; long ones as two chains, even and odd, that run side by side."""
    if len(coefficients) > 10:
        square = builder.fmul(x, x)
        even = _polynomial(builder, vector, coefficients[::2], square)
        odd = _polynomial(builder, vector, coefficients[1::2], square)
        return _fma(builder, vector, odd, x, even)
    value = _constant(vector, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = _fma(builder, vector, value, x, _constant(vector, coefficient))
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


sine_of = _pointwise(1, _sine)
# Both of one estimate, where both are wanted.
estimated_sine = _pointwise(1, lambda b, v, c: _refined(b, v, c)[0])
reciprocal_sine = _pointwise(1, lambda b, v, c: _refined(b, v, c)[1])
derivative_kernel = _pointwise(2, lambda b, v, c, sine: _derivative_kernel(b, v, c, sine, True))
derivative_kernel_of_positive = _pointwise(
    2, lambda b, v, c, sine: _derivative_kernel(b, v, c, sine, False)
)
