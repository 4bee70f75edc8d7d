"""Outlets: where a finished row goes, and where its cotangents come from.

`Rows` take the row as it is. `Coarse` are rows of the next level's planes, to which 2x2 pooling
adds it at once, without a detour through memory. The even and the odd columns of a fine row add to
one coarse row each, which may be the same one.
"""

from typing import Any, NamedTuple

from numba import types
from numba.extending import overload

from kip_flax.kernels.cpu.compiled import inlined
from kip_flax.kernels.cpu.vectors import load, row_at, splat, store


class Rows(NamedTuple):
    """Rows of K and of T; `t` is None if T is not needed."""

    k: Any
    t: Any


class Half(NamedTuple):
    """The outlet of the even or the odd columns of a fine row.

    The m-th column adds to vector m if m is in [low, high).
    """

    k: Any
    t: Any
    low: int
    high: int


class Coarse(NamedTuple):
    """Halves for the even and the odd columns; `joined` if they are the same."""

    even: Half
    odd: Half
    joined: bool


def put_one(out: Any, i: int, k: Any, t: Any) -> None:
    """Puts column `i` of K and T into its outlet."""
    raise NotImplementedError


def put_pair(out: Any, i: int, k_one: Any, t_one: Any, k_two: Any, t_two: Any) -> None:
    """Puts columns `i` (even) and `i + 1` of K and T into their outlet."""
    raise NotImplementedError


def cotangent_pair(source: Any, i: int) -> Any:
    """Cotangents of K, T, K, T at columns `i` (even) and `i + 1`, from their outlet."""
    raise NotImplementedError


@overload(put_one)
def _put_one(out, i, k, t):  # type: ignore[no-untyped-def]
    if out.instance_class is Rows:

        def write(out, i, k, t):  # type: ignore[no-untyped-def]
            put(out.k, i, k)
            put(out.t, i, t)

        return write
    return lambda out, i, k, t: _add(out.even, i >> 1, k, t)


@overload(put_pair)
def _put_pair(out, i, k_one, t_one, k_two, t_two):  # type: ignore[no-untyped-def]
    if out.instance_class is Rows:

        def write(out, i, k_one, t_one, k_two, t_two):  # type: ignore[no-untyped-def]
            put(out.k, i, k_one)
            put(out.t, i, t_one)
            put(out.k, i + 1, k_two)
            put(out.t, i + 1, t_two)

        return write

    def add(out, i, k_one, t_one, k_two, t_two):  # type: ignore[no-untyped-def]
        if out.joined:
            _add(out.even, i >> 1, sum_of(k_one, k_two), sum_of(t_one, t_two))
        else:
            _add(out.even, i >> 1, k_one, t_one)
            _add(out.odd, i >> 1, k_two, t_two)

    return add


@inlined
def _add(half: Half, m: int, k: Any, t: Any) -> None:
    if half.low <= m < half.high:
        add_to(half.k, m, k)
        add_to(half.t, m, t)


@overload(cotangent_pair)
def _cotangent_pair(source, i):  # type: ignore[no-untyped-def]
    if source.instance_class is Rows:

        def read(source, i):  # type: ignore[no-untyped-def]
            k, t = source.k, source.t
            return load(k, i), load(t, i), load(k, i + 1), load(t, i + 1)

        return read
    return lambda source, i: _take(source.even, i >> 1) + _take(source.odd, i >> 1)


@inlined
def _take(half: Half, m: int) -> Any:
    k, t = splat(half.k, 0), splat(half.k, 0)
    if half.low <= m < half.high:
        k, t = load(half.k, m), load(half.t, m)
    return k, t


# For None, these functions compile to no code.


def row_or_none(array: Any, index: int) -> Any:
    """`row_at`, or None if `array` is None."""
    raise NotImplementedError


def put(row: Any, i: int, value: Any) -> None:
    """`store`, unless the row or the value is None."""
    raise NotImplementedError


def add_to(row: Any, i: int, value: Any) -> None:
    """Adds a value to vector `i` of a row, unless either is None."""
    raise NotImplementedError


def sum_of(one: Any, two: Any) -> Any:
    """The sum, or None if `one` is None."""
    raise NotImplementedError


@overload(row_or_none)
def _row_or_none(array, index):  # type: ignore[no-untyped-def]
    if array == types.none:
        return lambda array, index: None
    return lambda array, index: row_at(array, index)


@overload(put)
def _put(row, i, value):  # type: ignore[no-untyped-def]
    if row == types.none or value == types.none:
        return lambda row, i, value: None
    return lambda row, i, value: store(row, i, value)


@overload(add_to)
def _add_to(row, i, value):  # type: ignore[no-untyped-def]
    if row == types.none or value == types.none:
        return lambda row, i, value: None
    return lambda row, i, value: store(row, i, load(row, i) + value)


@overload(sum_of)
def _sum_of(one, two):  # type: ignore[no-untyped-def]
    if one == types.none:
        return lambda one, two: None
    return lambda one, two: one + two
