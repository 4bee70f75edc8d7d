"""A numba type for 16 numbers at once, so that vector code does not depend on auto-vectorisation.

`load` reads a vector from a row, and `store` writes it back. `+ - *` and `fma` are instructions on
whole vectors, and `pointwise` makes more of them. The compiler chooses the registers: one of 16
floats with AVX-512, two of 8 with AVX2, four of 4 with NEON.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

# numba passes an intrinsic its typing context; callers in compiled code leave it out.
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


def constant(vector: Vector, value: float) -> ir.Constant:
    kind = _llvm_type(vector)
    return ir.Constant(kind, [ir.Constant(kind.element, float(value))] * LANES)


def call(builder: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    kind = ir.FunctionType(args[0].type, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, args)


def llvm_suffix(vector: Vector) -> str:
    return f"v{LANES}f{vector.dtype.bitwidth}"


def fused(builder: ir.IRBuilder, vector: Vector, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    return call(builder, f"llvm.fma.{llvm_suffix(vector)}", a, b, c)


class Row(types.Type):
    """A pointer to numbers of type `dtype`, `lanes` per vector: `LANES`, or 1 for all of them."""

    def __init__(self, dtype: types.Float, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Row({dtype}, {lanes})")


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, row: Row):
        super().__init__(manager, row, _llvm_type(Vector(row.dtype)).element.as_pointer())


@instruction
def row_at(typingctx: Any, array: Any, index: Any) -> Any:
    """The row from `array[index]` on, of an array (n, LANES), or (n,) that all lanes share."""

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

    Inside a large function, the compiler would load the constants of a loop again each time.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), code


def pointwise(arity: int, build: Callable[..., ir.Value]) -> Callable[..., Any]:
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


add = pointwise(2, lambda builder, vector, a, b: builder.fadd(a, b))
subtract = pointwise(2, lambda builder, vector, a, b: builder.fsub(a, b))
multiply = pointwise(2, lambda builder, vector, a, b: builder.fmul(a, b))
fma = pointwise(3, fused)
negative_fma = pointwise(3, lambda b, v, x, y, z: fused(b, v, b.fneg(x), y, z))


def _operator(symbol: Any, function: Any) -> None:
    @overload(symbol)
    def implementation(a, b):  # type: ignore[no-untyped-def]  # numba compares annotations too.
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: function(a, b)
        return None


_operator(operator.add, add)
_operator(operator.sub, subtract)
_operator(operator.mul, multiply)
