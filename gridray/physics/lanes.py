"""Vectors of environments as values in compiled code: they stay in registers, and no loop over them is left.

`load` takes a lane, the values of LANE environments side by side, from a row of an array [rows, LANE]; arithmetic
with lanes and numbers gives lanes; `store` puts one back. LLVM makes the machine's own vectors of them (two of 512
bits, four of 256), so that any CPU will do.
"""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, overload, register_model

from gridray.physics.buffers import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

intrinsic: Any = numba_intrinsic
"""Untyped, as its functions lose their first parameter when called."""
Lane: TypeAlias = Any
"""LANE float64 values; exists only in compiled code."""
Block: TypeAlias = tuple[Any, Any, Any, Any]
"""Lanes of a 2x2 block, row by row."""
LANE = 16
"""Environments solved side by side."""
VECTOR = ir.VectorType(ir.DoubleType(), LANE)
SHORT_VECTOR = ir.VectorType(ir.FloatType(), LANE)
BITS = ir.VectorType(ir.IntType(1), LANE)


class LaneType(types.Type):
    """Numba's type of LANE float64 values."""

    def __init__(self) -> None:
        """Name the type."""
        super().__init__(name=f"Lane{LANE}")


class MaskType(types.Type):
    """Numba's type of LANE truth values."""

    def __init__(self) -> None:
        """Name the type."""
        super().__init__(name=f"Mask{LANE}")


LANE_TYPE, MASK_TYPE = LaneType(), MaskType()


@register_model(LaneType)
class _LaneModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: LaneType) -> None:  # noqa: ANN401
        super().__init__(manager, numba_type, VECTOR)  # type: ignore[no-untyped-call]


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: MaskType) -> None:  # noqa: ANN401
        super().__init__(manager, numba_type, BITS)  # type: ignore[no-untyped-call]


