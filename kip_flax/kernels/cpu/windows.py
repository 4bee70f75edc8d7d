"""What the loops over a row read: sums over windows, and rows of the images themselves.

Windows of 3x3 are summed where they are needed: `around` are the three rows above, here and below,
whose columns -1 and `count` are there, and zero. The one below may be a row of the images' own
covariance that is made in passing. Other windows are summed before, by `add_window`, and `around`
is one row of sums. The functions `column` and `windows` hide the difference from the loops.
"""

from typing import Any, NamedTuple

from numba.extending import overload

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.vectors import Row, fma, load, splat, stay_apart, store


class Grey(NamedTuple):
    """A row of K of the images themselves that is still to be made, and where to keep it.

    Columns are made as they are asked for, from left to right.
    """

    image1: Any
    image2: Any
    out: Any
    width: int


class Colour(NamedTuple):
    """The same of images of three channels."""

    image1: Any
    image2: Any
    out: Any
    width: int


def column(around: Any, i: int) -> Any:
    """Column `i` of a window, summed over its rows."""
    raise NotImplementedError


@overload(column)
def _column(around, i):  # type: ignore[no-untyped-def]
    if len(around) == 3:
        return lambda around, i: load(around[0], i) + load(around[1], i) + read(around[2], i)
    return lambda around, i: load(around[0], i)


def read(row: Any, i: int) -> Any:
    """Vector `i` of a row, made at once where it is still to be made."""
    raise NotImplementedError


@overload(read)
def _read(row, i):  # type: ignore[no-untyped-def]
    if isinstance(row, Row):
        return lambda row, i: load(row, i)
    product = _product3 if row.instance_class is Colour else _product1

    def make(row, i):  # type: ignore[no-untyped-def]
        value = splat(row.out, 0)
        if 0 <= i < row.width:
            value = product(row.image1, row.image2, i)
            store(row.out, i, value)
        return value

    return make


@inlined
def _product1(image1: Any, image2: Any, i: int) -> Any:
    return load(image1, i) * load(image2, i)


@inlined
def _product3(image1: Any, image2: Any, i: int) -> Any:
    j = 3 * i
    two = fma(load(image1, j + 1), load(image2, j + 1), load(image1, j) * load(image2, j))
    return fma(load(image1, j + 2), load(image2, j + 2), two)


def windows(around: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of two neighbouring windows from their columns."""
    raise NotImplementedError


@overload(windows)
def _windows(around, a, b, c, d):  # type: ignore[no-untyped-def]
    if len(around) == 3:

        def sums(around, a, b, c, d):  # type: ignore[no-untyped-def]
            middle = b + c
            return a + middle, middle + d

        return sums
    return lambda around, a, b, c, d: (b, c)


@loop
def add_window(source: Any, reach: int, out: Any, count: int) -> None:
    """Adds the sums of windows of 2 reach + 1 columns in one row."""
    for i in range(count):
        total = load(out, i)
        for j in range(-reach, reach + 1):
            total = total + load(source, i + j)
        store(out, i, total)


@loop
def mean_product(image1: Any, image2: Any, channels: int, out: Any, count: int) -> None:
    """K of the images themselves: the mean over channels, whose weight the fixed image has."""
    stay_apart()
    if channels == 1:
        for i in range(count):
            store(out, i, _product1(image1, image2, i))
    elif channels == 3:
        for i in range(count):
            store(out, i, _product3(image1, image2, i))
    else:
        for i in range(count):
            total = splat(out, 0)
            for j in range(i * channels, (i + 1) * channels):
                total = fma(load(image1, j), load(image2, j), total)
            store(out, i, total)