@njit(cache=True, nogil=True)
def empty_lanes(rows: int) -> NDArray[np.float64]:
    """Return an aligned array [rows, LANE], not initialised."""
    raw = np.empty(rows * LANE + ALIGNMENT)
    skip = (-(raw.ctypes.data // 8)) % ALIGNMENT
    return raw[skip : skip + rows * LANE].reshape(rows, LANE)


@njit(cache=True, nogil=True)
def empty_short_lanes(rows: int) -> NDArray[np.float32]:
    """Return an aligned float32 array [rows, LANE], not initialised."""
    return empty_lanes((rows + 1) // 2).view(np.float32).reshape(-1, LANE)[:rows]


@intrinsic
def get(_context: Any, array: Any, i: Any) -> Any:  # noqa: ANN401
    """Return element i of a contiguous array, counted over all its axes; i must be there.

    Numba's own indexing allows for negative indices, which costs as much as the arithmetic with what is found.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        index = context.cast(builder, args[1], signature.args[1], types.int64)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return context.unpack_value(builder, array.dtype, builder.gep(data, [index]))

    return array.dtype(array, i), codegen


@intrinsic
def load(_context: Any, array: Any, row: Any) -> Any:  # noqa: ANN401
    """Return row `row` of an aligned array [rows, LANE], float64 or float32, as a lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        value = builder.load(_row_pointer(context, builder, signature, args))
        value.align = 4 * ALIGNMENT
        return builder.fpext(value, VECTOR) if array.dtype == types.float32 else value

    return LANE_TYPE(array, row), codegen


@intrinsic
def store(_context: Any, array: Any, row: Any, value: Any) -> Any:  # noqa: ANN401
    """Put a lane or a number into row `row` of an aligned array [rows, LANE]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        lane = _as_lane(context, builder, signature.args[2], args[2])
        if array.dtype == types.float32:
            lane = builder.fptrunc(lane, SHORT_VECTOR)
        builder.store(lane, _row_pointer(context, builder, signature, args), align=4 * ALIGNMENT)
        return context.get_dummy_value()

    return types.none(array, row, value), codegen


@intrinsic
def fill(_context: Any, x: Any) -> Any:  # noqa: ANN401
    """Return a lane of one number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return _as_lane(context, builder, signature.args[0], args[0])

    return LANE_TYPE(x), codegen


@intrinsic
def stream(_context: Any, address: Any, value: Any) -> Any:  # noqa: ANN401
    """Write a lane to an aligned address past the caches, as fits results too large for them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        at = context.cast(builder, args[0], signature.args[0], types.int64)
        written = builder.store(args[1], builder.inttoptr(at, VECTOR.as_pointer()), align=8 * ALIGNMENT)
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.none(address, value), codegen


@njit(cache=True, nogil=True, error_model="numpy")
def lane_of(row: NDArray[np.float64], first: int) -> Lane:
    """Return a row's values [E] from environment `first` on as a lane.

    Beyond E the last one is repeated, so that what is computed there is a number like the others; nobody reads it.
    """
    if first + LANE <= row.size:
        return _whole_lane(row, first)
    return _short_lane(row, first)


@intrinsic
def _whole_lane(_context: Any, row: Any, first: Any) -> Any:  # noqa: ANN401
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        start, stride, _ = _span(context, builder, signature, args)
        if row.layout == "C":
            value = builder.load(builder.bitcast(start, VECTOR.as_pointer()))
            value.align = 8
            return value
        pointers = [start]
        for _ in range(1, LANE):
            pointers.append(cgutils.pointer_add(builder, pointers[-1], stride))  # type: ignore[no-untyped-call]
        return _gathered(builder, pointers)

    return LANE_TYPE(row, first), codegen


@intrinsic
def _short_lane(_context: Any, row: Any, first: Any) -> Any:  # noqa: ANN401
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        start, stride, number = _span(context, builder, signature, args)
        pointers = [start]
        for e in range(1, LANE):
            is_there = builder.icmp_signed("<", ir.Constant(number.type, e), number)
            step = builder.select(is_there, stride, ir.Constant(stride.type, 0))
            pointers.append(cgutils.pointer_add(builder, pointers[-1], step))  # type: ignore[no-untyped-call]
        return _gathered(builder, pointers)

    return LANE_TYPE(row, first), codegen


def _span(context: Any, builder: Any, signature: Any, args: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """Return a pointer to element `first` of a row, the bytes to the next one and the number from there to the end."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    first = context.cast(builder, args[1], signature.args[1], types.int64)
    stride = cgutils.unpack_tuple(builder, array.strides, 1)[0]  # type: ignore[no-untyped-call]
    start = cgutils.pointer_add(builder, array.data, builder.mul(first, stride))  # type: ignore[no-untyped-call]
    return start, stride, builder.sub(array.nitems, first)


def _gathered(builder: Any, pointers: list[Any]) -> Any:  # noqa: ANN401
    lane: Any = ir.Constant(VECTOR, ir.Undefined)
    for e, pointer in enumerate(pointers):
        lane = builder.insert_element(lane, builder.load(pointer), ir.Constant(ir.IntType(32), e))
    return lane


def _row_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
    row = context.cast(builder, args[1], signature.args[1], types.int64)
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    at = builder.gep(data, [builder.mul(row, ir.Constant(row.type, LANE))])
    vector = SHORT_VECTOR if signature.args[0].dtype == types.float32 else VECTOR
    return builder.bitcast(at, vector.as_pointer())


def _as_lane(context: Any, builder: Any, numba_type: Any, value: Any) -> Any:  # noqa: ANN401
    if isinstance(numba_type, LaneType):
        return value
    number = context.cast(builder, value, numba_type, types.float64)
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANE), [0] * LANE)
    return builder.shuffle_vector(first, ir.Constant(VECTOR, ir.Undefined), zeros)


def _operation(result: Any, build: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Return an intrinsic of two lanes or numbers."""

    @intrinsic
    def operation(_context: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            lanes = [_as_lane(context, builder, *pair) for pair in zip(signature.args, args, strict=True)]
            return build(builder, *lanes)

        return result(a, b), codegen

    return operation


_add = _operation(LANE_TYPE, lambda builder, a, b: builder.fadd(a, b))
_subtract = _operation(LANE_TYPE, lambda builder, a, b: builder.fsub(a, b))
_multiply = _operation(LANE_TYPE, lambda builder, a, b: builder.fmul(a, b))
_divide = _operation(LANE_TYPE, lambda builder, a, b: builder.fdiv(a, b))
power = _operation(LANE_TYPE, lambda builder, a, b: _call(builder, "pow", a, b))
"""power(a, b): a to the power of b, lane by lane through the C library: slow."""
_greater = _operation(MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_not_greater = _operation(MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))


def _use_for(function: Any, implementation: Any) -> None:  # noqa: ANN401
    @overload(function)
    def choose(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if isinstance(a, LaneType) or isinstance(b, LaneType):
            # Numba wants a function of its own here.
            return lambda a, b: implementation(a, b)  # noqa: PLW0108
        return None


for _operator, _implementation in (
    (operator.add, _add),
    (operator.sub, _subtract),
    (operator.mul, _multiply),
    (operator.truediv, _divide),
    (operator.gt, _greater),
    (operator.le, _not_greater),
):
    _use_for(_operator, _implementation)


def _call(builder: Any, name: str, *lanes: Any) -> Any:  # noqa: ANN401
    """Call LLVM's function of that name for lanes."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * len(lanes))
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, f"llvm.{name}.v{LANE}f64"
    )
    return builder.call(function, lanes)


def _sum_with_product(sign: Callable[..., Any]) -> Any:  # noqa: ANN401
    @intrinsic
    def operation(_context: Any, c: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            c, a, b = (_as_lane(context, builder, *pair) for pair in zip(signature.args, args, strict=True))
            return _call(builder, "fma", sign(builder, a), b, c)

        return LANE_TYPE(c, a, b), codegen

    return operation


plus_product = _sum_with_product(lambda _, a: a)
"""plus_product(c, a, b): c + a b, rounded once; lanes or numbers."""
less_product = _sum_with_product(lambda builder, a: builder.fneg(a))
"""less_product(c, a, b): c - a b, rounded once; lanes or numbers."""


def _function(name: str) -> Any:  # noqa: ANN401
    @intrinsic
    def function(_context: Any, a: Any) -> Any:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
            return _call(builder, name, *args)

        return LANE_TYPE(a), codegen

    return function


square_root = _function("sqrt")
magnitude = _function("fabs")


@intrinsic
def select(_context: Any, mask: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
    """Return a where the mask is true, else b; lanes or numbers."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        a, b = (_as_lane(context, builder, signature.args[i], args[i]) for i in (1, 2))
        return builder.select(args[0], a, b)

    return LANE_TYPE(mask, a, b), codegen


@intrinsic
def all_true(_context: Any, mask: Any) -> Any:  # noqa: ANN401
    """Return whether the mask is true for every environment."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        bits = builder.bitcast(args[0], ir.IntType(LANE))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, (1 << LANE) - 1))

    return types.boolean(mask), codegen
